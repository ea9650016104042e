"""Searches: replicas that differ in everything equal their single runs, and what is found can be trained again."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xpnet import MLP, Config, DataError, evaluate, load_digits, load_mnist
from xpnet.commands import search as command
from xpnet.commands import train
from xpnet.commands.options import command_line
from xpnet.core.device import CPU
from xpnet.lab import __main__ as lab
from xpnet.search import Results, Space, groups, groups_of, search, train_together
from xpnet.search.halving import Halving
from xpnet.search.journal import Journal
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
    assert groups_of(some, load_digits()) == [[0, 2, 4, 6], [1], [3], [5]]
    assert groups_of([replace(DIGITS, lr=0.1)] * 5, load_digits(), most=2) == [[0, 1], [2, 3], [4]]
    large = replace(DIGITS, hidden=(1000, 1000))  # 1,076,010 parameters
    for config, sizes in ((DIGITS, [256, 44]), (large, [2] * 150)):
        assert [len(group) for group in groups_of([config] * 300, load_digits())] == sizes


def test_trials_are_what_single_runs_find(digits):
    """In other groups, with early stopping or without; and one that diverges harms no other."""
    points = [{"lr": lr, "hidden": hidden} for lr, hidden in itertools.product((1e-3, 1e-2, 1e30), [(30,), (9, 9)])]
    for early_stop in (None, 1, 2):
        base = replace(DIGITS, early_stop=early_stop)
        found = search(points, load_digits(), base)
        assert [trial["trial"] for trial in found.trials] == list(range(6))
        for trial, config in zip(found.trials, found.configs, strict=True):
            if config.lr == 1e30:
                assert math.isnan(trial["score"])
                continue
            trainer, arguments = build([config], digits, CPU)
            history = trainer.fit(**arguments | {"test": None})
            row = history[-1] if early_stop is None else history[trainer.best_epoch - 1]
            assert trial["epoch"] == row["epoch"]
            assert trial["epochs"] == len(history) == len(trial["curve"])
            assert trial["validation_loss"] == pytest.approx(row["validation_loss"], rel=1e-4)
            assert trial["score"] == pytest.approx(row["validation_accuracy"], abs=0.005)
        best = found.best["trial"]
        trainer, arguments = build([found.configs[best]], digits, CPU)
        trainer.fit(**arguments | {"test": None})
        np.testing.assert_allclose(
            found.model().predict(digits.x_test), trainer.model.predict(digits.x_test), atol=1e-4
        )


def test_the_search_does_not_read_the_test_rows():
    """Their values change nothing, and they are not even evaluated."""
    data = load_digits()
    blind = replace(data, x_test=data.x_test[:1] * 0, y_test=data.y_test[:1])
    one, other = (
        [t | {"seconds": 0} for t in search({"lr": [0.001, 0.01]}, some, DIGITS).trials] for some in (data, blind)
    )
    assert one == other
    assert not any(name.startswith("test_") for trial in one for name in trial)


def test_a_network_that_diverges_late_has_no_score(monkeypatch):
    """Alone and in a group alike: what it was like before is not what its command would give."""
    from xpnet.optim import schedules

    monkeypatch.setitem(schedules.SCHEDULES, "constant", lambda steps: lambda taken: 1.0 if taken < 30 else 1e30)
    base = replace(DIGITS, optimizer="sgd")
    for rates_ in ([1e-3, 1e-33], [1e-3]):
        found = search([{"lr": lr} for lr in rates_], load_digits(), base).trials
        assert math.isnan(found[0]["score"])
        assert found[0]["epoch"] is None
        assert len(found) == 1 or math.isfinite(found[1]["score"])


# Groups that shrink


@pytest.mark.parametrize("early_stop", [None, 2])
def test_networks_that_stay_go_on_as_they_would_have(digits, early_stop):
    """Rules, rates and dropout of their own; two leave after epoch 2, one after epoch 5."""
    base = replace(DIGITS, dtype="float64", steps=None, epochs=9, dropout=0.1, early_stop=early_stop)
    configs = [replace(base, lr=lr, optimizer=rule) for rule in ("adam", "momentum") for lr in (1e-3, 1e-2, 0.1)]
    assert groups_of(configs, digits) == [list(range(6))]
    asked = []

    def on_epoch(epoch, scores):
        asked.append(sorted(scores))
        return {2: [0, 3], 5: [5]}.get(epoch)

    outcomes = train_together(configs, digits, on_epoch=on_epoch)
    assert asked[1] == [0, 1, 2, 3, 4, 5] and asked[2] == [1, 2, 4, 5] and asked[5] == [1, 2, 4]
    for number, (config, outcome) in enumerate(zip(configs, outcomes, strict=True)):
        trainer, arguments = build([config], digits, CPU)
        history = trainer.fit(**arguments | {"test": None})
        assert outcome.epochs == {0: 2, 3: 2, 5: 5}.get(number, len(history)) or early_stop
        ours = [row["train_loss"] for row in outcome.history]
        assert ours == pytest.approx([row["train_loss"] for row in history[: len(ours)]], rel=1e-9)
        if outcome.epochs == len(history):
            np.testing.assert_allclose(outcome.values, trainer.model.network.values, rtol=0.0, atol=1e-10)


def test_a_halving_search_trains_on_the_best(digits):
    """The scores of all trials after an epoch decide; survivors are what they would be without it."""
    points = [{"lr": lr, "hidden": hidden} for lr in np.geomspace(1e-4, 0.3, 9).tolist() for hidden in [(30,), (9, 9)]]
    base = replace(DIGITS, steps=None, epochs=9, dtype="float64")
    full, halved = (search(points, load_digits(), base, halving=factor) for factor in (None, 3))
    by_epochs = {epochs: [t["trial"] for t in halved.trials if t["epochs"] == epochs] for epochs in (1, 3, 9)}
    assert {epochs: len(trials) for epochs, trials in by_epochs.items()} == {1: 12, 3: 4, 9: 2}
    after_one = sorted(full.trials, key=lambda t: (-t["curve"][0], t["trial"]))
    assert sorted(by_epochs[3] + by_epochs[9]) == sorted(t["trial"] for t in after_one[:6])
    for trial in halved.trials:
        assert trial["curve"] == full.trials[trial["trial"]]["curve"][: trial["epochs"]]


def test_rungs():
    assert Halving(27, 3, 9).rungs == [1, 3, 9, 27]
    assert Halving(10, 4, 9).rungs == [2, 10]
    assert Halving(2, 3, 9).rungs == [2]
    assert Halving(64, 4, 9, first=4).rungs == [4, 16, 64]
    halving = Halving(4, 2, 5)
    for trial, score in enumerate((0.1, math.nan, 0.3, 0.2)):
        halving.record(trial, 1, score)
    assert halving.next() == (2, [2, 3]), "two of the four that are there, though one is still to come"
    assert halving.next() is None and halving.stopped() == []
    halving.record(4, 1, 0.9)
    assert halving.next() == (2, [4]), "it is among the best two of five"
    assert halving.stopped() == [0, 1]
    for trial in (2, 3, 4):
        halving.record(trial, 2, 1.0 / trial)
    assert halving.next() == (4, [2])
    assert halving.stopped() == [0, 1, 3, 4]
    halving.record(2, 4, math.nan)
    assert halving.next() is None and halving.stopped() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="halving must be at least 2, not 1"):
        Halving(4, 1, 3)


def test_where_all_diverge_none_passes():
    halving = Halving(4, 2, 2)
    for trial in range(2):
        halving.record(trial, 1, math.nan)
    assert halving.next() is None and halving.stopped() == [0, 1]


# Executors and the journal


def untimed(trials):
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in trials]


SPACE = {"lr": [1e-3, 1e-2], "hidden": [(9,), (5, 5)]}
SHORT = replace(DIGITS, steps=None, epochs=2)


def test_processes_find_the_same():
    """Groups in processes of one thread, as here with one thread; and the model comes back, too."""
    base = replace(SHORT, compile=False)  # which would be told by few steps here, and by usual ones there
    here = search(SPACE, load_digits(), base, method="grid", threads=1)
    there = search(SPACE, load_digits(), base, method="grid", workers=2)
    assert untimed(here.trials) == untimed(there.trials)
    x = load_digits().x_test
    assert here.model().predict(x).tobytes() == there.model().predict(x).tobytes()


class Dying(ThreadPoolExecutor):
    """An executor of a cluster whose workers die: every second job is lost."""

    jobs = 0

    def submit(self, function, *arguments):
        Dying.jobs += 1
        if Dying.jobs % 2:
            return super().submit(_die)
        return super().submit(function, *arguments)


def _die():
    raise ConnectionError("the worker is gone")


def test_a_worker_that_dies_costs_nothing():
    """Its group is trained elsewhere; the table is complete and the same."""
    whole = search(SPACE, load_digits(), SHORT, method="grid", threads=1)
    with Dying(1) as executor:
        found = search(SPACE, load_digits(), SHORT, method="grid", executor=executor)
    assert untimed(found.trials) == untimed(whole.trials)


def test_a_group_that_always_fails_costs_no_other(monkeypatch):
    leg = groups.train_leg

    def fail(configs, *arguments, **options):
        if configs[0].hidden == (9,):
            raise MemoryError("too large")
        return leg(configs, *arguments, **options)

    monkeypatch.setattr("xpnet.search.work.train_leg", fail)
    with pytest.warns(UserWarning, match="trials 0, 2 were given up after 3 attempts: MemoryError: too large"):
        found = search(SPACE, load_digits(), SHORT, method="grid")
    assert [math.isnan(trial["score"]) for trial in found.trials] == [True, False, True, False]
    assert found.trials[0]["error"] == "MemoryError: too large"


def test_what_is_no_executor():
    with pytest.raises(TypeError, match=r"executor must be a concurrent.futures.Executor, not 5"):
        search(SPACE, load_digits(), SHORT, executor=5)
    closed = ThreadPoolExecutor(1)
    closed.shutdown()
    with pytest.raises(
        RuntimeError, match="the executor takes no more jobs: RuntimeError: cannot schedule new futures"
    ):
        search(SPACE, load_digits(), SHORT, executor=closed)


@pytest.mark.parametrize("halving", [None, 2])
def test_a_journal_is_gone_on_with(halving, tmp_path):
    """No finished trial is done twice, wherever the search was interrupted, also in the middle of a line."""
    journal = tmp_path / "trials.jsonl"
    base = replace(SHORT, epochs=4)
    arguments = {"method": "grid", "halving": halving, "most": 1}  # a group a trial
    whole = search(SPACE, load_digits(), base, journal=journal, **arguments)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["trial"] for line in lines] != [] and len(lines) == 4
    for kept in range(5):
        for torn in (b"", b'{"trial": 3, "sco'):
            journal.write_bytes(b"".join(lines[:kept]) + torn)
            done: list[int] = []
            again = search(
                SPACE,
                load_digits(),
                base,
                journal=journal,
                on_trial=lambda t, r, done=done: done.append(t["trial"]),
                **arguments,
            )
            assert untimed(again.trials) == untimed(whole.trials)
            assert len(done) == 4 - kept
            assert not {json.loads(line)["trial"] for line in lines[:kept]} & set(done)
            assert [trial["trial"] for trial in again.trials] == [0, 1, 2, 3]


def test_a_journal_of_another_search(tmp_path):
    journal = tmp_path / "trials.jsonl"
    search(SPACE, load_digits(), SHORT, method="grid", journal=journal)
    with pytest.raises(DataError, match=r"trials.jsonl is of another search: trial 2 was"):
        search(SPACE | {"lr": [1e-3, 1e-1]}, load_digits(), SHORT, method="grid", journal=journal)
    journal.write_text("hello\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"trials.jsonl is no journal of a search: b'hello"):
        search(SPACE, load_digits(), SHORT, method="grid", journal=journal)
    journal.write_bytes(b"x" * 2**21)
    with pytest.raises(DataError, match="a line is longer than 1048576 bytes"), Journal(journal):
        pass
    for line in ({"trial": 0}, {"trial": -1, "epochs": 1, "score": 0.5, "validation_loss": 1.0, "curve": []}, [1]):
        journal.write_text(json.dumps(line) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match="is no journal of a search"), Journal(journal):
            pass


def test_a_journal_is_of_the_same_options_and_data(tmp_path):
    """Also of those that are not searched over."""
    journal = tmp_path / "trials.jsonl"
    search(SPACE, load_digits(), SHORT, method="grid", journal=journal)
    halved = replace(load_digits(), x_train=load_digits().x_train // 2)
    for base, data in (
        (replace(SHORT, epochs=3), load_digits()),
        (replace(SHORT, batch_size=50), load_digits()),
        (SHORT, halved),
    ):
        with pytest.raises(DataError, match="is of a search with other options or other data"):
            search(SPACE, data, base, method="grid", journal=journal)
    again = search(SPACE, load_digits(), replace(SHORT, threads=1), method="grid", journal=journal)
    assert len(again.trials) == 4


def test_two_searches_do_not_write_one_journal(tmp_path):
    told = []

    def inner(trial, results):
        with pytest.raises(DataError, match="is being written by another search"):
            search(SPACE, load_digits(), SHORT, method="grid", journal=tmp_path / "j")
        told.append(trial)

    search(SPACE, load_digits(), SHORT, method="grid", journal=tmp_path / "j", on_trial=inner)
    assert len(told) == 4
    with pytest.raises(OSError, match="No such file") as caught:
        search(SPACE, load_digits(), SHORT, journal=tmp_path / "none" / "j", on_trial=inner)
    assert caught.value.filename == str(tmp_path / "none" / "j") and len(told) == 4


def test_networks_that_cannot_train_together(digits):
    for changed in ({"hidden": (20,)}, {"batch_size": 50}, {"steps": 9}, {"dropout": 0.1}, {"seed": 1}):
        with pytest.raises(ValueError, match="configs must be those of one group"):
            train_together([DIGITS, replace(DIGITS, **changed)], digits)
    with pytest.raises(ValueError, match="data must have validation rows"):
        train_together([DIGITS], load_digits())


def test_finite_spaces_are_drawn_without_repetition():
    space = Space({"hidden": [(5,), (6,)], "optimizer": ["adam", "sgd", "momentum"]})
    points = space.draw(100, 0)
    assert len(points) == 6 == len({repr(point) for point in points})
    assert space.draw(3, 0) == points[:3]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")
def test_processes_end_with_the_search(tmp_path):
    """After a SIGKILL, too; and a script without a main guard is told of it."""
    script = """
import os, signal, multiprocessing
from xpnet import Config, load_digits
from xpnet.search import search

def kill(trial, results):
    print(*(one.pid for one in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

GUARD
    search({"lr": "1e-3..1e-2", "hidden": [(5,), (6,)]}, load_digits(), Config(epochs=2), workers=2, on_trial=kill)
"""
    guarded, bare = tmp_path / "guarded.py", tmp_path / "bare.py"
    guarded.write_text(script.replace("GUARD", 'if __name__ == "__main__":'), encoding="utf-8")
    bare.write_text(script.replace("GUARD", "if True:"), encoding="utf-8")
    done = subprocess.run([sys.executable, guarded], capture_output=True, text=True, timeout=60, check=False)
    pids = [int(word) for word in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and len(pids) == 2
    deadline = time.monotonic() + 20
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, "a process was left"
        time.sleep(0.05)
    done = subprocess.run([sys.executable, bare], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    # The resource tracker of multiprocessing, a process of its own, may have the last word.
    said = [line for line in done.stderr.splitlines() if "resource_tracker" not in line and "warnings.warn" not in line]
    assert 'a script that starts some needs `if __name__ == "__main__":`' in said[-1]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] if Path(f"/proc/{pid}/stat").exists() else False


def test_an_interrupted_search_has_the_trials_so_far():
    def stop(trial, results):
        raise KeyboardInterrupt

    found = search(SPACE, load_digits(), SHORT, method="grid", most=1, on_trial=stop)
    assert len(found.trials) == 1
    assert isinstance(found.interruption, KeyboardInterrupt)


# Spaces


def test_grids_and_draws():
    space = Space({"lr": "1e-4..1e-2", "dropout": [0.0, "0.1..0.5"], "hidden": [(30,), ()], "batch_size": "16..256"})
    points = space.draw(400, 0)
    assert points == space.draw(500, 0)[:400] != space.draw(400, 1)
    lr = np.log10([point["lr"] for point in points])
    assert -4.0 <= lr.min() < -3.9 and -2.1 < lr.max() <= -2.0
    assert abs(lr.mean() + 3.0) < 0.1, "even in the logarithm"
    dropout = np.array([point["dropout"] for point in points])
    assert 150 < (dropout == 0.0).sum() < 250, "a range counts as one value"
    assert abs(dropout[dropout > 0.0].mean() - 0.3) < 0.03
    sizes = np.array([point["batch_size"] for point in points])
    assert sizes.dtype.kind == "i" and sizes.min() >= 16 and sizes.max() <= 256
    assert abs(np.median(sizes) - 64) < 8
    assert Space({"lr": "1e-4..1e-2:3", "optimizer": ["adam", "sgd"]}).grid() == [
        {"lr": lr, "optimizer": rule} for lr in (1e-4, 1e-3, 1e-2) for rule in ("adam", "sgd")
    ]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lrr": [1]}, "lrr cannot be searched over: did you mean 'lr'?"),
        ({"epochs": [1]}, "epochs cannot be searched over"),
        ({"lr": []}, "lr must have values to try"),
        ({"lr": 0.1}, "lr must have values to try, not 0.1"),
        ({"lr": "1..0.1"}, "a range must rise, and 1..0.1 does not"),
        ({"lr": "0..0.1"}, "the range 0..0.1 is drawn in the logarithm, and must begin above 0"),
        ({"lr": "a..b"}, "lr must be numbers, or a range of them such as 0.001..0.1, not 'a..b'"),
        ({"lr": "1e-3..inf"}, "a range must rise"),
        ({"lr": "1e-3..1:1"}, "the number of values in '1e-3..1:1' must be at least 2"),
        ({"optimizer": "adam..sgd"}, "optimizer has no ranges"),
        ({"lr": [-1.0]}, "lr must be finite and above 0"),
        ({"optimizer": ["adem"]}, "unknown optimizer 'adem': did you mean 'adam'?"),
    ],
)
def test_bad_spaces(space, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        search(space, load_digits(), SHORT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "bayes"}, "unknown method 'bayes'"),
        ({"method": "grid", "trials": 3}, "trials (3) goes with random search"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"seeds": [-1]}, "seed must be"),
        ({"halving": 1}, "halving must be at least 2"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"base": replace(SHORT, early_stop=2), "halving": 2}, "halving needs a number of epochs, and no early_stop"),
        ({"base": replace(SHORT, validation=0.2, calibrate=True)}, "a search does not calibrate"),
        ({"base": DIGITS, "halving": 2}, "halving needs a number of epochs, and no early_stop"),
    ],
)
def test_bad_options(options, message):
    base = options.pop("base", SHORT)
    with pytest.raises(ValueError, match=re.escape(message)):
        search({"lr": "1e-3..1e-2"}, load_digits(), base, **options)


def test_which_options_matter():
    """The share of the variance of ranks; equal scores share the mean of theirs."""
    configs = [replace(DIGITS, lr=lr, seed=s) for lr in (0.1, 0.2) for s in range(4)]
    found = Results(configs, ["lr"], load_digits())

    def shares(scores):
        pairs = zip(configs, scores, strict=True)
        found.trials = [{"trial": i, "lr": c.lr, "seed": c.seed, "score": score} for i, (c, score) in enumerate(pairs)]
        return found.importance()

    # By hand: ranks 1 2 3 4 | 5 6 7 0 have the means 2.5 and 4.5, so 1 of 21/4; seeds: 3, 4, 5, 2.
    ours = shares([0.1, 0.2, 0.3, 0.4, 0.7, 0.8, 0.9, math.nan])
    assert ours == pytest.approx({"seed": np.var([3, 4, 5, 2]) / 5.25, "lr": 1.0 / 5.25})
    assert list(ours) == ["seed", "lr"]
    assert shares([math.nan] * 8) == {"lr": 0.0, "seed": 0.0}
    # Ranks 2.5 (six times, 0 to 5), 6.5 (twice): of lr, the means 2.5 and 4.5.
    assert shares([0.1] * 6 + [0.2] * 2)["lr"] == pytest.approx(1.0 / np.var([2.5] * 6 + [6.5] * 2))
    found.trials = found.trials[:7]
    assert found.importance() == {}


def test_options_of_many_values_that_are_no_numbers():
    """Networks of ten shapes: each is compared with the others."""
    points = [{"hidden": (n,) * (1 + n % 2)} for n in range(1, 11)]
    found = search(points, load_digits(), SHORT)
    assert set(found.importance()) == {"hidden"}


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

    def run(*arguments, main=lab.main):
        code = 0
        try:
            code = main([str(word) for word in arguments])
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


COMMAND = (
    "--dataset",
    "digits",
    "--epochs",
    "2",
    "--lr",
    "1e-3..1e-1",
    "--hidden",
    "20",
    "9 9",
    "--optimizer",
    "adam",
    "sgd",
)


def test_the_command(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out_dir = tmp_path / "s"
    code, out, err = run(*COMMAND, "--trials", "12", "--json", "--out", out_dir, main=command.main)
    assert code == 0, err
    result = json.loads(out)
    assert [trial["trial"] for trial in result["trials"]] == list(range(12))
    ranked = sorted(result["trials"], key=lambda trial: (-trial["score"], trial["validation_loss"]))
    assert result["best"] == ranked[0]
    assert set(result["importance"]) == {"lr", "hidden", "optimizer"}
    for name in ("search.png", "learning-curves.png"):
        assert (out_dir / name).read_bytes().startswith(b"\x89PNG")
    held = prepare(replace(SHORT, validation=0.1), load_digits())
    accuracy = evaluate(MLP.load(out_dir / "best.safetensors"), held.x_validation, held.y_validation)[1]
    assert accuracy == pytest.approx(result["best"]["score"], abs=1e-9)
    # The command trains the network that was found, and finds what was found.
    words = shlex.split(result["command"])
    assert words[:3] == ["python", "-m", "xpnet.train"]
    assert train.main([*words[3:], "--quiet", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["validation_accuracy"] == pytest.approx(result["best"]["score"], abs=1e-3)

    code, out, err = run(*COMMAND, "--out", out_dir, main=command.main)
    assert (code, out) == (2, "")
    assert f"{out_dir} already holds a search; choose another folder, --overwrite or --resume" in err
    (out_dir / "trials.jsonl").write_bytes(
        b"".join((out_dir / "trials.jsonl").read_bytes().splitlines(keepends=True)[:7])
    )
    for option in (("--epochs", "9"), ("--method", "grid"), ("--validation", "0.2"), ("--lr", "0.1"), ("--overwrite",)):
        code, out, err = run("--resume", out_dir, *option, main=command.main)
        assert (code, out) == (2, "") and f"{option[0]} cannot be given" in err
    code, out, err = run("--resume", out_dir, "--json", main=command.main)
    assert code == 0, err
    assert untimed(json.loads(out)["trials"]) == untimed(result["trials"])


def test_the_table(run, tmp_path):
    words = (
        "--dataset",
        "digits",
        "--epochs",
        "2",
        "--method",
        "grid",
        "--lr",
        "1e-3..1e-1:3",
        "--dropout",
        "0",
        "0.2",
    )
    code, out, err = run(*words, "--quiet", main=command.main)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["trial", "validation", "accuracy", "validation", "loss", "lr", "dropout", "epochs"]
    assert len(lines) == 8
    assert lines[-1].startswith("python -m xpnet.train --dataset digits --dropout ")
    code, out, err = run(*words, "--halving", "2", main=command.main)
    assert code == 0, err
    assert "6/6 networks: best score" in err
    code, out, err = run(*words, "--seeds", "0-1", "7", "--json", main=command.main)
    result = json.loads(out)
    assert [(trial["trial"], trial["seed"]) for trial in result["trials"]][:4] == [(0, 0), (1, 1), (2, 7), (3, 0)]
    assert len(result["trials"]) == 18 and "seed" in result["importance"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lr", "1..0.1"), "a range must rise, and 1..0.1 does not"),
        (("--lr", "often"), "'often' is not a finite number"),
        (("--hidden", "5 x"), "'x' is not a whole number"),
        (("--batch-norm", "maybe"), "batch_norm must be yes or no, not 'maybe'"),
        (("--optimizer", "adem"), "unknown optimizer 'adem': did you mean 'adam'?"),
        (("--seeds", "3-1"), "seeds must rise, and be at most a million, and 3-1 do not"),
        (("--seeds", "a"), "seeds must be whole numbers"),
        (("--trials", "0"), "trials must be at least 1"),
        (("--method", "grid"), "lr has the range 0.0001..0.01: a grid needs a number of values"),
        (("--halving", "3"), "halving needs a number of epochs"),
        (("--workers", "0"), "workers must be at least 1"),
        (("--resume", "nowhere"), "--dataset cannot be given"),
        (("--out", "/proc/x"), "/proc/x cannot be written"),
        (("--depth", "3"), "unknown option --depth"),
        (("--trials", "99999999999999"), "trials must be"),
        (("--halving", "50", "--epochs", "4"), "no rung: of 4 epochs, one in 50 is less than first_rung (1)"),
    ],
)
def test_words_that_cannot_be(words, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("--dataset", "digits", *words, "--quiet", main=command.main)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
    assert "nowhere holds no search to go on with" in run("--resume", "nowhere", main=command.main)[2]


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
    """The trials that had ended are printed and written, and the search can go on."""
    shown = command.SearchProgress.trial

    def interrupted(*arguments):
        shown(*arguments)
        signal.raise_signal(stop)

    words = (
        "--dataset",
        "digits",
        "--epochs",
        "2",
        "--hidden",
        "9",
        "5 5",
        "--lr",
        "0.01",
        "--json",
        "--out",
        tmp_path,
    )
    with monkeypatch.context() as patch:
        patch.setattr(command.SearchProgress, "trial", interrupted)
        found, out, err = run(*words, "--method", "grid", main=command.main)
    assert found == code
    assert len(json.loads(out)["trials"]) == 1
    assert err.splitlines()[-1] == f"interrupted: 1 of 2 networks were trained; go on with --resume {tmp_path}"
    assert MLP.load(tmp_path / "best.safetensors").network.layers
    found, out, err = run("--resume", tmp_path, "--json", main=command.main)
    assert found == 0, err
    assert len(json.loads(out)["trials"]) == 2


def test_a_search_takes_the_rest_from_a_file(run, tmp_path):
    """What the file says is not searched over, unless values are given."""
    (tmp_path / "c.toml").write_text(
        'dataset = "digits"\nhidden = [7, 7]\ndropout = 0.4\nsteps = 9\n', encoding="utf-8"
    )
    code, out, err = run("--config", tmp_path / "c.toml", "--trials", "2", "--json", main=command.main)
    assert code == 0, err
    result = json.loads(out)
    assert "hidden" not in result["best"] and "--hidden 7 7" in result["command"]
    assert len({trial["lr"] for trial in result["trials"]}) == 2


def test_the_lab_lists_and_refuses(run, tmp_path):
    code, out, _ = run()
    assert code == 0
    for name in lab.EXPERIMENTS | lab.TOOLS:
        assert name in out
        assert run(name, "--help")[0] == 0
    for words, message in (
        (("serch",), "unknown name 'serch': did you mean 'search'?"),
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
