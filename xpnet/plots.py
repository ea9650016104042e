"""Pictures, as PNG bytes. matplotlib comes with the extra `plot`; no window is opened, and no display is needed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .core.errors import printable
from .model.metrics import TITLES

# Eight colours that a colour-blind reader can tell apart: M. Okabe and K. Ito, "Color universal design", 2008.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
COLORS = {"train": PALETTE[0], "validation": PALETTE[2], "test": PALETTE[1]}
SURFACE = "cividis"  # the colours of contours
HANGUL = ("NanumGothic", "Noto Sans CJK KR", "Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic")

QUANTITIES = ("loss", *TITLES)  # of a history


def new_figure(
    rows: int, columns: int, *, width: float = 4.6, height: float = 3.6, **options: Any
) -> tuple[Figure, Any]:
    """Make a figure in the common style, and its axes, (rows, columns).

    Args:
        rows, columns: of axes.
        width, height: of one of them, in inches.
        options: for `Figure.subplots`.
    """
    figure = Figure(figsize=(width * columns, height * rows), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for one in axes.flat:
        one.set_prop_cycle(color=PALETTE)
        one.grid(alpha=0.3)
    return figure, axes


def add_heading(figure: Figure, english: str, korean: str) -> None:
    """Put a heading over a figure, in Korean too where a font has it."""
    figure.suptitle(english if korean_font() is None else f"{english}\n{korean}", fontfamily=families())


@cache
def korean_font() -> str | None:
    """Name of an installed font with Korean letters, or None."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in HANGUL if name in installed), None)


def families() -> list[str]:
    """Names of the fonts, in the order in which they are searched for letters."""
    return ["DejaVu Sans", *filter(None, [korean_font()])]


@cache
def letters() -> frozenset[int]:
    """All letters of the fonts `families`."""
    return frozenset().union(*(font_manager.get_font(font_manager.findfont(name)).get_charmap() for name in families()))


def drawable(text: str) -> str:
    """Text as `printable` makes it, with letters that no font has escaped."""
    return "".join(c if ord(c) in letters() else c.encode("unicode_escape").decode() for c in printable(text))


def draw_curves(history: list[dict[str, Any]]) -> bytes:
    """Draw loss and metric by epoch, for each set of rows in the history."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    quantities = [name for name in QUANTITIES if not history or f"train_{name}" in history[0]][:2]
    for axes, quantity in zip(figure.subplots(1, 2), quantities, strict=True):
        for name, color in COLORS.items():
            points = [(row["epoch"], row[f"{name}_{quantity}"]) for row in history if f"{name}_{quantity}" in row]
            if not points:
                continue
            epochs, values = zip(*points, strict=True)
            lines = axes.plot(epochs, values, color=color, marker="o" if len(points) <= 30 else None, markersize=4)
            last = values[-1]
            text = f"{name}, {last:.4f} at the end" if isinstance(last, float) else f"{name}, {len(last)} replicas"
            lines[0].set_label(text)
        axes.set_xlabel("epoch")
        axes.set_title(TITLES.get(quantity, quantity))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="best")
    return png(figure)


def draw_mistakes(mistakes: Sequence[tuple[Any, str, str]], wrong: int, rows: int) -> bytes:
    """Draw pictures, (H, W), each with two lines below it; `wrong` of `rows` were mistakes."""
    columns = min(max(len(mistakes), 1), 8)
    lines = max(-(-len(mistakes) // columns), 1)
    figure = Figure(figsize=(1.5 * max(columns, 4), 1.9 * lines + 0.5), dpi=120, layout="constrained")
    figure.suptitle(f"{wrong} of {rows} are wrong" + f"; the worst {len(mistakes)}" * (0 < len(mistakes) < wrong))
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for (picture, *text), axes in zip(mistakes, grid, strict=False):
        axes.imshow(picture, cmap="gray", interpolation="nearest")
        label = "\n".join(map(drawable, text))
        axes.set_xlabel(label, fontsize=7, fontfamily=families(), parse_math=False)  # a $ begins no formula
        axes.set(xticks=[], yticks=[])
    for axes in list(grid):  # unused axes of the last row
        axes.set_axis_off()
    return png(figure)


def draw_trials(trials: Sequence[dict[str, Any]], varied: Sequence[str], metric: str) -> bytes:
    """Draw the validation loss of trials against each varied option.

    Losses that are more than three times as far from the best as the median is are cut off, and drawn, as those that
    are not finite, as crosses at the top.
    """
    losses = np.array([trial["validation_loss"] for trial in trials])
    good = np.isfinite(losses)
    best = int(np.nanargmin(np.where(good, losses, np.inf)))
    lowest, middle = (losses[good].min(), np.median(losses[good])) if good.any() else (0.0, 1.0)
    top = float(lowest + 3.0 * (middle - lowest)) if middle > lowest else float(losses[good].max())
    shown = good & (losses <= top)
    columns = min(max(len(varied), 1), 3)
    lines = -(-max(len(varied), 1) // columns)
    figure = Figure(figsize=(4.2 * columns + 1.0, 3.6 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True).flat
    scores = np.array([trial[f"validation_{metric}"] for trial in trials])
    for name, axes in zip(varied, grid, strict=False):
        x = np.array([trial[name] for trial in trials], dtype=float)
        points = axes.scatter(x[shown], losses[shown], c=scores[shown], s=24, cmap="viridis")
        if not shown.all():
            axes.plot(x[~shown], np.full((~shown).sum(), top), "x", color=PALETTE[1], label="diverged, or above")
        axes.plot(
            x[best], losses[best], "o", markersize=12, fillstyle="none", color="black", label=f"best: {x[best]:g}"
        )
        if name in ("lr", "weight_decay"):
            axes.set_xscale("symlog", linthresh=x[x > 0.0].min())  # as log, with room for a 0
        if isinstance(trials[0][name], int):
            axes.set_xticks(np.unique(x), [f"{value:g}" for value in np.unique(x)])
        axes.set_xlabel(name.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for axes in list(grid):
        axes.set_axis_off()
    if varied:
        figure.axes[0].set_ylabel("validation loss")
        figure.colorbar(points, ax=figure.axes[: len(varied)], label=f"validation {TITLES[metric]}")
    return png(figure)


def png(figure: Figure) -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
