"""A digit in a picture of any kind, as the makers of MNIST and of the UCI digits prepared theirs.

Every step is plain arithmetic on small float64 arrays of levels from 0 to 1. `prepare_digit` says the steps in order:

1. Look at the picture at most `WORKING` pixels wide and high, by area averages.
2. Reduce colour to one number: the position along the axis of colour on which neighbouring pixels differ most.
3. Subtract the paper: a smooth surface through the border (uneven light), then an opening (shadows with edges).
4. Split ink from paper by Otsu's threshold (N. Otsu, 1979). Ink is the side that differs more from the border.
5. Keep the strokes: no specks, lines or frames, nothing that comes in from the border where there is something else.
6. Look again at what is around the strokes, where they are a small part of the picture.

What follows needs the strokes alone, and a page to draw on does the same (`shape`):

7. Crop to the pixels above `INK`, and resize so that the longer side has 80 pixels, by area averages.
8. Where the strokes' mean width is outside `WIDTHS`: take the largest (or the smallest) of each 3x3 pixels, with a
   margin of one, crop and resize as in step 7, and measure again; 16 times at most. A step of narrowing that
   would break a stroke or open a loop ends it: the parts of the ink, and those of the ground, must stay as many.
9. Shift the rows to make the digit more upright, by linear interpolation, and crop. For MNIST: half of the way to
   `SLANT`, by moments. For the UCI digits, which had been sheared: so that the leftmost ink of the highest and of the
   lowest rows is in one column. Before the crop, shift the columns the other way, by half as much for each column:
   writing that leans needs none of it, and a digit that is turned as much as the rows.
10. Scale to a box of 20x20, keeping the proportions and the levels of grey, divide by the highest level, and put the
    centre of mass at the middle of 28x28, by whole pixels (Y. LeCun, L. Bottou, Y. Bengio and P. Haffner,
    "Gradient-based learning applied to document recognition", 1998). Or scale to 32 rows, and at most 20 columns, in
    the middle of 32x32, and count the ink in blocks of 4x4 (E. Alpaydin and C. Kaynak, 1998).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..core.device import HostArray
from ..core.errors import DataError

WORKING = 160  # pixels of the longer side that steps 2 to 5 see
LOOKS = 4  # at a picture and parts of it
SMALL = 0.4  # of the longer side: strokes below it are looked at again
SHEET, SOLID = 0.25, 0.65  # share of a picture, and of its box, from which on a light figure is a sheet of paper
BLANK = 0.85  # share of a sheet's box above which it is no bold digit: those of MNIST have 0.73 at most
WIDE = 1.6  # width over height of more than a digit: MNIST has one in 10,000
COARSE = 64  # pixels of the longer side in which the axis of colour is found: less noise
BORDER = 0.04  # width of the border, of the shorter side
OPENING = 0.5  # window of the opening, of the longer side: wider than any stroke
BINS = 256  # of Otsu's histogram
SEEN = 500  # rows by which `pictures_in` judges
FAINT = 0.05  # contrast below which there is no ink
NOISY = 8.0  # contrast, in mean deviations of the paper, below which there is no ink: noise alone has 5.8
SPECK = 0.05  # of the area of the largest stroke, below which a part is a speck
INNER = 0.1  # of the area of the largest stroke, above which strokes that touch no edge are enough
FRAMED = 0.3  # of a frame's height, above which a part within it is a digit
CLOSE = 0.15  # of the largest stroke's size: the gap between parts of a digit
FINE = 4  # pixels of the fine grid, on which strokes are measured, in a pixel of the result
INK = 0.1  # level above which a pixel belongs to the digit
WIDTHS = {28: (1.7, 4.2), 8: (3.4, 4.6)}  # of strokes, in pixels of MNIST: 5 and 98 % of its digits; the UCI's mean ink
SIDES = tuple(WIDTHS)  # of pictures that can be made
SLANT, UPRIGHT = 0.05, 0.5  # slant of an upright digit, and the share of the way to it: MNIST's own are read best
TURN = 0.5  # slope of columns over that of rows
ENDS = 4  # rows of the fine grid at the top and at the bottom, by whose ink the UCI digits are made upright
BOX, SIDE, MIDDLE = 20, 28, 14.0  # MNIST's box, picture, and centre of mass: the pixel 14 of 0 to 27, by its centre
NIST_WIDTH, NIST_SIDE, BLOCK = 20, 32, 4  # of the bitmaps in which the UCI digits' pixels were counted


@dataclass(frozen=True)
class Prepared:
    """A picture as a network is given it.

    Attributes:
        levels: (H, W), from 0 to 1, light on dark.
        dark_ink: whether the ink is darker than its paper.
        remark: what is unusual, such as several digits, or "".
    """

    levels: HostArray
    dark_ink: bool
    remark: str = ""


def prepare_digit(picture: HostArray, side: int = SIDE, *, dark_ink: bool | None = None) -> Prepared:
    """Prepare the digit in a picture.

    Args:
        picture: red, green and blue, (H, W, 3), from 0 to 255.
        side: 28 for pictures as MNIST's, 8 for pictures as the UCI digits'.
        dark_ink: whether the ink is darker than its paper; None finds out by the border.

    Raises:
        DataError: there is no digit.
    """
    found = look(picture, dark_ink, LOOKS)
    if found.box is None:
        raise DataError("there is no digit in it")
    return Prepared(shape(found.levels, side), found.dark, found.remark())


def shape(levels: HostArray, side: int) -> HostArray:
    """Make a digit as a network of `side` x `side` pixels knows it, of strokes, (H, W), from 0 to 1."""
    strokes = even_strokes(fit(cropped(levels), BOX * FINE), *WIDTHS[side])
    lean = UPRIGHT * (slant(strokes) - SLANT) if side == SIDE else left_slant(strokes)
    upright = cropped(shear(shear(strokes, lean).T, -TURN * lean).T)
    return center(upright) if side == SIDE else count_blocks(upright)


@dataclass(frozen=True)
class Ink:
    """Strokes found in a picture.

    Attributes:
        levels: (H, W), from 0 beside the strokes to 1 in their middle.
        dark: whether they are darker than the paper.
        figures: how many figures there are; the levels are those of the largest one.
    """

    levels: HostArray
    dark: bool
    figures: int

    @property
    def box(self) -> tuple[slice, slice] | None:
        """Rows and columns of the smallest box around the strokes; None where there are none."""
        return box_of(self.levels > INK)

    def is_sheet(self) -> bool:
        """Whether they are rather a sheet of paper: light, large, and nearly all of their box."""
        box = self.box
        solid: HostArray = self.levels > 0.5
        if self.dark or box is None or solid[box].size < SHEET * solid.size:
            return False
        return bool(solid[box].mean() > SOLID)

    def is_blank(self) -> bool:
        """Whether they are a sheet, with nothing on it, for sure: too solid for a bold digit that is not a narrow 1."""
        solid: HostArray = self.levels[self.box] > 0.5
        height, width = solid.shape[-2:]
        return self.is_sheet() and bool(solid.mean() > BLANK) and width > 0.5 * height

    def is_inside(self) -> bool:
        """Whether there are any, and none at the edge of the picture."""
        return self.box is not None and not border_of(self.levels).any()

    def remark(self) -> str:
        """What is unusual, or ""."""
        if self.figures > 1:
            return f"there are {self.figures} digits in it, and the largest one is read"
        height, width = self.levels[self.box].shape
        return "it is wider than a digit, and read as one" if width > WIDE * height else ""


def look(picture: HostArray, dark_ink: bool | None, looks: int) -> Ink:
    """Find the strokes in a picture, bytes of (H, W, 3).

    It looks again, `looks` times in all, at what is around small strokes, and for dark ones on a sheet of paper.
    """
    found = find_ink(shrink(picture, WORKING) / 255.0, dark_ink)
    if found.box is None or looks == 1:
        return found
    shape, (rows, columns) = found.levels.shape, found.box
    if dark_ink is None and found.is_sheet():
        parts = (picture, part_of(picture, rows, columns, shape))
        blank = Ink(np.zeros(shape), True, 0) if found.is_blank() else found
        return next((ink for part in parts if (ink := look(part, True, looks - 1)).is_inside()), blank)
    size = max(rows.stop - rows.start, columns.stop - columns.start)
    if size > SMALL * max(shape):
        return found
    margin = size // 2
    down, across = (slice(max(0, one.start - margin), one.stop + margin) for one in (rows, columns))
    closer = look(part_of(picture, down, across, shape), dark_ink, looks - 1)
    return found if closer.box is None else replace(closer, figures=max(found.figures, closer.figures))


def part_of(picture: HostArray, rows: slice, columns: slice, shape: tuple[int, ...]) -> HostArray:
    """Part of a picture: a box in pixels of the picture shrunken to `shape`."""
    down, across = (large / small for small, large in zip(shape, picture.shape, strict=False))
    return picture[
        int(rows.start * down) : int(np.ceil(rows.stop * down)),
        int(columns.start * across) : int(np.ceil(columns.stop * across)),
    ]


def pictures_in(rows: HostArray) -> str | None:
    """How pictures were made: "digits" where rows are as `prepare_digit` makes them, "plain", or None for other rows.

    Of the first rows, (N, 28, 28) or (N, 784), nearly all must have a figure whose longer side is that of MNIST's box,
    and its centre of mass in the middle. Of (N, 8, 8) or (N, 64), nearly all must have one that is 8 high, and the
    first and last columns nearly nothing, as of bitmaps of 20x32 in 32x32.
    """
    side = next((n for n in SIDES if rows[0].size == n * n), None)
    if side is None or not (rows.ndim == 2 or rows.shape[1:] == (side, side)):
        return None
    x = np.asarray(rows[:SEEN], dtype=np.float64).reshape(-1, side, side)
    if not (np.isfinite(x).all() and (x >= 0.0).all() and x.any(axis=(1, 2)).all()):
        return "plain"
    ink = x > 0.1 * x.max(axis=(1, 2), keepdims=True)
    sides = np.stack([np.ptp(_ends(ink.any(axis=axis)), axis=0) for axis in (1, 2)]) + 1
    mass, pixel = x.sum(axis=(1, 2)), np.arange(side)
    if side == SIDE:
        middles = np.stack([x.sum(axis=axis) @ pixel / mass for axis in (1, 2)])
        made = (sides.max(axis=0) == BOX) & (np.abs(middles - MIDDLE).max(axis=0) < 0.51)
    else:
        made = (sides[1] == side) & (x[:, :, [0, -1]].sum(axis=(1, 2)) < 0.05 * mass)
    return "digits" if made.mean() > 0.9 else "plain"


def _ends(lines: HostArray) -> HostArray:
    """First and last true element of each row, (2, N)."""
    return np.stack([lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)])


def shrink(picture: HostArray, longest: int) -> HostArray:
    """Reduce a picture, (H, W, ...), to at most `longest` pixels a side, by area averages."""
    height, width = picture.shape[:2]
    scale = min(1.0, longest / max(height, width))
    return resize(picture, max(1, round(height * scale)), max(1, round(width * scale)))


def resize(picture: HostArray, height: int, width: int) -> HostArray:
    """Area average of a picture, (H, W) or (H, W, C): a new pixel is the mean of what lies below it."""
    rows = average(picture, height)  # first along the rows, which lie together in memory
    return np.swapaxes(average(np.swapaxes(rows, 0, 1), width), 0, 1)


def average(lines: HostArray, count: int) -> HostArray:
    """Average lines of pixels, (N, ...), to (count, ...) lines, each line with the share of it that is below."""
    step = len(lines) / count
    result = np.empty((count, *lines.shape[1:]))
    for i in range(count):
        start, stop = i * step, min((i + 1) * step, len(lines))
        first, last = int(start), int(np.ceil(stop))
        line = np.arange(first, last)
        shares = np.minimum(line + 1, stop) - np.maximum(line, start)
        result[i] = np.tensordot(shares, lines[first:last], 1) / (stop - start)
    return result


def find_ink(picture: HostArray, dark_ink: bool | None) -> Ink:
    """Find the strokes in a small picture, (H, W, 3), from 0 to 1."""
    axis = colour_axis(shrink(picture, COARSE))
    grey = picture @ axis  # the axis points to the light
    flat = grey - surface(grey)
    flat -= np.median(border_of(flat))  # the border is paper
    sides = (True, False) if dark_ink is None else (dark_ink,)
    heights = [-flat if dark else flat for dark in sides]
    raised = [height - opening(height) for height in heights]
    masks = [levels > otsu(levels) for levels in raised]
    k = int(np.argmax([np.median(h[mask]) if mask.any() else 0.0 for h, mask in zip(heights, masks, strict=True)]))
    if not sides[k] and (sheet := ink_of(flat, flat > otsu(flat), dark=False)).is_sheet():
        return sheet  # of which the opening takes parts that are wider than its window
    return ink_of(raised[k], masks[k], sides[k])


def ink_of(levels: HostArray, mask: HostArray, dark: bool) -> Ink:
    """The strokes in the mask of what is ink, (H, W), by the levels above the paper."""
    nothing = Ink(np.zeros_like(levels), dark, 0)
    if not mask.any():
        return nothing
    paper = float(np.median(levels[~mask]))
    noise = float(np.median(np.abs(levels[~mask] - paper)))
    if np.quantile(levels[mask], 0.9) - paper < max(FAINT, NOISY * noise):
        return nothing
    strokes, figures = largest_figure(levels, mask)
    ink = float(np.quantile(levels[strokes], 0.9))
    near = slide(strokes.astype(float), 3, np.maximum) > 0.0  # with the soft edge of the strokes
    return Ink(np.where(near, np.clip((levels - paper) / (ink - paper), 0.0, 1.0), 0.0), dark, figures)


def colour_axis(picture: HostArray) -> HostArray:
    """Direction of colour, (3,), along which neighbouring pixels of a picture, (H, W, 3), differ most.

    It is the first eigenvector of the sum of their differences' outer products. It points towards the light.
    """
    differences = np.concatenate([np.diff(picture, axis=axis).reshape(-1, 3) for axis in (0, 1)])
    power = differences.T @ differences
    if power.trace() < 1e-12:  # one colour
        return np.full(3, 3**-0.5)
    for _ in range(10):  # the power 1024 of it, scaled: other eigenvectors vanish
        power = power @ power / (power @ power).trace()
    axis: HostArray = power[:, int(np.argmax(power.diagonal()))]
    axis = axis / np.sqrt(axis @ axis)
    return axis if axis.sum() >= 0.0 else -axis


def border_of(values: HostArray) -> HostArray:
    """Pixels of the border, (N,), of an array (H, W, ...)."""
    height, width = values.shape[:2]
    n = max(1, round(BORDER * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[n : height - n, n : width - n] = True
    return values[~inside]


def surface(grey: HostArray) -> HostArray:
    """Quadratic surface through the border of levels, (H, W), without what stands out of it."""
    y, x = (np.linspace(-1.0, 1.0, n) for n in grey.shape)
    y, x = np.meshgrid(y, x, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # (H, W, 6)
    a, b = border_of(terms), border_of(grey)
    kept = np.abs(b - np.median(b)) <= 0.25
    for _ in range(3):
        weights = np.linalg.solve(a[kept].T @ a[kept] + 1e-9 * np.eye(6), a[kept].T @ b[kept])
        error = np.abs(b - a @ weights)
        kept = error <= max(3.0 * float(np.median(error)), 0.02)
    return terms @ weights


def opening(grey: HostArray) -> HostArray:
    """Levels without what is raised and narrower than the window: the smallest within it, then the largest of these."""
    n = max(3, round(OPENING * max(grey.shape)))
    return slide(slide(grey, n, np.minimum), n, np.maximum)


def slide(grey: HostArray, n: int, what: np.ufunc) -> HostArray:
    """Smallest (`np.minimum`) or largest level within a square of n x n around each pixel, cut off at the edges."""
    fill = np.inf if what is np.minimum else -np.inf
    for _ in range(2):
        lines = np.pad(grey, ((n // 2, (n - 1) // 2), (0, 0)), constant_values=fill)
        width = 1  # of the windows so far
        while width < n:
            step = min(width, n - width)
            lines = what(lines[:-step], lines[step:])
            width += step
        grey = lines.T
    return grey


def otsu(levels: HostArray) -> float:
    """Threshold between two groups of levels, with the least variance within them."""
    low, high = float(levels.min()), float(levels.max())
    if high <= low:
        return high
    counts = np.bincount(
        np.minimum(((levels - low) * (BINS / (high - low))).astype(int), BINS - 1).ravel(), minlength=BINS
    )
    middles = np.arange(BINS) + 0.5
    n, total = np.cumsum(counts), np.cumsum(counts * middles)
    below, above = n[:-1], n[-1] - n[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total[:-1] / below - (total[-1] - total[:-1]) / above) ** 2
    best = int(np.argmax(np.nan_to_num(between)))
    return low + (best + 1) * (high - low) / BINS


def largest_figure(levels: HostArray, mask: HostArray) -> tuple[HostArray, int]:
    """Find the largest figure in the mask of ink, (H, W), by its levels: its mask, and the number of figures.

    A figure is one or more parts of the mask that are close together. Specks and frames are none, and what comes in
    from the edge is none where there is something else.
    """
    names, area, inner = parts_of(mask)
    if inner.max() <= INNER * area.max():  # all comes in from the edge, as lines through a digit do
        darker = parts_of(mask & (levels > otsu(levels[mask])))
        names, area, inner = darker if darker[2].max() > INNER * darker[1].max() else (names, area, area)
    parts = np.flatnonzero(inner >= max(SPECK * inner.max(), 1)).tolist()
    parts = [n for n in parts if not is_frame(names, n, parts)]
    figures = join([box for n in parts if (box := box_of(names == n))])
    size = [int(sum(area[parts[k]] for k in figure.parts)) for figure in figures]
    best = int(np.argmax(size))
    tall = [f.bottom - f.top for f in figures]
    similar = sum(a > 0.25 * size[best] and h > 0.5 * tall[best] for a, h in zip(size, tall, strict=True))
    kept = np.isin(names, [parts[k] for k in figures[best].parts])
    return kept, similar


def is_frame(names: HostArray, n: int, parts: list[int]) -> bool:
    """Whether the part `n` goes around another, as a box or a circle around a digit; a dot in a zero is too small."""
    names = names[box_of(names == n) or ...]
    others = (set(np.unique(names).tolist()) & set(parts)) - {n}
    if not others:
        return False
    part = slide((names == n).astype(float), 3, np.maximum) > 0.0  # without gaps at corners
    ground, _ = label(np.pad(~part, 1, constant_values=True))
    inside = ground[1:-1, 1:-1] > 1  # 1 is all around
    return any(inside[m].any() and np.ptp(np.nonzero(m)[0]) > FRAMED * len(names) for m in (names == k for k in others))


def parts_of(mask: HostArray) -> tuple[HostArray, HostArray, HostArray]:
    """Number the parts of a mask; the area of each, with 0 for what is not in it, and of those that touch no edge."""
    names, count = label(mask)
    area = np.bincount(names.ravel(), minlength=count + 1)
    inner = area.copy()
    inner[np.concatenate([names[0], names[-1], names[:, 0], names[:, -1]])] = inner[0] = area[0] = 0
    return names, area, inner


@dataclass(frozen=True)
class Figure:
    """Box around parts of a mask, by their numbers."""

    top: int
    bottom: int
    left: int
    right: int
    parts: tuple[int, ...]

    def gap(self, other: Figure) -> int:
        """Pixels between two boxes, along the axis with more of them."""
        down = max(self.top, other.top) - min(self.bottom, other.bottom)
        across = max(self.left, other.left) - min(self.right, other.right)
        return max(down, across)

    def joined(self, other: Figure) -> Figure:
        """Box around both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        bottom, right = max(self.bottom, other.bottom), max(self.right, other.right)
        return Figure(top, bottom, left, right, self.parts + other.parts)


def join(boxes: list[tuple[slice, slice]]) -> list[Figure]:
    """Join boxes that are close together, compared with the largest of them."""
    figures = [Figure(r.start, r.stop, c.start, c.stop, (k,)) for k, (r, c) in enumerate(boxes)]
    near = CLOSE * max((max(f.bottom - f.top, f.right - f.left) for f in figures), default=0)
    k = 0
    while k < len(figures):
        other = next((f for f in figures[k + 1 :] if figures[k].gap(f) <= near), None)
        if other is None:
            k += 1
        else:
            figures.remove(other)
            figures[k] = figures[k].joined(other)
            k = 0
    return figures


def label(mask: HostArray) -> tuple[HostArray, int]:
    """Number the connected parts of a mask, (H, W), from 1 on, neighbours at corners included; 0 is not in it.

    Runs of each row are joined with those that they touch in the row above.
    """
    parent = [0]

    def root(a: int) -> int:
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        return a

    runs: list[tuple[int, int, int, int]] = []
    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(row.astype(np.int8), prepend=0, append=0)).tolist()
        here = []
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            name = len(parent)
            parent.append(name)
            for other_start, other_stop, other in above:
                if other_start <= stop and other_stop >= start:
                    parent[root(name)] = root(other)
            here.append((start, stop, name))
            runs.append((y, start, stop, name))
        above = here
    names = np.zeros(mask.shape, dtype=np.intp)
    numbers: dict[int, int] = {}
    for y, start, stop, name in runs:
        names[y, start:stop] = numbers.setdefault(root(name), len(numbers) + 1)
    return names, len(numbers)


def box_of(mask: HostArray) -> tuple[slice, slice] | None:
    """Rows and columns of the smallest box around a mask, (H, W); None where it is empty."""
    if not mask.any():
        return None
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def fit(levels: HostArray, longest: int) -> HostArray:
    """Resize levels, (H, W), so that the longer side has `longest` pixels."""
    scale = longest / max(levels.shape)
    return resize(levels, *(max(1, round(n * scale)) for n in levels.shape))


def cropped(levels: HostArray) -> HostArray:
    """Part of levels, (H, W), in the smallest box around those above `INK`; all where there are none."""
    return levels[box_of(levels > INK) or ...]


def even_strokes(levels: HostArray, thin: float, thick: float) -> HostArray:
    """Make strokes on the fine grid wider or narrower, by a pixel at a time, until their width is in a range."""
    for _ in range(4 * FINE):
        width = stroke_width(levels)
        if thin <= width <= thick:
            break
        widen = width < thin
        changed = slide(np.pad(levels, 1), 3, np.maximum if widen else np.minimum)
        if not widen and count_parts(changed) != count_parts(levels):
            break  # a stroke that is widened may join others: a hair has gaps
        levels = fit(cropped(changed), BOX * FINE)
    return levels


def count_parts(levels: HostArray) -> tuple[int, int]:
    """Numbers of connected parts: of the ink, and of the ground in and around it."""
    ink = np.pad(levels > 0.5, 1)
    return label(ink)[1], label(~ink)[1]


def stroke_width(levels: HostArray) -> float:
    """Mean width of strokes on the fine grid, in pixels of MNIST: twice the area over the length of the outline."""
    mask = np.pad(levels > 0.5, 1).astype(np.int8)
    outline = np.abs(np.diff(mask, axis=0)).sum() + np.abs(np.diff(mask, axis=1)).sum()
    return float(2.0 * mask.sum() / max(outline * np.pi / 4.0, 1.0) / FINE)


def slant(levels: HostArray) -> float:
    """Columns that a digit leans to the right in each row upwards: covariance of x and -y, over the variance of y."""
    height, width = levels.shape
    y = np.arange(height) - levels.sum(axis=1) @ np.arange(height) / levels.sum()
    x = np.arange(width) - levels.sum(axis=0) @ np.arange(width) / levels.sum()
    variance = levels.sum(axis=1) @ (y * y)
    return float(-(y @ levels @ x) / variance) if variance > 0.0 else 0.0


def left_slant(levels: HostArray) -> float:
    """Slant of the line through the leftmost ink in the highest and in the lowest rows."""
    ink = levels > 0.5
    rows = np.flatnonzero(ink.any(axis=1))
    if len(rows) <= ENDS:
        return 0.0
    top, bottom = rows[0], rows[-1] + 1
    first, last = (int(part.any(axis=0).argmax()) for part in (ink[top : top + ENDS], ink[bottom - ENDS : bottom]))
    return (first - last) / float(bottom - top - ENDS)


def shear(levels: HostArray, slope: float) -> HostArray:
    """Reduce the slant of a digit, (H, W), by `slope`: shift its rows, those below the middle to the right."""
    height, width = levels.shape
    shifts = slope * (np.arange(height) - (height - 1) / 2.0)
    margin = int(np.ceil(np.abs(shifts).max())) + 1
    x, known = np.arange(-margin, width + margin), np.arange(-1, width + 1)
    return np.stack([np.interp(x - shift, known, np.pad(row, 1)) for row, shift in zip(levels, shifts, strict=True)])


def center(levels: HostArray) -> HostArray:
    """Scale levels to a box of 20x20, and put their centre of mass at the middle of 28x28, by whole pixels."""
    levels = fit(levels, BOX)
    result = np.zeros((SIDE, SIDE))
    cut = []
    for axis, n in enumerate(levels.shape):
        mass = levels.sum(axis=1 - axis)
        middle = float(mass @ np.arange(n) / mass.sum())
        start = min(max(int(np.floor(MIDDLE - middle + 0.5)), 0), SIDE - n)
        cut.append(slice(start, start + n))
    result[cut[0], cut[1]] = levels / levels.max()
    return result


def count_blocks(levels: HostArray) -> HostArray:
    """Scale levels to 20x32 in 32x32, and average each block of 4x4, which is the share of ink in it: (8, 8)."""
    height, width = levels.shape
    width = min(NIST_WIDTH, max(1, round(width * NIST_SIDE / height)))
    bitmap = np.zeros((NIST_SIDE, NIST_SIDE))
    start = (NIST_SIDE - width) // 2
    bitmap[:, start : start + width] = resize(levels, NIST_SIDE, width)
    return resize(bitmap, NIST_SIDE // BLOCK, NIST_SIDE // BLOCK)
