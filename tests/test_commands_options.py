"""Options and configuration files: right, wrong, suggested and listed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import DIGITS, SHORT
from data_files import write_mnist

import xpnet
from xpnet import __main__
from xpnet.commands import doctor, predict, train
from xpnet.lab import rates

pytestmark = pytest.mark.usefixtures("no_downloads")


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


def test_a_length_on_the_command_line_wins_over_the_other_kind_in_a_file(run, tmp_path):
    (tmp_path / "a.toml").write_text("epochs = 3")
    assert json.loads(run(train, *DIGITS, "--config", tmp_path / "a.toml", "--steps", 5, "--json")[1])["steps"] == 5
    (tmp_path / "a.toml").write_text("steps = 5")
    assert json.loads(run(train, *DIGITS, "--config", tmp_path / "a.toml", "--epochs", 1, "--json")[1])["steps"] == 12


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
