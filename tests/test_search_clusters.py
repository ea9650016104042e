"""Searches on Dask, on MPI and with Optuna; workers that are killed, and searches that are."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from xpnet import Config, load_digits
from xpnet.search import search

DOCS = Path(__file__).parents[1] / "docs"
POINTS = [{"lr": lr} for lr in np.geomspace(1e-3, 0.3, 8).tolist()]
BASE = Config(dataset="digits", hidden=(20,), epochs=2, compile=False)
WORDS = ["--dataset", "digits", "--hidden", "20", "15 15", "--epochs", "9", "--method", "grid", "--lr", "1e-3..0.1:12"]
COMMAND = [sys.executable, "-m", "xpnet.search"]


def untimed(trials):
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in trials]


@pytest.fixture(scope="module")
def whole():
    """The table of an undisturbed search, of groups of one."""
    return untimed(search(POINTS, load_digits(), BASE, most=1, threads=1).trials)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_dask_with_a_worker_that_is_killed(whole):
    """In the middle: the table is complete, and that of an undisturbed search."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    killed = []
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        pids = list(client.run(os.getpid).values())

        def kill(trial, results):
            if not killed:
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)

        found = search(POINTS, load_digits(), BASE, most=1, executor=client.get_executor(), workers=2, on_trial=kill)
    assert killed
    assert untimed(found.trials) == whole


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_process_that_is_killed(whole):
    """Of this machine's own: the pool is made anew, and its groups are trained again."""
    import multiprocessing

    killed = []

    def kill(trial, results):
        if not killed:
            killed.extend(multiprocessing.active_children())
            os.kill(killed[0].pid, signal.SIGKILL)

    found = search(POINTS, load_digits(), BASE, most=1, workers=2, on_trial=kill)
    assert killed
    assert untimed(found.trials) == whole


def test_a_cluster_that_is_gone(tmp_path):
    pytest.importorskip("distributed")
    command = [*COMMAND, *WORDS, "--dask", "tcp://127.0.0.1:9", "--out", str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def mpiexec():
    pytest.importorskip("mpi4py")
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return found or pytest.skip("needs an mpiexec")


def test_mpi_finds_the_same():
    """One process runs the search and another trains; errors of the former are one line, and leave none waiting."""
    words = [*WORDS, "--no-compile", "--json", "--quiet"]
    one, other = (
        subprocess.run([*start, *COMMAND, *words], capture_output=True, text=True, timeout=120, check=True)
        for start in ([], [mpiexec(), "-n", "2"])
    )
    assert untimed(json.loads(one.stdout)["trials"]) == untimed(json.loads(other.stdout)["trials"])
    bad = [mpiexec(), "-n", "2", *COMMAND, "--lr", "often"]
    done = subprocess.run(bad, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("python -m xpnet.search: error: 'often' is not a finite number\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("options", [[], ["--halving", "3"]], ids=["full", "halving"])
def test_a_search_that_is_killed(options, tmp_path):
    """At any moment, again and again: no trial that is in the journal is done twice, and the table is the same."""
    words = [*WORDS, "--seeds", "0-3", "--no-compile", *options, "--quiet", "--json", "--out"]
    whole = subprocess.run([*COMMAND, *words, str(tmp_path / "whole")], capture_output=True, text=True, check=True)
    folder, kills = tmp_path / "killed", 0
    journal, before = folder / "trials.jsonl", 0
    command = [*COMMAND, *words, str(folder)]
    for wait in (0.0, 0.02, 0.05):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and lines(journal) <= before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(wait)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        before = lines(journal)
        command = [*COMMAND, "--resume", str(folder), "--quiet", "--json"]
    assert kills
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert untimed(json.loads(done.stdout)["trials"]) == untimed(json.loads(whole.stdout)["trials"])
    numbers = [json.loads(line)["trial"] for line in journal.read_text(encoding="utf-8").splitlines()]
    assert sorted(numbers) == list(range(96))


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_optuna(tmp_path, monkeypatch):
    """The page's example, in under twenty lines: points are asked for together, pruned, and told."""
    pytest.importorskip("optuna")
    text = (DOCS / "searches.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```py\n(import optuna\n.*?)```", text, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) < 20
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(code, namespace)
    study = namespace["study"]
    states = [trial.state.name for trial in study.trials]
    assert len(states) == 32 and set(states) == {"COMPLETE", "PRUNED"}
    assert study.best_value > 0.9
    exec(code, namespace)  # it goes on by its own storage
    assert len(namespace["study"].trials) == 64


def test_a_search_in_a_thread(whole):
    """Which has no signal handlers."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(search(POINTS, load_digits(), BASE, most=1, threads=1)), daemon=True
    )
    thread.start()
    thread.join(60)
    assert untimed(found[0].trials) == whole
