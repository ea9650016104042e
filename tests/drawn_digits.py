"""Maker of pictures of digits, printed by fonts and drawn by strokes, as people make them.

Everything is a function of a seed. A `Glyph` is a digit in a style; `draw` gives the share of ink in each pixel of a
canvas, and each of `KINDS` makes a picture of it. `python tests/drawn_digits.py MODEL` prints how many of them a model
reads, with pictures prepared as digits and as they are, of other fonts and seeds than those of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from xpnet import MLP
from xpnet.commands.inputs import read_rows
from xpnet.core.errors import DataError

FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono-Oblique", "cmss10", "cmr10")
HELD_BACK_SEEDS = (901, 902, 903)
HELD_BACK_FONTS = ("DejaVuSans-Bold", "DejaVuSans-Oblique", "STIXGeneral", "STIXGeneralItalic", "cmtt10")
SOFT, STRAIGHT = True, False  # a curve through points, or lines between them
O = 2 * np.pi * np.arange(9) / 8  # noqa: E741
STROKES = {  # points (x, y) of each stroke, y downwards, in a box that is 1 high; some digits in two ways
    0: [[(SOFT, [(0.35 + 0.33 * np.sin(a), 0.5 - 0.5 * np.cos(a)) for a in O])]],
    1: [[(STRAIGHT, [(0.4, 0), (0.35, 1)])], [(STRAIGHT, [(0.12, 0.28), (0.4, 0), (0.4, 1)])]],
    2: [
        [
            (SOFT, [(0.04, 0.25), (0.15, 0.05), (0.4, 0), (0.64, 0.13), (0.63, 0.36), (0.38, 0.68), (0.03, 1)]),
            (STRAIGHT, [(0.03, 1), (0.72, 0.98)]),
        ]
    ],
    3: [
        [
            (SOFT, [(0.06, 0.1), (0.35, 0), (0.62, 0.16), (0.55, 0.38), (0.28, 0.47)]),
            (SOFT, [(0.28, 0.47), (0.6, 0.55), (0.68, 0.8), (0.4, 1), (0.04, 0.9)]),
        ]
    ],
    4: [
        [(STRAIGHT, [(0.5, 0), (0, 0.66), (0.75, 0.66)]), (STRAIGHT, [(0.54, 0.34), (0.52, 1)])],
        [(STRAIGHT, [(0.12, 0), (0.05, 0.52), (0.62, 0.5)]), (STRAIGHT, [(0.62, 0), (0.58, 1)])],
    ],
    5: [
        [
            (STRAIGHT, [(0.66, 0.02), (0.16, 0), (0.1, 0.43)]),
            (SOFT, [(0.1, 0.43), (0.4, 0.37), (0.68, 0.62), (0.55, 0.92), (0.25, 1), (0.02, 0.9)]),
        ]
    ],
    6: [
        [
            (
                SOFT,
                [
                    (0.55, 0),
                    (0.25, 0.2),
                    (0.05, 0.58),
                    (0.12, 0.9),
                    (0.36, 1),
                    (0.61, 0.84),
                    (0.56, 0.6),
                    (0.33, 0.52),
                    (0.08, 0.7),
                ],
            )
        ]
    ],
    7: [
        [(STRAIGHT, [(0.02, 0.02), (0.65, 0), (0.25, 1)])],
        [(STRAIGHT, [(0.02, 0.02), (0.65, 0), (0.25, 1)]), (STRAIGHT, [(0.14, 0.52), (0.6, 0.5)])],
    ],
    8: [
        [
            (
                SOFT,
                [
                    (0.35, 0.47),
                    (0.1, 0.25),
                    (0.35, 0),
                    (0.6, 0.25),
                    (0.35, 0.47),
                    (0.05, 0.76),
                    (0.35, 1),
                    (0.65, 0.76),
                    (0.35, 0.47),
                ],
            )
        ]
    ],
    9: [
        [
            (SOFT, [(0.6, 0.28), (0.36, 0.5), (0.1, 0.3), (0.3, 0.01), (0.58, 0.1), (0.6, 0.28)]),
            (STRAIGHT, [(0.6, 0.2), (0.58, 0.6), (0.48, 1)]),
        ]
    ],
}


@dataclass(frozen=True)
class Glyph:
    """A digit in a style: the name of a font, or strokes with points that are jittered by a seed."""

    digit: int
    font: str | None
    seed: int


def glyphs(seed: int, fonts: tuple[str, ...] = FONTS, *, strokes: int = 2) -> list[Glyph]:
    """Each digit, once in a font, which differ, and `strokes` times by hand."""
    printed = [Glyph(digit, fonts[(digit + seed) % len(fonts)], seed) for digit in range(10)]
    return printed + [Glyph(digit, None, 1000 * seed + k) for k in range(strokes) for digit in range(10)]


def draw(glyph, size, height, middle=None, *, width=None, degrees=0.0):
    """Share of ink, (H, W), of a glyph on a canvas.

    Args:
        glyph: what to draw.
        size: width and height of the canvas.
        height: of the digit, in pixels.
        middle: of the digit, (x, y); by default of the canvas.
        width: of a stroke as a share of the height; None for a usual one.
        degrees: of rotation, against the clock.
    """
    times = max(1, -(-64 // height)) * 2  # a finer canvas
    side = int(2 * height * times)
    canvas = Image.new("L", (side, side), 0)
    if glyph.font is None:
        _strokes(ImageDraw.Draw(canvas), glyph, height * times, side / 2, width or 0.09)
    else:
        font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{glyph.font}.ttf", round(height * times * 1.35))
        thicker = 0 if width is None else round(max(0.0, width - 0.12) * height * times / 2)
        ImageDraw.Draw(canvas).text(
            (side / 2, side / 2), str(glyph.digit), fill=255, font=font, anchor="mm", stroke_width=thicker
        )
    canvas = canvas.rotate(degrees, Image.Resampling.BICUBIC).resize((2 * height, 2 * height), Image.Resampling.BOX)
    x, y = middle or (size[0] / 2, size[1] / 2)
    paper = Image.new("L", size, 0)
    paper.paste(canvas, (round(x - height), round(y - height)))
    return np.asarray(paper) / 255.0


def _strokes(pen, glyph, height, middle, width):
    """Draw the strokes of a digit, their points jittered, slanted, narrower or wider."""
    rng = np.random.default_rng(glyph.seed * 10 + glyph.digit)
    ways = STROKES[glyph.digit]
    slant, aspect = rng.uniform(-0.1, 0.25), rng.uniform(0.8, 1.15)
    r = width * height / 2
    for soft, points in ways[rng.integers(len(ways))]:
        p = np.array(points, dtype=float) + rng.normal(0.0, 0.018, (len(points), 2))
        p = _curve(p) if soft else p
        p = np.stack([aspect * (p[:, 0] - 0.35) + slant * (0.5 - p[:, 1]), p[:, 1] - 0.5], axis=1) * height + middle
        for a, b in pairwise(p):
            for t in np.linspace(0.0, 1.0, max(2, int(np.hypot(*(b - a)) / max(r / 3, 0.5)))):
                x, y = a + t * (b - a)
                pen.ellipse((x - r, y - r, x + r, y + r), fill=255)


def _curve(p):
    """Points of a Catmull-Rom curve through points, (N, 2)."""
    q = np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0.0, 1.0, 12, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(q, q[1:], q[2:], q[3:], strict=False):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*parts, p[-1:]])


def paint(ink, paper=(255, 255, 255), pen=(0, 0, 0)):
    """Colour the share of ink, (H, W): a pen on paper."""
    return _image(np.asarray(paper) * (1 - ink[..., None]) + np.asarray(pen) * ink[..., None])


def _image(values):
    return Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))


def saved(image, kind="PNG", **options):
    """Bytes of a picture's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def clean(glyph, rng):
    return saved(paint(draw(glyph, (280, 280), 200)))


def off_centre(glyph, rng):
    height = 70
    x, y = rng.uniform(height * 0.75, 280 - height * 0.75, 2)
    corner = rng.integers(4)  # a corner more often than the middle
    x, y = (min(x, 280 - x) if corner % 2 else max(x, 280 - x)), (min(y, 280 - y) if corner // 2 else max(y, 280 - y))
    return saved(paint(draw(glyph, (280, 280), height, (x, y))))


def thick(glyph, rng):
    return saved(paint(draw(glyph, (280, 280), 180, width=rng.uniform(0.18, 0.24))))


def thin(glyph, rng):
    """A hairline; fonts have none, and are drawn by hand."""
    return saved(paint(draw(Glyph(glyph.digit, None, glyph.seed), (280, 280), 200, width=rng.uniform(0.008, 0.02))))


def rotated(glyph, rng):
    return saved(paint(draw(glyph, (280, 280), 180, degrees=rng.choice([-15, 15]))))


def blue_on_cream(glyph, rng):
    return saved(paint(draw(glyph, (320, 240), 150), (250, 240, 205), (40, 70, 180)), "JPEG", quality=80)


def red_on_blue(glyph, rng):
    return saved(paint(draw(glyph, (320, 240), 150), (40, 60, 220), (185, 25, 40)))


def transparent(glyph, rng):
    ink = draw(glyph, (240, 240), 130, (rng.uniform(90, 150), rng.uniform(90, 150)))
    colour = rng.choice([0, 255])  # black on nothing, or white on nothing
    rgba = np.full((*ink.shape, 4), colour, dtype=np.uint8)
    rgba[..., 3] = np.rint(255 * ink)
    return saved(Image.fromarray(rgba))


def photograph(glyph, rng):
    """Uneven light, grey noise and noise of colour, out of focus, a JPEG."""
    width, height = 640, 480
    tall = int(rng.uniform(140, 260))
    middle = rng.uniform(tall * 0.7, width - tall * 0.7), rng.uniform(tall * 0.6, height - tall * 0.6)
    ink = draw(glyph, (width, height), tall, middle)
    y, x = np.mgrid[:height, :width] / max(width, height)
    angle, centre = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.8, 2)
    ramp = 1.0 - 0.45 * np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.4) * np.sin(angle), 0, 1)
    light = ramp * (1.0 - 0.35 * ((x - centre[0]) ** 2 + (y - centre[1] * 0.75) ** 2) / 0.5)
    paper, pen = np.array([235, 228, 215]), np.array([[60, 60, 66], [40, 50, 120]][rng.integers(2)])
    values = (paper * (1 - ink[..., None]) + pen * ink[..., None]) * light[..., None]
    values = values + rng.normal(0, 9, (height, width, 1)) + rng.normal(0, 5, (height, width, 3))
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    for axis in (0, 1):
        values = sum(w * np.roll(values, k - 2, axis) for k, w in enumerate(kernel))
    values += rng.normal(0, 4, (height, width, 1))
    return saved(_image(values), "JPEG", quality=70)


SIZES = ((28, 28), (40, 64), (100, 100), (500, 300), (900, 1200), (1200, 900))


def any_size(glyph, rng):
    width, height = SIZES[rng.integers(len(SIZES))]
    tall = int(min(width, height) * rng.uniform(0.5, 0.75))
    return saved(paint(draw(glyph, (width, height), tall)))


def exif_rotated(glyph, rng):
    """Stored as a telephone stores it: turned, with a tag that says so."""
    orientation, turn = (
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    )[rng.integers(3)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(paint(draw(glyph, (300, 400), 200)).transpose(turn), "JPEG", quality=90, exif=exif)


def light_on_dark(glyph, rng):
    return saved(paint(draw(glyph, (280, 280), 180), (30, 50, 40), (235, 235, 225)))


KINDS = {
    "clean": clean,
    "off-centre": off_centre,
    "thick": thick,
    "thin": thin,
    "rotated": rotated,
    "blue on cream": blue_on_cream,
    "red on blue": red_on_blue,
    "transparent": transparent,
    "photograph": photograph,
    "any size": any_size,
    "EXIF": exif_rotated,
    "light on dark": light_on_dark,
}


def pictures(drawn, seed):
    """A picture of each glyph in each kind, as bytes of files, by kind."""
    rng = np.random.default_rng(seed)
    return {kind: [make(glyph, rng) for glyph in drawn] for kind, make in KINDS.items()}


def answers(model, files, prepare, folder):
    """Digits that a model reads in files, given as bytes; -1 where it finds none."""
    rows = []
    for content in files:
        (folder / "picture").write_bytes(content)
        try:
            rows.append(read_rows(model, folder / "picture", None, prepare)[0])
        except DataError:
            rows.append(np.full(model.in_features, np.nan))
    with np.errstate(invalid="ignore"):
        predictions = model.predict(np.stack(rows).reshape(-1, *model.input_shape))
    return np.where(np.isnan(predictions).any(axis=1), -1, predictions.argmax(axis=1))


def read_right(model, drawn, seed, prepare, folder):
    """Of each kind, whether each picture is read right, and whether its clean original is: masks, (2, N)."""
    truth = np.array([glyph.digit for glyph in drawn])
    found = {kind: answers(model, files, prepare, folder) == truth for kind, files in pictures(drawn, seed).items()}
    return {kind: np.stack([right, found["clean"]]) for kind, right in found.items()}


def main():
    """Print a table: of each kind, the share of pictures that is read right of those whose clean original is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path, help="a model file")
    parser.add_argument("--tests", action="store_true", help="with the fonts and seeds of the tests")
    options = parser.parse_args()
    model = MLP.load(options.model)
    fonts, seeds = (FONTS, (1, 2, 3)) if options.tests else (HELD_BACK_FONTS, HELD_BACK_SEEDS)
    right = {prepare: {kind: [] for kind in KINDS} for prepare in ("plain", "digits")}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        for prepare, seed in ((p, s) for p in right for s in seeds):
            for kind, part in read_right(model, glyphs(seed, fonts), seed, prepare, Path(folder)).items():
                right[prepare][kind].append(part)
    print("| pictures | as they are | prepared |\n|---|---|---|")
    for kind in KINDS:
        cells = []
        for prepare in right:
            these, clean = np.concatenate(right[prepare][kind], axis=1)
            cells.append(
                f"{these[clean].sum()} of {clean.sum()}" if kind != "clean" else f"{these.sum()} of {len(these)}"
            )
        print(f"| {kind} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
