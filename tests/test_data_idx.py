"""IDX files, sound and damaged, and folders of them."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from data_files import idx_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xpnet.core.errors import DataError
from xpnet.data import load_idx_folder, load_named
from xpnet.data.files import read_npz
from xpnet.data.idx import TYPES, read_idx

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
