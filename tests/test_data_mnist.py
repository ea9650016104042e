"""MNIST and Fashion-MNIST from a folder, the cache and a download; the bundled digits."""

from __future__ import annotations

import gzip
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from data_files import X, Y, idx_bytes, save, write_mnist

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
