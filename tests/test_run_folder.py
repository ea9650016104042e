"""The folder of a run: locked, whole at each moment, and on disks that are full, without locks, or moved away."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from command_line import DIGITS, PLOTS, SHORT

from xpnet import MLP, Config, DataError, get_device, load_digits
from xpnet.commands import train
from xpnet.core import files
from xpnet.core.files import Lock, write_atomically
from xpnet.training import run_folder
from xpnet.training.checkpoint import Checkpoint
from xpnet.training.run_folder import FILES, RunFolder

pytestmark = pytest.mark.usefixtures("no_downloads")

START = (Config(), get_device("cpu"), 1, load_digits())
RUN = (*DIGITS, "--hidden", 8, "--epochs", 6, "--checkpoint-every", "1epoch", "--quiet")


def contents(folder):
    """What a process would find that looks now: the bytes of each file by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def at_each_line(work, folder):
    """Do some work, and return what was in the folder before each line that writes files: what a kill would leave."""
    found, before = [], sys.gettrace()

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in (files.__file__, run_folder.__file__):
            return None
        found.append(contents(folder))
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return found


# Killed at any moment


def test_a_run_that_is_killed_at_its_start(tmp_path):
    """Its config.json is whole or absent, and never beside another run's model."""
    folder = tmp_path / "run"

    def start():
        with RunFolder(folder, overwrite=True) as run:
            run.start(*START)

    first = at_each_line(start, folder)
    assert len(first) > 30
    old = contents(folder)
    assert list(old) == ["config.json"]
    assert all(state.get("config.json", old["config.json"]) == old["config.json"] for state in first)
    for name in FILES:
        (folder / name).write_text(f"old {name}")
    (folder / ".xpnet-1234.tmp").touch()
    second = at_each_line(start, folder)
    for state in second:
        written = state["config.json"] != b"old config.json"
        assert state["config.json"] in (b"old config.json", old["config.json"])
        assert not (written and state.keys() & set(FILES[1:]))
    assert second[0].keys() >= set(FILES)
    assert contents(folder) == old, "temporary files and the lock are gone"


def test_a_resumed_run_that_is_killed(tmp_path):
    folder = tmp_path / "run"
    with RunFolder(folder) as run:
        run.start(*START)
    lengths = set()

    def resume():
        with RunFolder(folder, resume=True) as run:
            run.check_data(START[-1])
            run.go_on(Config(epochs=9), [{"epoch": 1}])

    for state in at_each_line(resume, folder):
        lengths.add(json.loads(state["config.json"])["options"]["epochs"])
    assert lengths == {None, 9}


@pytest.mark.parametrize("links", [True, False])
def test_there_is_a_file_at_each_moment(links, tmp_path, monkeypatch):
    path, previous = tmp_path / "a", tmp_path / "b"
    if not links:
        monkeypatch.setattr(os, "link", lambda *given, **named: (_ for _ in ()).throw(PermissionError(1, "no links")))
    for content in ("0", "1"):
        write_atomically(path, content, previous=previous)
    states = at_each_line(lambda: write_atomically(path, "2", previous=previous), tmp_path)
    assert (path.read_text(), previous.read_text()) == ("2", "1")
    assert all("a" in state for state in states) or not links
    assert all(state.get("a", state.get("b")) in (b"1", b"2") for state in states)


def test_a_run_that_is_killed_at_its_end(tmp_path):
    """Its result.json is whole or absent, and an old one is gone before anything else changes."""
    folder = tmp_path / "run"
    with RunFolder(folder) as run:
        run.start(*START)
        states = at_each_line(lambda: run.write_result({"test_loss": math.inf, "per_seed": [{"seed": 0}]}), folder)
        whole = contents(folder)["result.json"]
        assert json.loads(whole) == {"test_loss": None, "per_seed": [{"seed": 0}]}
        assert {state.get("result.json") for state in states} == {None, whole}

        def go_on():
            run.check_data(START[-1])
            run.go_on(Config(epochs=9), [{"epoch": 1}])

        for state in at_each_line(go_on, folder):
            assert "result.json" not in state or "history.jsonl" not in state


def test_the_result_is_what_json_prints(run, tmp_path):
    """Strict JSON, of the same keys and values, and more than the history holds."""
    folder = tmp_path / "run"
    code, out, _ = run(train, *RUN, "--validation", 0.2, "--early-stop", 3, "--json", "--out", folder, "--seed", 2)

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    result = json.loads((folder / "result.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert (code, json.loads(out)) == (0, result)
    config = json.loads((folder / "config.json").read_text())
    for name in ("versions", "machine", "device", "ranks"):
        assert result[name] == config[name]
    assert (result["threads"], result["seed"]) == (config["options"]["threads"], 2)
    best = json.loads((folder / "history.jsonl").read_text().splitlines()[result["best_epoch"] - 1])
    assert {name: result[name] for name in best if name.endswith(("_loss", "_accuracy"))} == {
        name: value for name, value in best.items() if name.endswith(("_loss", "_accuracy"))
    }
    ended = datetime.fromisoformat(result["ended"])
    assert 0.0 <= (datetime.now(UTC) - ended).total_seconds() < 60.0
    assert result["seconds"] < result["total_seconds"]


# Two runs, and locks


def test_a_folder_is_locked_before_any_work(run, tmp_path):
    """A run that waits for its data, with --overwrite, would delete what another had finished in the meantime."""
    folder = tmp_path / "run"
    with RunFolder(folder, overwrite=True):
        for options in ((), ("--overwrite",)):
            code, out, err = run(train, *SHORT, "--out", folder, *options)
            assert (code, out, err) == (2, "", f"error: {folder} is being written by another run\n")
    assert run(train, *SHORT, "--out", folder)[0] == 0
    with pytest.raises(DataError, match="already holds a run"), RunFolder(folder):
        pass
    assert not list(folder.glob(".xpnet-*")), "a folder that was refused is not left locked"


def test_a_lock_whose_holder_removes_it(tmp_path, monkeypatch):
    """Who opened the file before would lock one that nobody else can open."""
    path, taken = tmp_path / "lock", []

    def after_a_removal(file, take=files._try_locking):
        if not taken:
            path.unlink()
        taken.append(file)
        return take(file)

    monkeypatch.setattr(files, "_try_locking", after_a_removal)
    one = Lock(path)
    assert len(taken) == 2
    with pytest.raises(BlockingIOError):
        Lock(path)
    one.release()
    assert not path.exists()


def test_a_lock_ends_with_its_process(tmp_path):
    code = "import os, sys; from xpnet.core.files import Lock; lock = Lock(Path(sys.argv[1])); os._exit(0)"
    subprocess.run([sys.executable, "-c", f"from pathlib import Path; {code}", tmp_path / "lock"], check=True)
    assert (tmp_path / "lock").exists()
    Lock(tmp_path / "lock").release()
    assert not (tmp_path / "lock").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX's")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks(number, run, tmp_path, monkeypatch):
    def fail(*given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fail)
    code, _, err = run(train, *SHORT, "--quiet", "--out", tmp_path / "run")
    said = f"{tmp_path / 'run'} cannot be locked on its file system: a second run there would not be refused\n"
    assert (code, err) == (0, said)
    assert (tmp_path / "run" / "model.safetensors").exists()


# Full disks


class FullDisk:
    """A file system of 4 MB that can be filled."""

    def __init__(self, path):
        self.path = path

    def fill(self):
        with (self.path / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def make_room(self):
        (self.path / "filler").unlink(missing_ok=True)


class FileLimit:
    """A limit on the size of files in this process, below which nothing can be written."""

    def __init__(self, path):
        import resource

        self.path, self.resource = path, resource
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self):
        self.resource.setrlimit(self.resource.RLIMIT_FSIZE, (0, self.before[1]))

    def make_room(self):
        self.resource.setrlimit(self.resource.RLIMIT_FSIZE, self.before)


@pytest.fixture(params=["disk", "limit"])
def disk(request, tmp_path):
    if sys.platform == "win32":
        pytest.skip("mount and RLIMIT_FSIZE are POSIX's")
    path = tmp_path / "disk"
    path.mkdir()
    if request.param == "limit":
        one = FileLimit(path)
        yield one
        one.make_room()
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "xpnet-test", str(path)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    yield FullDisk(path)
    subprocess.run(["umount", str(path)], check=True)


def full_before(disk, monkeypatch, owner, name, calls=1):
    """Let the disk be full before a function is called for the `calls`th time, until there is room again."""
    function, counted = getattr(owner, name), []

    def call(*given, **named):
        counted.append(name)
        if len(counted) == calls:
            disk.fill()
        return function(*given, **named)

    monkeypatch.setattr(owner, name, call)


def test_a_disk_that_is_full_at_the_start(disk, run, monkeypatch):
    """Nothing is left that would be taken for a run, and an old run stays as it was."""
    folder, old = disk.path / "run", disk.path / "old"
    assert run(train, *SHORT, "--quiet", "--out", old)[0] == 0
    before = contents(old)
    disk.fill()
    for options in (("--out", folder), ("--out", old, "--overwrite"), ("--resume", old)):
        code, out, err = run(train, *(SHORT if "--out" in options else ()), "--quiet", *options)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"error: {options[1]}: ")
    assert (contents(folder), contents(old)) == ({}, before)
    monkeypatch.setattr(run_folder, "try_writing", lambda folder: None)
    code, out, err = run(train, *SHORT, "--quiet", "--out", folder)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {folder / 'config.json'}: ")
    assert contents(folder) == {}
    disk.make_room()
    assert run(train, *SHORT, "--quiet", "--out", folder)[0] == 0


MOMENTS = {
    "a checkpoint": (Checkpoint, "write", 3, ["checkpoint.safetensors"]),
    "the last checkpoint": (Checkpoint, "write", 6, ["checkpoint.safetensors"]),
    "the history": (RunFolder, "add", 3, ["history.jsonl", "checkpoint.safetensors"]),
    "the model": (RunFolder, "finish", 1, ["model.safetensors"]),
    "the curves": ("xpnet.plots", "draw_curves", 1, ["curves.png"]),
    "the result": (RunFolder, "write_result", 1, ["result.json"]),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_fills_up(moment, disk, run, tmp_path, monkeypatch):
    """The last checkpoint stays, and once there is room, the model is that of a run that nothing happened to."""
    owner, name, calls, named = MOMENTS[moment]
    if isinstance(owner, str):
        owner = pytest.importorskip(owner)
    folder = disk.path / "run"
    assert run(train, *RUN, "--out", tmp_path / "whole")[0] == 0
    with monkeypatch.context() as patch:
        full_before(disk, patch, owner, name, calls)
        code, out, err = run(train, *RUN, "--out", folder)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(tuple(f"error: {folder / one}: " for one in named))
    assert (f"go on with --resume {folder}" in err) == (name in ("write", "add"))
    assert not list(folder.glob(".xpnet-*"))
    assert (folder / "model.safetensors").exists() == (moment in ("the curves", "the result"))
    disk.make_room()
    code, _, err = run(train, "--resume", folder)
    last = calls - 1 if name in ("write", "add") else 6
    said = f"going on after step {12 * last}," if last < 6 else f"has ended, after step {12 * last}"
    assert (code, said in err) == (0, True)
    whole, resumed = contents(tmp_path / "whole"), contents(folder)
    assert resumed["model.safetensors"] == whole["model.safetensors"]
    assert ("curves.png" in resumed) == PLOTS
    assert json.loads(resumed["result.json"])["epochs"] == 6
    assert len(resumed["history.jsonl"].splitlines()) == 6


# A folder that is moved away


def moved_at(epoch, monkeypatch, move):
    """Call `move` after an epoch."""
    add = RunFolder.add

    def add_and_move(self, row):
        add(self, row)
        if row["epoch"] == epoch:
            move()

    monkeypatch.setattr(RunFolder, "add", add_and_move)


def test_a_folder_that_is_moved_away(run, tmp_path, monkeypatch):
    """The model is where it was to be, and what was moved can be resumed."""
    folder, other = tmp_path / "there" / "run", tmp_path / "elsewhere"
    with monkeypatch.context() as patch:
        moved_at(3, patch, lambda: folder.parent.rename(other))
        code, out, err = run(train, *RUN, "--out", folder)
    model = folder / "model.safetensors"
    said = (
        f"error: {folder / 'checkpoint.safetensors'}: No such file or directory; {model} holds the model as after epoch"
    )
    assert (code, out, err) == (1, "", f"{said} 3\n")
    MLP.load(model)
    assert run(train, "--resume", other / "run")[0] == 0
    assert run(train, *RUN, "--out", tmp_path / "whole")[0] == 0
    assert (other / "run" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_a_folder_whose_place_is_taken(run, tmp_path, monkeypatch):
    folder = tmp_path / "there" / "run"

    def move():
        folder.parent.rename(tmp_path / "elsewhere")
        folder.parent.write_text("a file")

    moved_at(3, monkeypatch, move)
    code, out, err = run(train, *RUN, "--out", folder)
    checkpoint = folder / "checkpoint.safetensors"
    assert (code, out, err) == (
        1,
        "",
        f"error: {checkpoint}: Not a directory; nor can {folder / 'model.safetensors'} be written\n",
    )
