"""Pictures of any depth."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.core.errors import DataError
from xpnet.data.pictures import read_picture

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
