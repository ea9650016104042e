"""Draw the race's results, and write them as tables: docs/speed-*.svg, and the tables in docs/benchmarks.md.

    python scripts/make_speed_chart.py [--check]

Reads bench/results/race-*.json, which `python bench/peers/race.py` writes. Needs the standard library alone. The same
results give the same bytes: with `--check` nothing is written, and the exit code is 1 where a file is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BASE = "xpnet, compiled"
ROWS = {  # the contender in the results: its name in the tables
    "xpnet, compiled": "xpnet, compiled",
    "xpnet, replayed": "xpnet, replayed by NumPy",
    "xpnet, eager": "xpnet, eager",
    "PyTorch, eager": "PyTorch, eager",
    "PyTorch, compiled": "PyTorch, compiled",
    "JAX, a step": "JAX, one step a call",
    "JAX, scan": "JAX, scan over steps",
    "scikit-learn": "scikit-learn",
    "the floor": "matrix products alone",
}
TITLES = {"adam": "Adam", "sgd": "SGD"}
BARS = ("xpnet, compiled", "JAX, scan", "JAX, a step", "PyTorch, compiled", "PyTorch, eager", "scikit-learn")
THEMES = {
    "light": {"paper": "#ffffff", "text": "#1f2328", "faint": "#59636e", "ours": "#0072b2", "others": "#b6bfc9"},
    "dark": {"paper": "#0d1117", "text": "#e6edf3", "faint": "#9198a1", "ours": "#56b4e9", "others": "#4d5763"},
}
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
LEFT, COLUMN, BAR, PITCH, TOP = 168, 184, 16, 26, 92  # pixels
WIDEST = 136  # the longest bar of all; its number stands beside it

Result = dict[str, Any]


def network_title(network: str) -> tuple[str, str]:
    """Sizes and batch size of "784-100x4-10 batch 128", as two lines."""
    sizes, _, batch = network.partition(" batch ")
    return sizes.replace("x", "\N{MULTIPLICATION SIGN}"), f"batch {batch}"


def duration(microseconds: float) -> str:
    """A time in microseconds, or in milliseconds from 10,000 microseconds on."""
    return f"{microseconds / 1000:.0f} ms" if microseconds >= 1e4 else f"{microseconds:,.0f} \N{MICRO SIGN}s"


def chart(results: list[Result], optimizer: str, theme: str) -> str:
    """Bar chart, an SVG: a column for each network, a bar for each contender's time relative to xpnet's."""
    colors = THEMES[theme]
    width, height = LEFT + COLUMN * len(results) + 10, TOP + PITCH * len(BARS) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family="{FONT}" font-size="13">',
        f"<title>Time of a training step with {TITLES[optimizer]}, relative to xpnet</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{colors["paper"]}"/>',
    ]

    def text(x: float, y: float, words: str, color: str = "text", extra: str = "") -> None:
        lines.append(f'<text x="{x:g}" y="{y:g}" fill="{colors[color]}"{extra}>{escape(words)}</text>')

    text(16, 28, f"Time of a training step ({TITLES[optimizer]}), relative to xpnet", extra=' font-weight="600"')
    text(width - 16, 28, "shorter is faster", "faint", ' text-anchor="end"')
    longest = max(result["ratio"][name] for result in results for name in BARS)
    for column, result in enumerate(results):
        left = LEFT + column * COLUMN
        title, batch = network_title(result["network"])
        text(left, 58, title, extra=' font-weight="600"')
        text(left, 75, f"{batch}: {duration(result['step_us'][BASE])}", "faint")
        for row, name in enumerate(BARS):
            top, ratio = TOP + row * PITCH, result["ratio"][name]
            length = WIDEST * ratio / longest
            fill = colors["ours" if name == BASE else "others"]
            lines.append(f'<rect x="{left}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" fill="{fill}"/>')
            weight = ' font-weight="600"' if name == BASE else ""
            text(left + round(length, 1) + 6, top + 13, f"{ratio:.1f}", extra=weight)
            if column == 0:
                text(LEFT - 12, top + 13, ROWS[name], extra=f' text-anchor="end"{weight}')
    text(16, height - 14, "float32, two cores of an AMD Zen 5; times under the titles are xpnet's", "faint")
    return "\n".join([*lines, "</svg>"]) + "\n"


def table(results: list[Result], optimizer: str) -> str:
    """Markdown table: microseconds a step, with the time relative to xpnet in brackets."""
    titles = (", ".join(network_title(result["network"])) for result in results)
    lines = [f"| {TITLES[optimizer]} | {' | '.join(titles)} |"]
    lines.append("|---|" + "---:|" * len(results))
    for name, title in ROWS.items():
        cells = [f"{result['step_us'][name]:,.0f}" for result in results]
        if name != BASE:
            digits = 2 if name == "the floor" else 1
            cells = [f"{cell} ({one['ratio'][name]:.{digits}f})" for cell, one in zip(cells, results, strict=True)]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_table(page: str, name: str, made: str) -> str:
    """The page with the table between the marks <!-- NAME --> and <!-- end --> replaced."""
    found, count = re.subn(rf"(<!-- {name} -->\n\n).*?(\n<!-- end -->)", rf"\g<1>{made}\g<2>", page, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"docs/benchmarks.md must have one table between <!-- {name} --> and <!-- end -->")
    return found


def made_files() -> dict[Path, str]:
    """Text of every file that this script makes."""
    files = {}
    page_path = ROOT / "docs" / "benchmarks.md"
    page = page_path.read_text(encoding="utf-8")
    for optimizer in ("adam", "sgd"):
        read = (ROOT / "bench" / "results" / f"race-{optimizer}.json").read_text(encoding="utf-8")
        results = json.loads(read)["results"]
        page = with_table(page, f"race-{optimizer}", table(results, optimizer))
        for theme in THEMES:
            files[ROOT / "docs" / f"speed-{optimizer}-{theme}.svg"] = chart(results, optimizer, theme)
    return files | {page_path: page}


def main() -> None:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description="Draw the race's results, and write them as tables.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")
    check = parser.parse_args().check
    stale = []
    for path, made in made_files().items():
        if not path.exists() or path.read_text(encoding="utf-8") != made:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(made, encoding="utf-8")
    if check and stale:
        sys.exit(f"out of date: {', '.join(stale)} (run python scripts/make_speed_chart.py)")
    print(*(stale or ["everything is up to date"]), sep="\n")


if __name__ == "__main__":
    main()
