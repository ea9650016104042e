"""What `train` reports and leaves behind: results, run folders, accuracy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from command_line import DIGITS, PLOTS, PROC, SHORT
from data_files import write_mnist
from safetensors.numpy import load_file
from threadpoolctl import threadpool_info

from xpnet import MLP, load_digits
from xpnet.commands import cli, explain, export, predict, train
from xpnet.compile import why_not_compiled
from xpnet.core.interrupts import DeferredInterrupt, Terminated
from xpnet.nn import ACTIVATIONS, INITIALIZERS
from xpnet.optim import OPTIMIZERS, SCHEDULES

pytestmark = pytest.mark.usefixtures("no_downloads")


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
    parts = result["seconds_by_part"]
    assert set(parts) - {"compiling"} == {"data", "training", "evaluation"}  # imports are those of the test's process
    assert sum(parts.values()) < result["total_seconds"]
    told = [line for line in err.splitlines() if ", training " in line]
    assert [line.partition(": ")[2] for line in told] == [
        ", ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items())
    ]
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
        "checkpoint.safetensors",
        "config.json",
        *(["curves.png"] if PLOTS else []),
        "history.jsonl",
        "model.safetensors",
        "result.json",
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


@pytest.mark.parametrize("ensemble", [False, True])
def test_one_of_several_replicas_is_chosen(ensemble, run, tmp_path):
    path, x = tmp_path / "m", tmp_path / "x.npz"
    model = MLP([3, 2], replicas=3, ensemble=ensemble)
    model.save(path)
    np.savez(x, x=np.eye(3), y=[0, 1, 0])
    if not ensemble:
        for module, *more in ((predict,), (explain,), (export, tmp_path / "m.onnx")):
            said = f"error: {path}: the model has 3 replicas: choose one, --replica 0 to 2\n"
            assert run(module, path, *(more or [x])) == (2, "", said)
    code, out, err = run(predict, path, x, "--json", "--replica", 2)
    assert (code, err) == (0, "")
    answers = [json.loads(line)["probabilities"] for line in out.splitlines()]
    model.ensemble = False
    np.testing.assert_allclose(answers, model.predict(np.eye(3))[2], atol=1e-6)
    said = f"error: {path}: replica must be at most 2, not 3\n"
    assert run(predict, path, x, "--replica", 3) == (2, "", said)
    code, out, _ = run(explain, path, x, "--replica", 2, "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] == (model.predict(np.eye(3))[2].argmax(axis=1) == [0, 1, 0]).mean()
    MLP([3, 2]).save(path)
    said = f"error: {path}: replica=0: the model has no replicas\n"
    assert run(predict, path, x, "--replica", 0) == (2, "", said)


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


def test_a_process_of_its_own_tells_its_imports():
    done = subprocess.run(
        [sys.executable, "-m", "xpnet", "train", *SHORT, "--json"], capture_output=True, text=True, check=True
    )
    parts = json.loads(done.stdout)["seconds_by_part"]
    assert next(iter(parts)) == "imports"
    assert 0.01 < parts["imports"] < 60.0
    assert f" s: imports {parts['imports']:.1f}, data " in done.stderr
