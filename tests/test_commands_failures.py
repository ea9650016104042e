"""Runs that diverge, are interrupted, or meet a full disk, a lack of memory or a closed pipe."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import DIGITS, PROC, SHORT
from data_files import idx_bytes

import xpnet
from xpnet import MLP, load_digits
from xpnet.commands import cli, predict, train
from xpnet.compile import why_not_compiled
from xpnet.core.interrupts import Terminated

pytestmark = pytest.mark.usefixtures("no_downloads")


def shell(*arguments, **options):
    """Run a command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "XPNET_DATA_DIR"} | options.pop("env", {})
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={name: value for name, value in environment.items() if value is not None},
        timeout=60,
        check=False,
        **options,
    )


def test_a_run_that_diverges(run, tmp_path):
    folder = tmp_path / "run"
    diverging = (*DIGITS, "--optimizer", "sgd", "--lr", "1e20", "--epochs", 3)
    code, out, err = run(train, *diverging, "--quiet")
    assert (code, out) == (1, "")
    assert err.startswith("error: the training loss became")
    assert err.count("\n") == 1
    code, out, err = run(train, *diverging, "--quiet", "--out", folder, "--json")
    assert (code, out) == (1, "")
    assert err.endswith(f"the model is as after epoch 0, and in {folder / 'model.safetensors'}\n")
    assert np.isfinite(MLP.load(folder / "model.safetensors").network.values).all()
    assert json.loads((folder / "history.jsonl").read_text())["train_loss"] is None


def test_a_full_disk(run, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("xpnet.model.model_file.write_atomically", full)
    code, out, err = run(train, *SHORT, "--quiet", "--out", tmp_path / "run")
    assert (code, out) == (1, "")
    assert err == f"error: {tmp_path / 'run' / 'model.safetensors'}: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX's")
def test_a_disk_that_fills_up_during_the_run(tmp_path):
    """The history cannot grow beyond the limit; its rows are whole, and the model of the last epoch is kept."""
    code = (
        "import resource, signal, sys; from xpnet import train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))\n"
        "sys.exit(train.main(sys.argv[1:]))"
    )
    folder = tmp_path / "run"
    arguments = [*DIGITS, "--hidden", "2", "--epochs", "100", "--quiet", "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert 10 < len(rows) < 100
    history, model = folder / "history.jsonl", folder / "model.safetensors"
    kept = f"{model} holds the model as after epoch {len(rows) + 1}"  # the epoch whose row was too much
    assert done.stderr == f"error: {history}: File too large; {kept}\n"
    MLP.load(folder / "model.safetensors")


def test_out_of_memory(run, monkeypatch):
    def full(*args, **kwargs):
        raise MemoryError("Out of memory allocating 9,000 bytes (allocated so far: 5 bytes)")

    monkeypatch.setattr(train, "build_trainer", full)
    code, out, err = run(train, *SHORT, "--quiet")
    assert (code, out) == (1, "")
    assert "allocating 9,000 bytes (allocated so far: 5 bytes)" in err
    assert "try a smaller --batch-size" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("replicas", [None, 3])
def test_a_network_that_does_not_fit_into_memory(run, replicas):
    code, out, err = run(train, *SHORT, "--hidden", 10**10, "--quiet")
    assert (code, out) == (1, "")
    assert err == (
        "error: out of memory: 750000000016 parameters and their gradients take 6e+03 GB;"
        " use fewer units, layers or replicas\n"
    )
    with pytest.raises(MemoryError, match=f"^{750000000016 * (replicas or 1)} parameters"):
        MLP([64, 10**10, 10], replicas=replicas)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_a_pipe_or_a_device_is_not_replaced(run, trained, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="it is no regular file") as caught:
        MLP([2, 2]).save(pipe)
    assert caught.value.filename == str(pipe)
    digits = load_digits()
    np.savez(tmp_path / "x.npz", x=digits.x_test, y=digits.y_test)
    code, _, err = run(predict, trained, tmp_path / "x.npz", "--labels", tmp_path / "x.npz", "--mistakes", pipe)
    assert (code, err.splitlines()[-1]) == (1, f"error: {pipe}: it is no regular file")
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("command", [("train", *SHORT, "--quiet"), ("doctor",), ("lab",)])
def test_a_full_disk_below_the_output(command):
    words = " ".join(("-m", f"xpnet.{command[0]}", *command[1:]))
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} {words} > /dev/full"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")


@pytest.mark.compiles
def test_a_plan_of_weighted_labels(run, tmp_path):
    """Their weights are the loss's, and not those of rows."""
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(120).reshape(60, 2) % 3 % 2
    np.savez(tmp_path / "d.npz", x=x, y=y)
    words = ("--task", "multilabel", "--class-weight", "balanced", "--plan")
    code, out, err = run(train, "--dataset", str(tmp_path / "d.npz"), *words)
    assert (code, err) == (0, "")
    assert "instructions for" in out or why_not_compiled() in out


@pytest.mark.compiles
def test_steps_that_cannot_be_traced_are_told_of(run, untraceable):
    code, out, err = run(train, *DIGITS, "--epochs", "2", "--quiet", "--json")
    reason = "cannot trace the step: this test refuses"
    assert (code, err) == (0, f"steps run eagerly, and slower: {reason}\n")
    assert json.loads(out)["compiled"] == reason
    assert run(train, *SHORT, "--quiet", "--no-compile")[2] == "", "it was asked for"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_run_that_is_interrupted(tmp_path, name, code):
    number = getattr(signal, name)
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "xpnet.train", *DIGITS, "--epochs", "100000", "--out", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    history = folder / "history.jsonl"
    while not history.exists() or history.read_text().count("\n") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    last = err.splitlines()[-1]
    said = re.fullmatch(r"interrupted: the model is as after epoch (\d+), and in (.*); go on with --resume (.*)", last)
    assert said
    assert said.groups()[1:] == (str(folder / "model.safetensors"), str(folder))
    assert "Traceback" not in err
    assert history.read_text().count("\n") == int(said[1])
    MLP.load(folder / "model.safetensors")


def test_in_a_pipe_without_locale_home_or_a_folder_to_write(tmp_path):
    """LC_ALL=C, no HOME, a working directory that cannot be written: a run still prints one line of JSON."""
    done = shell(
        *("xpnet.train", *SHORT, "--json", "--quiet"),
        env={"LC_ALL": "C", "LANG": None, "HOME": None, "PYTHONPATH": str(Path(xpnet.__file__).parents[1])},
        cwd=PROC if PROC.is_dir() else tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["steps"] == 30


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.parametrize("streams", ["2>&1 | head -1", "2>/dev/full", "2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_run_that_nobody_listens_to_is_whole(streams, tmp_path):
    command = f"{sys.executable} -m xpnet.train --dataset digits --epochs 5 --out {tmp_path / 'run'} {streams}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()
    if streams == "2>&-":
        assert done.stdout.startswith("test accuracy")
        assert done.stdout.count("\n") == 1, "progress must not go where results are read"


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
def test_a_reader_that_has_seen_enough(trained, tmp_path):
    (tmp_path / "x").write_bytes(idx_bytes(np.zeros((20000, 64), np.uint8)))
    command = f"{sys.executable} -m xpnet.predict {trained} {tmp_path / 'x'} | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("0\t")
    assert done.stderr == ""


@pytest.mark.parametrize("error", [Terminated(), KeyboardInterrupt()])
def test_exit_codes_of_interruptions(error, capsys):
    def command(arguments):
        raise error

    assert cli.run(command) == (143 if isinstance(error, Terminated) else 130)
    assert capsys.readouterr().err == "interrupted\n"
