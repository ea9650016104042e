"""`python -m xpnet.runs`: a table of runs, and a picture."""

from __future__ import annotations

import json
import math
import re
import shutil

import numpy as np
import pytest
from command_line import DIGITS

from xpnet.commands import runs, search, train
from xpnet.commands.cli import cells

pytestmark = pytest.mark.usefixtures("no_downloads")

OPTIONS = {"dataset": "digits", "hidden": [20], "epochs": 2, "seed": 0}
ROWS = [
    {"epoch": 1, "step": 10, "seconds": 0.5, "train_loss": 2.0, "train_accuracy": 0.3, "test_loss": 2.1},
    {"epoch": 2, "step": 20, "seconds": 0.75, "train_loss": 1.0, "train_accuracy": 0.6, "test_loss": 1.2},
]


def write_run(folder, *, result=None, rows=ROWS, accuracy=0.5, model=True, **options):
    """Write the folder of a run; one of an earlier version, where there is no result."""
    folder.mkdir(parents=True)
    kept = {"options": OPTIONS | options, "device": "cpu", "versions": {}, "machine": {}}
    (folder / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    lines = [json.dumps({"test_accuracy": accuracy} | row) for row in rows]
    (folder / "history.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if model:
        (folder / "model.safetensors").touch()
    if result is not None:
        usual = {"device": "cpu", "dataset": "digits", "epochs": 2, "seconds": 1.25, "best_epoch": None}
        (folder / "result.json").write_text(json.dumps(usual | result), encoding="utf-8")


@pytest.fixture
def three(tmp_path):
    """A folder of three runs."""
    write_run(tmp_path / "a", result={"test_accuracy": 0.9}, lr=0.01)
    write_run(tmp_path / "deeper" / "b", result={"test_accuracy": 0.95}, hidden=[100, 50], dropout=0.2)
    write_run(tmp_path / "c", result={"test_accuracy": None}, lr=1e30)
    return tmp_path


def test_a_table(three, run):
    """The best run is first; the rate is what was used; a figure that is not finite is the last."""
    assert run(runs, three) == (
        0,
        "3 runs, the best test accuracy first: all with dataset digits, optimizer adam, epochs 2, device cpu\n"
        "                                      test\n"
        "run       hidden     lr  dropout  accuracy  seconds\n"
        "deeper/b  100 50  0.001      0.2    0.9500      1.2\n"
        "a             20   0.01        0    0.9000      1.2\n"
        "c             20  1e+30        0         -      1.2\n",
        "",
    )


def test_runs_of_the_command(run, tmp_path):
    """What `train` writes is what is compared; an earlier version's run, without a result, is as good."""
    results = {}
    for name, more in (("a", ()), ("b", ("--hidden", 9)), ("c", ("--replicas", 2))):
        how = (*DIGITS, "--hidden", 30, "--epochs", 3, "--validation", 0.1, "--quiet", "--json", *more)
        code, out, _ = run(train, *how, "--out", tmp_path / name)
        assert code == 0
        results[name] = json.loads(out)
    (tmp_path / "a" / "result.json").unlink()
    code, out, err = run(runs, tmp_path, "--json")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    scores = [one["validation_accuracy"] for one in found]
    assert scores == sorted(scores, reverse=True)
    for one in found:
        result = results[one["run"].rpartition("/")[2]]
        for name in ("validation_accuracy", "test_loss", "train_loss", "seconds", "epochs", "device", "dataset"):
            assert one[name] == pytest.approx(result[name]) if isinstance(result[name], float) else result[name]
        assert (one["optimizer"], one["lr"], one["validation"]) == ("adam", 0.001, 0.1)
    code, out, _ = run(runs, tmp_path)
    c = results["c"]
    assert f"{c['test_accuracy']:.4f} ± {c['test_accuracy_deviation']:.4f}" in out
    assert [line.split()[0] for line in out.splitlines()[3:]] == [one["run"].rpartition("/")[2] for one in found]


def test_other_folders_are_reported(three, run):
    """Each in one line, and the table is as without them."""
    before = run(runs, three)[1]
    write_run(three / "diverged", rows=[ROWS[0], ROWS[1] | {"train_loss": None}])
    write_run(three / "killed", rows=ROWS[:1], epochs=9)
    write_run(three / "interrupted", rows=ROWS, epochs=None)
    write_run(three / "begun", rows=[])
    write_run(three / "no model", model=False)
    for name, content in (("node", {"name": "x"}), ("newer", {"options": {"warp": 9}}), ("list", [])):
        (three / name).mkdir()
        (three / name / "config.json").write_text(json.dumps(content))
    (three / "notes").mkdir()
    (three / "z\x1b[31m").mkdir()
    with (three / "killed" / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')
    code, out, err = run(runs, three)
    assert (code, out) == (0, before)
    assert err.replace(f"{three}/", "").splitlines() == [
        "begun holds a run that has not ended its first epoch",
        "diverged holds a run that diverged in epoch 2",
        "interrupted holds a run that has not ended, after epoch 2",
        "killed holds a run that has not ended, after epoch 1 of 9",
        "list/config.json holds no JSON object",
        "newer/config.json: unknown option 'warp': did you mean 'warmup'?",
        "no model holds a run that has not ended, after epoch 2 of 2",
        "node holds no run: its config.json is of something else",
        "notes holds no run",
        "z\\x1b[31m holds no run",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", "["),
        ("result.json", "[" * 10**5),
        ("result.json", '{"test_accuracy": "0.9"}'),
        ("result.json", '{"seconds": 1' + "0" * 400 + "}"),
        ("result.json", '{"best_epoch": [1, "2"]}'),
        ("result.json", '{"best_epoch": {}}'),
        ("history.jsonl", "{}\n"),
        ("history.jsonl", "7\n"),
        ("history.jsonl", '{"epoch": 1, "step": 1, "seconds": "1"}\n'),
        ("history.jsonl", '{"epoch": 1, "step": 1, "seconds": 1, "test_loss_deviation": "x"}\n'),
        ("config.json", '{"options": {"epochs": -3}}'),
        ("config.json", '{"options": {"epochs": 3, "steps": 4}}'),
        ("config.json", b"\xff\xfe\x00"),
    ],
)
def test_damaged_files_are_reported(name, content, three, run):
    write_run(three / "d", result={"test_accuracy": 0.9})
    (three / "d" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = run(runs, three)
    assert (code, len(out.splitlines()), err.count("\n")) == (0, 6, 1)
    assert err.startswith(f"{three}/d/{name}")


def test_early_stopping_ends_a_run(run, tmp_path):
    """Of an earlier version, whose folder does not say so: the epoch of the lowest loss is the one that was kept."""
    losses = [0.5, 0.3, 0.4, 0.45]
    rows = [ROWS[0] | {"epoch": e, "step": 10 * e, "validation_loss": loss} for e, loss in enumerate(losses, 1)]
    rows[1]["test_accuracy"] = 0.75
    write_run(tmp_path / "ended", rows=rows, early_stop=2, epochs=50)
    write_run(tmp_path / "not", rows=rows, early_stop=3, epochs=50)
    code, out, err = run(runs, tmp_path, "--json")
    found = json.loads(out)
    assert (code, found["best_epoch"], found["test_accuracy"], found["epochs"]) == (0, 2, 0.75, 4)
    assert err == f"{tmp_path / 'not'} holds a run that has not ended, after epoch 4 of 50\n"


def test_searches_and_ensembles(run, tmp_path):
    how = (*DIGITS, "--trials", 2, "--epochs", 1, "--lr", "0.001..0.1", "--quiet")
    assert run(search, *how, "--out", tmp_path / "s")[0] == 0
    write_run(tmp_path / "old", ensemble=3)
    write_run(tmp_path / "new", ensemble=3, result={"test_accuracy": 0.9, "best_epoch": [1, 2, 2]})
    code, out, err = run(runs, tmp_path)
    assert code == 0
    assert out.splitlines()[3:] == [
        "new    1-2    0.9000      1.2",
        "old      -    0.5000      1.2",
    ]
    first, second = err.splitlines()
    assert first == f"{tmp_path / 'old'} is of an earlier version: its figures are means over its networks"
    assert second.startswith(f"{tmp_path / 's'} holds a search of 2 networks, the best with a score of 0.")


def test_metrics_have_a_table_each(three, run):
    write_run(three / "r", result={"test_r2": 0.8, "task": "regression"})
    out = run(runs, three)[1]
    assert "\n\n1 run: dataset digits, hidden 20, optimizer adam, lr 0.001, epochs 2, device cpu\n" in out
    assert out.splitlines()[-1].split() == ["r", "0.8000", "1.2"]


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_terminal(width, tmp_path, run, monkeypatch):
    """Names of runs are shortened, and options go below each run, before a line is wider than the terminal."""
    for i in range(3):
        options = {"dropout": i / 10, "weight_decay": i / 7, "batch_size": 2**i, "hidden": [100] * 4 * (i + 1)}
        options |= {"schedule": "cosine" if i else "constant", "l1": i / 3, "clip_norm": 1.5 + i}
        write_run(tmp_path / f"{'가나다라' * 5}{i}", result={"test_accuracy": i / 4}, **options)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run(runs, tmp_path)
    assert code == 0
    assert max(map(cells, out.splitlines())) <= width
    named = [line.split()[0] for line in out.splitlines() if line.startswith("…")]
    assert [name[-1] for name in named] == ["2", "1", "0"]
    below = re.sub("\\s+", " ", out)
    assert "l1 0.666667" in below
    assert "hidden 100 100 100 100 100 100 100 100 100 100 100 100, dropout 0.2, schedule cosine" in below
    monkeypatch.undo()
    assert "100 100 100 100 100 100 100 100 100 100 100 100" in run(runs, tmp_path)[1], "a pipe gets all"


def test_a_run_counts_once(three, run):
    """Links, in a circle too, and folders within others lead to the same runs."""
    expected = run(runs, three)[1]
    (three / "self").symlink_to(three)
    (three / "zlatest").symlink_to(three / "a")
    assert run(runs, three) == (0, expected, "")
    code, out, err = run(runs, three, three / "a", f"{three}/", "--json")
    assert (code, len(out.splitlines()), err) == (0, 3, "")


def test_deviations_are_aligned(three, run):
    """Figures are below each other, whether they have a deviation or not."""
    write_run(three / "r", result={"test_accuracy": 0.8, "test_accuracy_deviation": 0.0125, "replicas": 3}, replicas=3)
    lines = run(runs, three)[1].splitlines()
    assert lines[-2].split()[-4:] == ["0.8000", "±", "0.0125", "1.2"]
    assert len({re.search(r"0\.\d{4}", line).start() for line in lines[-4:-1]}) == 1


def test_one_run(three, run):
    code, out, err = run(runs, three / "a")
    assert (code, err) == (0, "")
    assert out.startswith("1 run: dataset digits, hidden 20, optimizer adam, lr 0.01, epochs 2, device cpu\n")
    assert out.splitlines()[-1].split() == [str(three / "a"), "0.9000", "1.2"]


def test_no_run(run, tmp_path):
    assert run(runs, tmp_path) == (2, "", f"error: no run that has ended is in {tmp_path}\n")
    assert run(runs, tmp_path / "x") == (2, "", f"error: {tmp_path / 'x'} is no folder\n")
    said = "it must be a file, in a folder that is there and can be written"
    code, _, err = run(runs, tmp_path, "--plot", tmp_path / "x" / "p.png")
    assert (code, said in err) == (2, True)


def test_a_picture(three, run, monkeypatch):
    plots = pytest.importorskip("xpnet.plots")
    write_run(three / "$_\x1b{", result={"test_accuracy": 0.7})
    (three / "a").rename(three / f"{'long' * 50} a")
    for i in range(plots.MOST_RUNS):
        shutil.copytree(three / "c", three / f"c{i}")
    figures = []
    monkeypatch.setattr(plots, "png", lambda figure, png=plots.png: figures.append(figure) or png(figure))
    code, _, err = run(runs, three, "--plot", three / "p.png")
    assert (code, err) == (0, "")
    assert (three / "p.png").read_bytes().startswith(b"\x89PNG")
    loss, accuracy = figures[0].axes
    assert (loss.get_title(), accuracy.get_title()) == ("test loss", "test accuracy")
    count = plots.MOST_RUNS + 4
    assert len(loss.lines) == count
    assert sum(line.get_color() == "grey" for line in loss.lines) == count - plots.MOST_RUNS
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 2.1], [2, 1.2]])
    legend = accuracy.get_legend()
    assert [text.get_text().strip() for text in legend.get_texts()][:2] == ["deeper/b", f"…ong{'long' * 6} a"]
    assert legend.get_title().get_text() == "4 more, in grey"
    assert not any(text.get_parse_math() for text in legend.get_texts())


def test_a_history_with_holes_is_drawn(tmp_path, run):
    pytest.importorskip("xpnet.plots")
    rows = [row | {"test_loss": None, "test_loss_deviation": None} for row in ROWS]
    write_run(tmp_path / "a", rows=rows, result={"test_accuracy": 0.5}, replicas=1)
    (tmp_path / "b").mkdir()
    write_run(tmp_path / "b" / "c", rows=[], result={"test_accuracy": math.nan})
    assert run(runs, tmp_path, "--plot", tmp_path / "p.png")[0] == 0
