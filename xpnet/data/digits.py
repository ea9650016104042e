"""The bundled digits: 1,797 pictures of handwritten digits, 8x8, each pixel from 0 to 16.

They are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49), which scikit-learn also ships. They train a network in seconds on a
machine without a network connection. `scripts/make_digits.py` made the file, and split it once and for all.
"""

from __future__ import annotations

from pathlib import Path

from .dataset import Dataset
from .files import read_npz

PATH = Path(__file__).with_name("digits.npz")


def load_digits() -> Dataset:
    """Load the bundled digits: 1,437 training rows and 360 test rows, stratified."""
    arrays = read_npz(PATH)
    return Dataset(
        name="digits",
        x_train=arrays["x_train"],
        y_train=arrays["y_train"],
        x_test=arrays["x_test"],
        y_test=arrays["y_test"],
        class_names=tuple("0123456789"),
        input_scale=16.0,
        source="bundled with xpnet",
    )
