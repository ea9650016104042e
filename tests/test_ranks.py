"""Data-parallel training over MPI: several ranks train as one process does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ranks import CASES, single_steps, train

from xpnet import MLP, Trainer
from xpnet.training.ranks import Ranks

TRAIN = [sys.executable, "-m", "xpnet.train", "--dataset", "digits"]
TOLERANCE = 1e-10  # of sums in another order, in float64


def mpiexec(ranks):
    pytest.importorskip("mpi4py")
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return [found or pytest.skip("needs an mpiexec"), "-n", str(ranks)]


@pytest.fixture(scope="module", params=[2, 3])
def on_ranks(request, tmp_path_factory):
    """What all ranks found: of `tests/ranks.py`, the results and the errors."""
    file = tmp_path_factory.mktemp("ranks") / "found.json"
    command = [*mpiexec(request.param), sys.executable, "-m", "mpi4py", str(Path(__file__).with_name("ranks.py"))]
    subprocess.run([*command, str(file)], timeout=240, check=True)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert len(found["results"]) == request.param
    return found


@pytest.mark.parametrize("name", CASES)
def test_ranks_train_as_one_process(on_ranks, name):
    """Losses, metrics, best epoch and weights, on every rank; nothing but the order of sums differs."""
    alone = train(CASES[name])
    for result in on_ranks["results"]:
        found = result[name]
        assert found["best_epoch"] == alone["best_epoch"]
        assert found["compiled"] == alone["compiled"]
        assert len(found["history"]) == len(alone["history"])
        for ours, theirs in zip(found["history"], alone["history"], strict=True):
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                np.testing.assert_allclose(ours[key], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=key)
        for key in ("evaluated", "weights"):
            np.testing.assert_allclose(found[key], alone[key], rtol=TOLERANCE, atol=TOLERANCE, err_msg=key)
        assert found["weights"] == on_ranks["results"][0][name]["weights"]  # the same bytes


def test_losses_of_single_steps(on_ranks):
    alone = single_steps()
    assert len(alone) == 50
    for result in on_ranks["results"]:
        np.testing.assert_allclose(result["single steps"], alone, rtol=TOLERANCE, atol=TOLERANCE)


def test_ranks_stay_together(on_ranks):
    """A rate that is halved is halved on all."""
    first, *others = [result["halved"] for result in on_ranks["results"]]
    assert first[0] == 1
    assert 0.0 < first[1] < 1.0
    assert all(other == first for other in others)


def test_an_error_on_one_rank_ends_all(on_ranks):
    """With words that name the rank; none is left waiting, and rank 0 has written its checkpoint before any leaves."""
    *others, last = on_ranks["errors"]
    number = len(others)
    wide = "x has 63 features in a row, and 64 are wanted"
    expected = {
        "rows": ("ValueError", wide, 0),
        "on_epoch": ("OSError", "no room", 2),
        "on_stop": ("OSError", "no room", 3),
        "on_end": ("OSError", "no room", 3),
        "checkpoint": ("OSError", "no room", 2),
        "validation": ("TypeError", "validation must be a pair of rows and targets", 0),
        "evaluate": ("ValueError", wide, 0),
    }
    for name, (kind, text, epoch) in expected.items():
        assert last[name][0] == kind, name
        assert last[name][1].startswith(text), name
        for other in others:
            assert other[name][0] == "RankError", name
            assert other[name][1].startswith(f"rank {number} ended the training: {kind}: {text}"), name
        assert {error[name][2] for error in on_ranks["errors"]} == {epoch}, name
    assert all(error["checkpoint"][3] for error in on_ranks["errors"])
    for error in on_ranks["errors"]:
        for name, what in (("rates", "optimizer"), ("epochs", "arguments of fit"), ("weights", "arguments of fit")):
            assert error[name][:2] == ["RankError", f"rank {number} trains with other {what} than rank 0"]
        assert error["class weights"][:2] == error["epochs"][:2]
        assert "a callback of some that stops" not in error


def run(ranks, *words, **options):
    start = mpiexec(ranks) if ranks > 1 else []
    options = {"capture_output": True, "text": True, "timeout": 120, "check": False} | options
    return subprocess.run([*start, *TRAIN, *words], **options)


def history(folder):
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def assert_alike(folder, other):
    assert len(history(folder)) == len(history(other))
    for row, same in zip(history(folder), history(other), strict=True):
        assert row == pytest.approx(same, rel=TOLERANCE, abs=TOLERANCE)


OPTIONS = ["--dtype", "float64", "--batch-norm", "--dropout", "0.1", "--hidden", "30", "--validation", "0.2"]


def test_rank_0_alone_watches(tmp_path):
    """The layers' sums over all ranks are no part of it: nobody waits, and the model is the same."""
    words = ("--batch-norm", "--dropout", "0.2", "--hidden", "20", "--epochs", "3")
    for name, option in (("plain", ()), ("run", ("--watch",))):
        assert run(2, *words, *option, "--out", str(tmp_path / name), timeout=120).returncode == 0
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "run")]
    assert models[0] == models[1]
    lines = (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [list(json.loads(line).get("watch", {}))[1:2] for line in (lines[0], lines[2])] == [["1 BatchNorm"]] * 2


def test_the_command_under_mpiexec(tmp_path):
    """The same run; rank 0 alone writes and speaks, and another number of ranks goes on with it."""
    one, two = tmp_path / "one", tmp_path / "two"
    words = [*OPTIONS, "--json", "--early-stop", "9"]
    done = [run(ranks, *words, "--epochs", "6", "--out", str(out)) for ranks, out in ((1, one), (2, two))]
    assert [each.returncode for each in done] == [0, 0], done
    results = [json.loads(each.stdout) for each in done]
    assert [result["ranks"] for result in results] == [1, 2]
    assert results[1]["test_loss"] == pytest.approx(results[0]["test_loss"], rel=TOLERANCE)
    assert len(re.findall(r"^epoch 6/6: ", done[1].stderr, re.MULTILINE)) == 1
    assert json.loads((two / "config.json").read_text(encoding="utf-8"))["ranks"] == 2
    assert_alike(one, two)
    # The checkpoint of two ranks goes on in one process, and that of one on two.
    for ranks, out in ((2, one), (1, two)):
        assert run(ranks, "--resume", str(out), "--epochs", "9", "--quiet").returncode == 0
    assert_alike(one, two)


def test_an_ensemble_under_mpiexec():
    words = ["--ensemble", "3", "--dtype", "float64", "--hidden", "20", "--epochs", "3", "--json", "--quiet"]
    one, two = (json.loads(run(ranks, *words, check=True).stdout) for ranks in (1, 2))
    for name in ("test_loss", "test_accuracy", "members_test_loss"):
        assert two[name] == pytest.approx(one[name], rel=TOLERANCE)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--lr", "often"], 2, "argument --lr: 'often' is not a finite number"),
        (["--dataset", "no.npz"], 2, "no.npz cannot be read"),
        (["--resume", "nowhere"], 2, "nowhere holds no run to go on with"),
        (["--lr", "1e30", "--optimizer", "sgd", "--quiet"], 1, "the training loss became nan in epoch 1"),
    ],
)
def test_errors_of_the_command(words, code, text):
    """One sentence, from one rank."""
    done = run(2, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    assert text in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="finds processes as Linux lists them")
def test_a_rank_that_is_lost(tmp_path):
    """The run ends in words, and its last checkpoint is whole: what is resumed is the run that none has disturbed."""
    lost, whole = tmp_path / "lost", tmp_path / "whole"
    words = [*OPTIONS, "--quiet", "--out"]
    command = [*mpiexec(2), *TRAIN, *words, str(lost), "--epochs", "100000", "--checkpoint-every", "1epoch"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not (lost / "checkpoint-previous.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    ranks = [pid for pid in _children(process.pid) if "xpnet.train" in _words(pid) and "mpiexec" not in _words(pid)]
    assert len(ranks) == 2
    os.kill(max(ranks), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in said
    assert (
        f"a rank was lost, and mpiexec has ended the training; go on with --resume {lost}" in said or "Abort(" in said
    )
    epochs = str(len(history(lost)) + 5)
    for command in (["--resume", str(lost), "--quiet"], [*words, str(whole)]):
        done = run(1, *command, "--epochs", epochs)
        assert done.returncode == 0, done.stderr
    assert_alike(lost, whole)


def _children(parent):
    """Process ids of all that a process has started, directly or not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found += [int(path.parent.name), *_children(int(path.parent.name))]
    return found


def _words(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
    except OSError:
        return []


def test_arguments():
    with pytest.raises(TypeError, match=r"communicator must be one of mpi4py, such as MPI.COMM_WORLD, not 2"):
        Trainer(MLP([4, 3, 2]), communicator=2)


def test_a_communicator_of_one():
    """It is as none: nothing is summed."""
    MPI = pytest.importorskip("mpi4py.MPI")
    assert Trainer(MLP([4, 3, 2]), communicator=MPI.COMM_SELF).ranks is None
    assert Ranks(MPI.COMM_SELF).count == 1
