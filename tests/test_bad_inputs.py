"""Bad inputs of the commands, a table of each kind: the exit code, one line on stderr that names the thing, no file.

Other modules have more: options in `test_commands_options`, arrays in `test_trainer_arguments`, and the contents of
files in `test_data_idx`, `test_data_tables` and `test_model_file`.
"""

from __future__ import annotations

import gzip
import json
import os
import sys

import numpy as np
import pytest
from command_line import DIGITS, SHORT
from data_files import idx_bytes, save, write_mnist
from limits import limited

import xpnet
from xpnet import MLP, Adam, Trainer, evaluate
from xpnet.commands import doctor, predict, search, train
from xpnet.lab import rates

pytestmark = pytest.mark.usefixtures("no_downloads")

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes and devices")


def is_refused(result, words, code=2):
    """Whether a command ended with one line that has these words."""
    found, out, err = result
    return (found, out, err.count("\n"), words in err) == (code, "", 1, True) or pytest.fail(f"{found}: {out}{err}")


def everything(folder):
    """Every path below a folder, with the bytes of regular files."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


# Options

LONG = "x" * 300
OPTIONS = {
    "--hidden -5": "each number in hidden must be at least 1, not -5",
    "--hidden 1e3": "'1e3' is not a whole number",
    "--batch-size -1": "batch_size must be at least 1, not -1",
    "--batch-size 1.0": "'1.0' is not a whole number",
    "--seed 1.5": "'1.5' is not a whole number",
    "--seed 0x10": "'0x10' is not a whole number",
    "--dropout -0.1": "dropout must be finite and at least 0 and below 1, not -0.1",
    "--dropout nan": "'nan' is not a finite number",
    "--validation 0": "validation must be finite and above 0 and below 1, not 0.0",
    "--validation 1": "validation must be finite and above 0 and below 1, not 1.0",
    "--early-stop 0": "early_stop must be at least 1, not 0",
    "--threads 1025": "threads must be at most 1024, not 1025",
    "--lr 1e-400": "lr must be finite and above 0, not 0.0",
    "--lr 1e-46": "learning_rate 1e-46 is out of the range of float32",
    "--lr 1e39": "learning_rate 1e+39 is out of the range of float32",
    "--clip-norm 0": "clip_norm must be finite and above 0",
    "--clip-value -1": "clip_value must be finite and above 0",
    "--init 1e300": "init must be finite and above 0 and below 1e+30, not 1e+300",
    "--l1 -1": "l1 must be finite and at least 0",
    "--warmup 99999999999999999999": "warmup (99999999999999999999) must be shorter than the run",
    "--activation=": "unknown activation ''",
    "--optimizer=": "unknown optimizer ''",
    "--dtype=": "dtype must be float32 or float64, not ''",
    "--device=": "device must be auto, cpu, cuda or cuda:N, not ''",
    "--device cuda:-1": "not 'cuda:-1'",
    "--device cuda:99999999999999999999": "not 'cuda:99999999999999999999'",
    "--plan-for sm_1": "'sm_1' is no architecture",
    "--out=": "a folder must have a name",
    "--resume=": "a folder must have a name",
    "--resume none": "none holds no run to go on with",
    "--checkpoint-every 1epoch": "--checkpoint-every needs --out",
    "--no-quiet": "unknown option --no-quiet: did you mean '--quiet'?",
    "--compile=1": "ignored explicit argument '1'",
    "--config .": ". cannot be read: Is a directory",
    f"--config {LONG}": "cannot be read: File name too long",
    f"--out {LONG}": "cannot be written: File name too long",
    f"--dataset {LONG}/": "cannot be read: File name too long",
    f"--dataset {LONG}.npz": "cannot be read: File name too long",
    f"--dataset mnist --data-dir {LONG}": "is no folder that can be read",
    "--batch-norm --batch-size 1": "batches of 1 rows are too small",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options(options, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_refused(run(train, *DIGITS, "--quiet", *options.split()), OPTIONS[options])
    assert everything(tmp_path) == {}


COMMANDS = {
    "doctor extra": "unrecognized arguments: extra",
    "doctor --jsn": "unknown option --jsn: did you mean '--json'?",
    "predict": "the following arguments are required",
    "predict none x.npz": "none does not exist",
    "predict none x.npz --mistakes a.png": "--mistakes needs --labels",
    f"predict {LONG} x.npz": "cannot be read as a model",
    "rates --count 0": "count must be at least 2, not 0",
    "rates --from 0": "from",
    "rates --lr 1": "unknown option --lr",
    "search --trials 0": "trials must be at least 1, not 0",
    "search --lr 0": "lr must be finite and above 0",
    "search --dropout 1": "dropout must be finite and at least 0 and below 1",
}


@pytest.mark.parametrize("words", COMMANDS)
def test_other_commands(words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *arguments = words.split()
    module = {"doctor": doctor, "predict": predict, "rates": rates, "search": search}[name]
    assert is_refused(run(module, *arguments), COMMANDS[words])
    assert everything(tmp_path) == {}


RIGHT = [
    "--hidden=",
    "--hidden ,",
    "--batch-size 99999999999999999999",
    "--batch-size 1",
    f"--seed {2**64 - 1}",
    "--early-stop 99999999999999999999",
    "--validation 1e-300",
    "--threads 1024",
    "--clip-norm 1e-300",
    "--init 1e-300",
    "--lr 1e38 --optimizer sgd --clip-value 1e-38",
    "--steps 1 --steps 2",
    "--config /dev/null",
]


@pytest.mark.parametrize("options", RIGHT)
def test_options_that_are_unusual_but_right(options, run):
    if "/dev/null" in options and sys.platform == "win32":
        pytest.skip("no /dev/null")
    code, out, err = run(train, *DIGITS, "--steps", 2, "--json", "--quiet", *options.split())
    assert (code, err) == (0, "")
    assert json.loads(out)["steps"] == 2


@pytest.mark.parametrize("options", ["--lr 1e38 --optimizer sgd", "--l1 1e300", "--weight-decay 1e300", "--init 9e29"])
def test_numbers_with_which_a_training_diverges(options, run, tmp_path):
    result = run(train, *SHORT, "--quiet", "--out", tmp_path / "run", *options.split())
    assert is_refused(result, "the training loss became", code=1)
    assert np.isfinite(MLP.load(tmp_path / "run" / "model.safetensors").network.values).all()


# Files of options

CONFIGS = {
    "an unknown key": ("lrr = 1", "unknown option 'lrr': did you mean 'lr'?"),
    "a table": ("[lr]\nvalue = 1", "lr must be a number"),
    "a date": ("lr = 2024-01-01", "lr must be a number"),
    "a nan": ("lr = nan", "lr must be finite"),
    "an infinite seed": ("seed = inf", "seed must be a whole number"),
    "a large number": (f"seed = {2**70}", "seed must be at most"),
    "a list of lists": ("hidden = [[1]]", "hidden must be a list of whole numbers"),
    "a null byte in a path": ('dataset = "a\\u0000.npz"', "'a\\x00.npz' is no path"),
    "a null byte in a folder": ('data_dir = "a\\u0000"', "'a\\x00' is no path"),
    "a key twice": ("lr = 1\nlr = 2", "a.toml is no TOML"),
    "binary": ("\x00\x01", "a.toml is no TOML"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_configs(kind, run, tmp_path):
    text, words = CONFIGS[kind]
    path = tmp_path / "a.toml"
    path.write_text(text, encoding="utf-8")
    before = everything(tmp_path)
    assert is_refused(run(train, *SHORT[2:], "--config", path, "--out", tmp_path / "run"), words)
    assert everything(tmp_path) == before


@pytest.fixture
def ended(run, tmp_path):
    """The folder of a run that has ended."""
    assert run(train, *SHORT, "--hidden", 8, "--quiet", "--out", tmp_path / "run")[0] == 0
    return tmp_path / "run"


def edited(**changes):
    """Change options in a run's config.json."""

    def edit(path):
        content = json.loads(path.read_text())
        content["options"] |= changes
        path.write_text(json.dumps(content))

    return edit


def replaced(make):
    def replace(path):
        path.unlink()
        make(path)

    return replace


DAMAGED_RUNS = {
    "empty": (lambda path: path.write_bytes(b""), "config.json is no JSON"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "config.json is no JSON"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "config.json is no JSON"),
    "a list": (lambda path: path.write_text("[]"), "config.json is not the config.json of a run"),
    "a number": (lambda path: path.write_text('{"options": 3}'), "config.json is not the config.json of a run"),
    "missing": (lambda path: path.unlink(), "holds no run to go on with"),
    "a folder": (replaced(lambda path: path.mkdir()), "holds no run to go on with"),
    "a pipe": (replaced(lambda path: os.mkfifo(path)), "holds no run to go on with"),
    "a link to itself": (replaced(lambda path: path.symlink_to(path)), "holds no run to go on with"),
    "an unknown option": (edited(speed=3), "unknown option 'speed'"),
    "a wrong option": (edited(lr=-1), "lr must be finite and above 0"),
    "half a character in a path": (edited(dataset="\ud800/x.npz"), "'\\ud800/x.npz' is no path"),
    "another network": (edited(hidden=[9]), "is of a training with another layers"),
    "another rate": (edited(lr=0.5), "is of a training with another optimizer"),
    "another data set": (edited(dataset="mnist"), "could not be downloaded"),
}


@posix
@pytest.mark.parametrize("kind", DAMAGED_RUNS)
def test_runs_that_cannot_be_resumed(kind, run, ended):
    damage, words = DAMAGED_RUNS[kind]
    damage(ended / "config.json")
    before = everything(ended)
    with limited(memory=2**30, seconds=20):
        assert is_refused(run(train, "--resume", ended, "--quiet"), words)
    assert everything(ended) == before


def test_a_run_that_had_ended_is_resumed(run, ended):
    """Its model, options, curves and history are as they were; its checkpoint is written once more."""

    def files():
        found = {path.name: content for path, content in everything(ended).items() if "checkpoint" not in path.name}
        timeless = {"total_seconds": 0, "seconds_by_part": {}, "ended": "", "compiled": True}
        result = json.loads(found["result.json"]) | timeless
        history = [json.loads(row) for row in found["history.jsonl"].splitlines()]
        return found | {"history.jsonl": history, "result.json": result}

    before = files()
    code, _, err = run(train, "--resume", ended, "--quiet")
    assert (code, err) == (0, f"the run in {ended} has ended, after step 30\n")
    assert files() == before


@pytest.mark.parametrize("options", ["--seed 1", "--batch-size 64", "--dataset mnist", "--dtype float64", "--l1 0.1"])
def test_a_run_is_not_resumed_as_another(options, run, ended):
    before = everything(ended)
    assert is_refused(run(train, "--resume", ended, *options.split()), f"{options} is not the run's, which has")
    assert everything(ended) == before


# Files of data

IMAGES, LABELS = np.zeros((8, 4), np.uint8), np.uint8([0, 1] * 4)
PACKED = gzip.compress(idx_bytes(IMAGES))
FILES = {
    "missing": (None, "cannot be read: No such file or directory"),
    "empty": (b"", "is empty"),
    "wrong magic": (b"\1\2\3\4" * 9, "is no IDX file"),
    "0 dimensions": (b"\0\0\x08\0x", "claims 0 dimensions"),
    "255 dimensions": (b"\0\0\x08\xff" + bytes(2000), "claims 255 dimensions"),
    "header cut": (idx_bytes(IMAGES)[:9], "is cut off within its header"),
    "product beyond 64 bits": (b"\0\0\x08\4" + b"\0\1\0\0" * 4, "more than can be read"),
    "data cut": (idx_bytes(IMAGES)[:-1], "is cut off"),
    "gz cut": (PACKED[:-9], "is damaged"),
    "gz sum wrong": (PACKED[:-8] + bytes(4) + PACKED[-4:], "is damaged: CRC check failed"),
    "web page": (b"<!DOCTYPE html>", "is no IDX file: it begins with 3c 21"),
    "other count": (idx_bytes(IMAGES[:7]), "y must hold targets for each of 7 rows"),
}


@pytest.mark.parametrize("kind", FILES)
def test_idx_files(kind, run, tmp_path):
    content, words = FILES[kind]
    folder = tmp_path / "set"
    folder.mkdir()
    path = folder / "train-images-idx2-ubyte"
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS))
    if content is None:
        path.symlink_to(tmp_path / "none")
    else:
        path.write_bytes(content)
    before = everything(tmp_path)
    result = run(train, "--dataset", folder, "--quiet", "--out", tmp_path / "run")
    assert is_refused(result, words)
    assert str(path if kind != "other count" else folder) in result[2]
    assert {name: content for name, content in everything(tmp_path).items() if name.parts[0] != "run"} == before
    assert not list((tmp_path / "run").iterdir())


IN_PLACE = {
    "a pipe": (lambda path: os.mkfifo(path), "no regular file"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "a folder": (lambda path: path.mkdir(), "a folder"),
    "a link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "a web page": (lambda path: path.write_text("<html>"), ""),
    "nothing": (lambda path: path.touch(), ""),
}


@posix
@pytest.mark.parametrize("kind", IN_PLACE)
@pytest.mark.parametrize("place", ["npz", "model", "input", "labels"])
def test_what_stands_in_the_place_of_a_file(place, kind, run, tmp_path):
    make, words = IN_PLACE[kind]
    good = {"model": tmp_path / "m", "input": tmp_path / "x.npz", "labels": tmp_path / "x.npz"}
    MLP([2, 2]).save(good["model"])
    save(good["input"], x=np.eye(2), y=[0, 1])
    path = tmp_path / "wrong.npz"
    make(path)
    with limited(memory=2**30, seconds=20):
        if place == "npz":
            result = run(train, "--dataset", path, "--quiet", "--out", tmp_path / "run")
        else:
            model, rows, labels = (good | {place: path}).values()
            result = run(predict, model, rows, "--labels", labels)
    assert is_refused(result, words if place != "model" else "")  # which may be a folder
    assert str(path) in result[2]


def test_mnist_that_is_damaged_leaves_nothing(run, tmp_path):
    write_mnist(tmp_path / "data", train_labels=idx_bytes(LABELS))
    result = run(train, "--data-dir", tmp_path / "data", "--quiet", "--out", tmp_path / "run")
    assert is_refused(result, "train-labels-idx1-ubyte.gz")
    assert not list((tmp_path / "run").iterdir())


def test_a_model_that_was_cut_or_changed(run, ended, tmp_path):
    """In every part of the file."""
    save(tmp_path / "x.npz", x=np.zeros((1, 64)))
    path = ended / "model.safetensors"
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 50):
        for damaged in (content[:place], content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]):
            path.write_bytes(damaged)
            assert is_refused(run(predict, ended, tmp_path / "x.npz"), str(path))


# Arrays


def test_rows_that_the_caller_changes_afterwards(blobs):
    """Neither the model nor a later fit depends on arrays of an earlier one."""
    x, y = (array.copy() for array in blobs)
    one, other = (Trainer(MLP([4, 8, 3]), Adam(0.01), batch_size=32) for _ in range(2))
    one.fit(x, y, epochs=2)
    values = one.model.network.values.copy()
    x[:], y[:] = np.nan, 2
    assert (one.model.network.values == values).all()
    one.fit(*blobs, epochs=1)
    other.fit(*blobs, epochs=2)
    other.fit(*blobs, epochs=1)
    assert (one.model.network.values == other.model.network.values).all()


def test_values_that_overflow_end_at_the_first_loss(blobs):
    x, y = blobs
    model = MLP([4, 8, 3])
    before = model.network.values.copy()
    with pytest.raises(xpnet.DivergedError, match="the training loss became (nan|inf) in epoch 1"):
        Trainer(model, Adam(0.01)).fit(np.full_like(x, 1e38) * np.sign(x), y, epochs=3)
    assert (model.network.values == before).all()


def test_bytes_are_not_scaled_unasked(blobs):
    x = np.random.default_rng(0).integers(0, 256, (90, 4))
    models = [MLP([4, 8, 3]), MLP([4, 8, 3])]
    Trainer(models[0]).fit(x.astype(np.uint8), blobs[1])
    Trainer(models[1]).fit(x.astype(float), blobs[1])
    assert (models[0].network.values == models[1].network.values).all()


def test_a_class_that_validation_lacks(blobs):
    x, y = blobs
    history = Trainer(MLP([4, 8, 3])).fit(x, y, epochs=2, validation=(x[y < 2], y[y < 2]))
    assert all(np.isfinite(row["validation_loss"]) and 0 <= row["validation_accuracy"] <= 1 for row in history)


def test_no_rows_and_one_row():
    model = MLP([4, 3])
    assert model.predict(np.zeros((0, 4))).shape == (0, 3)
    with pytest.raises(ValueError, match="x has no rows"):
        evaluate(model, np.zeros((0, 4)), np.zeros(0, int))
    loss, accuracy = evaluate(model, np.ones((1, 4)), [2])
    assert np.isfinite(loss) and accuracy in (0.0, 1.0)
