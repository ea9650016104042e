"""Pictures in the common formats, as rows for a model, in grey, light figures on a dark ground."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import path_of
from ..core.device import HostArray
from ..core.errors import DataError, one_line
from .dataset import Dataset
from .files import open_regular
from .handwriting import WORKING, Prepared, pictures_in, prepare_digit
from .split import stratified_split

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # Pillow starts Ghostscript for others
MOST_PIXELS = 50_000_000  # a telephone's camera has 48 million; a PNG file of 21 kB can hold 170
MOST_FILE = 8 * MOST_PIXELS  # bytes
TOPS = (1.0, 255.0, 65535.0, 2.0**31)  # white in floats, bytes, 16 and 32 bits
COUNTED = 8  # pixels a side of the UCI digits
LIGHT = 127.5  # mean of the border above which it is paper


SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
MOST_SIDE = 64  # of the pictures of a folder, which are rows of as many features


def picture_folders(path: Path) -> dict[str, list[Path]]:
    """Pictures in the folders of a folder, by the folders' names; those without pictures are left out."""
    found: dict[str, list[Path]] = {}
    for folder in sorted(one for one in path.iterdir() if os.path.isdir(one)):  # noqa: PTH112
        pictures = sorted(one for one in folder.iterdir() if one.suffix.lower() in SUFFIXES)
        found |= {folder.name: pictures} if pictures else {}
    return found


def load_picture_folders(path: Path | str, *, seed: int = 0, test_share: float = 0.2) -> Dataset:
    """Load a data set of pictures in folders, of which each is a class: `root/cat/1.png`.

    Pictures become grey and light on dark, as `read_picture` has them, of one size: that of the first picture, with 64
    pixels at most on the longer side. Test pictures are in `root/test`, and training pictures in `root/train`, or a
    share of all, stratified by class, is the test set.

    Raises:
        DataError: a picture cannot be read, or there are fewer than two classes.
    """
    path = path_of(path)
    parts = [picture_folders(path / part) for part in ("train", "test") if os.path.isdir(path / part)]  # noqa: PTH112
    parts = parts if len(parts) == 2 and all(parts) else [picture_folders(path)]
    names = sorted(parts[0])
    if len(names) < 2 or any(sorted(part) != names for part in parts):
        raise DataError(f"{path} must have a folder of pictures for each of two or more classes, and has {names}")
    size = _common_size(parts[0][names[0]][0])
    x, y = [], []
    for part in parts:
        x.append(np.stack([read_picture(one, size)[0] for name in names for one in part[name]]))
        y.append(np.repeat(np.arange(len(names)), [len(part[name]) for name in names]))
    if len(parts) == 1:
        kept, out = stratified_split(y[0], test_share, seed)
        x, y = [x[0][kept], x[0][out]], [y[0][kept], y[0][out]]
    note = f"pictures are grey, light on dark, {size[0]} x {size[1]}"
    about: dict[str, Any] = {"name": str(path), "source": str(path), "notes": (note,), "input_scale": 255.0}
    return Dataset(x_train=x[0], y_train=y[0], x_test=x[1], y_test=y[1], class_names=tuple(names), **about)


def _common_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture, scaled down to at most `MOST_SIDE`."""
    with open_regular(path) as (file, _):
        try:
            from PIL import Image

            width, height = Image.open(file, formats=FORMATS).size
        except ImportError:
            raise DataError(f"{path}: reading pictures needs Pillow: pip install 'xpnet[plot]'") from None
        except Exception as error:  # Pillow's readers raise exceptions of any type
            raise DataError(f"{path} is no picture that can be read: {one_line(error)}") from error
    scale = min(1.0, MOST_SIDE / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


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
    grey = _decoded(path, _grey)
    from PIL import Image, ImageOps  # `_decoded` says what is missing

    border = _border(np.asarray(grey))
    inverted = border > LIGHT if invert is None else invert
    height, width = size
    fitted = ImageOps.pad(grey, (width, height), method=Image.Resampling.LANCZOS, color=round(border))
    pixels = np.asarray(fitted)
    return 255 - pixels if inverted else pixels, inverted


def read_digit(path: Path | str, side: int, *, invert: bool | None = None) -> Prepared:
    """Read the digit in a picture, as `prepare_digit` prepares it for a network of `side` x `side` pixels.

    A picture of 8x8 is prepared already, and so is one of 28x28 whose digit is where MNIST has it: only its ink is made
    light.

    Args:
        path: the file.
        side: 28 or 8.
        invert: whether the ink is darker than the paper; None finds out.

    Raises:
        DataError: the file is missing or no picture, it shows no digit, or Pillow is not installed.
    """
    picture = read_colours(path)
    if picture.shape[:2] == (side, side):
        pixels, dark = read_picture(path, (side, side), invert=invert)
        if side == COUNTED or pictures_in(pixels[None]) == "digits":
            return Prepared(pixels / 255.0, dark)
    try:
        return prepare_digit(picture, side, dark_ink=invert)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_colours(path: Path | str) -> HostArray:
    """Read a picture as bytes of red, green and blue, (H, W, 3); transparent parts become white, or black below light
    ink. Raises `DataError` as `read_picture` does."""
    return np.asarray(_decoded(path, _colours))


def _decoded(path: Path | str, convert: Callable[[Any], Any]) -> Any:
    """Open a picture in one of `FORMATS`, of at most `MOST_PIXELS`, turned as its EXIF tag says, and `convert` it."""
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
                data = io.BytesIO(file.read(length))  # allocates what is read
                opened: Image.Image = Image.open(data, formats=FORMATS)
                if opened.width * opened.height > MOST_PIXELS:  # nothing is decoded yet
                    raise Unusable(f"it has {opened.width}x{opened.height} pixels, and {MOST_PIXELS} can be read")
                ImageOps.exif_transpose(opened, in_place=True)
                if opened.mode.startswith(("I", "F")):  # Pillow's conversion keeps only their lower 8 bits
                    tops = (65535.0,) if opened.mode.startswith("I;16") else TOPS[opened.mode == "I" :]
                    opened = Image.fromarray(_as_bytes(np.array(opened, dtype=np.float32), tops))
                return convert(opened)
        except Unusable as error:
            raise DataError(f"{path}: {error}") from None
        except Image.DecompressionBombError:  # Pillow refuses to open it at all
            raise DataError(f"{path}: it has too many pixels, and {MOST_PIXELS} can be read") from None
        except UnidentifiedImageError:
            raise DataError(f"{path} is no picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from None
        except Exception as error:  # Pillow's readers raise exceptions of any type
            raise DataError(f"{path} is no picture that can be read: {one_line(error)}") from error


def _grey(image: Any) -> Any:
    """Convert an image to grey, its transparent parts to white."""
    return _on_paper(image, "white").convert("L")


def _colours(image: Any) -> Any:
    """Convert an image to red, green and blue, its transparent parts to white, or to black below light ink."""
    paper = "white"
    if image.has_transparency_data:
        small = image.convert("RGBA").resize((WORKING, WORKING)).convert("LA")
        grey, there = (np.asarray(band, dtype=np.float32) for band in small.split())
        paper = "black" if float((grey * there).sum()) > LIGHT * float(there.sum()) else "white"
    return _on_paper(image, paper).convert("RGB")


def _on_paper(image: Any, paper: str) -> Any:
    """Lay an image on paper of a colour, where parts of it are transparent."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, paper), image.convert("RGBA"))


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
