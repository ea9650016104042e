"""Pictures, as PNG bytes. matplotlib comes with the extra `plot`; no window is opened, and no display is needed."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLORS = {"train": "#1f77b4", "validation": "#2ca02c", "test": "#ff7f0e"}

CORNERS = {"loss": "upper right", "accuracy": "lower right"}  # where curves of these leave room for a legend


def draw_curves(history: list[dict[str, Any]]) -> bytes:
    """Return a picture of loss and accuracy by epoch, for each set of rows that the history has."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    for axes, (quantity, corner) in zip(figure.subplots(1, 2), CORNERS.items(), strict=True):
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
        axes.set_title(quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc=corner)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
