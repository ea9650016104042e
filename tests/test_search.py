"""Searches: replicas that differ in everything equal their single runs, and what is found can be trained again."""

from __future__ import annotations

import itertools
import json
import math
import shlex
import signal
from dataclasses import replace

import numpy as np
import pytest

from xpnet import Config, load_digits, load_mnist
from xpnet.commands import train
from xpnet.commands.options import command_line
from xpnet.core.device import CPU
from xpnet.lab import __main__ as lab
from xpnet.lab import rates, search
from xpnet.search.groups import groups_of, train_all
from xpnet.training.build import build, prepare

DIGITS = Config(dataset="digits", hidden=(30, 20), steps=60, validation=0.2, batch_size=100)


@pytest.fixture(scope="module")
def digits():
    return prepare(DIGITS, load_digits())


def trained(configs, data, seed, steps):
    """Train networks side by side, rows in the order of `seed`."""
    trainer, _ = build(configs, data, CPU)
    trainer.seed = seed
    trainer.fit(data.x_train, data.y_train, steps=steps)
    return trainer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "nesterov", "rmsprop"])
@pytest.mark.parametrize("data_set", ["digits", "mnist"])
def test_replicas_that_differ_in_everything_are_single_runs(data_set, optimizer, dtype, request):
    """Rates, decays, L1, dropout rates and seeds of their own: after 200 steps on real data, the same to rounding.

    In float64, that is. In float32 some of a million signs (of what goes into a ReLU, of a weight that L1 has brought
    to zero, of a gradient that Adam's rule divides by itself) are settled by rounding, and the runs part after a few
    steps; the loss of the first five is what is determined.
    """
    data = load_digits() if data_set == "digits" else load_mnist(request.getfixturevalue("mnist_dir"))
    base = Config(
        hidden=(30, 20),
        batch_norm=True,
        optimizer=optimizer,
        schedule="one-cycle",
        steps=200,
        dtype=dtype,
        clip_norm=2.0,
    )
    varied = [(1e-3, 0.0, 0.0, 0.1, 7), (3e-3, 1e-3, 1e-5, 0.5, 3), (1e-2, 1e-2, 1e-4, 0.3, 11)]
    configs = [
        replace(base, lr=lr, weight_decay=decay, l1=l1, dropout=dropout, seed=seed)
        for lr, decay, l1, dropout, seed in varied
    ]
    steps, close = (200, 1e-12) if dtype == "float64" else (5, 1e-5)
    together = trained(configs, data, 5, steps)
    for place, config in enumerate(configs):
        alone = trained([config], data, 5, steps)
        losses = (together.history[-1]["train_loss"][place], alone.history[-1]["train_loss"])
        assert losses[0] == pytest.approx(losses[1], rel=close)
        if dtype == "float64":
            ours, theirs = together.model.network.values[place], alone.model.network.values
            np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=2e-12)
            assert np.abs(theirs - build([config], data, CPU)[0].model.network.values).max() > 0.05, "nothing moved"


def test_groups_are_of_one_shape():
    some = [DIGITS, replace(DIGITS, hidden=(30,)), replace(DIGITS, lr=0.1), replace(DIGITS, batch_size=50)]
    some += [replace(DIGITS, lr=0.2, weight_decay=0.1), replace(DIGITS, lr=0.3, dropout=0.5), replace(DIGITS, lr=0.4)]
    assert groups_of(some) == [[0, 2, 4, 6], [1], [3], [5]]
    assert groups_of([replace(DIGITS, lr=0.1)] * 5, most=2) == [[0, 1], [2, 3], [4]]
    assert [len(group) for group in groups_of([DIGITS] * 70)] == [32, 32, 6]


def test_trials_are_what_single_runs_find(digits):
    """In other groups, with early stopping or without; and one that diverges harms no other."""
    configs = [
        replace(DIGITS, lr=lr, hidden=hidden) for lr, hidden in itertools.product((1e-3, 1e-2, 1e30), [(30,), (9, 9)])
    ]
    for early_stop in (None, 1, 2):
        some = [replace(config, early_stop=early_stop) for config in configs]
        found = {number: trial for group in train_all(some, digits, CPU) for number, trial in group.items()}
        assert sorted(found) == list(range(6))
        for number, trial in found.items():
            if some[number].lr == 1e30:
                assert math.isnan(trial["validation_loss"])
                continue
            trainer, arguments = build([some[number]], digits, CPU)
            history = trainer.fit(**arguments | {"test": None})
            row = history[-1] if early_stop is None else history[trainer.best_epoch - 1]
            assert trial["epoch"] == row["epoch"]
            assert trial["validation_loss"] == pytest.approx(row["validation_loss"], rel=1e-4)
            assert trial["validation_accuracy"] == pytest.approx(row["validation_accuracy"], abs=0.005)


def test_the_search_does_not_read_the_test_rows(digits):
    """Their values change nothing, and they are not even evaluated."""
    blind = replace(digits, x_test=digits.x_test[:1] * 0, y_test=digits.y_test[:1])
    configs = [replace(DIGITS, lr=lr) for lr in (0.001, 0.01)]
    rows = []
    one, other = (
        [
            trial | {"seconds": 0}
            for group in train_all(configs, data, CPU, on_epoch=rows.append)
            for trial in group.values()
        ]
        for data in (digits, blind)
    )
    assert one == other
    assert rows
    assert not any(name.startswith("test_") for row in rows for name in row)


def test_a_network_that_diverges_late_has_no_losses(digits, monkeypatch):
    """Alone and in a group alike: what it was like before is not what its command would give."""
    from xpnet.optim import schedules

    monkeypatch.setitem(schedules.SCHEDULES, "constant", lambda steps: lambda taken: 1.0 if taken < 30 else 1e30)
    configs = [replace(DIGITS, lr=lr, optimizer="sgd") for lr in (1e-3, 1e-33)]
    for some in (configs, configs[:1]):
        found = {number: trial for group in train_all(some, digits, CPU) for number, trial in group.items()}
        assert math.isnan(found[0]["validation_loss"])
        assert found[0]["epoch"] is None
    assert math.isfinite(found.get(1, {"validation_loss": 0.0})["validation_loss"])


def test_a_search_needs_validation_rows():
    with pytest.raises(ValueError, match="needs validation rows"):
        list(train_all([DIGITS], load_digits(), CPU))


def test_rates_rise_evenly():
    assert rates.rates(1e-4, 1.0, 5) == [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    for bad in ((0.0, 1.0, 3), (1.0, 1.0, 3), (1.0, 0.1, 3), (0.1, 1.0, 1)):
        with pytest.raises(ValueError, match="not"):
            rates.rates(*bad)


def test_grid_and_draws():
    space = {"lr": (1e-4, 1e-2), "weight_decay": (0.0, 1e-3), "dropout": (0.0, 0.4), "depth": (1, 3), "width": (5,)}
    assert len(search.grid(space)) == 16
    points = search.draw(space, 400, 0)
    assert points == search.draw(space, 400, 0) != search.draw(space, 400, 1)
    lr = np.log10([point["lr"] for point in points])
    assert lr.min() >= -4.0
    assert lr.max() <= -2.0
    assert abs(lr.mean() + 3.0) < 0.1, "even in the logarithm"
    decays = [point["weight_decay"] for point in points]
    assert 150 < decays.count(0.0) < 250
    assert {decay for decay in decays if decay} == {1e-3}, "a single decay above 0 is that one"
    assert abs(np.mean([point["dropout"] for point in points]) - 0.2) < 0.02
    assert {point["depth"] for point in points} == {1, 3}
    config = search.configure(DIGITS, points[0] | {"depth": 3})
    assert config.hidden == (5, 5, 5)


def test_the_command_line_of_a_config(monkeypatch):
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)
    config = Config(
        dataset="a b.npz",
        hidden=(),
        activation=("relu",),
        standardize=True,
        lr=1e-05,
        weight_decay=0.0,
        init=0.5,
        steps=3,
    )
    words = shlex.split(command_line(config))
    assert train.config_of(train._parser(), train._parser().parse_args(words)) == config
    assert command_line(Config()) == ""


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)

    def run(*arguments):
        code = 0
        try:
            code = lab.main([str(word) for word in arguments])
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_search_command(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    common = ("search", "--dataset", "digits", "--steps", "40", "--lr", "0.001", "0.03", "--out", tmp_path)
    code, out, err = run(*common, "--trials", "5", "--depth", "1", "2", "--width", "20", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert len(result["trials"]) == 5
    assert result["best"] == min(result["trials"], key=lambda trial: trial["validation_loss"])
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))["trials"]) == 5
    grid = ("--method", "grid", "--depth", "1", "--width", "20", "40", "--dropout", "0")
    code, out, err = run(*common, *grid)
    assert (code, out) == (2, "")
    assert f"{tmp_path / 'search.json'} is there already" in err
    code, out, err = run(*common, *grid, "--quiet", "--overwrite")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["validation", "loss", "validation", "accuracy", "lr", "width", "epoch"]
    assert len(lines) == 6
    # The command in the last line trains the network that was found, and finds what was found.
    words = shlex.split(lines[-1])
    assert words[:3] == ["python", "-m", "xpnet.train"]
    assert train.main([*words[3:], "--quiet", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["validation_loss"] == pytest.approx(float(lines[1].split()[1]), abs=2e-4)


def test_the_rates_command(run, tmp_path):
    pytest.importorskip("matplotlib")
    common = ("rates", "--dataset", "digits", "--steps", "40", "--hidden", "20", "--out", tmp_path)
    code, out, err = run(*common, "--between", "1e-4", "1e30", "--count", "4")
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) == 7
    assert "the best rate is at an end of what was tried" in lines[5]
    assert lines[6].startswith("python -m xpnet.train --dataset digits --hidden 20 --lr 0.0001")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(*common, "--between", "1e29", "1e30", "--count", "2", "--quiet", "--overwrite")
    assert code == 1, "the run has failed"
    assert "no rate gave a finite loss" in out
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_search_keeps_what_it_has(stop, code, run, tmp_path, monkeypatch):
    """The trials of the groups that were done are printed and written; the exit code says that it was interrupted."""
    from xpnet.lab import trials

    done = trials.SearchProgress.group
    monkeypatch.setattr(trials.SearchProgress, "group", lambda *a: (done(*a), signal.raise_signal(stop)))
    words = ("search", "--dataset", "digits", "--steps", "20", "--depth", "1", "2", "--method", "grid", "--width", "9")
    found, out, err = run(*words, "--lr", "0.01", "--json", "--out", tmp_path)
    assert found == code
    assert len(json.loads(out)["trials"]) == 1, "of two dropout rates and two depths"
    assert len(json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))["trials"]) == 1
    assert err.splitlines()[-1] == "interrupted: 1 of 4 networks were trained"


def test_a_search_takes_the_rest_from_a_file(run, tmp_path):
    """What the file says is not searched over, unless values are given."""
    (tmp_path / "c.toml").write_text(
        'dataset = "digits"\nhidden = [7, 7]\ndropout = 0.4\nsteps = 9\n', encoding="utf-8"
    )
    code, out, err = run("search", "--config", tmp_path / "c.toml", "--trials", "2", "--json", "--depth", "1")
    assert code == 0, err
    for trial in json.loads(out)["trials"]:
        assert (trial["depth"], trial["width"], trial["dropout"]) == (1, 7, 0.4)


def test_the_lab_lists_and_refuses(run, tmp_path):
    code, out, _ = run()
    assert code == 0
    for name in lab.EXPERIMENTS | lab.TOOLS:
        assert name in out
        assert run(name, "--help")[0] == 0
    for words, message in (
        (("serch",), "unknown name 'serch': did you mean 'search'?"),
        (("search", "--trials", "0"), "trials must be at least 1"),
        (("search", "--lr", "0", "0.1"), "lr must be finite and above 0, not 0.0"),
        (("search", "--lr", "-1", "0.1"), "lr must be finite and above 0, not -1.0"),
        (("search", "--weight-decay", "-1", "0.1"), "weight_decay must be finite and at least 0, not -1.0"),
        (("search", "--dropout", "0.1", "1"), "dropout must be finite and at least 0 and below 1, not 1.0"),
        (("search", "--method", "grid", "--trials", "3"), "--trials goes with --method random"),
        (("search", "--out", "/proc/x"), "/proc/x cannot be written"),
        (("search", "--depth", "-1"), "depth must be at least 1"),
        (("search", "--hidden", "5"), "unknown option --hidden"),
        (("search", "--dropout", "1"), "dropout must be finite and at least 0 and below 1"),
        (("rates", "--lr", "1"), "unknown option --lr"),
        (("rates", "--between", "1", "0.1"), "the rates must rise"),
        (("rates", "--count", "1"), "count must be at least 2"),
        (("rates", "--dataset", "digits", "--task", "regression"), "is a data set for classification"),
        (("rates", "--dataset", "digits", "--loss", "poisson"), "does not go with the task"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (2, ""), words
        assert message in err
        assert len(err.splitlines()) == 1
