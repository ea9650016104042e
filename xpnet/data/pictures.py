"""Pictures in the common formats, as rows for a model that was trained on light figures on a dark ground."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.checks import path_of
from ..core.device import HostArray
from ..core.errors import DataError, one_line
from .files import open_regular

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # Pillow starts Ghostscript for others
MOST_PIXELS = 50_000_000  # a telephone's camera has 48 million; a PNG file of 21 kB can hold 170
MOST_FILE = 8 * MOST_PIXELS  # bytes
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
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise DataError(f"{path}: reading pictures needs Pillow: pip install 'xpnet[plot]'") from None
    with open_regular(path) as (file, length):
        if length > MOST_FILE:
            raise DataError(f"{path} has {length} bytes, and pictures of {MOST_FILE} can be read")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, of damage that it passes over, would be lines on stderr
                opened = Image.open(io.BytesIO(file.read(length)), formats=FORMATS)  # a file allocates what is read
                if opened.width * opened.height > MOST_PIXELS:  # nothing is decoded yet
                    raise Unusable(f"it has {opened.width}x{opened.height} pixels, and {MOST_PIXELS} can be read")
                ImageOps.exif_transpose(opened, in_place=True)
                if opened.mode.startswith(("I", "F")):  # Pillow's conversion keeps only their lower 8 bits
                    tops = (65535.0,) if opened.mode.startswith("I;16") else TOPS[opened.mode == "I" :]
                    grey = Image.fromarray(_as_bytes(np.array(opened, dtype=np.float32), tops))
                elif opened.has_transparency_data:
                    paper = Image.new("RGBA", opened.size, "white")
                    grey = Image.alpha_composite(paper, opened.convert("RGBA")).convert("L")
                else:
                    grey = opened.convert("L")
        except Unusable as error:
            raise DataError(f"{path}: {error}") from None
        except UnidentifiedImageError:
            raise DataError(f"{path} is no picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from None
        except Exception as error:  # Pillow's readers raise exceptions of any type
            raise DataError(f"{path} is no picture that can be read: {one_line(error)}") from error
    border = _border(np.asarray(grey))
    inverted = border > LIGHT if invert is None else invert
    height, width = size
    fitted = ImageOps.pad(grey, (width, height), method=Image.Resampling.LANCZOS, color=round(border))
    pixels = np.asarray(fitted)
    return 255 - pixels if inverted else pixels, inverted


class Unusable(Exception):
    """The picture is too large, or its levels of grey are in no known range."""


def _as_bytes(levels: HostArray, tops: Sequence[float]) -> HostArray:
    """Scale levels of grey, in place, to bytes: white is the smallest of `tops` that they exceed by at most a tenth.

    Raises `Unusable` where none fits, or levels are below 0 by more than a tenth.
    """
    low, high = float(levels.min()), float(levels.max())
    top = next((top for top in tops if high <= 1.1 * top), None)  # false for NaN
    if top is None or low < -0.1 * top:
        raise Unusable(f"its levels of grey go from {low:g} to {high:g}: make them 0 to 255")
    np.clip(levels, 0.0, top, out=levels)
    levels *= 255.0 / top
    return np.rint(levels, out=levels).astype(np.uint8)


def _border(pixels: HostArray) -> float:
    """Mean of the outermost pixels."""
    return float(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean())
