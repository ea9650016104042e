"""Files of data as tests write them."""

from __future__ import annotations

import gzip
import struct

import numpy as np

from xpnet.data import mnist
from xpnet.data.idx import TYPES

CODES = {np.dtype(name): code for code, name in TYPES.items()}


def idx_bytes(array):
    big = array.astype(array.dtype.newbyteorder(">"))
    code = CODES[np.dtype(array.dtype.newbyteorder(">"))]
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


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


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


X, Y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
