"""Pictures of any format that Pillow reads, as rows for a model that was trained on light figures on a dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.checks import path_of
from ..core.errors import DataError, one_line
from .dataset import HostArray
from .files import open_regular

TOPS = (1.0, 255.0, 65535.0, 2.0**31)  # white in floats, bytes, 16 and 32 bits
LIGHT = 127.5  # mean of the border above which it is paper


def read_picture(path: Path | str, size: tuple[int, int], *, invert: bool | None = None) -> tuple[HostArray, bool]:
    """Read a picture as grey bytes of `size` (height, width); also return whether it was inverted.

    It is converted to grey (transparent parts to white), padded with the colour of its border to the proportions of
    `size`, and resized.

    Args:
        path: the file.
        size: height and width of the result.
        invert: whether to turn dark on light into light on dark; None does where the border is light.

    Raises:
        DataError: the file is missing or no picture, or Pillow is not installed.
    """
    path = path_of(path)
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DataError(f"{path}: reading pictures needs Pillow: pip install 'xpnet[plot]'") from None
    with open_regular(path) as (file, _):
        try:
            with Image.open(file) as opened:
                turned = ImageOps.exif_transpose(opened)
                if turned.mode.startswith(("I", "F")):  # Pillow's conversion keeps only their lower 8 bits
                    tops = (65535.0,) if turned.mode.startswith("I;16") else TOPS[turned.mode == "I" :]
                    turned = Image.fromarray(_as_bytes(np.asarray(turned, dtype=np.float64), tops))
                picture = turned.convert("RGBA")
        except Unscalable as error:
            raise DataError(f"{path}: {error}") from None
        except Exception as error:  # Pillow's readers raise exceptions of any type
            raise DataError(f"{path} is no picture that can be read: {one_line(error)}") from error
    paper = Image.new("RGBA", picture.size, "white")
    grey = Image.alpha_composite(paper, picture).convert("L")
    border = _border(np.asarray(grey))
    inverted = border > LIGHT if invert is None else invert
    height, width = size
    fitted = ImageOps.pad(grey, (width, height), method=Image.Resampling.LANCZOS, color=round(border))
    pixels = np.asarray(fitted)
    return 255 - pixels if inverted else pixels, inverted


class Unscalable(Exception):
    """Levels of grey are in no known range."""


def _as_bytes(levels: HostArray, tops: Sequence[float]) -> HostArray:
    """Scale levels of grey to bytes: white is the smallest of `tops` that they exceed by at most a tenth.

    Raises `Unscalable` where none fits, or levels are below 0 by more than a tenth.
    """
    low, high = float(levels.min()), float(levels.max())
    top = next((top for top in tops if high <= 1.1 * top), None)  # false for NaN
    if top is None or low < -0.1 * top:
        raise Unscalable(f"its levels of grey go from {low:g} to {high:g}: make them 0 to 255")
    return np.rint(levels.clip(0.0, top) * (255.0 / top)).astype(np.uint8)


def _border(pixels: HostArray) -> float:
    """Mean of the outermost pixels."""
    return float(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean())
