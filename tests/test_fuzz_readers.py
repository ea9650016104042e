"""Readers of files from strangers: no exception but the library's own, and memory and time in proportion to the file.

Valid files are damaged: bytes, sizes, pieces, and, where a checksum would stop the damage at once, what lies behind it.
`XPNET_CASES` is the number of files for each test.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from data_files import idx_bytes
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from limits import limited
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from xpnet import MLP, Adam, Config, DataError, DivergedError, ModelFileError, Trainer, XpnetError
from xpnet.data import load_digits, load_npz
from xpnet.data.files import read_npz
from xpnet.data.idx import read_idx
from xpnet.data.pictures import FORMATS, read_picture
from xpnet.training import Checkpoint
from xpnet.training.config import read_options
from xpnet.training.run_folder import RunFolder

CASES = int(os.environ.get("XPNET_CASES", "400"))
SECONDS = 5.0
STEADY = 2**21  # bytes that a reader takes whatever the file: buffers, modules, messages
SIZES = [0, 1, 2, 3, 255, 256, 2**15, 2**16 - 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1]
cases = settings(
    deadline=None,
    max_examples=CASES,
    database=None,
    phases=[Phase.generate],  # shrinking a file that takes too long would take long
    derandomize=CASES == 400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damaged(draw, content):
    """A file with up to four damages."""
    content = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(start + 64, len(content))))
        how = draw(st.sampled_from(["byte", "size", "cut", "drop", "insert", "repeat"]))
        if how == "byte":
            content[start : start + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == "size":
            kind = draw(st.sampled_from([">I", "<I", ">H", "<H"]))
            size = draw(st.sampled_from(SIZES)) % 2 ** (8 * struct.calcsize(kind))
            content[start : start + struct.calcsize(kind)] = struct.pack(kind, size)
        elif how == "cut":
            del content[start:]
        elif how == "drop":
            del content[start:end]
        else:
            content[start:start] = draw(st.binary(max_size=16)) if how == "insert" else content[start:end] * 3
    return bytes(content)


def survives(read, path, content, error, times):
    """Read a file; only `error`, which names it, may be raised, and `times` its size of memory be taken."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with limited(memory=2**30, seconds=SECONDS):
            found = read(path)
        if read is read_npz:
            assert sum(array.size for array in found.values()) <= times * len(content)
    except error as caught:
        assert str(path) in str(caught)
        assert len(str(caught)) < 2000
        assert "emory" not in str(caught), "it was allocated before it was checked"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < times * len(content) + STEADY


# IDX: an element is read once, and turned into the machine's byte order; gzip holds 1032 times its size.


ARRAYS = [np.arange(24, dtype=np.uint8).reshape(4, 3, 2), np.linspace(0, 1, 12).reshape(3, 4), np.arange(9, dtype="i2")]


@cases
@given(data=st.data(), array=st.sampled_from(ARRAYS), packed=st.booleans(), inside=st.booleans())
def test_idx(tmp_path, data, array, packed, inside):
    content = idx_bytes(array)
    if packed:
        content = gzip.compress(data.draw(damaged(content)) if inside else content)
    if not inside:
        content = data.draw(damaged(content))
    survives(read_idx, tmp_path / "a", content, DataError, 3 * 1032 if packed else 3)


# npz


DTYPES = ["|u1", "<f2", ">f4", "|b1", "<U0", "<U3", "|S2", "|V4", "|O", "<M8[s]", "<c8", "x", [("a", "<f4", (0,))]]
AXES = st.lists(st.sampled_from([-1, 0, 1, 2, 4, 2**31, 2**63 - 1, 2**70]), max_size=4)


@st.composite
def npy(draw):
    """An array of an npz file with a header of its own."""
    head = {"descr": draw(st.sampled_from(DTYPES)), "fortran_order": draw(st.booleans()), "shape": tuple(draw(AXES))}
    text = repr(head).encode()
    elements = draw(st.sampled_from([b"", bytes(8), bytes(16), bytes(64), b"\xff" * 48]))
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + elements


def zipped(members, compression):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def npy_of(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@cases
@given(
    data=st.data(),
    compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    inside=st.booleans(),
    read=st.sampled_from([read_npz, load_npz]),
)
def test_npz(tmp_path, data, compression, inside, read):
    arrays = {"x.npy": npy_of(np.arange(32.0).reshape(8, 4)), "y.npy": npy_of(np.array(["a", "b"] * 4))}
    if inside:
        name = data.draw(st.sampled_from(sorted(arrays)))
        arrays[name] = data.draw(st.one_of(npy(), damaged(arrays[name])))
    content = zipped(arrays, compression)
    content = content if inside else data.draw(damaged(content))
    survives(read, tmp_path / "a", content, DataError, 3 * 1032 if compression == zipfile.ZIP_DEFLATED else 100)


# Model files: the description is changed behind its digest.


NUMBERS = [-1, 0, 1, 3, 2**31, 2**63, 10**400, 0.5, 1e400]
VALUES = st.one_of(
    st.sampled_from([*NUMBERS, None, True, "relu", "", "\ud800", [], {}, [[]], [1] * 70]),
    st.lists(st.sampled_from([0, 3, 2**40, 0.5, "a", None]), max_size=3),
)


def changed(draw, value):
    """The same JSON value with one part replaced, taken out or repeated."""
    if not isinstance(value, list | dict) or not value or draw(st.integers(0, 3)) == 0:
        return draw(VALUES)
    value = value.copy()
    place = draw(st.sampled_from(range(len(value)) if isinstance(value, list) else sorted(value)))
    how = draw(st.sampled_from(["change", "change", "change", "drop", "repeat"]))
    if how == "change":
        value[place] = changed(draw, value[place])
    elif how == "drop":
        del value[place]
    elif isinstance(value, list):
        value[place:place] = [value[place]] * draw(st.sampled_from([1, 1000]))
    return value


def model_files(path):
    """Descriptions, tensors and bytes of model files of each kind."""
    read = []
    for arguments in (
        {"sizes": [4, 3, 2]},
        {"sizes": [4, 3, 1], "batch_norm": True, "dropout": [0.1, 0.2], "replicas": 2, "input_scale": [1.0, 2, 3, 4]},
        {"sizes": [4, 3, 2], "task": "regression", "loss": "huber", "activation": "leaky-relu", "dtype": "float64"},
        {"sizes": [4, 2], "task": "multilabel", "input_shape": (2, 2), "output": "step"},
    ):
        MLP(**arguments).save(path)
        with safe_open(path, "np") as file:
            read.append((json.loads(file.metadata()["xpnet"]), load_file(path), path.read_bytes()))
    return read


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return model_files(tmp_path_factory.mktemp("models") / "m")


@cases
@given(data=st.data(), which=st.integers(0, 3))
def test_descriptions_of_models(tmp_path, monkeypatch, models, data, which):
    monkeypatch.setattr("xpnet.model.model_file._digest", lambda metadata, tensors: metadata["sha256"])
    metadata, tensors, _ = models[which]
    metadata = dict(metadata)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(["replicas", "layers", "input_shape", *sorted(metadata)]))
        metadata[name] = changed(data.draw, metadata.get(name))
    metadata = changed(data.draw, metadata) if data.draw(st.booleans()) else metadata
    tensors = dict(tensors)
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(tensors)))
        shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
        tensors[name] = np.zeros(shape, data.draw(st.sampled_from(["f4", "f8", "f2", "i8", "u1", "?"])))
    save_file(tensors, tmp_path / "m", metadata={"xpnet": json.dumps(metadata)})
    survives(MLP.load, tmp_path / "m", (tmp_path / "m").read_bytes(), ModelFileError, 100)


@cases
@given(data=st.data(), which=st.integers(0, 3))
def test_model_files(tmp_path, models, data, which):
    survives(MLP.load, tmp_path / "m", data.draw(damaged(models[which][2])), ModelFileError, 100)


# Checkpoints: the numbers are changed behind their digest; where a trainer takes them, it trains.


X, Y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2
KINDS = [(None, None), (None, 2), (2, 2)]  # replicas, early_stop


def train(trainer, early_stop, **options):
    return trainer.fit(X, Y, epochs=3, validation=(X, Y), early_stop=early_stop, **options)


def make_trainer(replicas):
    return Trainer(MLP([4, 3, 2], batch_norm=True, replicas=replicas), Adam(0.01), batch_size=8, compile=False)


def go_on(path, replicas, early_stop):
    """Resume, and train on."""
    trainer = make_trainer(replicas)
    trainer.resume(Checkpoint(path))
    try:
        with contextlib.suppress(DivergedError):  # the weights may be any numbers
            train(trainer, early_stop)
    except ValueError as error:
        assert "the checkpoint is" in str(error)
        raise ValueError(f"{path}: {error}") from None


def checkpoint_files(path):
    """Numbers, arrays and bytes of checkpoints of each kind, in the middle of an epoch."""

    def stop(step):
        if step == 5:
            raise KeyboardInterrupt

    read = []
    for replicas, early_stop in KINDS:
        with pytest.raises(KeyboardInterrupt):
            train(make_trainer(replicas), early_stop, checkpoint=Checkpoint(path, "1step"), on_step=stop)
        with safe_open(path, "np") as file:
            read.append((json.loads(file.metadata()["checkpoint"]), load_file(path), path.read_bytes()))
    return read


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    return checkpoint_files(tmp_path_factory.mktemp("states") / "c.safetensors")


@cases
@given(data=st.data(), which=st.integers(0, 2))
def test_numbers_of_checkpoints(tmp_path, monkeypatch, states, data, which):
    monkeypatch.setattr("xpnet.training.state_file.digest_of", lambda text, arrays: "right")
    numbers, arrays, _ = states[which]
    for _ in range(data.draw(st.integers(1, 3))):
        numbers = changed(data.draw, numbers)
        if not isinstance(numbers, dict):
            break
    arrays = dict(arrays)
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(arrays)))
        shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
        arrays[name] = np.zeros(shape, data.draw(st.sampled_from(["f4", "f8", "f2", "i8", "u1", "?"])))
    path = tmp_path / "c.safetensors"
    save_file(arrays, path, metadata={"checkpoint": json.dumps(numbers), "sha256": "right"})
    survives(lambda path: go_on(path, *KINDS[which]), path, path.read_bytes(), ValueError, 100)
    survives(Trainer.load, path, path.read_bytes(), XpnetError, 100)


@cases
@given(data=st.data(), which=st.integers(0, 2))
def test_checkpoints(tmp_path, states, data, which):
    content = data.draw(damaged(states[which][2]))
    survives(lambda path: go_on(path, *KINDS[which]), tmp_path / "c.safetensors", content, DataError, 100)


# Options: text, and JSON values; what is read is checked once more with those of the command line.


TOML = b"""# a run
hidden = [100, 50]  # units
batch-size = 1_000
lr = 1e-3
dtype = 'float64'
dataset = "a\\u00e9.npz"
batch_norm = true
init = inf
activation = \"\"\"relu\"\"\"
seed = 0xff
[momentum]
a.b = {c = 1979-05-27T07:32:00Z}
[[l1]]
"""


@contextlib.contextmanager
def of(path):
    """Name the file in errors that name an option, or the folder."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from None


def read_config(path):
    options = read_options(path)
    with of(path):
        Config(**options)


@cases
@given(data=st.data(), encoding=st.sampled_from(["utf-8", "utf-16"]))
def test_options(tmp_path, data, encoding):
    content = data.draw(damaged(TOML.decode().encode(encoding)))
    survives(read_config, tmp_path / "a.toml", content, (TypeError, ValueError), 1000)


DIGITS = load_digits()
RUN = {"options": Config(hidden=(5,), epochs=2).as_dict(), "data": {"sha256": DIGITS.fingerprint()}}


def read_run(path):
    """Read a config.json as --resume does: the options, then the data and how long the run is."""
    read_config(path)
    with of(path), RunFolder(path.parent, resume=True) as folder:
        folder.check_data(DIGITS)
        folder.go_on(Config(epochs=3), [])


@cases
@given(data=st.data(), inside=st.booleans())
def test_config_of_a_run(tmp_path, data, inside):
    kept = RUN
    for _ in range(data.draw(st.integers(1, 3)) if inside else 0):
        kept = changed(data.draw, kept)
    content = json.dumps(kept).encode()
    content = content if inside else data.draw(damaged(content))
    survives(read_run, tmp_path / "config.json", content, (TypeError, ValueError), 100)


# Pictures: Pillow's memory is not Python's, so it is the address space that is bounded.


@pytest.fixture(scope="module")
def pictures():
    return picture_files()


def picture_files():
    """A picture in each format and depth."""
    image = pytest.importorskip("PIL.Image")
    files = []
    for name in FORMATS:
        for mode in ("1", "L", "RGBA", "P", "I;16", "F"):
            content = io.BytesIO()
            try:
                image.new(mode, (9, 7)).save(content, name)
            except (OSError, KeyError, ValueError):  # the format has no such mode
                continue
            files.append((name, content.getvalue()))
    return files


def with_checksums(content):
    """A PNG file whose chunks have the checksums of what they hold, as far as its lengths lead."""
    content, place = bytearray(content), 8
    while place + 12 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[place + 4 : end]))
        place = end + 4
        if end > len(content):
            break
    return bytes(content)


@cases
@given(data=st.data(), which=st.integers(0, 1000))
def test_pictures(tmp_path, monkeypatch, pictures, data, which):
    monkeypatch.setattr("xpnet.data.pictures.MOST_PIXELS", 2**16)
    name, content = pictures[which % len(pictures)]
    content = data.draw(damaged(content))
    path = tmp_path / "a"
    path.write_bytes(with_checksums(content) if name == "PNG" else content)
    try:
        with limited(memory=2**25, seconds=SECONDS):
            assert read_picture(path, (8, 8))[0].shape == (8, 8)
    except DataError as error:
        assert str(path) in str(error)
        assert "emory" not in str(error)
