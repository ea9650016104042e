"""Pictures, as PNG bytes. matplotlib comes with the extra `plot`; no window is opened, and no display is needed."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .compile import StepTimes, TimesRow
from .core.errors import printable
from .model.metrics import TITLES
from .training.history import watched_lines

# Eight colours that a colour-blind reader can tell apart: M. Okabe and K. Ito, "Color universal design", 2008.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
COLORS = {"train": PALETTE[0], "validation": PALETTE[2], "test": PALETTE[1]}
SURFACE = "cividis"  # the colours of contours
HANGUL = ("NanumGothic", "Noto Sans CJK KR", "Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic")

MOST_BARS = 30
MOST_RUNS = 2 * len(PALETTE)  # with a colour and a dash of their own
LONGEST = 30  # letters of a run's name in a legend, which leaves its axes room
MOST_COLUMNS = 6  # of histograms

QUANTITIES = ("loss", *TITLES)  # of a history


class ShownFigure(Figure):
    """A figure that a notebook shows as a picture, also without matplotlib's inline backend."""

    def _repr_png_(self) -> bytes:
        return png(self)


def new_figure(
    rows: int, columns: int, *, width: float = 4.6, height: float = 3.6, **options: Any
) -> tuple[Figure, Any]:
    """Make a figure in the common style, and its axes, (rows, columns).

    Args:
        rows, columns: of axes.
        width, height: of one of them, in inches.
        options: for `Figure.subplots`.
    """
    figure = ShownFigure(figsize=(width * columns, height * rows), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for one in axes.flat:
        one.set_prop_cycle(color=PALETTE)
        one.grid(alpha=0.3)
    return figure, axes


def add_heading(figure: Figure, english: str, korean: str, language: str = "both") -> None:
    """Put a heading over a figure: "en", "ko" or "both"; in English where no font has Korean letters."""
    texts = {"en": [english], "ko": [korean], "both": [english, korean]}[language if korean_font() else "en"]
    figure.suptitle("\n".join(texts), fontfamily=families(), parse_math=False)


@cache
def korean_font() -> str | None:
    """Name of an installed font with Korean letters, or None."""
    manager = font_manager.fontManager
    if not any(font.name in HANGUL for font in manager.ttflist):
        # matplotlib keeps a list of fonts on disk, without those that were installed since.
        for path in {*font_manager.findSystemFonts()} - {font.fname for font in manager.ttflist}:
            with suppress(Exception):  # of a font that it cannot read
                manager.addfont(path)
    installed = {font.name for font in manager.ttflist}
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
    """Draw loss and metric by epoch, for each set of rows in the history; a deviation as a band around its mean."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    quantities = [name for name in QUANTITIES if not history or f"train_{name}" in history[0]][:2]
    for axes, quantity in zip(figure.subplots(1, 2), quantities, strict=True):
        for name, color in COLORS.items():
            rows = [row for row in history if f"{name}_{quantity}" in row]
            if not rows:
                continue
            epochs, values = zip(*((row["epoch"], row[f"{name}_{quantity}"]) for row in rows), strict=True)
            lines = axes.plot(epochs, values, color=color, marker="o" if len(rows) <= 30 else None, markersize=4)
            last = values[-1]
            text = f"{name}, {last:.4f} at the end" if isinstance(last, float) else f"{name}, {len(last)} replicas"
            if f"{name}_{quantity}_deviation" in rows[-1]:
                deviations = [row[f"{name}_{quantity}_deviation"] for row in rows]
                _draw_band(axes, epochs, values, deviations, color)
                text = f"{name}, {last:.4f} ± {deviations[-1]:.4f} at the end"
            lines[0].set_label(text)
        axes.set_xlabel("epoch")
        axes.set_title(TITLES.get(quantity, quantity))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="best")
    return png(figure)


def draw_runs(groups: Sequence[tuple[str, str, str, Sequence[tuple[str, list[dict[str, Any]]]]]]) -> bytes:
    """Draw loss and metric of runs by epoch, a line of axes for each group of runs with one metric.

    Args:
        groups: for each, the metric's title, the rows that are drawn ("validation" or "test"), the metric's name, and
            the runs, the best one first: their names and histories. Of more than `MOST_RUNS`, the others are grey.
    """
    figure = Figure(figsize=(11, 4.4 * len(groups)), dpi=120, layout="constrained")
    for (title, rows, metric, runs), line in zip(groups, figure.subplots(len(groups), 2, squeeze=False), strict=True):
        for axes, quantity in zip(line, ("loss", metric), strict=True):
            for place, (name, history) in reversed(list(enumerate(runs))):  # the best one on top
                points = [row for row in history if f"{rows}_{quantity}" in row]
                _draw_run(axes, place, name, points, f"{rows}_{quantity}")
            axes.set_xlabel("epoch")
            axes.set_title(f"{rows} {title if quantity == metric else quantity}")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
        handles, labels = line[1].get_legend_handles_labels()
        more = f"{len(runs) - MOST_RUNS} more, in grey" if len(runs) > MOST_RUNS else None
        _put_legend(line[1], handles[::-1], labels[::-1], fontsize=8, title=more)
    return png(figure)


def _put_legend(axes: Axes, handles: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """Put a legend with names of users beside the lines, which it would cover if there were many."""
    legend = axes.legend(handles, names, loc="center left", bbox_to_anchor=(1.0, 0.5), **options)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ begins no formula
        text.set_fontfamily(families())


def _draw_run(axes: Axes, place: int, name: str, points: Sequence[Mapping[str, Any]], figure: str) -> None:
    """Draw a run's figure by epoch, with a band where it has a deviation; those behind the first ones in grey."""
    if not points:
        return
    x, values = [row["epoch"] for row in points], [row[figure] for row in points]
    if place >= MOST_RUNS:
        axes.plot(x, values, color="grey", alpha=0.3, linewidth=0.8)
        return
    color, style = PALETTE[place % len(PALETTE)], ("-", "--")[place // len(PALETTE)]
    label = drawable(name)
    label = f" {label}" if len(label) <= LONGEST else f" …{label[1 - LONGEST :]}"  # without a space, _ would hide it
    axes.plot(x, values, style, color=color, marker="o" if len(points) == 1 else None, label=label)
    if f"{figure}_deviation" in points[-1]:
        _draw_band(axes, x, values, [row.get(f"{figure}_deviation") for row in points], color)


def _draw_band(axes: Axes, x: Any, mean: Any, deviation: Any, color: str) -> None:
    """Draw mean - deviation to mean + deviation; nothing where they are not finite."""
    mean, deviation = np.array(mean, dtype=float), np.array(deviation, dtype=float)
    axes.fill_between(x, mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0.0)


def draw_watch(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw what `Watch` has seen: histograms by epoch of some layers, dead units, and the size of updates."""
    rows = [row for row in history if "watch" in row]
    last = rows[-1]["watch"]
    learning = [name for name, figures in last.items() if "gradients" in figures]
    others = [name for name in last if name not in learning]
    shown = {"activations": _some(others or learning), "gradients": _some(learning)}
    columns = max(map(len, shown.values()))
    figure = Figure(figsize=(max(2.4 * columns, 8.0), 8.4), dpi=120, layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(2, 1)).flat
    grid = upper.subplots(2, columns, squeeze=False)
    for line, (quantity, layers) in zip(grid, shown.items(), strict=True):
        for axes, layer in zip(line, layers, strict=False):
            _draw_histograms(axes, [(row["epoch"], row["watch"][layer][quantity]) for row in rows])
            axes.set_title(f"{quantity} of {drawable(layer)}", fontsize=9, fontfamily=families(), parse_math=False)
        for axes in line[len(layers) :]:
            axes.set_axis_off()
    lines = {name: watched_lines(rows, name) for name in ("dead", "update_ratio")}
    left, right = lower.subplots(1, 2)
    left.set_visible(bool(lines["dead"]))  # no layer without parameters, no units to be dead
    for axes, name in ((left, "dead"), (right, "update_ratio")):
        styles = cycle((dash, color) for dash in ("-", "--", ":") for color in PALETTE)
        for (layer, points), (dash, color) in zip(lines[name].items(), styles, strict=False):
            label = f"{drawable(layer)}, {points[-1][1]:.3g} at the end"
            marker = "o" if len(points) <= 30 else None
            axes.plot(*zip(*points, strict=True), dash, color=color, marker=marker, markersize=3, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            _put_legend(axes, *axes.get_legend_handles_labels(), fontsize=7, frameon=False)
    left.set(title="share of units that are dead", ylim=(0.0, None))
    right.axhline(1e-3, color="grey", linestyle="--")
    right.set_yscale("log")  # now that one value is positive
    right.set(title="size of a step, relative to the weights")
    return png(figure)


def _some(names: Sequence[str]) -> list[str]:
    """At most `MOST_COLUMNS` of the names, at equal distances, the first and the last among them."""
    count = min(len(names), MOST_COLUMNS)
    return [names[round(i * (len(names) - 1) / max(count - 1, 1))] for i in range(count)]


def _draw_histograms(axes: Axes, histograms: Sequence[tuple[int, Mapping[str, Any] | None]]) -> None:
    """Draw histograms as columns of colours, (epoch, histogram), on one axis of values."""
    there = [(epoch, found) for epoch, found in histograms if found is not None]
    if not there:
        return
    low, high = min(found["low"] for _, found in there), max(found["high"] for _, found in there)
    margin = (high - low) * 1e-3 or 1e-12
    values = np.linspace(low - margin, high + margin, 81)
    shares = []
    for _, found in there:
        inner = np.linspace(found["low"], found["high"], len(found["counts"]) + 1)
        shares.append(np.diff(np.interp(values, inner, np.cumsum([0, *found["counts"]]))) / sum(found["counts"]))
    epochs = np.array([epoch for epoch, _ in there], dtype=float)
    sides = np.concatenate([epochs[:1] - 0.5, (epochs[1:] + epochs[:-1]) / 2.0, epochs[-1:] + 0.5])
    axes.pcolormesh(sides, values, np.transpose(shares), cmap=SURFACE, norm=PowerNorm(0.4), rasterized=True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.tick_params(labelsize=7)
    axes.set_xlabel("epoch", fontsize=8)


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


def draw_seen(pictures: Sequence[tuple[Any, Any, str, str]]) -> bytes:
    """Draw pictures, (H, W, 3), each next to what a network saw of it, (H, W), with a line below each of the two."""
    pairs = min(len(pictures), 4)
    lines = -(-len(pictures) // pairs)
    figure = Figure(figsize=(3.4 * pairs, 1.9 * lines + 0.4), dpi=120, layout="constrained")
    grid = figure.subplots(lines, 2 * pairs, squeeze=False)
    for axes, title in zip(grid[0], ("given", "seen by the network") * pairs, strict=True):
        axes.set_title(title, fontsize=9)
    drawn = [one for given, seen, name, answer in pictures for one in ((given, name), (seen, answer))]
    for (picture, text), axes in zip(drawn, grid.flat, strict=False):
        axes.imshow(picture, cmap="gray", interpolation="nearest")
        most = 20 if text.isascii() else 14  # letters below a picture: those of Korean are wide
        text = drawable(text)
        text = text if len(text) <= most else f"{text[: most // 2]}…{text[1 - most // 2 :]}"
        axes.set_xlabel(text, fontsize=8, fontfamily=families(), parse_math=False)
        axes.set(xticks=[], yticks=[], anchor="N")  # under the titles
    for axes in grid.flat[len(drawn) :]:
        axes.set_axis_off()
    return png(figure)


def draw_distorted(pictures: Any, distorted: Any) -> bytes:
    """Draw pictures, (N, H, W) or (N, H, W, C), in a column, next to K of each as distorted, (K, N, ...)."""
    count, rows, height, width = distorted.shape[:4]
    figure = Figure(figsize=(0.75 * (count + 1) + 0.2, 0.75 * rows + 0.4), dpi=120, layout="constrained")
    both = figure.subplots(1, 2, width_ratios=(1, count))
    for axes, columns, title in zip(both, (pictures[None], distorted), ("given", "distorted"), strict=True):
        lines = columns.reshape(len(columns), rows, height, width, -1).transpose(1, 2, 0, 3, 4)
        sheet = lines.reshape(rows * height, len(columns) * width, -1) / max(pictures.max(), 1e-9)
        sheet = sheet[..., :3] if sheet.shape[-1] >= 3 else sheet[..., 0]  # in colours, or grey
        axes.imshow(sheet.clip(0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return png(figure)


def draw_reliability(confidence: Any, right: Any, counts: Any, error: float) -> bytes:
    """Draw the share of rows that are right against their confidence, and the number of rows in each bin, (K,)."""
    figure = Figure(figsize=(5.0, 5.6), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color="grey", label="perfect calibration")
    upper.plot(confidence, right, "o-", color=PALETTE[0], label=f"this model: calibration error {error:.4f}")
    upper.set(ylabel="share that is right", xlim=(0.0, 1.0), ylim=(-0.02, 1.02))
    figure.legend(loc="outside upper center", ncols=2)
    lower.bar(confidence, counts, width=0.03, color=PALETTE[0])
    lower.set(xlabel="predicted probability, mean of a bin", ylabel="rows")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return png(figure)


def draw_residuals(predictions: Any, residuals: Any) -> bytes:
    """Draw residuals, target - prediction, against predictions, and their distribution: (N, O), a row an output."""
    outputs = predictions.shape[1]
    figure = Figure(figsize=(8.0, 3.6 * outputs), dpi=120, layout="constrained")
    grid = figure.subplots(outputs, 2, squeeze=False, sharey="row", width_ratios=(3, 1))
    for number, (scatter, histogram) in enumerate(grid):
        p, r = (values[:, number] for values in (predictions, residuals))
        there = np.isfinite(p) & np.isfinite(r)
        scatter.plot(p[there], r[there], ".", markersize=3, alpha=0.5, color=PALETTE[0], rasterized=True)
        histogram.hist(r[there], bins=40, orientation="horizontal", color=PALETTE[0])
        named = f" of output {number}" * (outputs > 1)
        scatter.set(xlabel=f"prediction{named}", ylabel="residual: target - prediction")
        histogram.set(xlabel="rows")
        for axes in (scatter, histogram):
            axes.axhline(0.0, color="grey", linestyle="--")
            axes.grid(alpha=0.3)
            axes.set_axisbelow(True)
    return png(figure)


def draw_importance(columns: Sequence[Mapping[str, Any]], metric: str) -> bytes:
    """Draw the importance and the attribution of columns as bars, those of the first `MOST_BARS`."""
    shown = columns[:MOST_BARS][::-1]
    figure = Figure(figsize=(9.0, 1.2 + 0.28 * len(shown)), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(shown))
    how: dict[str, Any] = {"color": PALETTE[0], "xerr": [column["deviation"] for column in shown], "ecolor": "grey"}
    left.barh(places, [column["importance"] for column in shown], **how)
    left.set(xlabel=f"drop of {metric} where the column is permuted")
    left.set_yticks(places, [drawable(column["name"]) for column in shown], fontfamily=families(), parse_math=False)
    right.barh(places, [column["attribution"] for column in shown], color=PALETTE[1])
    right.set(xlabel="mean |gradient x input|")
    for axes in (left, right):
        axes.grid(alpha=0.3, axis="x")
        axes.set_axisbelow(True)
    return png(figure)


def draw_pixels(attribution: Any) -> bytes:
    """Draw the attribution of each pixel, (H, W), as a map."""
    figure = Figure(figsize=(5.0, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(attribution, cmap=SURFACE, interpolation="nearest")
    figure.colorbar(drawn, label="mean |gradient x input|")
    axes.set(xticks=[], yticks=[])
    return png(figure)


def draw_search(
    trials: Sequence[dict[str, Any]],
    varied: Sequence[str],
    importance: Mapping[str, float],
    logarithmic: Collection[str] = (),
) -> bytes:
    """Draw the score of trials against each varied option, and the share of the scores' variance that each explains.

    Options in `logarithmic` have a logarithmic axis. Scores that are three times as far from the best as the median is
    are cut off, and drawn, as those of trials that diverged, as crosses at the bottom.
    """
    scores = np.array([trial["score"] for trial in trials], dtype=float)
    good = np.isfinite(scores)
    best = int(np.argmax(np.where(good, scores, -np.inf)))
    bottom = scores[best] - max(3.0 * (scores[best] - float(np.median(scores[good]))), 1e-3)
    shown = good & (scores >= bottom)
    columns = min(len(varied) + 1, 3)
    lines = -(-(len(varied) + 1) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * lines), dpi=120, layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for name, axes in zip(varied, grid, strict=False):
        x = _places(axes, [trial[name] for trial in trials], logarithmic=name in logarithmic)
        axes.plot(x[shown], scores[shown], "o", markersize=4, alpha=0.6, color=PALETTE[0])
        if not shown.all():
            axes.plot(x[~shown], np.full((~shown).sum(), bottom), "x", color=PALETTE[1], label="diverged, or below")
        axes.plot(x[best], scores[best], "o", markersize=12, fillstyle="none", color="black", label="best")
        axes.set_xlabel(name.replace("_", " "))
        axes.set_ylabel("score")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    axes = grid[len(varied)]
    names = list(importance)[::-1]
    axes.barh([name.replace("_", " ") for name in names], [importance[name] for name in names], color=PALETTE[2])
    axes.set(xlim=(0.0, 1.0), xlabel="share of the variance that an option explains")
    for axes in grid[len(varied) + 1 :]:
        axes.set_axis_off()
    return png(figure)


def _places(axes: Axes, values: Sequence[Any], *, logarithmic: bool) -> Any:
    """Places of an option's values on an axis, whose scale and ticks are set."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        x = np.array(values, dtype=float)
        if logarithmic and (x > 0.0).any():
            axes.set_xscale("symlog", linthresh=x[x > 0.0].min())  # as log, with room for a 0
        return x
    words = [" ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value) for value in values]
    ticks = sorted(set(words), key=lambda word: (len(word), word))
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    return np.array([ticks.index(word) for word in words], dtype=float)


def draw_trial_curves(trials: Sequence[dict[str, Any]]) -> bytes:
    """Draw the score of each trial after each epoch, that of the best one on top."""
    figure = Figure(figsize=(7.0, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    ranked = sorted(trials, key=lambda trial: trial["score"] if math.isfinite(trial["score"]) else -math.inf)
    for trial in ranked:
        style: dict[str, Any] = {"color": PALETTE[0], "alpha": 0.35, "linewidth": 1.0}
        if trial is ranked[-1]:
            style = {"color": "black", "linewidth": 2.0, "label": "the best"}
        axes.plot(range(1, len(trial["curve"]) + 1), trial["curve"], marker="o", markersize=3, **style)
    axes.set(xlabel="epoch", ylabel="score on the validation rows")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def draw_roofline(times: StepTimes) -> bytes:
    """Draw the instructions of a step as points, operations a second against operations a byte, below the ceilings.

    The area of a point is that of its instruction in the step's time; those that take the most have their text beside
    the axes. Instructions without operations have no point.
    """
    figure = Figure(figsize=(12.0, 5.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    points = [
        (row, times.figures(row)) for row in times.rows if times.figures(row)["operations_per_second"] is not None
    ]
    ceilings = times.ceilings[times.threads]
    peak, rates = ceilings.product_rate, (ceilings.bandwidth, ceilings.memory_bandwidth)
    x = [figures["operations_per_byte"] for _, figures in points] + [peak / rate for rate in rates]
    left, right = min(x) / 3.0, max(x) * 6.0  # to the right with room for numbers
    for rate, style, where in zip(rates, ("-", "--"), ("in as many bytes as a step uses", "in memory"), strict=True):
        knee = peak / rate
        axes.plot([left, knee], [left * rate, peak], style, color="black", label=f"{rate / 1e9:,.0f} GB/s {where}")
    axes.plot([peak / max(rates), right], [peak, peak], color="grey", label=f"{peak / 1e9:,.0f} GFLOP/s in products")
    for row, figures in points:
        place = figures["operations_per_byte"], figures["operations_per_second"]
        color = PALETTE[row.kind == "product"]
        axes.scatter(*place, s=15.0 + 800.0 * figures["share"], color=color, alpha=0.6, linewidths=0.0, zorder=3)
    for k, (numbers, place) in enumerate(_joined(points)):  # above and below in turn, so that few lie on each other
        axes.annotate(numbers, place, (5.0, -9.0 if k % 2 else 3.0), textcoords="offset points", fontsize=7, zorder=4)
    axes.set(xscale="log", yscale="log", xlim=(left, right))
    threads = "one thread" if times.threads == 1 else f"{times.threads} threads"
    axes.set(xlabel="operations per byte", ylabel="operations per second", title=f"a step on {threads}, {times.dtype}")
    axes.grid(alpha=0.3)
    axes.add_artist(axes.legend(loc="upper left", fontsize=8))
    longest = sorted(points, key=lambda point: -point[1]["share"])[:MOST_BARS]
    dots = [axes.scatter([], [], s=30.0, color=PALETTE[row.kind == "product"], alpha=0.6) for row, _ in longest]
    names = [f"{figures['share']:.1%}  [{row.number}] {drawable(row.text)}" for row, figures in longest]
    _put_legend(axes, dots, names, fontsize=7, frameon=False)
    return png(figure)


def _joined(points: Sequence[tuple[TimesRow, Mapping[str, Any]]]) -> list[tuple[str, tuple[float, float]]]:
    """Numbers of instructions with the place of their point; those of points close to each other in one text."""
    groups: list[tuple[list[int | None], tuple[float, float]]] = []
    for row, figures in sorted(points, key=lambda point: point[1]["operations_per_byte"]):
        place = figures["operations_per_byte"], figures["operations_per_second"]
        near = (one for one, at in groups if all(0.75 < a / b < 1.33 for a, b in zip(at, place, strict=True)))
        numbers = next(near, None)
        if numbers is None:
            groups.append((numbers := [], place))
        numbers.append(row.number)
    return [(", ".join(map(str, numbers)), place) for numbers, place in groups]


def png(figure: Figure) -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
