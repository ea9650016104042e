"""Machines that lack a home folder, threads, memory, processors or writable folders; and signals at the start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import takewhile
from pathlib import Path

import pytest
from command_line import DIGITS, SHORT

import xpnet
from xpnet import MLP
from xpnet.commands import doctor, train
from xpnet.compile import why_not_compiled
from xpnet.compile.llvm.cache import CodeCache, user_folder
from xpnet.core.files import user_cache
from xpnet.data import mnist

posix = pytest.mark.skipif(sys.platform == "win32", reason="users, limits and signals of POSIX")
LARGE = (*DIGITS, "--hidden", 600, 600, "--steps", 60, "--quiet")
NOBODY = 4711  # a user with no entry in the list of users


def python_path(*first):
    """Where Python looks for modules: where this process found xpnet, in any folder that a test runs in."""
    given = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    return os.pathsep.join((*map(str, first), str(Path(xpnet.__file__).parents[1]), *given))


def above(tmp_path):
    """The folders around a test's own that pytest has made: one more with several processes."""
    return list(takewhile(lambda path: path.name.startswith(("pytest-", "popen-")), tmp_path.parents))


def process(code, *arguments, **options):
    """Run code, with arguments, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "XPNET_DATA_DIR"}
    environment |= {"PYTHONPATH": python_path()} | options.pop("env", {})
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        **options,
    )


RUN = "import sys; from xpnet import train; sys.exit(train.main(sys.argv[1:]))"


# Users without a home folder, or with few rights

NO_HOME = """
import os, sys
os.environ.pop("HOME", None)
try:
    import pwd
except ImportError:
    pass
else:
    def unknown(number):
        raise KeyError(number)
    pwd.getpwuid = unknown
"""


@posix
def test_no_home_folder_and_no_user_of_that_number(tmp_path):
    """Data are not looked for in a cache, code is compiled, and nothing is written into a folder named ~."""
    without = {"XDG_CACHE_HOME": None, "MPLCONFIGDIR": None}
    words = ("--steps", 2000, "--json", "--quiet", "--out", tmp_path / "run")
    done = process(NO_HOME + RUN, *words, env=without, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        0,
        "there is no folder for downloads, since there is no home folder; set HOME or XDG_CACHE_HOME;"
        " training on the bundled 8x8 digits instead\n",
    )
    assert json.loads(done.stdout)["compiled"] == (why_not_compiled() or True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    done = process(NO_HOME + "from xpnet import doctor; sys.exit(doctor.main(['--json']))", env=without)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no home folder" in report["data"]["found"]
    if why_not_compiled() is None:
        assert report["compiler"]["advice"] == "compiled code is not kept for the next run: there is no home folder"


@pytest.mark.parametrize("found", [RuntimeError("no home"), Path("~/.cache/xpnet")])
def test_no_cache_folder(found, monkeypatch):
    """Versions of platformdirs differ in what they say of it."""

    def cache(name):
        if isinstance(found, Path):
            return found
        raise found

    monkeypatch.setattr("platformdirs.user_cache_path", cache)
    with pytest.raises(FileNotFoundError, match="there is no home folder; set HOME or XDG_CACHE_HOME"):
        user_cache()
    assert user_folder() is None


@posix
def test_doctor_says_why_compiled_code_is_not_kept(run, tmp_path, monkeypatch):
    if why_not_compiled() is not None:
        pytest.skip("needs LLVM")
    (tmp_path / "file").touch()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(shared, NOBODY, -1)
    else:
        another = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: another)
    for folder, reason in (
        (None, "there is no home folder"),
        (tmp_path / "file" / "code", f"{tmp_path / 'file' / 'code'}: Not a directory"),
        (shared, f"{shared}: others may write it, or it is theirs"),
        (tmp_path / "own", None),
    ):
        if folder == tmp_path / "own":
            monkeypatch.undo()
        cache = CodeCache(folder)
        monkeypatch.setattr(doctor, "compiler", lambda cache=cache: type("Compiler", (), {"cache": cache}))
        advice = json.loads(run(doctor, "--json")[1])["compiler"]["advice"]
        assert advice == (reason and f"compiled code is not kept for the next run: {reason}")


DROP = f"""
import contextlib, encodings.utf_8_sig, io, os, sys
from xpnet import train
with contextlib.redirect_stdout(io.StringIO()):  # what is imported late could not be read
    train.main(["--dataset", "digits", "--hidden", "600", "600", "--steps", "40", "--threads", "1", "--quiet"])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""


@posix
def test_a_folder_that_may_only_be_read(tmp_path):
    """By another user, where this one may write everywhere."""
    old, new = tmp_path / "old", tmp_path / "new"
    new.mkdir()
    assert process(RUN, *SHORT, "--quiet", "--out", old).returncode == 0
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    for path in (tmp_path, old, new, *old.iterdir()):
        path.chmod(0o555)
    for path in above(tmp_path):
        path.chmod(0o755)
    try:
        for options in (("--out", new / "run"), ("--out", old, "--overwrite"), ("--resume", old)):
            words = (*(SHORT if "--out" in options else ()), "--quiet", *options)
            done = process(f"{DROP}\nsys.exit(train.main(sys.argv[1:]))", *words)
            said = f"error: {options[1]} cannot be written: Permission denied\n"
            assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    finally:
        for path in (*above(tmp_path), tmp_path, old, new):
            path.chmod(0o700)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    assert not list(new.iterdir())


@posix
def test_files_that_may_not_be_read(tmp_path):
    """Of data, options, models and runs, and those in a folder that may not be entered."""
    assert process(RUN, *SHORT, "--quiet", "--out", tmp_path / "run").returncode == 0
    closed = tmp_path / "closed"
    closed.mkdir()
    for name in ("a.npz", "a.toml", "m"):
        (tmp_path / name).touch()
        (closed / name).touch()
    shutil.copytree(tmp_path / "run", closed / "run")
    secret = [*(tmp_path / name for name in ("a.npz", "a.toml", "m")), *(tmp_path / "run").iterdir(), closed]
    for path in secret:
        path.chmod(0)
    for path in (tmp_path, *above(tmp_path)):
        path.chmod(0o755)
    code = f"""
{DROP}
import json
from xpnet import predict
for command, *words in json.loads(sys.argv[1]):
    try:
        code = {{"train": train, "predict": predict}}[command].main(words)
    except SystemExit as error:
        code = error.code
    print(code, file=sys.stderr)
"""
    names = ("a.npz", "a.toml", "run", "m", "m")
    commands = []
    for folder in (tmp_path, closed):
        data, options, run, model, rows = (str(folder / name) for name in names)
        commands += [["train", "--dataset", data], ["train", "--config", options], ["train", "--resume", run]]
        commands += [["predict", model, rows], ["train", "--data-dir", run, "--dataset", "mnist"]]
    commands += [["predict", "none", "none", "--labels", "none", "--mistakes", str(closed / "a.png")]]
    commands += [["train", "--dataset", "digits", "--out", str(closed / "new")]]
    try:
        done = process(code, json.dumps(commands))
    finally:
        for path in (*secret, *above(tmp_path)):
            path.chmod(0o700)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (0, "", 2 * len(commands)), done.stderr
    for command, line, status in zip(commands, lines[::2], lines[1::2], strict=True):
        assert (status, "error: " in line) == ("2", True), (command, line, status)
        assert any(word in line for word in command if word.startswith("/")), (command, line)


# Processors, threads, memory and clocks


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinities of Linux")
def test_one_processor_of_several(tmp_path):
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); {RUN}"
    done = process(code, *LARGE, "--out", tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["threads"] == 1
    assert process(RUN, *LARGE, "--threads", 1, "--out", tmp_path / "other").returncode == 0
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "other")]
    assert models[0] == models[1]


@posix
@pytest.mark.parametrize("options", [(), ("--no-compile",)], ids=["compiled", "eager"])
def test_threads_that_cannot_be_started(options):
    """A limit on a user's processes, which does not hold for root; the BLAS has had one thread until then."""
    code = f"""
import resource, threading
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
{DROP}
try:
    threading.Thread(target=print).start()
except RuntimeError:
    sys.exit(train.main(sys.argv[1:]))
"""
    done = process(code, *LARGE, "--threads", 2, "--json", *options, env={"OPENBLAS_NUM_THREADS": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["steps"] == 60
    assert options or result["compiled"] == (why_not_compiled() or True)


def test_mirrors_that_no_thread_can_ask(monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    assert mnist._probe(("http://one/", "http://two/")) == dict.fromkeys(
        ("http://one/", "http://two/"), "can't start new thread"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_little_memory(tmp_path):
    """The network fits, and what its training needs does not."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from limits import limited
from xpnet import train
with limited(memory=2**26, seconds=60):
    sys.exit(train.main(sys.argv[1:]))
"""
    done = process(code, *DIGITS, "--hidden", 1000, 1000, 1000, "--quiet", "--out", tmp_path / "run")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: out of memory")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_clock_that_goes_backwards(run, tmp_path, monkeypatch):
    now = iter(range(10**6, 0, -1))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    code, out, err = run(train, *SHORT, "--json", "--quiet", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert json.loads(out)["seconds"] > 0


def test_a_thread_that_is_not_the_main_one(tmp_path, capsys):
    """Where no handler of signals can be set."""
    codes, folder = [], tmp_path / "run"
    words = ([*SHORT, "--out", str(folder)], ["--resume", str(folder), "--steps", "40"], [*SHORT, "--out", str(folder)])
    for arguments in words:
        thread = threading.Thread(target=lambda given=arguments: codes.append(train.main([*given, "--quiet"])))
        thread.start()
        thread.join()
    assert codes == [0, 0, 2]
    assert capsys.readouterr().err.endswith("already holds a run; choose another folder, or give --overwrite\n")
    MLP.load(folder / "model.safetensors")


# Signals while a command starts

SENDER = """
import os, signal, sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name == os.environ["TEST_MODULE"]:
            os.kill(os.getpid(), int(os.environ["TEST_SIGNAL"]))

sys.meta_path.insert(0, Finder)
"""
COMMANDS = {
    "xpnet.train": (),
    "xpnet.predict": (),
    "xpnet.export": (),
    "xpnet.draw": (),
    "xpnet.doctor": (),
    "xpnet": ("train",),
    "xpnet.lab": ("rates",),
}


@posix
@pytest.mark.parametrize("module", ["numpy", "numpy._core.multiarray", "xpnet.training", "xpnet.commands.cli"])
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_during_imports(command, module, tmp_path):
    done = start(tmp_path, ["-m", command, *COMMANDS[command]], module, signal.SIGINT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def start(tmp_path, words, module, number):
    """Start Python, with a signal while it imports a module."""
    environment = {
        "PYTHONPATH": python_path(tmp_path),
        "TEST_MODULE": module,
        "TEST_SIGNAL": str(int(number)),
    }
    (tmp_path / "sitecustomize.py").write_text(SENDER)
    return subprocess.run(
        [sys.executable, *words], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


@posix
def test_other_signals_during_imports(tmp_path):
    """They end the process at once, as there is nothing to save; and the script `xpnet` is a command, too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        done = start(tmp_path, ["-m", "xpnet.train"], "xpnet.training", number)
        assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")
    script = tmp_path / "bin" / "xpnet"
    script.parent.mkdir()
    script.write_text("import sys\nfrom xpnet.__main__ import main\nsys.exit(main())")
    done = start(tmp_path, [str(script), "train"], "xpnet.training", signal.SIGINT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@posix
def test_other_programs_keep_their_ctrl_c(tmp_path):
    code = "import signal, xpnet; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    (tmp_path / "program.py").write_text(code)
    for words in (["-c", code], [str(tmp_path / "program.py")], ["-m", "program"]):
        assert start(tmp_path, words, "none", signal.SIGINT).stdout == "True\n"
    done = start(tmp_path, ["-c", "import xpnet"], "xpnet.training", signal.SIGINT)
    assert done.stderr.endswith("KeyboardInterrupt\n")
