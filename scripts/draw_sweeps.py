"""Draw the steps of bench/test_sweeps.py: time over width, batch and replicas.

    python -m pytest bench/test_sweeps.py --benchmark-json=sweeps.json
    python scripts/draw_sweeps.py sweeps.json sweeps.png

A line is the median, its band the middle half of the rounds. Below stands what it was measured on, and in front of that
why it is not to be relied on, where it is not. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.ticker import NullFormatter, StrMethodFormatter

from xpnet.plots import PALETTE, new_figure, png

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from surroundings import in_words

TITLES = {"width": "units of both hidden layers", "batch": "rows of a batch", "replicas": "replicas"}
COLORS = {"compiled": PALETTE[0], "eager": PALETTE[1]}
DASHES = {"cpu": "-", "cuda": "--"}

Points = dict[int, dict[str, float]]  # statistics in seconds by the sweep's value


def lines_of(content: dict[str, Any]) -> dict[str, dict[tuple[str, str], Points]]:
    """Return the points by sweep, and by way and device."""
    found: dict[str, dict[tuple[str, str], Points]] = {}
    for one in content["benchmarks"]:
        about = one["extra_info"]
        line = found.setdefault(about["sweep"], {}).setdefault((about["way"], about["device"]), {})
        line[about["value"]] = one["stats"]
    return found


def draw(content: dict[str, Any]) -> bytes:
    """Return a PNG with an axes for each sweep."""
    sweeps = lines_of(content)
    figure, axes = new_figure(1, len(sweeps), width=4.2, height=3.4)
    for one, (sweep, lines) in zip(axes.flat, sweeps.items(), strict=True):
        for (way, device), points in lines.items():
            values = sorted(points)
            low, median, high = ([1e6 * points[v][name] for v in values] for name in ("q1", "median", "q3"))
            style = DASHES[device.partition(":")[0]]
            one.plot(values, median, style, marker="o", markersize=4, color=COLORS[way], label=f"{way}, {device}")
            one.fill_between(values, low, high, color=COLORS[way], alpha=0.2, linewidth=0)
        one.set_xscale("log", base=2)
        one.set_yscale("log")
        one.set_xticks(values, [str(value) for value in values])
        one.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        one.yaxis.set_minor_formatter(NullFormatter())
        one.set_xlabel(TITLES[sweep])
        one.set_ylabel("\N{MICRO SIGN}s a step")
        one.legend(fontsize=8)
    words = in_words(content["surroundings"])
    figure.supxlabel(textwrap.fill(words.replace("$", r"\$"), 60 * len(sweeps)), fontsize=7)
    return png(figure)


def main() -> None:
    """Read the JSON, and write the picture."""
    parser = argparse.ArgumentParser(description="Draw the steps of bench/test_sweeps.py.")
    parser.add_argument("json", type=Path, help="of pytest-benchmark")
    parser.add_argument("picture", type=Path, help="a PNG to write")
    options = parser.parse_args()
    options.picture.write_bytes(draw(json.loads(options.json.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
