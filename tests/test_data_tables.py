"""Tables in npz files, and the task that their targets are for."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from data_files import X, Y, save
from limits import limited

from xpnet.core.errors import DataError
from xpnet.data import load_named, load_npz
from xpnet.data.files import read_npz
from xpnet.data.targets import guess_task


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
    with pytest.raises(DataError, match="holds 'y', which is no array"):
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


def npy(descr, shape, elements=b""):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + elements


HOSTILE = {
    "gigabytes": (
        npy("|u1", (2**33,), bytes(10)),
        "type uint8 and shape .8589934592,., which is 8589934592 bytes, in 10",
    ),
    "strings of no letters": (npy("<U0", (2**40,)), "type <U0 and shape .1099511627776,., which is 0 bytes, in 0"),
    "elements of no bytes": (npy([("a", "<f4", (0,))], (2**50,)), "which is 0 bytes, in 0"),
    "fewer than there are": (npy("|u1", (2,), b"abc"), "which is 2 bytes, in 3"),
    "a negative size": (npy("|u1", (-1,), b"a"), "which is -1 bytes, in 1"),
    "two of them": (npy("|u1", (-1, -2), b"ab"), "no npz file that can be read"),
    "an escape of Python's": (npy("|u1", (1,), b"a").replace(b"|u1", rb"\d1"), "no npz file that can be read"),
    "another version": (npy("|u1", (1,), b"a").replace(b"\1\0", b"\x09\0"), "a.npz "),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_array_that_its_header_makes_up(kind, tmp_path):
    content, words = HOSTILE[kind]
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with limited(), pytest.raises(DataError, match=words):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("order", "<>")
def test_characters_that_do_not_exist(order, tmp_path):
    """NumPy reads them, and str() of them is a SystemError."""
    names = np.array([[0x61, 0x10FFFF], [0x61, 0x110000]], dtype=order + "u4").view(order + "U2").reshape(2)
    path = save(tmp_path / "a.npz", x=X[:2], y=names)
    with pytest.raises(DataError, match="a.npz holds 'y', whose strings have characters that do not exist"):
        read_npz(path)
    assert read_npz(save(path, y=names[:1]))["y"].tolist() == ["a\U0010ffff"]
    assert read_npz(save(path, y=np.array("ab")))["y"] == "ab"


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_what_numpy_compresses_is_unpacked(kind, tmp_path):
    """Of bzip2, 4 kB may hold gigabytes, and zipfile unpacks as much at once, whatever size is claimed."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("x.npy", npy("|u1", (1,), bytes(2**20)))
    content = path.read_bytes().replace((2**20 + len(npy("|u1", (1,)))).to_bytes(4, "little"), bytes([200, 0, 0, 0]))
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.npz holds 'x' compressed as NumPy does not"):
        read_npz(path)


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


def test_labels_that_are_no_text(tmp_path):
    path = save(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.array(["\ud800", "b"] * 2))
    with pytest.raises(DataError, match="a.npz: classes must be text, and '.ud800' holds half of a surrogate pair"):
        load_npz(path)


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
