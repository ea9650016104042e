"""The options of a run: checked one by one, and read from TOML and config.json."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading

import pytest
from limits import limited

from xpnet import Config
from xpnet.training.config import default_threads, read_options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0}, "lr must be finite and above 0, not 0.0"),
        ({"lr": -1.0}, "lr"),
        ({"lr": float("inf")}, "lr.*inf"),
        ({"lr": float("nan")}, "lr.*nan"),
        ({"lr": "0.1"}, "lr must be a number, not '0.1'"),
        ({"lr": True}, "lr must be a number, not True"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"epochs": 1.5}, "epochs must be a whole number, not 1.5"),
        ({"steps": -3}, "steps"),
        ({"epochs": 1, "steps": 1}, "epochs.*steps.*cannot both"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": None}, "batch_size must be a whole number, not None"),
        ({"threads": 0}, "threads"),
        ({"hidden": [100, 0]}, "hidden.*not 0"),
        ({"hidden": [1.5]}, "hidden must be a list of whole numbers"),
        ({"hidden": "100"}, "hidden must be a list"),
        ({"hidden": [True]}, "hidden"),
        ({"weight_decay": -1e-9}, "weight_decay"),
        ({"activation": "rellu"}, "unknown activation 'rellu': did you mean 'relu'"),
        ({"optimizer": "adan"}, "did you mean 'adam'"),
        ({"dataset": "minst"}, "did you mean 'mnist'"),
        ({"dtype": "float16"}, "dtype"),
        ({"dtype": ",float64"}, "dtype must be float32 or float64, not ',float64'"),
        ({"init": [3]}, r"init must be a string or a number, not \[3\]"),
        ({"init": "hee"}, "unknown initializer 'hee': did you mean 'he'"),
        ({"init": 0}, "init must be finite and above 0 and below 1e.30, not 0.0"),
        ({"activation": ["relu", "tanh"]}, "activation has 2 names, and there are 4 hidden layers"),
        ({"activation": [3]}, "activation must be a name, or a list of names"),
        ({"batch_norm": 1}, "batch_norm must be true or false, not 1"),
        ({"dropout": 1.0}, "dropout must be finite and at least 0 and below 1, not 1.0"),
        ({"momentum": 0.5}, "momentum .0.5. goes with the optimizers momentum and nesterov"),
        ({"momentum": 1.0, "optimizer": "momentum"}, "momentum"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"l1": -1}, "l1"),
        ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N, not 'gpu'"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": "0"}, "seed"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        Config(**options)
    assert "\n" not in str(caught.value)


def test_length_of_a_run():
    assert Config().total_steps(469) == 5 * 469
    assert Config().total_steps(12) == 167 * 12, "as many epochs as make 2,000 steps"
    assert Config(epochs=2).total_steps(12) == 24
    assert Config(steps=7).total_steps(12) == 7
    assert Config().total_steps(1) == 2000


def test_toml(tmp_path):
    path = tmp_path / "설정.toml"
    path.write_text('hidden = [5, 6]\nbatch-size = 7\nlr = 1\noptimizer = "sgd"\n', encoding="utf-8")
    assert Config(**read_options(path)) == Config(hidden=(5, 6), batch_size=7, lr=1.0, optimizer="sgd")


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_text_of_windows(tmp_path, encoding, ends):
    """Notepad and PowerShell write a byte-order mark; so do the two that name an order of bytes here."""
    mark = "\ufeff" if encoding.startswith("utf-16-") else ""
    for name, text in (
        ("a.toml", 'dataset = "자료/a.npz"\nlr = 1'),
        ("CONFIG.JSON", '{"options":\n{"dataset": "자료/a.npz", "lr": 1}}'),
    ):
        (tmp_path / name).write_bytes((mark + text.replace("\n", ends)).encode(encoding))
        assert read_options(tmp_path / name) == {"dataset": "자료/a.npz", "lr": 1}


def test_text_in_another_encoding_is_said_to_be_so(tmp_path):
    (tmp_path / "a.toml").write_bytes('dataset = "자료"'.encode("cp949"))
    with pytest.raises(ValueError, match="a.toml is no TOML: it is no text in UTF-8 or UTF-16 .*; save it as UTF-8"):
        read_options(tmp_path / "a.toml")


def test_config_json_of_a_run(tmp_path):
    path = tmp_path / "config.json"
    config = Config(hidden=(5, 6), activation=("relu", "tanh"), init=0.1, batch_norm=True, steps=3, lr=0.5)
    path.write_text(json.dumps({"options": config.as_dict(), "device": "cpu"}), encoding="utf-8")
    assert Config(**read_options(path)) == config


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "learning_rate = 1", "unknown option 'learning_rate'"),
        ("a.toml", "epoch = 1", "unknown option 'epoch': did you mean 'epochs'"),
        ("a.toml", "lr = ", "is no TOML"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "[]", "not the config.json of a run"),
        ("a.json", '{"lr": 1}', "not the config.json of a run"),
        ("a.json", "[" * 100000, "is no JSON"),
        ("a.toml", b"\xff\xfe\0", "is no TOML"),
        ("a.toml", "a." * 101 + "a = 1", "is no TOML: it has a line of more than 100 dots"),
        ("a.toml", "x" * 5000 + " = 1", r"unknown option 'x{76}\.\.\.:"),
        ("a.toml", f"[{'x' * 5000}]\n" * 2, r"is no TOML: .{997}\.\.\.$"),
        ("a.toml", b"\n" * 2**20 + b"x", "is no TOML: it is longer than 1048576 bytes"),
        ("none.toml", None, "cannot be read: No such file"),
    ],
)
def test_bad_files(tmp_path, name, text, words):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=words) as caught:
        read_options(path)
    assert str(path) in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_a_pipe(tmp_path, monkeypatch):
    """As of `--config <(command)`; one that nobody writes into is given up on, and one without end is cut off."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr("xpnet.training.config.PATIENCE", 0.1)
    with limited(), pytest.raises(ValueError, match="pipe cannot be read: nothing was written into it for 0.1 seconds"):
        read_options(pipe)
    monkeypatch.setattr("xpnet.training.config.PATIENCE", 5)
    for text, found in (("lr = 1", {"lr": 1}), (" " * 2**21, "it is longer than 1048576 bytes")):
        with subprocess.Popen(["sh", "-c", 'sleep 0.1; cat >"$0"', pipe], stdin=subprocess.PIPE, text=True) as writer:
            feeder = threading.Thread(target=feed, args=(writer, text))
            feeder.start()
            if isinstance(found, dict):
                assert read_options(pipe) == found
            else:
                with pytest.raises(ValueError, match=found):
                    read_options(pipe)
            feeder.join()
    (tmp_path / "a.toml").symlink_to("/dev/zero")
    with limited(), pytest.raises(ValueError, match="it is longer than 1048576 bytes"):
        read_options(tmp_path / "a.toml")


def feed(process, text):
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr = 'fast'", "lr must be a number, not 'fast'"),
        ("batch-size = 2.5", "batch_size must be a whole number, not 2.5"),
        ("hidden = 'wide'", "hidden must be a list of whole numbers, not 'wide'"),
        ("compile = 1", "compile must be true or false, not 1"),
    ],
)
def test_wrong_types_in_a_file_are_told_with_its_name(tmp_path, text, words):
    path = tmp_path / "a.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TypeError, match=words) as caught:
        read_options(path)
    assert str(path) in str(caught.value)


def test_default_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert default_threads([784, 512, 10], 128, compiled=False) == 8
    assert default_threads([784, 100, 100, 10], 128, compiled=False) == 1, "small products gain nothing from threads"
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert default_threads([784, 2048, 10], 1024, compiled=False) == 1


def test_precision():
    assert Config(precision="fp64").dtype == "float64"
    assert Config(precision="tf32").dtype == "float32"
    with pytest.raises(ValueError, match="precision bf16 is of float32, and dtype is float64"):
        Config(precision="bf16", dtype="float64")
    with pytest.raises(ValueError, match="unknown precision 'fp16': did you mean"):
        Config(precision="fp16")
