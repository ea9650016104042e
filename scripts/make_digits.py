"""Make xpnet/data/digits.npz from the digits that scikit-learn ships. Needs scikit-learn.

    python scripts/make_digits.py xpnet/data/digits.npz

The split is stratified and fixed: of each class, a permutation drawn with seed 0 puts a fifth into the test set (the
largest remainders make up 360). Rows keep the order of the source.
"""

from __future__ import annotations

import sys

import numpy as np

try:
    from sklearn.datasets import load_digits
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install 'xpnet[sklearn]'") from None

TEST_ROWS = 360


def main(path: str) -> None:
    """Write the file."""
    source = load_digits()
    x = source.images.astype(np.uint8)
    y = source.target.astype(np.uint8)
    assert (x == source.images).all()

    counts = np.bincount(y)
    exact = counts * TEST_ROWS / len(y)
    share = np.floor(exact).astype(int)
    share[np.argsort(share - exact, kind="stable")[: TEST_ROWS - share.sum()]] += 1
    generator = np.random.default_rng(0)
    test = np.zeros(len(y), dtype=bool)
    for label, wanted in enumerate(share):
        test[generator.permutation(np.flatnonzero(y == label))[:wanted]] = True

    np.savez_compressed(path, x_train=x[~test], y_train=y[~test], x_test=x[test], y_test=y[test])
    print(f"{path}: {(~test).sum()} training rows, {test.sum()} test rows")


if __name__ == "__main__":
    main(sys.argv[1])
