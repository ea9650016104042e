"""Checkpoints: a training that was interrupted, or killed, ends as one that was not; and files that are damaged."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from trainers import write_unchecked

from xpnet import MLP, Adam, DataError, Trainer
from xpnet.commands import train
from xpnet.core import files
from xpnet.training.checkpoint import Checkpoint, TrainingState, parse_every

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(100, 12)), RNG.integers(0, 4, 100)
PER_EPOCH, EPOCHS = 4, 4  # the last batch is a part of one


def trainer(seed=1, hidden=9, rate=0.01, **options):
    model = MLP([12, hidden, 4], seed=seed, batch_norm=True, dropout=0.2, **options)
    return Trainer(model, Adam(rate), batch_size=32, compile=seed != 7)


def fit(one, checkpoints=None, stop=None, **options):
    """Fit, up to a step at which it is interrupted."""

    def on_step(step):
        if step == stop:
            raise KeyboardInterrupt

    given = {"epochs": EPOCHS, "validation": (X[:40], Y[:40]), "early_stop": 3} | options
    try:
        one.fit(X, Y, checkpoint=checkpoints, on_step=on_step, **given)
    except KeyboardInterrupt:
        assert stop is not None
    return one


def result(one):
    """What a training leaves, but for its time."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in one.history]
    network = one.model.network
    state = {name: array.tobytes() for name, array in one.optimizer.state.items()}
    return network.values.tobytes(), network.buffers.tobytes(), state, rows, one.step, one.best_epoch


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoint(tmp_path / "checkpoint.safetensors", "1epoch")


GPU = pytest.param({"device": "cuda"}, marks=pytest.mark.cuda)


@pytest.mark.parametrize("options", [{}, {"replicas": 3}, {"seed": 7}, GPU], ids=["one", "replicas", "eager", "gpu"])
def test_interrupted_at_any_step(options, checkpoints):
    whole = result(fit(trainer(**options)))
    for stop in range(1, PER_EPOCH * EPOCHS + 1):
        fit(trainer(**options), checkpoints, stop)
        again = trainer(**options)
        assert again.resume(checkpoints) is None
        assert again.step == stop
        assert result(fit(again, checkpoints)) == whole, stop


def test_interrupted_many_times(checkpoints):
    whole = result(fit(trainer()))
    one = fit(trainer(), checkpoints, 1)
    for stop in range(2, PER_EPOCH * EPOCHS):
        one = trainer()
        one.resume(checkpoints)
        fit(one, checkpoints, stop)
    one = trainer()
    one.resume(checkpoints)
    assert result(fit(one, checkpoints)) == whole


def test_more_epochs(checkpoints):
    whole = result(fit(trainer(), epochs=6))
    fit(trainer(), checkpoints)
    again = trainer()
    again.resume(checkpoints)
    assert result(fit(again, checkpoints, epochs=6)) == whole


def test_a_training_that_has_ended_stays_as_it_was(checkpoints):
    """By its epochs, and by early stopping."""
    for options in ({}, {"epochs": 50, "early_stop": 1}):
        ended = result(fit(trainer(), checkpoints, **options))
        again = trainer()
        again.resume(checkpoints)
        assert result(fit(again, checkpoints, **options)) == ended


@pytest.mark.parametrize("how", ["zero", "stale"])
def test_each_part_of_the_state_counts(how, checkpoints):
    """No array may be missing, or be an earlier one. (At this rate, the second epoch is the best.)"""
    whole = result(fit(trainer(rate=0.3, seed=2)))
    assert whole[-1] < EPOCHS
    fit(trainer(rate=0.3, seed=2), checkpoints, 1)
    earlier, _ = checkpoints.read()
    fit(trainer(rate=0.3, seed=2), checkpoints, 14)
    state, _ = checkpoints.read()
    arrays = {name: array for name, array in state.arrays.items() if not name.startswith("good ")}  # to go back to
    for name, array in arrays.items():
        other = np.zeros_like(array) if how == "zero" else earlier.arrays[name]
        assert (array != other).any(), name
        checkpoints.write(TrainingState(state.arrays | {name: other}, state.numbers))
        again = trainer(rate=0.3, seed=2)
        again.resume(checkpoints)
        assert result(fit(again, checkpoints)) != whole, name


def test_another_trainer_is_refused(checkpoints):
    fit(trainer(), checkpoints, 5)
    with pytest.raises(ValueError, match="a training with another layers$"):
        trainer(hidden=8).resume(checkpoints)
    other = Trainer(trainer().model, Adam(0.02), batch_size=16)
    with pytest.raises(ValueError, match="with another optimizer, batch_size$"):
        other.resume(checkpoints)


@pytest.mark.parametrize("changed", ["x", "y", "w", "validation"])
def test_other_data_are_refused(changed, checkpoints):
    """Though there are as many rows."""
    data = {"x": X, "y": Y, "w": np.ones(100), "validation": (X[:40], Y[:40])}
    with_one = {"x": X + 1e-6, "y": np.roll(Y, 1), "w": np.linspace(1.0, 2.0, 100), "validation": (X[:40], Y[1:41])}

    def train(data, stop):
        def on_step(step):
            if step == stop:
                raise KeyboardInterrupt

        one = trainer()
        if stop is None:
            one.resume(checkpoints)
        options = {"sample_weight": data["w"], "validation": data["validation"], "on_step": on_step}
        return one.fit(data["x"], data["y"], epochs=2, checkpoint=checkpoints, **options)

    with pytest.raises(KeyboardInterrupt):
        train(data, 6)
    name = "validation" if changed == "validation" else "training"
    with pytest.raises(DataError, match=f"of a training with other {name} data"):
        train(data | {changed: with_one[changed]}, None)
    assert len(train(data, None)) == 2


# Files


def test_what_cannot_be_written_is_found_before_the_training(tmp_path):
    """A folder stays one, too."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data").touch()
    places = [(folder, IsADirectoryError), (tmp_path / "none" / "c.safetensors", FileNotFoundError)]
    if sys.platform == "linux":
        places.append(("/proc/c.safetensors", OSError))
    for path, error in places:
        steps = []
        with pytest.raises(error) as caught:
            trainer().fit(X, Y, checkpoint=path, on_step=steps.append)
        assert (caught.value.filename, steps) == (str(path), [])
    assert [path.name for path in folder.iterdir()] == ["data"] and list(tmp_path.iterdir()) == [folder]
    with pytest.raises(ValueError, match="a checkpoint must be a file, not '.'"):
        trainer().fit(X, Y, checkpoint=".")
    with pytest.raises(OSError, match="another training writes its checkpoints there"):
        trainer().fit(X, Y, callbacks=[Checkpoint(tmp_path / "c"), Checkpoint(tmp_path / "c")])


def test_what_a_killed_training_left_is_removed(checkpoints):
    fit(trainer(), checkpoints)
    left = checkpoints.path.with_name(f"{files._temporary_start(checkpoints.path)}1234.tmp")
    other = checkpoints.path.with_name(f"{files._temporary_start(Path('other'))}1234.tmp")
    left.touch(), other.touch()
    fit(trainer(), checkpoints)
    assert not left.exists() and other.exists()


def test_a_damaged_file_never_takes_the_place_of_a_whole_one(checkpoints, monkeypatch):
    """Also where a new object writes it."""
    fit(trainer(), checkpoints)
    checkpoints.path.write_bytes(b"damaged")
    whole = checkpoints.previous.read_bytes()
    one = trainer()
    assert "going on from" in one.resume(checkpoints.path)
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        fit(one, Checkpoint(checkpoints.path))
    assert checkpoints.previous.read_bytes() == whole


def test_a_damaged_checkpoint_gives_way_to_the_one_before(checkpoints):
    fit(trainer(), checkpoints)
    content = checkpoints.path.read_bytes()
    for damaged in (content[:-1], content[:100], b"", content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], None):
        if damaged is None:
            checkpoints.path.unlink()
        else:
            checkpoints.path.write_bytes(damaged)
        again = trainer()
        assert "going on from" in again.resume(checkpoints)
        assert again.epoch == EPOCHS - 1
    checkpoints.previous.write_bytes(b"{}")
    with pytest.raises(DataError, match=r"there is no checkpoint .*; .* cannot be read as a checkpoint"):
        trainer().resume(checkpoints)


@pytest.mark.parametrize("part", ["fsync", "replace"])
def test_a_disk_that_is_full(part, checkpoints, monkeypatch):
    """Whatever fails, a checkpoint is left, and no temporary file."""

    def fail(*given, **named):
        raise OSError(28, "No space left on device")

    fit(trainer(), checkpoints, 6)
    with monkeypatch.context() as patch:
        patch.setattr(*{"fsync": (files.os, "fsync"), "replace": (Path, "replace")}[part], fail)
        with pytest.raises(OSError, match="No space left"):
            fit(trainer(), checkpoints)
    again = trainer()
    again.resume(checkpoints)
    assert again.step == 6
    assert not list(checkpoints.path.parent.glob(".xpnet-*"))


@pytest.mark.parametrize(
    ("text", "found"), [("1epoch", (1, "epochs")), ("100steps", (100, "steps")), ("0.5 minutes", (0.5, "minutes"))]
)
def test_how_often(text, found):
    assert parse_every(text) == found


@pytest.mark.parametrize(
    "text", ["", "1", "epoch", "0epochs", "-1steps", "1.5steps", "1e3steps", "2 days", "9" * 400 + "steps"]
)
def test_how_often_is_refused(text):
    with pytest.raises(ValueError, match="every must be like 1epoch, 100steps or 5minutes"):
        parse_every(text)


def test_how_often_is_text(tmp_path):
    with pytest.raises(TypeError, match="every must be a string like 1epoch, .* not 5$"):
        Checkpoint(tmp_path / "checkpoint.safetensors", every=5)


def test_when_one_is_due(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    usual, steps, minutes = (Checkpoint(tmp_path / "x.safetensors", one) for one in (None, "10steps", "2minutes"))
    assert steps.due(0, 10) and not steps.due(5, 9)
    assert not usual.due(1, 50), "30 seconds have not passed"
    now[0] = 31.0
    assert usual.due(1, 50) and not usual.due(0, 50)
    assert not minutes.due(9, 999)
    now[0] = 120.0
    assert minutes.due(0, 0)


# The command

LONG = ["--dataset", "digits", "--hidden", "40", "--dropout", "0.2", "--epochs", "60", "--quiet"]
EVERY = ["--checkpoint-every", "1step"]
# Faults that the comparison must find, as code that runs before the command; with DIE, it is killed in its 45th write.
DIE = """
import os, signal
from xpnet.training import state_file as checkpoint
write_atomically, writes = checkpoint.write_atomically, []

def write(path, content, previous=None):
    writes.append(path)
    write_atomically(path, content, previous=previous)
    if len(writes) == 45:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.write_atomically = write
"""
IN_PLACE = """
def write_atomically(path, content, previous=None):  # it should go to another file, which is renamed when it is whole
    if previous is not None and path.exists():
        path.replace(previous)
    path.write_bytes(content[: len(content) // 2] if len(writes) == 45 else content)
"""
STALE = """
from dataclasses import replace
from xpnet.training.checkpoint import Checkpoint
write_state, first = Checkpoint.write, []

def write_stale(self, state):
    first.append(state.arrays["{name}"].copy())
    write_state(self, replace(state, arrays=state.arrays | {{"{name}": first[0]}}))

Checkpoint.write = write_stale
"""
FROM_ZERO = """
from xpnet import Trainer
Trainer.resume = lambda self, checkpoints: None
"""


def command(*arguments, fault=""):
    start = (
        ["-c", f"{fault}\nfrom xpnet.train import main\nraise SystemExit(main())"] if fault else ["-m", "xpnet.train"]
    )
    return [sys.executable, *start, *map(str, arguments)]


def length(folder):
    """Bytes of the history so far."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / "history.jsonl").stat().st_size
    return 0


def rows_of(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]


def without_seconds(rows):
    return [row | {"seconds": None} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(*LONG, "--out", folder), check=True, capture_output=True)
    return folder


def check_kills(folder, whole, waits, fault=""):
    """Kill a run some time after its next epoch, and resume it: it must go on, and end with the whole one's bytes."""
    checkpoints, kept = Checkpoint(folder / "checkpoint.safetensors"), []
    run = command(*LONG, *EVERY, "--out", folder, fault=fault)
    for wait in waits:
        before = length(folder)
        process = subprocess.Popen(run, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and length(folder) <= before:
            time.sleep(0.005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        state, note = checkpoints.read()
        assert state.numbers["epoch"] < 60, "the run ended before it was killed"
        assert note is None or "there is no checkpoint" in note, "the last checkpoint is not whole"
        kept.append(state.numbers["history"])
        run = command("--resume", folder, "--quiet", *EVERY, fault=fault)
    subprocess.run(run[:-2], check=True, capture_output=True)
    rows = rows_of(folder)
    assert all(rows[: len(some)] == some != [] for some in kept), "the run began anew"  # `seconds` would be others
    assert without_seconds(rows) == without_seconds(rows_of(whole)), "the history is another one"
    one, other = ((path / "model.safetensors").read_bytes() for path in (whole, folder))
    assert one == other, "the model is another one"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_killed_again_and_again(whole, tmp_path):
    check_kills(tmp_path / "run", whole, [0.02, 0.05, 0.1])


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("", None),
        (IN_PLACE, "the last checkpoint is not whole"),
        (STALE.format(name="sums loss"), "the history is another one"),
        (FROM_ZERO, "the run began anew"),
    ],
    ids=["none", "in place", "stale", "from zero"],
)
def test_kills_that_find_a_fault(fault, words, whole, tmp_path):
    with pytest.raises(AssertionError, match=words) if words else contextlib.nullcontext():
        check_kills(tmp_path / "run", whole, [60.0], DIE + fault)


def test_what_cannot_be_resumed(run, tmp_path):
    short = ["--dataset", "digits", "--hidden", 10, "--steps", 30, "--quiet"]
    assert run(train, *short, "--out", tmp_path / "run")[0] == 0
    resume = ["--resume", tmp_path / "run", "--quiet"]
    assert run(train, *resume, "--lr", 0.5)[:2] == (2, "")
    assert "--lr 0.5 is not the run's, which has no --lr" in run(train, *resume, "--lr", 0.5)[2]
    assert "--hidden 8 9 is not the run's, which has --hidden 10" in run(train, *resume, "--hidden", 8, 9)[2]
    assert "--batch-norm is not the run's, which has --no-batch-norm" in run(train, *resume, "--batch-norm")[2]
    for option in (("--out", tmp_path / "other"), ("--config", "a.toml"), ("--overwrite",)):
        assert f"{option[0]} cannot be given" in run(train, *resume, *option)[2]
    assert "needs --out" in run(train, *short, "--checkpoint-every", "1epoch")[2]
    assert "must be like 1epoch" in run(train, *short, "--checkpoint-every", "often")[2]
    assert "holds no run to go on with" in run(train, "--resume", tmp_path / "none")[2]
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"sha256": "', '"sha256": "0'), encoding="utf-8")
    code, out, err = run(train, *resume)
    assert (code, out) == (2, "") and "are not those of the run in" in err


def test_what_cannot_be_resumed_in_python(checkpoints):
    """Other rows, fewer epochs, and early stopping where there was none."""
    fit(trainer(), checkpoints, 7)
    one = trainer()
    one.resume(checkpoints)
    with pytest.raises(ValueError, match="of a training on 100 rows, not 50"):
        one.fit(X[:50], Y[:50], epochs=EPOCHS)
    with pytest.raises(ValueError, match="after 7 steps, and only 4"):
        fit(one, epochs=1)
    with pytest.raises(ValueError, match="with the state of EarlyStopping 0, not of no callbacks"):
        one.fit(X, Y, epochs=EPOCHS)
    assert result(fit(one)) == result(fit(trainer())), "it may still be called as it should have been"
    with pytest.raises(TypeError, match="expected str, bytes or os.PathLike object, not int"):
        one.fit(X, Y, checkpoint=5)
    eager = Trainer(trainer().model, Adam(0.01), batch_size=32, compile=False)
    eager.resume(checkpoints)
    assert fit(eager).epoch == EPOCHS, "it may go on eagerly"
    other = Trainer(MLP([12, 9, 4], seed=2, batch_norm=True, dropout=0.2), Adam(0.01), batch_size=32)
    with pytest.raises(ValueError, match="with another network seeds$"):
        other.resume(checkpoints)


def test_an_interrupt_in_the_middle_of_a_step_writes_nothing(checkpoints, monkeypatch):
    """One of a handler of the user's own, in an evaluation: the state is between two epochs."""

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("xpnet.training.runner.Evaluator.means", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer().fit(X, Y, checkpoint=checkpoints, validation=(X, Y))
    assert not checkpoints.path.exists()


@pytest.mark.parametrize("ends", ["stop", "interrupt"])
def test_a_callback_that_ends_the_training(ends, tmp_path):
    checkpoints = Checkpoint(str(tmp_path / "checkpoint.safetensors"))

    def on_epoch(row):
        if row["epoch"] == 2 and ends == "interrupt":
            raise KeyboardInterrupt
        return row["epoch"] == 2

    one = trainer(rate=np.float32(0.01))
    with pytest.raises(KeyboardInterrupt) if ends == "interrupt" else contextlib.nullcontext():
        one.fit(X, Y, epochs=EPOCHS, checkpoint=checkpoints, on_epoch=on_epoch)
    again = trainer(rate=np.float32(0.01))
    again.resume(checkpoints)
    assert (again.epoch, again.step) == (2, 2 * PER_EPOCH)


def test_a_disk_that_is_full_at_an_interrupt(checkpoints, monkeypatch):
    def fail(*given):
        raise OSError(28, "No space left on device")

    one = trainer()
    one.fit(X, Y, epochs=1)
    before = one.model.network.values.tobytes()
    monkeypatch.setattr(checkpoints, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        fit(one, checkpoints, PER_EPOCH + 2, epochs=2, early_stop=None)
    assert (one.model.network.values.tobytes(), one.step) == (before, PER_EPOCH)


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_one_before(checkpoints, monkeypatch):
    """Where the next one cannot be written, either."""
    fit(trainer(), checkpoints)
    checkpoints.path.write_bytes(b"damaged")
    state, _ = checkpoints.read()
    replace, renamed = Path.replace, []

    def killed(self, target):
        renamed.append(target)
        if target == checkpoints.path:
            raise SystemExit
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(SystemExit):
            checkpoints.write(state)
    assert renamed == [checkpoints.path]
    assert "going on from" in checkpoints.read()[1]


def _without(name):
    return lambda arrays, numbers: (arrays.pop(name, None), numbers.pop(name, None))


def _without_in_fit(name):
    return lambda arrays, numbers: numbers["fit"].pop(name)


@pytest.mark.parametrize(
    "edit",
    [
        *map(_without, ("best_epoch", "epoch", "fit", "history", "rate_scale", "step", "trainer")),
        *map(_without_in_fit, ("begin", "callbacks", "counts", "rows", "seconds", "within")),
        *map(_without, ("values", "buffers", "state m", "sums loss", "EarlyStopping 0 values")),
        lambda arrays, numbers: arrays.update(values=np.zeros(1, np.float32)),
        lambda arrays, numbers: arrays.update(values=arrays["values"].astype(bool)),
        lambda arrays, numbers: arrays.update({"EarlyStopping 0 values": np.zeros(3, np.float32)}),
        lambda arrays, numbers: numbers.update(step="x"),
        lambda arrays, numbers: numbers.update(epoch=10**40),
        lambda arrays, numbers: numbers.update(rate_scale=[1.0]),
        lambda arrays, numbers: numbers.update(rate_scale=2.0),
        lambda arrays, numbers: numbers["fit"].update(within=-1),
        lambda arrays, numbers: numbers["fit"].update(within=5),
        lambda arrays, numbers: numbers["fit"].update(begin=7),
        lambda arrays, numbers: numbers.update(history=[{}]),
        lambda arrays, numbers: numbers.update(history=numbers["history"] * 2),
        lambda arrays, numbers: numbers["fit"].update(counts={"x": 1}),
        lambda arrays, numbers: numbers["fit"].update(counts={"9" * 5000: 1}),
        lambda arrays, numbers: numbers.update(trainer=5),
        lambda arrays, numbers: numbers["fit"]["callbacks"]["EarlyStopping 0"].update(stopped=[True, False]),
        lambda arrays, numbers: numbers["fit"]["callbacks"]["EarlyStopping 0"].update(loss=[[], [1.0]]),
        lambda arrays, numbers: numbers["fit"]["callbacks"]["EarlyStopping 0"].update(epoch=10**40),
        lambda arrays, numbers: numbers["fit"]["callbacks"]["EarlyStopping 0"].update(epoch=3),
        lambda arrays, numbers: numbers["fit"].update(begin=2, within=5),
    ],
)
def test_a_state_that_is_not_a_training(edit, checkpoints):
    """A file whose digest is right."""
    fit(trainer(), checkpoints, 6)
    state, _ = checkpoints.read()
    arrays, numbers = dict(state.arrays), json.loads(json.dumps(state.numbers))
    edit(arrays, numbers)
    write_unchecked(checkpoints.path, arrays, numbers)
    checkpoints.previous.unlink()
    one = trainer()

    def go_on():
        one.resume(checkpoints)
        fit(one)

    refusals = r"is no checkpoint of (a|this) training|is of (no fit|another EarlyStopping)|take"
    with pytest.raises(DataError, match=refusals):
        go_on()


def test_a_run_that_is_made_longer(run, tmp_path):
    """Its config.json says how long it is, for the next time; and what a killed run left is removed."""
    folder, config = tmp_path / "run", tmp_path / "run" / "config.json"
    short = ["--dataset", "digits", "--hidden", 10, "--epochs", 2, "--schedule", "cosine", "--quiet"]
    assert run(train, *short, "--out", folder)[0] == 0
    (folder / ".xpnet-1234.tmp").touch()
    code, _, err = run(train, "--resume", folder, "--epochs", 3, "--quiet")
    assert code == 0 and "the schedule cosine is from here on that of 36 steps" in err
    assert not list(folder.glob(".xpnet-*"))
    assert json.loads(config.read_text(encoding="utf-8"))["options"]["epochs"] == 3
    code, _, err = run(train, "--resume", folder, "--epochs", 1)
    assert code == 2 and "has taken 36 steps, more than the 12 that are to be taken" in err
    content = json.loads(config.read_text(encoding="utf-8"))
    for text in (content | {"data": 5}, {name: content[name] for name in content if name != "data"}):
        config.write_text(json.dumps(text), encoding="utf-8")
        assert run(train, "--resume", folder)[0] == 2
    content["options"]["lr"] = -1
    config.write_text(json.dumps(content), encoding="utf-8")
    code, _, err = run(train, "--resume", folder, "--lr", 0.1)
    assert code == 2 and "lr must be finite and above 0" in err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_killed_after_the_last_step(tmp_path):
    """And before the epoch was evaluated: what is left is the evaluation, and the epoch's row."""
    words = ["--dataset", "digits", "--hidden", "5", "--epochs", "2", "--quiet", "--json"]
    whole = subprocess.run(command(*words, "--out", tmp_path / "whole"), capture_output=True, text=True, check=True)
    fault = """
import os, signal
from xpnet.training.runner import Evaluator
means, calls = Evaluator.means, []
def die(self):
    calls.append(self)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return means(self)
Evaluator.means = die
"""
    folder = tmp_path / "killed"
    killed = command(*words, "--out", folder, "--checkpoint-every", "1step", fault=fault)
    assert subprocess.run(killed, capture_output=True, check=False).returncode == -signal.SIGKILL
    again = subprocess.run(command("--resume", folder, "--json", "--quiet"), capture_output=True, text=True, check=True)
    one, other = (json.loads(done.stdout) for done in (whole, again))
    for name in ("epochs", "steps", "train_loss", "test_accuracy", "test_loss"):
        assert one[name] == other[name]
    assert without_seconds(rows_of(folder)) == without_seconds(rows_of(tmp_path / "whole"))
    code = subprocess.run(command("--resume", folder), capture_output=True, text=True, check=True)
    assert f"the run in {folder} has ended, after step 24" in code.stderr


def test_resumed_eagerly(run, tmp_path):
    """And with other threads: the run goes on, though not with the same bytes."""
    words = [*LONG[:-1], "--threads", 1, "--out", tmp_path / "run", "--quiet"]
    assert run(train, *words, "--epochs", 2)[0] == 0
    code, out, err = run(train, "--resume", tmp_path / "run", "--epochs", 3, "--no-compile", "--threads", 2, "--json")
    assert code == 0, err
    assert "it was switched off" in json.loads(out)["compiled"]
    kept = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["options"]
    assert (kept["epochs"], kept["compile"], kept["threads"]) == (3, False, 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_a_pipe_is_no_checkpoint(checkpoints):
    os.mkfifo(checkpoints.path)
    with pytest.raises(DataError, match="is no regular file, and no checkpoint$"):
        checkpoints.read()
