"""The commands as people use them: what they print and write, and the one line and exit code for what is wrong."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_data import idx_bytes, write_mnist
from threadpoolctl import threadpool_info

import xpnet
from xpnet import MLP, Config, DataError, __main__, load_digits
from xpnet.commands import cli, doctor, predict, train
from xpnet.compile import why_not_compiled
from xpnet.core import device as device_module
from xpnet.core.interrupts import DeferredInterrupt, Terminated
from xpnet.data import mnist
from xpnet.lab import rates
from xpnet.nn import ACTIVATIONS, INITIALIZERS
from xpnet.optim import OPTIMIZERS, SCHEDULES
from xpnet.training.run_folder import RunFolder

DIGITS = ("--dataset", "digits")
SHORT = (*DIGITS, "--steps", "30")
PLOTS = find_spec("matplotlib") is not None
PROC = Path("/proc")  # a folder that nobody can write


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch, tmp_path):
    """No test looks at a real cache, or reaches for the network."""
    for name, source in mnist.SOURCES.items():
        monkeypatch.setitem(mnist.SOURCES, name, replace(source, mirrors=(), installed=None))
    monkeypatch.setattr("xpnet.data.MNIST", mnist.SOURCES["mnist"])
    monkeypatch.setattr("xpnet.data.mnist.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)


@pytest.fixture
def run(capsys):
    """Run a command in this process; give its exit code, stdout and stderr."""

    def run(module, *arguments):
        capsys.readouterr()
        try:
            code = module.main([str(a) for a in arguments])
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run on the digits."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train.main([*DIGITS, "--steps", "400", "--quiet", "--out", str(folder)]) == 0
    return folder


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


# --- train


def test_the_home_folder_in_every_option(run, monkeypatch, tmp_path):
    """A shell expands ~ at the beginning of a word, not behind --option=, in quotes, or in a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_mnist(tmp_path / "data")
    x = np.tile(np.eye(8, dtype=np.float32).ravel(), (12, 1))
    np.savez("x.npz", x=x, y=np.arange(12) % 2)
    np.savez("wrong.npz", y=[0, 1] * 6)
    (tmp_path / "a.toml").write_text('dataset = "~/x.npz"\nsteps = 2\nhidden = 3\n', encoding="utf-8-sig")
    assert run(train, "--config=~/a.toml", "--out=~/run", "--quiet")[0] == 0
    assert run(train, "--dataset=~/x.npz", "--steps=2", "--quiet")[0] == 0
    for options in (("--data-dir=~/data",), ("--dataset=~/data",)):
        code, out, _ = run(train, *options, "--steps=1", "--json", "--quiet")
        assert (code, json.loads(out)["dataset"] in ("mnist", str(tmp_path / "data"))) == (0, True)
    monkeypatch.setenv("XPNET_DATA_DIR", "~/data")
    assert json.loads(run(train, "--steps=1", "--json", "--quiet")[1])["dataset"] == "mnist"
    assert "MNIST in " + str(tmp_path / "data") in run(doctor)[1]
    assert run(predict, "~/run", "~/x.npz", "--labels=~/wrong.npz", "--mistakes=~/a.png")[0] == 0
    assert run(rates, "--dataset=~/x.npz", "--count=2", "--steps=2", "--hidden=3", "--out=~/rates", "--quiet")[0] == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert {"run", "rates", "a.png"} <= written
    assert "~" not in written


@pytest.mark.parametrize(
    ("option", "word", "hint"),
    [
        ("--optimizer", "Adam", "adam"),
        ("--activation", "ReLU", "relu"),
        ("--dataset", "MNIST", "mnist"),
        ("--dataset", "Fashion_MNIST", "fashion-mnist"),
        ("--schedule", "One-Cycle", "one-cycle"),
        ("--init", "He", "he"),
        ("--loss", "Huber", "huber"),
        ("--task", "Regression", "regression"),
        ("--output", "TANH", "tanh"),
    ],
)
def test_names_in_other_letters_are_suggested(run, option, word, hint):
    code, out, err = run(train, option, word)
    assert (code, out) == (2, "")
    assert f"{word!r}: did you mean {hint!r}?" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_first_command_without_network_and_data(run, seed):
    code, out, err = run(train, "--seed", seed, "--json")
    assert code == 0
    assert json.loads(out)["test_accuracy"] >= 0.95
    (line,) = [line for line in err.splitlines() if "MNIST" in line]
    assert line.endswith("training on the bundled 8x8 digits instead")


def test_mnist_reaches_97_percent(run, mnist_dir):
    """The posts' network: the mean over seeds 0, 1 and 2."""
    accuracies = []
    for seed in range(3):
        code, out, _ = run(train, "--data-dir", mnist_dir, "--seed", seed, "--json")
        result = json.loads(out)
        assert (code, result["dataset"], result["epochs"], result["steps"]) == (0, "mnist", 5, 2345)
        accuracies.append(result["test_accuracy"])
    assert np.mean(accuracies) >= 0.970


def test_json_is_one_line_with_the_promised_keys(run):
    code, out, err = run(train, *SHORT, "--json")
    assert code == 0
    assert out.count("\n") == 1
    result = json.loads(out)
    assert set(result) >= {
        *("device", "requested_device", "dataset", "task", "epochs", "steps", "seconds", "total_seconds"),
        *("samples_per_second", "train_loss", "test_loss", "test_accuracy", "model", "compiled"),
    }
    assert (result["requested_device"], result["dataset"], result["epochs"], result["steps"]) == (
        "auto",
        "digits",
        3,
        30,
    )
    assert result["model"] is None
    assert result["compiled"]
    assert result["samples_per_second"] == pytest.approx((2 * 1437 + 6 * 128) / result["seconds"])
    assert 0 < result["seconds"] < result["total_seconds"]
    assert [line.split(":")[0] for line in err.splitlines() if line.startswith("epoch")] == [
        f"epoch {i}/3" for i in (1, 2, 3)
    ]


def test_for_people_it_is_one_sentence(run):
    code, out, err = run(train, *SHORT, "--quiet")
    assert code == 0
    assert out.startswith("test accuracy 0.")
    assert out.count("\n") == 1
    assert err == ""


def test_run_folder(run, tmp_path):
    folder = tmp_path / "깊은" / "run"
    code, out, err = run(train, *SHORT, "--out", folder, "--json", "--seed", 4)
    assert code == 0, err
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        *(["curves.png"] if PLOTS else []),
        "history.jsonl",
        "model.safetensors",
    ]
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert list(rows[0]) == [
        *("epoch", "step", "learning_rate", "seconds", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    ]
    assert rows[-1]["test_accuracy"] == json.loads(out)["test_accuracy"]
    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["seed"] == 4
    assert config["options"]["threads"] >= 1
    assert config["device"] == json.loads(out)["device"]
    assert config["data"]["sha256"] == load_digits().fingerprint()
    assert {"xpnet", "python", "numpy"} <= set(config["versions"])
    machine = config["machine"]
    assert machine["processor"]
    assert {one["architecture"] for one in threadpool_info() if "architecture" in one} <= {*machine["blas"].values()}
    assert ("llvm" in machine) == (why_not_compiled() is None)
    if PLOTS:
        assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")

    # The same run again, from its own config, writes the same bytes.
    again = tmp_path / "again"
    assert run(train, "--config", folder / "config.json", "--out", again)[0] == 0
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    # And an option on the command line wins over it.
    other = tmp_path / "other"
    assert run(train, "--config", folder / "config.json", "--seed", 5, "--out", other)[0] == 0
    assert json.loads((other / "config.json").read_text())["options"]["seed"] == 5


def test_a_folder_that_holds_a_run_is_refused(run, trained, tmp_path, monkeypatch):
    before = (trained / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(train, "load_data", lambda *a, **k: pytest.fail("data was read before the folder was tried"))
        code, out, err = run(train, *SHORT, "--out", trained)
    assert (code, out) == (2, "")
    assert err == f"error: {trained} already holds a run; choose another folder, or give --overwrite\n"
    for failing in (("--dataset", "mnist", "--offline"), (*DIGITS, "--hidden", 10**12)):
        code = run(train, *failing, "--out", trained, "--overwrite")[0]
        assert code in (1, 2), "the new run cannot start, and must leave the old one alone"
    assert (trained / "model.safetensors").read_bytes() == before
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep")
    assert run(train, *SHORT, "--out", folder)[0] == 0
    assert run(train, *SHORT, "--out", folder, "--overwrite", "--seed", 1)[0] == 0
    assert (folder / "notes.txt").read_text() == "keep"
    assert len((folder / "history.jsonl").read_text().splitlines()) == 3, "the old run's history must be gone"


def test_two_runs_do_not_share_a_folder(run, tmp_path):
    folder = tmp_path / "run"
    first = RunFolder(folder)
    late = RunFolder(folder, overwrite=True)
    arguments = (Config(), xpnet.get_device("cpu"), 1, load_digits())
    with first, late:
        first.start(*arguments)
        with pytest.raises(DataError, match="is being written by another run"):
            late.start(*arguments)
        code, _, err = run(train, *SHORT, "--out", folder, "--overwrite")
        assert code == 2
        assert err.endswith("is being written by another run\n")
    assert run(train, *SHORT, "--out", folder, "--overwrite")[0] == 0


def test_a_folder_that_cannot_be_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "load_data", lambda *a, **k: pytest.fail("data was read before the folder was tried"))
    (tmp_path / "file").write_text("")
    for folder in (
        tmp_path / "file",
        tmp_path / "file" / "run",
        Path("/proc/none/run") if PROC.is_dir() else tmp_path / "file",
    ):
        code, out, err = run(train, *SHORT, "--out", folder)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {folder} cannot be written: ")
        assert err.count("\n") == 1


def test_without_matplotlib_the_run_is_whole_but_for_the_picture(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.") or name == "xpnet.plots"]:
        monkeypatch.delitem(sys.modules, name)
    code, _, err = run(train, *SHORT, "--out", tmp_path / "run")
    assert code == 0
    assert "curves.png was not drawn: matplotlib is missing; pip install 'xpnet[plot]'" in err
    assert (tmp_path / "run" / "model.safetensors").exists()


BAD_OPTIONS = {
    "--lr 0": "lr must be finite and above 0",
    "--lr -1": "lr",
    "--lr inf": "'inf' is not a finite number",
    "--lr nan": "'nan' is not a finite number",
    "--lr 1e400": "'1e400' is not a finite number",
    "--lr 1_0": "'1_0' is not a finite number",
    "--epochs -1": "epochs must be at least 1, not -1",
    "--epochs 1e3": "'1e3' is not a whole number",
    "--epochs ٣": "is not a whole number",
    "--steps 0": "steps must be at least 1",
    f"--steps {'9' * 40}": "is not a whole number",
    "--epochs 1 --steps 1": "cannot both be given",
    "--batch-size 0": "batch_size must be at least 1",
    "--hidden 0": "each number in hidden must be at least 1, not 0",
    "--hidden 10 x": "'x' is not a whole number",
    "--activation rellu": "did you mean 'relu'?",
    "--optimizer adm": "did you mean 'adam'?",
    "--dataset mnits": "did you mean 'mnist'?",
    "--weight-decay -1": "weight_decay",
    "--dropout 1.0": "dropout",
    "--init hee": "did you mean 'he'?",
    "--init -1": "init must be finite and above 0",
    "--schedule cosin": "did you mean 'cosine'?",
    "--momentum 0.5": "goes with the optimizers momentum and nesterov",
    "--activation relu tanh": "activation has 2 names, and there are 4 hidden layers",
    "--seed -1": "seed",
    f"--seed {2**64}": "seed",
    "--threads 0": "threads",
    "--threads 99999999999999999999": "threads must be at most 1024",
    "--dtype float16": "dtype",
    "--device gpu": "device must be auto, cpu, cuda or cuda:N",
    "--epoch 3": "unknown option --epoch: did you mean '--epochs'?",
    "--frobnicate": "unknown option --frobnicate: see --help",
    "extra": "unrecognized arguments: extra",
    "--lr": "expected one argument",
    "--config none.toml": "none.toml cannot be read",
    "--data-dir none": "none is no folder",
    "--dataset none.npz": "none.npz cannot be read: No such file",
    "--dataset mnist": "could not be downloaded",
    "--dataset mnist --offline": "no MNIST files",
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options_get_one_line(run, options):
    code, out, err = run(train, *options.split())
    assert (code, out) == (2, "")
    assert BAD_OPTIONS[options] in err
    assert err.count("\n") == 1


def test_a_config_with_an_unknown_key(run, tmp_path):
    (tmp_path / "wrong.toml").write_text("lr = 'fast'\nepochs = true")
    for given in ((), ("--lr", 0.1), ("--lr", 0.1, "--epochs", 2), ("--epochs", 1), ("--steps", 3)):
        code, out, err = run(train, "--config", tmp_path / "wrong.toml", *given)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "wrong.toml: lr must be a number, not 'fast'" in err
    (tmp_path / "a.toml").write_text("epoch = 3")
    code, _, err = run(train, "--config", tmp_path / "a.toml")
    assert code == 2
    assert err.endswith("unknown option 'epoch': did you mean 'epochs'?\n")


def test_options_that_are_unusual_but_right(run):
    assert run(train, *SHORT, "--hidden", "")[0] == 0
    assert run(train, *SHORT, "--hidden")[0] == 0
    assert run(train, *SHORT, "--hidden", "20 10")[0] == 0
    assert run(train, *SHORT, "--batch-size", 100000)[0] == 0
    assert json.loads(run(train, *SHORT, "--seed", 1, "--seed", 2, "--json", "--steps", 12)[1])["steps"] == 12
    assert (
        run(train, *SHORT, "--dtype", "float64", "--optimizer", "sgd", "--weight-decay", "0.001", "--threads", 1)[0]
        == 0
    )


def test_every_kind_of_training_runs(run, tmp_path):
    """Each activation, optimizer, schedule and initializer by its name, and what goes between the layers."""
    each = [("--activation", name) for name in ACTIVATIONS] + [("--optimizer", name) for name in OPTIMIZERS]
    each += [("--schedule", name) for name in SCHEDULES] + [("--init", name) for name in [*INITIALIZERS, "0.01"]]
    each += [("--batch-norm",), ("--dropout", "0.2"), ("--clip-norm", "1"), ("--clip-value", "0.1"), ("--l1", "0.001")]
    each += [("--optimizer", "momentum", "--momentum", "0.5"), ("--activation", "relu", "tanh")]
    for options in each:
        with warnings.catch_warnings():
            if "step" in options[1:]:
                warnings.simplefilter("ignore", UserWarning)
            code, out, err = run(train, *DIGITS, "--steps", 13, "--hidden", 10, 10, "--json", "--quiet", *options)
        assert (code, err) == (0, "" if "step" not in options[1:] or "--schedule" in options else err), (options, err)
        assert json.loads(out)["train_loss"] > 0


def test_damaged_data_is_an_error_even_without_a_name(run, tmp_path):
    write_mnist(tmp_path / "mnist", train_images=b"<html>not found</html>")
    code, out, err = run(train, "--data-dir", tmp_path)
    assert (code, out) == (2, "")
    assert "train-images-idx3-ubyte.gz is no IDX file" in err


def test_threads_are_set_and_kept(run, tmp_path, monkeypatch):
    seen = []
    fit = train.Trainer.fit

    def look(trainer, *args, **kwargs):
        seen.append({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
        return fit(trainer, *args, **kwargs)

    monkeypatch.setattr(train.Trainer, "fit", look)
    assert run(train, *SHORT, "--threads", 1, "--out", tmp_path / "run")[0] == 0
    assert seen == [{1}]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["threads"] == 1


def test_the_config_of_a_run_remembers_where_the_data_was(run, tmp_path, monkeypatch):
    write_mnist(tmp_path, rows=40)
    monkeypatch.setenv("XPNET_DATA_DIR", str(tmp_path))
    assert run(train, "--steps", 2, "--out", tmp_path / "run")[0] == 0
    monkeypatch.delenv("XPNET_DATA_DIR")
    code, out, err = run(train, "--config", tmp_path / "run" / "config.json", "--json")
    assert code == 0, err
    assert json.loads(out)["dataset"] == "mnist"


def test_a_length_on_the_command_line_wins_over_the_other_kind_in_a_file(run, tmp_path):
    (tmp_path / "a.toml").write_text("epochs = 3")
    assert json.loads(run(train, *DIGITS, "--config", tmp_path / "a.toml", "--steps", 5, "--json")[1])["steps"] == 5
    (tmp_path / "a.toml").write_text("steps = 5")
    assert json.loads(run(train, *DIGITS, "--config", tmp_path / "a.toml", "--epochs", 1, "--json")[1])["steps"] == 12


def test_a_table_of_ones_own(run, tmp_path):
    """Columns of very different size, labels that are strings: trained, kept with its scaling, and predicted."""
    rng = np.random.default_rng(0)
    y = rng.choice(["뱀", "cat", "dog"], 300)
    x = rng.normal(size=(300, 4)) + 3.0 * np.eye(4)[np.unique(y, return_inverse=True)[1]]
    x = x * [1e-3, 1.0, 1e4, 1e6] + [0.0, 50.0, 0.0, -1e6]
    table = tmp_path / "table.npz"
    np.savez(table, x=x, y=y)
    options = ("--dataset", table, "--standardize", "--hidden", 20, "--epochs", 60, "--batch-size", 32)
    code, out, err = run(train, *options, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["test_accuracy"] > 0.85
    assert "standardized" in err
    code, out, err = run(predict, tmp_path / "run", table, "--labels", table)
    assert code == 0
    assert float(err.split()[1]) > 0.85
    assert {line.split("\t")[1] for line in out.splitlines()} == {"뱀", "cat", "dog"}


TABLES = {
    "beyond float32": ((1e39, 8), (), "beyond float32"),
    "too large to standardize": ((1e200, 8), ("--standardize",), "too large to be standardized"),
    "one row to train on": ((1.0, 2), ("--early-stop", 1), "cannot be divided in two"),
    "batches of one row": ((1.0, 8), ("--batch-norm", "--batch-size", 1), "batches of 1 rows are too small"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_data_that_cannot_be_trained_on_leaves_the_old_run_alone(kind, run, trained, tmp_path):
    (factor, rows), options, words = TABLES[kind]
    x = np.random.default_rng(0).normal(size=(rows, 3)) * [1.0, factor, 1.0]
    np.savez(tmp_path / "t.npz", x=x, y=np.arange(rows) % 2)
    before = (trained / "model.safetensors").read_bytes()
    code, out, err = run(train, "--dataset", tmp_path / "t.npz", *options, "--out", trained, "--overwrite")
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert (trained / "model.safetensors").read_bytes() == before


def test_a_column_far_from_zero_is_learnt_in_float32(run, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    np.savez(tmp_path / "t.npz", x=x * [1.0, 30.0] + [0.0, 1.7e9], y=x[:, 1] > 0)
    out = run(train, "--dataset", tmp_path / "t.npz", "--standardize", "--hidden", 20, "--steps", 500, "--json")[1]
    assert json.loads(out)["test_accuracy"] > 0.95


def test_data_dir_from_the_environment(run, tmp_path, monkeypatch):
    write_mnist(tmp_path, rows=40)
    monkeypatch.setenv("XPNET_DATA_DIR", str(tmp_path))
    assert json.loads(run(train, "--steps", 2, "--json")[1])["dataset"] == "mnist"
    code, _, err = run(train, "--data-dir", tmp_path / "none", "--steps", 2)
    assert code == 2, "the option must win over the environment"
    assert "is no folder" in err


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


def test_a_plan_of_weighted_labels(run, tmp_path):
    """Their weights are the loss's, and not those of rows."""
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(120).reshape(60, 2) % 3 % 2
    np.savez(tmp_path / "d.npz", x=x, y=y)
    words = ("--task", "multilabel", "--class-weight", "balanced", "--plan")
    code, out, err = run(train, "--dataset", str(tmp_path / "d.npz"), *words)
    assert (code, err) == (0, "")
    assert "instructions for" in out or why_not_compiled() in out


def test_steps_that_cannot_be_traced_are_told_of(run, eager):
    code, out, err = run(train, *DIGITS, "--epochs", "2", "--quiet", "--json")
    reason = "cannot trace the step: this test runs eagerly"
    assert (code, err) == (0, f"steps run eagerly, and slower: {reason}\n")
    assert json.loads(out)["compiled"] == reason
    assert run(train, *SHORT, "--quiet", "--no-compile")[2] == "", "it was asked for"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_interrupted(tmp_path, number, code):
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
    said = re.fullmatch(r"interrupted: the model is as after epoch (\d+), and in (.*)", last)
    assert said
    assert said[2] == str(folder / "model.safetensors")
    assert "Traceback" not in err
    assert history.read_text().count("\n") == int(said[1])
    MLP.load(folder / "model.safetensors")


# --- devices


@pytest.fixture(params=["without CuPy", "with CuPy"])
def no_gpu(request, monkeypatch):
    """A machine without a GPU, where CuPy is installed or not."""
    if request.param == "without CuPy":
        monkeypatch.setattr(device_module, "cupy_distributions", dict)
        monkeypatch.setitem(sys.modules, "cupy", None)
        return "CuPy is not installed"
    pytest.importorskip("cupy")
    try:
        xpnet.get_device("cuda")
    except xpnet.DeviceError:
        return "CuPy is installed, but"
    pytest.skip("there is a GPU")


@pytest.mark.parametrize("request_", ["cuda", "cuda:3"])
def test_falling_back_to_the_cpu(run, no_gpu, request_):
    code, out, err = run(train, *SHORT, "--device", request_, "--quiet", "--json")
    assert code == 0
    assert err.startswith(f"{request_} cannot be used: {no_gpu}")
    assert err.endswith("; going on with the CPU\n")
    assert err.count("\n") == 1
    result = json.loads(out)
    assert (result["device"], result["requested_device"]) == ("cpu", request_)


def test_require_device(run, no_gpu, trained):
    for module, arguments in ((train, SHORT), (predict, (trained, trained))):
        code, out, err = run(module, *arguments, "--device", "cuda", "--require-device")
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {no_gpu}")
        assert err.count("\n") == 1


def test_no_gpu_of_that_number_is_an_error(run, stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", stand_in.xp)
    monkeypatch.setattr(device_module, "cupy_distributions", dict)
    code, out, err = run(train, *SHORT, "--device", "cuda:7")
    assert (code, out, err) == (2, "", "error: there is no device cuda:7: this machine has cuda:0 alone\n")


def test_the_command_trains_on_a_device_as_on_the_cpu(run, stand_in, monkeypatch, tmp_path):
    """Both eagerly, and on one thread: how many threads the BLAS has is part of what makes bytes equal."""
    monkeypatch.setitem(sys.modules, "cupy", stand_in.xp)
    monkeypatch.setattr(device_module, "cupy_distributions", dict)
    results = []
    for device in ("cuda", "cpu"):
        where = ("--device", device, "--threads", "1", "--out", tmp_path / device)
        code, out, err = run(train, *SHORT, *where, "--json")
        assert code == 0, err
        results.append(json.loads(out))
    assert results[0]["device"] == "cuda:0"
    assert results[0]["test_loss"] == results[1]["test_loss"]
    models = [(tmp_path / device / "model.safetensors").read_bytes() for device in ("cuda", "cpu")]
    assert models[0] == models[1]


def test_two_wheels_are_an_error(run, monkeypatch):
    monkeypatch.setattr(
        device_module, "cupy_distributions", lambda: {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.2.0"}
    )
    for device in ("auto", "cuda"):
        code, out, err = run(train, *SHORT, "--device", device)
        assert (code, out) == (2, "")
        assert "cupy-cuda12x 14.2.0 and cupy-cuda13x 14.2.0 are installed side by side" in err
    assert run(train, *SHORT, "--device", "cpu")[0] == 0


# --- predict


def test_predicting_idx_npz_and_folders(run, trained, tmp_path):
    digits = load_digits()
    images, labels, arrays = tmp_path / "images.gz", tmp_path / "labels", tmp_path / "arrays.npz"
    images.write_bytes(gzip.compress(idx_bytes(digits.x_test)))
    labels.write_bytes(idx_bytes(digits.y_test))
    np.savez(arrays, x_train=digits.x_train, x_test=digits.x_test, y_test=digits.y_test)
    model = MLP.load(trained / "model.safetensors")
    expected = model.predict(digits.x_test)
    right = (expected.argmax(-1) == digits.y_test).mean()
    outputs = set()
    for source, truth in ((images, labels), (arrays, arrays)):
        for path in (trained, trained / "model.safetensors"):
            code, out, err = run(predict, path, source, "--labels", truth)
            assert code == 0, err
            assert err.splitlines()[0] == f"accuracy {right:.4f} ({round(right * 360)} of 360)"
            assert len(err.splitlines()) == 14
            outputs.add(out)
    (out,) = outputs
    for index, line in enumerate(out.splitlines()):
        fields = line.split("\t")
        assert fields[:2] == [str(index), str(expected[index].argmax())]
        assert float(fields[2]) == pytest.approx(expected[index].max(), abs=1e-6)
    code, out, _ = run(predict, trained, images, images, "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["index"] for answer in answers] == list(range(720))
    np.testing.assert_allclose([answer["probabilities"] for answer in answers[:360]], expected, atol=1e-6)


def test_confusion_matrix_by_hand(run, tmp_path):
    """A model that always says "b" of a, b: two rows of a, one of b."""
    model = MLP([1, 2], init="zeros", class_names=["a", "b"])
    model.network.layers[0].b = [[0.0, 1.0]]
    model.save(tmp_path / "m")
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 1)), y=np.array([0, 0, 1]))
    code, _, err = run(predict, tmp_path / "m", tmp_path / "data.npz", "--labels", tmp_path / "data.npz")
    assert code == 0
    assert err.startswith("the labels are numbers: they are taken for the places of the classes, of which 0 is a\n")
    assert [line.split() for line in err.splitlines()[1:]] == [
        ["accuracy", "0.3333", "(1", "of", "3)"],
        ["true", "\\", "predicted"],
        ["a", "b", "accuracy"],
        ["a", "0", "2", "0.0000"],
        ["b", "0", "1", "1.0000"],
    ]


def test_every_task_trains_and_predicts(run, tmp_path, rng):
    """By what the targets look like: the task, the metric, the run folder, and the predictions with their report."""
    x = rng.normal(size=(200, 3))
    y = {
        "classification": np.where(x[:, 0] > 0, "yes", "no"),
        "multilabel": (x[:, :2] > 0).astype(int),
        "regression": np.stack([x[:, 0] * 1e4 + 5e4, x[:, 1]], axis=1),
    }
    for task, targets in y.items():
        path, out = tmp_path / f"{task}.npz", tmp_path / task
        np.savez(path, x=x, y=targets)
        options = ("--dataset", path, "--hidden", "16", "--lr", "0.01", "--epochs", "150", "--out", out)
        code, stdout, err = run(train, *options, "--json")
        assert code == 0, err
        result = json.loads(stdout)
        metric = "r2" if task == "regression" else "accuracy"
        assert result["task"] == task
        assert result[f"test_{metric}"] > 0.9
        assert f"; {task}, " in err.splitlines()[0]
        assert {"test_loss", "train_loss"} <= set(result)
        row = json.loads((out / "history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        assert row[f"test_{metric}"] == result[f"test_{metric}"]
        assert not PLOTS or (out / "curves.png").stat().st_size > 10_000
        code, stdout, _ = run(train, *options, "--quiet", "--overwrite")
        assert f"test {'R2' if metric == 'r2' else 'accuracy'} 0.9" in stdout or " 1.0000" in stdout

        model = MLP.load(out / "model.safetensors")
        p = model.predict(x)
        code, stdout, err = run(predict, out, path, "--labels", path)
        assert code == 0, err
        assert len(stdout.splitlines()) == 200
        first = stdout.splitlines()[0].split("\t")
        code, stdout, _ = run(predict, out, path, "--json")
        answer = json.loads(stdout.splitlines()[0])
        if task == "classification":
            assert first == ["0", ("no", "yes")[p[0].argmax()], f"{p[0].max():.6f}"]
            assert (answer["label"], len(answer["probabilities"])) == (first[1], 2)
            assert err.startswith(("accuracy 0.9", "accuracy 1"))
        elif task == "multilabel":
            names = [str(i) for i in np.flatnonzero(p[0] > 0.5)]
            assert first[:2] == ["0", ",".join(names)]
            assert answer["labels"] == names
            assert np.allclose(answer["probabilities"], p[0], atol=1e-6)
            assert len(err.splitlines()) == 4
        else:
            assert [float(word) for word in first[1:]] == pytest.approx(p[0].tolist(), rel=1e-6)
            assert answer["values"] == pytest.approx(p[0].tolist(), rel=1e-6)
            error = p[:, 0] - y[task][:, 0]
            numbers = [float(word) for word in err.splitlines()[2].split()]
            assert numbers[2:] == pytest.approx([np.sqrt((error**2).mean()), np.abs(error).mean()], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--task", "regression"), "digits is a data set for classification, and not for regression"),
        (("--loss", "poisson"), "the loss poisson does not go with the task classification"),
        (("--output", "tanh", "--loss", "softmax-cross-entropy"), "output tanh does not go with the loss"),
        (("--output", "relu"), "unknown output 'relu'"),
        (("--label-smoothing", "1"), "label_smoothing must be finite and at least 0 and below 1"),
        (("--label-smoothing", "0.1", "--loss", "huber"), "label_smoothing (0.1) goes with softmax-cross-entropy"),
        (("--class-weight", "rare"), "unknown class_weight 'rare'"),
        (("--warmup", "-1"), "warmup must be at least 0"),
        (("--warmup", "30"), "warmup (30) must be shorter than the run, which has 30 steps"),
        (("--task", "clustering"), "unknown task 'clustering'"),
    ],
)
def test_options_that_do_not_go_together(run, tmp_path, options, words):
    out = tmp_path / "run"
    code, stdout, err = run(train, *SHORT, *options, "--out", out)
    assert (code, stdout) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (out / "config.json").exists()


def test_options_of_tasks_change_the_run(run, tmp_path, rng):
    """Each of them has an effect, and is in config.json; the rerun from there is the same run."""
    x = rng.normal(size=(200, 3))
    np.savez(tmp_path / "two.npz", x=x, y=(x[:, 0] > 1.0).astype(int))
    np.savez(tmp_path / "many.npz", x=x, y=(x > 1.0).astype(int))
    losses = {}
    for name, file, *options in (
        ("plain", "two"),
        ("softmax", "two", "--loss", "softmax-cross-entropy"),
        ("smoothed", "two", "--label-smoothing", "0.1"),
        ("balanced", "two", "--class-weight", "balanced"),
        ("warm", "two", "--warmup", "50"),
        ("tanh", "two", "--output", "tanh"),
        ("numbers", "two", "--task", "regression"),
        ("many", "many"),
        ("many balanced", "many", "--class-weight", "balanced"),
    ):
        out = tmp_path / name
        common = ("--dataset", tmp_path / f"{file}.npz", "--steps", "100", "--hidden", "8", "--quiet", "--out", out)
        assert run(train, *common, *options)[0] == 0
        losses[name] = (out / "model.safetensors").read_bytes()
        code, _, err = run(
            train, "--config", out / "config.json", "--out", tmp_path / "again", "--overwrite", "--quiet"
        )
        assert code == 0, err
        assert (tmp_path / "again" / "model.safetensors").read_bytes() == losses[name], name
    assert len(set(losses.values())) == len(losses)


def test_a_picture_of_mistakes(run, trained, tmp_path):
    digits = load_digits()
    np.savez(tmp_path / "d.npz", x=digits.x_test, y=digits.y_test)
    pytest.importorskip("matplotlib")
    path = tmp_path / "mistakes.png"
    code, _, err = run(predict, trained, tmp_path / "d.npz", "--labels", tmp_path / "d.npz", "--mistakes", path)
    assert code == 0, err
    assert path.read_bytes().startswith(b"\x89PNG")
    model = MLP.load(trained / "model.safetensors")
    perfect = model.predict(digits.x_test).argmax(axis=1)
    np.savez(tmp_path / "d.npz", x=digits.x_test, y=perfect)
    before = path.stat().st_size
    assert run(predict, trained, tmp_path / "d.npz", "--labels", tmp_path / "d.npz", "--mistakes", path)[0] == 0
    assert path.stat().st_size < before, "no mistakes, no pictures"
    code, _, err = run(predict, trained, tmp_path / "d.npz", "--mistakes", path)
    assert (code, "--mistakes needs --labels" in err) == (2, True)
    MLP([3, 2]).save(tmp_path / "m")
    np.savez(tmp_path / "t.npz", x=np.eye(3), y=[0, 1, 1])
    code, out, err = run(
        predict, tmp_path / "m", tmp_path / "t.npz", "--labels", tmp_path / "t.npz", "--mistakes", path
    )
    assert (code, out, "the model takes rows of shape (3,), and no grey pictures" in err) == (2, "", True)
    MLP([4, 2]).save(tmp_path / "m")
    np.savez(tmp_path / "t.npz", x=np.eye(4), y=[0, 1, 1, 1])
    code, out, err = run(
        predict, tmp_path / "m", tmp_path / "t.npz", "--labels", tmp_path / "t.npz", "--mistakes", path
    )
    assert (code, out, "mistakes are drawn of pictures, and the model takes rows of 4 numbers" in err) == (2, "", True)


def test_reports_by_hand(run, tmp_path):
    """Labels: of two, the first is given in rows 0 and 1 and true in 0; numbers: 1 and 2 for 1 and 4."""
    labels = MLP([2, 2], task="multilabel", init="zeros", class_names=["a", "b"])
    labels.network.layers[0].W = np.eye(2)
    labels.save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]]), y=[[1, 0], [0, 0], [0, 1]])
    code, out, err = run(predict, tmp_path / "m", tmp_path / "x.npz", "--labels", tmp_path / "x.npz")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[:2]] == [["0", "a"], ["1", "a"]]
    rows = [line.split() for line in err.splitlines()]
    assert rows[0][:2] == ["accuracy", "0.3333"]
    assert rows[1] == ["label", "accuracy", "precision", "recall", "rows"]
    assert rows[2] == ["a", "0.6667", "0.5000", "1.0000", "1"]
    assert rows[3] == ["b", "0.6667", "-", "0.0000", "1"]

    numbers = MLP([1, 1], task="regression", init="zeros")
    numbers.network.layers[0].W = [[1.0]]
    numbers.save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.array([[1.0], [2.0]]), y=[1.0, 4.0])
    code, out, err = run(predict, tmp_path / "m", tmp_path / "x.npz", "--labels", tmp_path / "x.npz")
    assert out.splitlines() == ["0\t1", "1\t2"]
    assert err.splitlines()[2].split() == ["0", "0.1111", "1.41421", "1"], "1 - 4 / 4.5; root of 4 / 2; 2 / 2"


def test_the_worst_mistakes_come_first():
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    assert predict.worst(np.array([1, 1, 1, 1]), p).tolist() == [1, 3, 0]


def test_labels_that_are_no_rows_or_other_numbers(run, tmp_path):
    MLP([2, 3], class_names=["1", "2", "3"]).save(tmp_path / "numbers")
    MLP([2, 3], class_names=["a", "b", "c"]).save(tmp_path / "words")
    MLP([2, 2]).save(tmp_path / "two")
    np.savez(tmp_path / "none.npz", x=np.zeros((0, 2)), y=np.zeros(0, dtype=int))
    np.savez(tmp_path / "x.npz", x=np.eye(2), y=[0, 1])
    np.savez(tmp_path / "bits.npz", x=np.eye(2), y=[False, True])
    np.savez(tmp_path / "huge.npz", x=np.eye(2), y=[1e300, 0.0])

    def compare(model, file):
        return run(predict, tmp_path / model, tmp_path / file, "--labels", tmp_path / file)

    assert compare("two", "none.npz") == (0, "", "there are no rows to compare with their targets\n")
    code, _, err = compare("numbers", "x.npz")
    assert (code, "it has the label 0 in row 0, which is none of 1, 2, 3" in err) == (2, True)
    code, _, err = compare("words", "x.npz")
    assert (code, err.splitlines()[0]) == (
        0,
        "the labels are numbers: they are taken for the places of the classes, of which 0 is a",
    )
    assert compare("two", "bits.npz")[0] == 0
    code, _, err = compare("two", "huge.npz")
    assert (code, len(err.splitlines())) == (2, 1)
    for path in (".", tmp_path / "no" / "folder.png"):
        code, out, err = run(
            predict, tmp_path / "two", tmp_path / "x.npz", "--labels", tmp_path / "x.npz", "--mistakes", path
        )
        assert (code, out, "cannot be written" in err) == (2, "", True)


HOSTILE = ["\x1b[31mred", "a\tb\nc", "고양이", "$x^2$"]


def test_names_do_not_reach_the_terminal_raw(run, tmp_path, monkeypatch):
    """Escapes and line ends of class names, labels, paths and arrays are escaped; JSON holds them as they are."""
    monkeypatch.chdir(tmp_path)
    path = "\x1b[2J.npz"
    model = MLP([4, 4], class_names=HOSTILE, seed=None)
    model.network.layers[0].W = 9.0 * np.eye(4)
    model.save(path)
    np.savez("x.npz", x=np.eye(4), y=HOSTILE)
    code, out, err = run(predict, path, "x.npz", "--labels", "x.npz")
    assert code == 0
    assert [line.split("\t")[1] for line in out.splitlines()] == ["\\x1b[31mred", "a\\tb\\nc", "고양이", "$x^2$"]
    assert all(c.isprintable() or c in "\t\n" for c in out + err)
    for line in err.splitlines()[3:]:  # columns stand one under the other, wide letters too
        assert sum(1 + ("가" <= c <= "힣") for c in line) == len(err.splitlines()[2]) + 3
    answers = [json.loads(line)["label"] for line in run(predict, path, "x.npz", "--json")[1].splitlines()]
    assert answers == HOSTILE

    np.savez("labels.npz", y=[*HOSTILE[:3], "\x07none"])
    np.savez("named.npz", **{"a\x1b": np.zeros(3), "b\r": np.zeros(3)})
    for command in (
        (path, "x.npz", "--labels", "labels.npz"),
        (path, "named.npz"),
        (path, "no\x1b.npz"),
        ("no\x1b", "x.npz"),
        (path, "x.npz", "--device", "\x1b"),
        (path, "x.npz", "--\x1b"),
    ):
        code, out, err = run(predict, *command)
        assert (code, out) == (2, "")
        assert err[:-1].isprintable(), err
    run(train, "--dataset", "x.npz", "--out", "run\x1b", "--steps", "3", "--hidden", "2")
    code, out, err = run(train, "--dataset", "x.npz", "--out", "run\x1b", "--steps", "3", "--hidden", "2")
    assert (code, err) == (2, "error: run\\x1b already holds a run; choose another folder, or give --overwrite\n")
    code, out, err = run(train, *SHORT, "--out", "more\x1b")
    assert (code, "the run is in more\\x1b" in out) == (0, True)


def test_replicas_are_averaged_and_said_so(run, tmp_path):
    model = MLP([3, 2], replicas=3)
    model.save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.eye(3))
    code, out, err = run(predict, tmp_path / "m", tmp_path / "x.npz", "--json")
    assert code == 0
    assert err == "the model has 3 replicas: predictions are their mean\n"
    answers = [json.loads(line)["probabilities"] for line in out.splitlines()]
    np.testing.assert_allclose(answers, model.predict(np.eye(3)).mean(axis=0), atol=1e-6)


def test_pictures(run, trained, tmp_path):
    """A digit of the test set as a picture: light on dark as it is, dark on light, in colour, large, transparent."""
    image = pytest.importorskip("PIL.Image")
    digits = load_digits()
    model = MLP.load(trained / "model.safetensors")
    index = int(np.argmax(model.predict(digits.x_test).max(axis=-1)))
    label = str(digits.y_test[index])
    grey = np.pad(np.round(digits.x_test[index] * (255 / 16)).astype(np.uint8), 0)
    light = image.fromarray(grey)
    clear = image.fromarray(np.stack([grey * 0, grey * 0, grey * 0, grey], axis=-1))  # black ink on nothing
    for name, picture, inverted in (
        ("same.png", light, False),
        ("paper.png", image.fromarray(255 - grey), True),
        ("large.png", light.resize((320, 320), image.Resampling.NEAREST), False),
        ("colour.bmp", image.fromarray(255 - grey).convert("RGB"), True),
        ("clear.png", clear, True),
    ):
        picture.save(tmp_path / name)
        code, out, err = run(predict, trained, tmp_path / name)
        assert code == 0, err
        assert out.split("\t")[1] == label, name
        assert ("was inverted" in err) is inverted, name
    exact = json.loads(run(predict, trained, tmp_path / "same.png", "--json")[1])["probabilities"]
    np.testing.assert_allclose(exact, model.predict(digits.x_test[index : index + 1])[0], atol=0.02)
    _, forced, err = run(predict, trained, tmp_path / "same.png", "--invert")
    _, left, none = run(predict, trained, tmp_path / "paper.png", "--no-invert")
    assert forced == left
    assert err == none == ""


def test_what_cannot_be_predicted(run, trained, tmp_path):
    files = {
        "html.png": b"<html>",
        "empty": b"",
        "text.idx": b"\0\0\x08\1\0\0\0\5abcd",
        "cut.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "wide": idx_bytes(np.zeros((3, 9), np.uint8)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "names.npz", a=np.zeros(3), b=np.zeros(3))
    np.savez(tmp_path / "nan.npz", x=np.full((2, 64), np.nan))
    no_picture = "is no picture" if find_spec("PIL") else "reading pictures needs Pillow: pip install 'xpnet[plot]'"
    for name, words in {
        "html.png": no_picture,
        "empty": "is empty",
        "text.idx": "cut off",
        "cut.png": no_picture,
        "wide": "9 features in a row, and 64 are wanted",
        "names.npz": "has the arrays a, b, and none called x or x_test",
        "nan.npz": "row 0, column 0 is nan",
        "none": "No such file",
    }.items():
        code, out, err = run(predict, trained, tmp_path / name)
        assert (code, out) == (2, ""), name
        assert name in err
        assert words in err
        assert err.count("\n") == 1
    (tmp_path / "labels").write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    (tmp_path / "large").write_bytes(idx_bytes(np.full(1, 10, np.uint8)))
    (tmp_path / "one").write_bytes(idx_bytes(np.zeros((1, 64), np.uint8)))
    for name, words in {
        "labels": "and there are 1 rows",
        "large": "has the label 10 in row 0, which is none of 0",
    }.items():
        code, _, err = run(predict, trained, tmp_path / "one", "--labels", tmp_path / name)
        assert code == 2
        assert words in err
    for model in (tmp_path, tmp_path / "none", tmp_path / "one"):
        code, _, err = run(predict, model, tmp_path / "one")
        assert code == 2
        assert str(model) in err


def test_a_model_that_had_diverged_says_so(run, tmp_path):
    model = MLP([3, 2])
    model.network.values = np.nan
    model.save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.eye(3))
    code, out, err = run(predict, tmp_path / "m", tmp_path / "x.npz", "--json")
    assert code == 0
    assert err.startswith(f"{tmp_path / 'm'}: predictions of 3 of 3 rows are not finite, and count as none")
    assert json.loads(out.splitlines()[0])["probabilities"] == [None, None]


def test_a_class_name_does_not_break_a_line(run, tmp_path):
    MLP([3, 2], class_names=["a\tb", "c\nd"]).save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.eye(3))
    out = run(predict, tmp_path / "m", tmp_path / "x.npz")[1]
    assert [len(line.split("\t")) for line in out.splitlines()] == [3, 3, 3]


def test_no_rows_give_no_lines(run, trained, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((0, 64)))
    assert run(predict, trained, tmp_path / "x.npz") == (0, "", "")


# --- doctor, and the list of commands


def test_doctor(run, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    code, out, _ = run(doctor)
    assert code == 0
    for name in doctor.CHECKS:
        assert f"\n{name}" in f"\n{out}"
    assert "could not be examined" not in out
    assert "OPENBLAS_CORETYPE=Haswell" in out
    assert "-> unset OPENBLAS_CORETYPE" in out
    code, out, _ = run(doctor, "--json")
    report = json.loads(out)
    assert list(report) == list(doctor.CHECKS)
    assert report["NumPy"]["found"].startswith(np.__version__)


def test_doctor_says_which_cupy_fits_the_driver(monkeypatch):
    monkeypatch.setattr(doctor, "cupy_distributions", dict)
    for version, extra in ((13010, "cuda13"), (12090, "cuda12")):
        monkeypatch.setattr(doctor, "driver_cuda_version", lambda version=version: version)
        findings = {finding.name: finding for finding in doctor.examine()}
        assert findings["CuPy"].advice == f"pip install 'xpnet[{extra}]'"
    monkeypatch.setattr(doctor, "cupy_distributions", lambda: {"cupy-cuda12x": "14", "cupy-cuda13x": "14"})
    findings = {finding.name: finding for finding in doctor.examine()}
    assert "break each other" in findings["CuPy"].advice


def test_doctor_survives_what_it_finds(monkeypatch):
    def broken():
        raise RuntimeError("it hurts\nhere")

    monkeypatch.setitem(doctor.CHECKS, "GPU", broken)
    (finding,) = [finding for finding in doctor.examine() if finding.name == "GPU"]
    assert finding.found == "could not be examined: RuntimeError: it hurts here"


def test_list_of_commands(run):
    code, out, _ = run(__main__)
    assert code == 0
    for name in __main__.COMMANDS:
        assert f"\n  {name} " in out
        assert run(__main__, name, "--help")[0] == 0
        assert run(__main__, name, "--version") == (0, f"xpnet {xpnet.__version__}\n", "")
    assert run(__main__, "trian") == (2, "", "error: unknown command 'trian': did you mean 'train'?\n")
    assert run(__main__, "--version")[1] == f"xpnet {xpnet.__version__}\n"


def test_help_shows_every_option(run):
    out = run(train, "--help")[1]
    for field in xpnet.Config.__dataclass_fields__:
        assert f"--{field.replace('_', '-')}" in out
    assert max(map(len, out.splitlines())) <= 120


# --- the machine


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


def test_the_model_file_is_what_training_left(trained):
    tensors = load_file(trained / "model.safetensors")
    assert tensors["0.weight"].shape == (100, 64)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_interruption_of_a_command_waits_for_the_end_of_a_step(number, error):
    reached = []

    def command(arguments):
        with DeferredInterrupt() as interrupt:
            interrupt.check()
            with DeferredInterrupt() as inner:  # that of a fit
                inner.call(os.kill, os.getpid(), number)
                reached.append(signal.getsignal(number))
                inner.check()
            with pytest.raises(error):
                interrupt.check()
        return 7

    assert cli.run(command) == 7
    assert reached == [signal.SIG_DFL], "a second one does not end the process"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("error", [Terminated(), KeyboardInterrupt()])
def test_exit_codes_of_interruptions(error, capsys):
    def command(arguments):
        raise error

    assert cli.run(command) == (143 if isinstance(error, Terminated) else 130)
    assert capsys.readouterr().err == "interrupted\n"
