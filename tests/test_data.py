"""Data files: IDX and npz, sound and damaged; MNIST from folder, cache and download; the bundled digits."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xpnet.core.errors import DataError
from xpnet.data import (
    NotFound,
    load_digits,
    load_fashion_mnist,
    load_idx_folder,
    load_mnist,
    load_named,
    load_npz,
    mnist,
)
from xpnet.data.files import read_npz
from xpnet.data.idx import TYPES, read_idx
from xpnet.data.pictures import read_picture
from xpnet.data.targets import guess_task

CODES = {np.dtype(name): code for code, name in TYPES.items()}


def idx_bytes(array):
    big = array.astype(array.dtype.newbyteorder(">"))
    code = CODES[np.dtype(array.dtype.newbyteorder(">"))]
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


IDX_ARRAYS = st.sampled_from(sorted(TYPES.values())).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype).newbyteorder("="), hnp.array_shapes(max_dims=4, max_side=5))
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(array=IDX_ARRAYS, packed=st.booleans())
def test_idx_round_trip(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("idx") / "a"
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if packed else content)
    read = read_idx(path)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(4, 3, 2))
PACKED = gzip.compress(GOOD)
DAMAGED = {
    "empty": (b"", "is empty"),
    "magic": (b"\1" + GOOD[1:], "is no IDX file"),
    "type": (GOOD[:2] + b"\x0a" + GOOD[3:], "is no IDX file"),
    "three bytes": (GOOD[:3], "is no IDX file"),
    "no dimensions": (b"\0\0\x08\0" + b"x", "0 dimensions"),
    "255 dimensions": (b"\0\0\x08\xff" + bytes(2000), "255 dimensions"),
    "header cut": (GOOD[:9], "cut off within its header"),
    "a size of 0": (b"\0\0\x08\2" + struct.pack(">2I", 0, 5), "no elements"),
    "65536^4": (b"\0\0\x08\4" + struct.pack(">4I", *[65536] * 4) + b"x", "more than can be read"),
    "4 GiB": (b"\0\0\x08\1" + struct.pack(">I", 2**32 - 1) + b"x", "cut off.*and 1 can be there"),
    "cut": (GOOD[:-1], "cut off.*need 24 bytes, and 23 can be there"),
    "longer": (GOOD + b"x", "1 bytes after"),
    "html": (b"<!DOCTYPE html><html>", "is no IDX file: it begins with 3c 21"),
    "gz cut": (PACKED[:-12], "is damaged|cut off"),
    "gz crc": (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "is damaged.*CRC"),
    "gz garbage": (PACKED[:12] + b"\xff" * 20, "is damaged|is no IDX file"),
    "gz short": (gzip.compress(GOOD[:-1]), "cut off.*24 bytes, and 23 are there"),
    "gz longer": (gzip.compress(GOOD + b"x"), "goes on after"),
    "gz html": (gzip.compress(b"<html>"), "is no IDX file"),
    "gz claims much": (gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 2**30) + b"x"), "can be there"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_idx(kind, tmp_path):
    content, words = DAMAGED[kind]
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"images.gz.*({words})"):
        read_idx(path)


def test_every_cut_and_flip_of_a_header_is_survived(tmp_path):
    """Whatever byte is wrong, the answer is an array or a DataError."""
    path = tmp_path / "a"
    for content in (GOOD, PACKED):
        for i in range(len(content)):
            for bad in (content[:i], content[:i] + bytes([content[i] ^ 0x41]) + content[i + 1 :]):
                path.write_bytes(bad)
                try:
                    assert read_idx(path).size >= 1
                except DataError as error:
                    assert str(path) in str(error)


def test_a_claim_allocates_nothing(tmp_path):
    """A 1 KiB file that claims a gigabyte, and a bomb that holds more than it claims, cost next to no memory."""
    path = tmp_path / "a.gz"
    claims = b"\0\0\x08\1" + struct.pack(">I", 10**6)
    for content in (claims, claims + bytes(200 * 2**20)):
        path.write_bytes(gzip.compress(content))
        tracemalloc.start()
        with pytest.raises(DataError):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
        tracemalloc.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs, no /dev/zero")
@pytest.mark.parametrize("read", [read_idx, read_npz])
def test_what_is_no_regular_file(read, tmp_path):
    fifo, loop = tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    for path, words in (
        (fifo, "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path, "is a folder"),
        (loop, "cannot be read"),
        (tmp_path / "none", "cannot be read: No such file"),
    ):
        with pytest.raises(DataError, match=words):
            read(path)


def test_permission_denied(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_idx(path)


def test_npz_round_trip_and_damage(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(1000.0), y=np.zeros(5, np.uint8))
    arrays = read_npz(path)
    assert list(arrays) == ["x", "y"]
    assert (arrays["x"] == np.arange(1000.0)).all()
    content = path.read_bytes()
    for bad in (b"", b"PK\3\4", content[:-30], content[:200] + bytes(40) + content[240:], b"not a zip"):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"a\.npz"):
            read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("y", b"no array")
    with pytest.raises(DataError, match="holds y, which is no array"):
        read_npz(path)
    np.savez(path, x=np.array([object()], dtype=object))
    with pytest.raises(DataError, match=r"a\.npz holds 'x' as an array of Python objects, which is a pickle"):
        read_npz(path)


def test_npz_bomb(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", bytes(64 * 2**20))
    with pytest.raises(DataError, match="claims 67108864 bytes"):
        read_npz(path)


def write_mnist(folder, *, packed=True, rows=20, **replace):
    """Write a small data set in MNIST's files; `replace` maps a part of a file's name to its content."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in mnist.FILES:
        array = rng.integers(0, 256, (rows, 28, 28)) if "images" in name else np.arange(rows) % 10
        content = next((c for part, c in replace.items() if part in name.replace("-", "_")), None)
        content = idx_bytes(array.astype(np.uint8)) if content is None else content
        if content:
            path = folder / f"{name}.gz" if packed else folder / name
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["mnist", "."])
def test_mnist_from_a_folder(tmp_path, below, packed):
    write_mnist(tmp_path / below, packed=packed)
    data = load_mnist(tmp_path)
    assert data.x_train.shape == (20, 28, 28)
    assert data.x_train.dtype == np.uint8
    assert data.input_scale == 255.0
    assert data.fingerprint() == load_mnist(tmp_path).fingerprint()


def test_a_named_folder_is_looked_in_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "cache_folder", lambda: pytest.fail("the cache was looked in"))
    monkeypatch.setattr(mnist, "_download", lambda *args: pytest.fail("a download was tried"))
    with pytest.raises(NotFound, match="no MNIST files"):
        load_mnist(tmp_path)
    write_mnist(tmp_path / "mnist", t10k_labels=b"")
    with pytest.raises(NotFound, match=r"has no t10k-labels-idx1-ubyte\(.gz\)"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        ({"train_labels": idx_bytes(np.zeros(19, np.uint8))}, "has 20 pictures, and .* has 19 labels"),
        ({"t10k_images": idx_bytes(np.zeros((20, 14, 14), np.uint8))}, r"\(14, 14\), and the training set of"),
        ({"train_images": idx_bytes(np.zeros((20, 28), np.uint8))}, "not pictures of bytes"),
        ({"train_labels": idx_bytes(np.zeros(20, np.float32))}, "not one byte for each label"),
        ({"train_labels": idx_bytes(np.full(20, 10, np.uint8))}, "has the label 10"),
        ({"train_images": b"<html>"}, "is no IDX file"),
    ],
)
def test_damaged_mnist(tmp_path, replace, words):
    write_mnist(tmp_path, **replace)
    with pytest.raises(DataError, match=words) as caught:
        load_named(None, tmp_path)
    assert not isinstance(caught.value, NotFound), "damaged files must not pass for missing ones"


class Mirror(threading.Thread):
    """A web server on this machine that serves a folder."""

    def __init__(self, folder):
        from functools import partial
        from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

        super().__init__(daemon=True)

        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def run(self):
        self.server.serve_forever()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def test_download_tries_mirrors_checks_and_caches(tmp_path, monkeypatch):
    """One mirror refuses, one has other files under the names, one is right; afterwards the cache serves."""
    import hashlib

    write_mnist(tmp_path / "wrong", rows=5)
    right = write_mnist(tmp_path / "right")
    digests = [hashlib.sha256((right / f"{name}.gz").read_bytes()).hexdigest() for name in mnist.FILES]
    mirrors = [Mirror(tmp_path / "wrong"), Mirror(right)]
    for mirror in mirrors:
        mirror.start()
    source = replace(
        mnist.MNIST,
        hashes=tuple(f"sha256:{digest}" for digest in digests),
        mirrors=("http://127.0.0.1:9/", *(mirror.url for mirror in mirrors)),
    )
    monkeypatch.setattr(mnist, "MNIST", source)
    monkeypatch.setattr(mnist, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(NotFound):
        load_mnist(offline=True)
    data = load_mnist()
    assert data.x_train.shape == (20, 28, 28)
    for mirror in mirrors:
        mirror.stop()
    assert load_mnist().fingerprint() == data.fingerprint()
    assert load_mnist(str(tmp_path / "right")).fingerprint() == data.fingerprint()
    assert sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir()) == sorted(
        f"{n}.gz" for n in mnist.FILES
    )

    # A damaged file in the cache is fetched again, and is an error where it cannot be.
    (tmp_path / "cache" / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>")
    with pytest.raises(DataError, match="is no IDX file"):
        load_mnist(offline=True)
    with pytest.raises(NotFound, match="could not be downloaded"):
        load_mnist()


def test_giving_up_takes_seconds(tmp_path, monkeypatch):
    """Mirrors that accept a connection and then say nothing do not hold a run up, however many there are."""
    import socket

    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    mirrors = tuple(f"http://127.0.0.{i}:{port}/" for i in range(1, 9))
    monkeypatch.setattr(mnist, "MNIST", replace(mnist.MNIST, mirrors=mirrors))
    monkeypatch.setattr(mnist, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(mnist, "cache_folder", lambda: tmp_path)
    start = time.monotonic()
    with pytest.raises(NotFound, match=r"could not be downloaded \(127.0.0.1:\d+: (ReadTimeout|no answer in 0.5 s);"):
        load_mnist()
    assert time.monotonic() - start < 2
    silent.close()


def test_mirrors_are_https_and_several():
    assert len(mnist.MNIST.mirrors) >= 3
    for source in mnist.SOURCES.values():
        assert all(mirror.startswith("https://") for mirror in source.mirrors)
        assert len(source.hashes) == 4
        assert len(source.class_names) == 10
    assert mnist.PROBE_SECONDS <= 10


def test_without_mnist_the_digits_take_its_place(tmp_path):
    data, note = load_named(None, tmp_path)
    assert data.name == "digits"
    assert note.endswith("training on the bundled 8x8 digits instead")
    assert "\n" not in note
    with pytest.raises(DataError, match="no MNIST files"):
        load_named("mnist", tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        load_named(None, tmp_path / "none")


def test_fashion_mnist_from_folder_system_and_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(mnist, "FASHION_MNIST", replace(mnist.FASHION_MNIST, installed=tmp_path / "system", mirrors=()))
    with pytest.raises(NotFound, match="no Fashion-MNIST files"):
        load_fashion_mnist(offline=True)
    write_mnist(tmp_path / "system", rows=30)
    data = load_fashion_mnist(offline=True)
    assert (data.name, len(data.x_train), data.class_names[9]) == ("fashion-mnist", 30, "ankle boot")
    write_mnist(tmp_path / "cache" / "fashion-mnist", rows=40)
    assert len(load_fashion_mnist().x_train) == 40
    write_mnist(tmp_path / "named" / "fashion-mnist", rows=50)
    write_mnist(tmp_path / "named" / "mnist", rows=60)
    assert len(load_fashion_mnist(tmp_path / "named").x_train) == 50
    assert len(load_named("mnist", tmp_path / "named")[0].x_train) == 60
    assert (
        load_named("fashion-mnist", tmp_path / "named")[0].fingerprint()
        == load_fashion_mnist(tmp_path / "named").fingerprint()
    )


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_npz_that_is_divided(tmp_path):
    """Labels that are strings, and a class that only the test set has."""
    x = np.arange(20.0).reshape(10, 2)
    path = save(tmp_path / "a.npz", x_train=x[:6], y_train=list("cabcab"), x_test=x[6:], y_test=list("abdd"))
    data = load_npz(path)
    assert data.class_names == ("a", "b", "c", "d")
    assert data.y_train.tolist() == [2, 0, 1, 2, 0, 1]
    assert data.y_test.tolist() == [0, 1, 3, 3]
    assert (data.x_test == x[6:]).all()
    assert (data.input_shift, data.input_scale) == (0.0, 1.0)


def test_npz_that_is_not_divided(tmp_path):
    """A stratified fifth, by the seed; labels that are not 0..C-1; pictures keep their shape; bytes are not scaled."""
    x = np.random.default_rng(0).integers(0, 256, (100, 4, 3), dtype=np.uint8)
    y = np.repeat([-5, 7], [70, 30])
    path = save(tmp_path / "a.npz", x=x, y=y)
    data = load_npz(path)
    assert data.class_names == ("-5", "7")
    assert np.bincount(data.y_test).tolist() == [14, 6]
    assert data.input_shape == (4, 3)
    assert data.input_scale == 1.0
    assert load_npz(path).fingerprint() == data.fingerprint()
    assert load_npz(path, seed=1).fingerprint() != data.fingerprint()
    assert load_named(str(path), None, seed=1)[0].fingerprint() == load_npz(path, seed=1).fingerprint()


def test_standardizing(tmp_path):
    x = np.random.default_rng(0).normal(5.0, 3.0, (100, 3)) * [1.0, 1000.0, 0.0]
    data = load_npz(save(tmp_path / "a.npz", x=x, y=np.arange(100) % 2)).standardize()
    z = (data.x_train - np.array(data.input_shift)) / np.array(data.input_scale)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), [1.0, 1.0, 0.0], atol=1e-12)
    x[:, 2] = 0.1  # its deviation is 1e-17, by rounding
    again = load_npz(save(tmp_path / "a.npz", x=x, y=np.arange(100) % 2)).standardize()
    assert again.input_scale[2] == 1.0


def test_an_array_of_objects_is_named(tmp_path):
    labels = np.array(["cat", "dog"], dtype=object)
    path = save(tmp_path / "a.npz", x=np.zeros((2, 2)), labels=labels)
    words = r"a.npz holds 'labels' as an array of Python objects, which is a pickle .* labels.astype\(str\)$"
    with pytest.raises(DataError, match=words):
        load_npz(path)


LEVELS = np.linspace(0.0, 1.0, 64).reshape(8, 8)
DEPTHS = {  # levels as a file holds them
    "bytes": np.rint(LEVELS * 255).astype(np.uint8),
    "floats to 1": LEVELS.astype(np.float32),
    "floats a little beyond": (LEVELS * 1.04 - 0.02).astype(np.float32),
    "floats to 255": (LEVELS * 255).astype(np.float32),
    "floats to 65535": (LEVELS * 65535).astype(np.float32),
    "16 bits": (LEVELS * 65535).astype(np.uint16),
    "32 bits to 255": np.rint(LEVELS * 255).astype(np.int32),
    "32 bits to 65535": (LEVELS * 65535).astype(np.int32),
    "32 bits": (LEVELS * (2**31 - 1)).astype(np.int32),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_pictures_of_any_depth(tmp_path, depth):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(DEPTHS[depth]).save(tmp_path / "a.tiff")
    pixels, _ = read_picture(tmp_path / "a.tiff", (8, 8), invert=False)
    assert np.abs(pixels - 255.0 * LEVELS).max() <= (6 if "beyond" in depth else 1)


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ("a.tiff", "a.png"):
        image.fromarray((LEVELS * 255).astype(np.uint16)).save(tmp_path / name)
        assert read_picture(tmp_path / name, (8, 8), invert=False)[0].max() <= 1


@pytest.mark.parametrize("level", [np.nan, np.inf, -1.0, 1e12])
def test_levels_in_no_range(tmp_path, level):
    image = pytest.importorskip("PIL.Image")
    levels = LEVELS.astype(np.float32)
    levels[3, 3] = level
    image.fromarray(levels).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="a.tiff: its levels of grey go from .* to .*: make them 0 to 255"):
        read_picture(tmp_path / "a.tiff", (8, 8))


def test_labels_in_bytes_are_text(tmp_path):
    data = load_npz(save(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.array([b"cat", b"dog"] * 2)), test_share=0.5)
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (["a", "b"], "classification"),
        ([b"a", b"b"], "classification"),
        ([True, False], "classification"),
        ([3, -7], "classification"),
        ([[3], [4]], "classification"),
        ([1.0, 2.0], "classification"),
        (np.arange(100.0), "classification"),
        (np.arange(101), "regression"),
        ([1.0, 2.5], "regression"),
        ([1.0, np.nan], "regression"),
        ([[0, 1], [1, 0]], "classification"),
        ([[0, 1], [1, 1]], "multilabel"),
        ([[0, 0], [1, 0]], "multilabel"),
        ([[0, 2], [1, 0]], "regression"),
    ],
)
def test_the_task_is_read_off_the_targets(y, task):
    assert guess_task(np.array(y)) == task


def test_targets_of_every_task(tmp_path):
    x = np.arange(12.0).reshape(6, 2)
    onehot = np.eye(3, dtype=int)[[0, 1, 2, 2, 1, 0]]
    data = load_npz(save(tmp_path / "a.npz", x_train=x, y_train=onehot, x_test=x, y_test=onehot[:, ::-1]))
    assert (data.task, data.class_names) == ("classification", ("0", "1", "2"))
    assert data.y_test.tolist() == [2, 1, 0, 0, 1, 2]
    data = load_npz(save(tmp_path / "a.npz", x=x, y=onehot), task="multilabel")
    assert (data.task, data.class_names, data.y_train.shape) == ("multilabel", ("0", "1", "2"), (5, 3))
    data = load_npz(save(tmp_path / "a.npz", x=x, y=np.arange(6)), task="regression")
    assert (data.task, data.class_names, data.y_train.dtype, data.y_train.shape) == ("regression", (), float, (5, 1))
    assert data.hold_out(0.4, 0).y_validation.shape == (2, 1)
    data = load_npz(save(tmp_path / "a.npz", x=x, y=np.arange(6) + 1000.0), task="classification")
    assert data.class_names[0] == "1000"


def write_idx(folder, **arrays):
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        (folder / name.replace("_", "-")).write_bytes(idx_bytes(np.asarray(array)))
    return folder


def test_a_folder_of_idx_files(tmp_path):
    """Any shape, any number of classes, classes that only the test set has, and pictures that are scaled."""
    pictures = np.random.default_rng(0).integers(0, 256, (12, 3, 5, 2), dtype=np.uint8)
    folder = write_idx(
        tmp_path / "set",
        emnist_letters_train_images_idx4_ubyte=pictures[:8],
        emnist_letters_train_labels_idx1_ubyte=np.uint8([1, 26, 1, 26, 7, 7, 1, 1]),
        emnist_letters_test_images_idx4_ubyte=pictures[8:],
        emnist_letters_test_labels_idx1_ubyte=np.uint8([26, 30, 1, 31]),
    )
    data = load_idx_folder(folder)
    assert data.class_names == ("1", "7", "26", "30", "31")
    assert data.y_test.tolist() == [2, 3, 0, 4]
    assert (data.input_shape, data.input_scale) == ((3, 5, 2), 255.0)
    assert (data.x_train == pictures[:8]).all()
    assert load_named(str(folder), None)[0].fingerprint() == data.fingerprint()

    floats = np.linspace(0, 1, 40, dtype=np.float32).reshape(10, 4)
    folder = write_idx(
        tmp_path / "numbers", train_images_idx2_float=floats, train_labels_idx1_float=floats[:, 0] * np.float32(2.5)
    )
    data = load_idx_folder(folder)
    assert (data.task, len(data.x_train), len(data.x_test), data.input_scale) == ("regression", 8, 2, 1.0)
    (folder / "train-images-idx2-float.gz").write_bytes(b"damaged, and not looked at beside the plain file")
    assert load_idx_folder(folder).fingerprint() == data.fingerprint()


DOTTED = [name.replace("-idx", ".idx") for name in mnist.FILES]
LAYOUTS = {  # where each of the four files lies
    "plain": mnist.FILES,
    "gzipped": [f"{name}.gz" for name in mnist.FILES],
    "dots": DOTTED,
    "gzipped dots": [f"{name}.gz" for name in DOTTED],
    "underscores": [name.replace("-", "_") for name in mnist.FILES],
    "upper case": [name.upper() for name in mnist.FILES],
    "test for t10k": [name.replace("t10k", "test") for name in mnist.FILES],
    "the data set's name in front": [f"mnist-{name}" for name in mnist.FILES],
    "no type": ["train-images.idx3", "train-labels.idx1", "t10k-images.idx3", "t10k-labels.idx1"],
    "torchvision": [f"MNIST/raw/{name}" for name in mnist.FILES],
    "torchvision's folder": [f"raw/{name}.gz" for name in mnist.FILES],
    "a folder of its name": [f"mnist/{name}" for name in mnist.FILES],
    "the same in capitals": [f"MNIST/{name}.gz" for name in mnist.FILES],
    "Kaggle": [f"{name}/{name}" for name in mnist.FILES],
    "Kaggle, dots": [f"{name}/{dotted}" for name, dotted in zip(mnist.FILES, DOTTED, strict=True)],
    "mixed": [mnist.FILES[0], f"{mnist.FILES[1]}.gz", f"{mnist.FILES[2]}/{DOTTED[2]}", DOTTED[3]],
}


def lay_out(folder, layout, rows=20):
    source = write_mnist(folder.with_name("source"), packed=False, rows=rows)
    for name, place in zip(mnist.FILES, LAYOUTS[layout], strict=True):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        content = (source / name).read_bytes()
        path.write_bytes(gzip.compress(content) if place.endswith(".gz") else content)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mnist_under_its_common_names(tmp_path, layout):
    """--data-dir DIR and --dataset DIR find the same files."""
    expected = load_mnist(write_mnist(tmp_path / "usual")).fingerprint()
    folder = lay_out(tmp_path / "data", layout)
    assert load_mnist(folder).fingerprint() == expected
    named, as_a_folder = load_named("mnist", folder)[0], load_named(str(folder), None)[0]
    for array in ("x_train", "y_train", "x_test", "y_test"):
        assert (getattr(as_a_folder, array) == getattr(named, array)).all()
    assert (as_a_folder.class_names, as_a_folder.input_scale) == (named.class_names, named.input_scale)


def test_a_plain_file_wins_in_every_layout(tmp_path):
    folder = lay_out(tmp_path / "data", "torchvision")
    lay_out(folder / "MNIST", "Kaggle", rows=30)  # what lies further up wins
    for name in mnist.FILES:
        (folder / "MNIST" / "raw" / f"{name}.gz").write_bytes(b"damaged, and not looked at")
        (folder / "MNIST" / f"{name}.gz").write_bytes(b"damaged, and not looked at")
    assert len(load_mnist(folder).x_train) == len(load_idx_folder(folder).x_train) == 30


def test_two_data_sets_in_a_folder(tmp_path):
    for name, rows in (("MNIST", 20), ("FashionMNIST", 30)):
        write_mnist(tmp_path / name / "raw", rows=rows)
    assert len(load_mnist(tmp_path).x_train) == 20
    assert len(load_fashion_mnist(tmp_path).x_train) == 30
    assert len(load_idx_folder(tmp_path / "FashionMNIST").x_train) == 30
    with pytest.raises(DataError, match="holds several data sets .*FashionMNIST/raw, .*MNIST/raw.: give each a folder"):
        load_idx_folder(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(NotFound, match=r"MNIST.raw has no t10k-labels-idx1-ubyte\(.gz\)"):
        load_mnist(tmp_path)


def test_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_mnist(tmp_path / "data")
    save(tmp_path / "A.NPZ.npz", x=X, y=Y)
    (tmp_path / "A.NPZ.npz").rename(tmp_path / "A.NPZ")
    assert len(load_mnist("~/data").x_train) == len(load_idx_folder("~/data").x_train) == 20
    assert len(load_named("~/data", None)[0].x_train) == 20
    assert load_npz("~/A.NPZ").fingerprint() == load_named("~/A.NPZ", None)[0].fingerprint()


def test_mnist_as_a_folder(mnist_dir):
    one, other = load_idx_folder(mnist_dir / "mnist"), load_mnist(mnist_dir)
    assert (one.x_train == other.x_train).all()
    assert (one.y_test == other.y_test).all()
    assert (one.class_names, one.input_scale) == (other.class_names, other.input_scale)


def test_bad_idx_folders(tmp_path):
    x, y = np.zeros((4, 2), dtype=np.uint8), np.uint8([0, 1, 0, 1])
    folder = tmp_path / "a"
    with pytest.raises(DataError, match="a cannot be read: No such file"):
        load_idx_folder(folder)
    folder.mkdir()
    with pytest.raises(DataError, match="a has no train-images"):
        load_named(str(folder), None)
    write_idx(folder, train_images_idx2_ubyte=x, train_labels_idx1_ubyte=y, t10k_images_idx2_ubyte=x)
    with pytest.raises(DataError, match="has one of the two files for testing, .*t10k-images-idx2-ubyte"):
        load_idx_folder(folder)
    write_idx(folder, t10k_labels_idx1_ubyte=y[:3])
    with pytest.raises(DataError, match="y_test must hold targets for each of 4 rows"):
        load_idx_folder(folder)
    write_idx(folder, digits_train_images_idx2_ubyte=x)
    with pytest.raises(DataError, match="holds several data sets"):
        load_idx_folder(folder)


X, Y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
BAD_TABLES = {
    "other names": ({"a": X, "b": Y}, "it holds a, b; wanted are x_train"),
    "nothing": ({}, "it holds nothing; wanted are"),
    "half": ({"x": X}, "wanted are"),
    "lengths": ({"x": X, "y": Y[:3]}, r"y must hold targets for each of 4 rows, .* and is int64 of shape \(3,\)"),
    "cubes": ({"x": X, "y": np.zeros((4, 2, 2))}, r"y must hold targets .* is float64 of shape \(4, 2, 2\)"),
    "no targets": ({"x": X, "y": np.zeros((4, 0))}, r"y must hold targets .* is float64 of shape \(4, 0\)"),
    "dates": ({"x": X, "y": Y.astype("M8[D]")}, "y must hold targets .* numbers or strings"),
    "infinite target": ({"x": X, "y": np.array([0, np.inf, 0, 1])}, "targets of a regression must be finite numbers"),
    "other targets": ({"x_train": X, "y_train": X, "x_test": X, "y_test": Y}, "a row of training has the shape"),
    "no rows": ({"x": X[:0], "y": Y[:0]}, "x has no rows"),
    "no features": ({"x": X[:, :0], "y": Y}, "x has no features"),
    "nan": ({"x": np.where(X == 0, np.nan, X), "y": Y}, "x must be finite: row 0, column 0 is nan"),
    "text": ({"x": X.astype(str), "y": Y}, "x must hold real numbers"),
    "both kinds": (
        {"x_train": X, "y_train": list("abab"), "x_test": X, "y_test": Y},
        "must both be numbers, or both be",
    ),
    "one class": ({"x": X, "y": Y * 0}, "one class alone"),
    "shapes": ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, "a row of training has the shape"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_bad_tables(kind, tmp_path):
    arrays, words = BAD_TABLES[kind]
    path = save(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"a\.npz.*{words}"):
        load_npz(path)


def test_digits():
    data = load_digits()
    assert data.x_train.shape == (1437, 8, 8)
    assert data.x_test.shape == (360, 8, 8)
    assert data.x_train.max() == data.input_scale == 16
    shares = np.bincount(data.y_test) / np.bincount(np.r_[data.y_train, data.y_test])
    assert abs(shares - 0.2).max() < 0.004, "the split is not stratified"


def test_digits_are_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets")
    source, ours = datasets.load_digits(), load_digits()

    def rows(x, y):
        return sorted(zip(map(bytes, x.astype(np.uint8).reshape(-1, 64)), y.tolist(), strict=True))

    x, y = np.r_[ours.x_train, ours.x_test], np.r_[ours.y_train, ours.y_test]
    assert rows(source.images, source.target) == rows(x, y)


def test_mnist_is_mnist(mnist_dir):
    data = load_mnist(mnist_dir)
    assert data.x_train.shape == (60000, 28, 28)
    assert data.x_test.shape == (10000, 28, 28)
    assert np.bincount(data.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_out_of_memory_is_one_line(tmp_path):
    import resource

    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(b"\0\0\x08\1" + struct.pack(">I", 2**32 - 1))
        file.truncate(8 + 2**32 - 1)  # sparse: it takes no room on the disk
    code = (
        "import numpy, sys; from xpnet.data.idx import read_idx; from xpnet.core.errors import DataError\n"
        f"try: read_idx({str(path)!r})\nexcept DataError as error: print(error)"
    )
    limit = 2 * 2**30
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.stdout == f"{path} does not fit into memory\n"
