"""Draw the race's results, and write them as tables: docs/speed-*.svg, and the tables in docs/benchmarks.md.

    python scripts/make_speed_chart.py [--check]

The README has the first chart, and its numbers for those who do not see it. Reads bench/results/race-*.json, which
`scripts/run_races.sh` writes. The same results give the same bytes: with `--check` nothing is written, and the exit
code is 1 where a file is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from html import escape
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench" / "peers"))
from host import BASE, WITH_ZEROS
from race import GAIN, gain, percents
from surroundings import in_words

ROOT = Path(__file__).resolve().parents[1]
# Of results, and of marks in docs/benchmarks.md; "zen-3" is the first one on another processor.
RACES = ("standardized", "batch-norm", "plain", "random", "float64", "zen-3")
FIRST = RACES[0]  # which the charts show
ROWS = {  # the contender in the results: its name in the tables
    BASE: "xpnet, compiled",
    WITH_ZEROS: "xpnet, zeros not left out",
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
BARS = (BASE, WITH_ZEROS, "JAX, scan", "JAX, a step", "PyTorch, compiled", "PyTorch, eager", "scikit-learn")
THEMES = {
    "light": {"paper": "#ffffff", "text": "#1f2328", "faint": "#59636e", "ours": "#0072b2", "others": "#b6bfc9"},
    "dark": {"paper": "#0d1117", "text": "#e6edf3", "faint": "#9198a1", "ours": "#56b4e9", "others": "#4d5763"},
}
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
LEFT, COLUMN, BAR, PITCH, TOP = 188, 184, 16, 26, 92  # pixels
LEAST_ROUNDS = 3  # with fewer, results are said to be those of a trial
WIDEST = 136  # the longest bar of all; its number stands beside it

Result = dict[str, Any]


def network_title(network: str) -> tuple[str, str]:
    """Sizes and batch size of "784-100x4-10 batch 128", as two lines."""
    sizes, _, batch = network.partition(" batch ")
    return sizes.replace("x", "\N{MULTIPLICATION SIGN}"), f"batch {batch}"


def column_title(result: Result) -> str:
    """Network, batch size, and a word where the data are not pictures."""
    return ", ".join([*network_title(result["network"]), *(["a table"] if result["data"] == "table" else [])])


def duration(microseconds: float) -> str:
    """A time in microseconds, or in milliseconds from 10,000 microseconds on."""
    return f"{microseconds / 1000:.0f} ms" if microseconds >= 1e4 else f"{microseconds:,.0f} \N{MICRO SIGN}s"


def chart(content: Result, optimizer: str, theme: str) -> str:
    """Bar chart, an SVG: a column for each network, a bar for each contender's time relative to xpnet's."""
    results = heats(content, optimizer)
    shown = [name for name in BARS if all(name in result["ratio"] for result in results)]
    colors = THEMES[theme]
    width, height = LEFT + COLUMN * len(results) + 10, TOP + PITCH * len(shown) + 34
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
    longest = max(result["ratio"][name] for result in results for name in shown)
    for column, result in enumerate(results):
        left = LEFT + column * COLUMN
        title, batch = network_title(result["network"])
        text(left, 58, title, extra=' font-weight="600"')
        text(left, 75, f"{batch}: {duration(result['step_us'][BASE])}", "faint")
        for row, name in enumerate(shown):
            top, ratio = TOP + row * PITCH, result["ratio"][name]
            length = WIDEST * ratio / longest
            fill = colors["ours" if name in (BASE, WITH_ZEROS) else "others"]
            lines.append(f'<rect x="{left}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" fill="{fill}"/>')
            weight = ' font-weight="600"' if name == BASE else ""
            text(left + round(length, 1) + 6, top + 13, f"{ratio:.1f}", extra=weight)
            if column == 0:
                text(LEFT - 12, top + 13, ROWS[name], extra=f' text-anchor="end"{weight}')
    tables = [network_title(result["network"])[0] for result in results if result["data"] == "table"]
    meaning = "Times are xpnet's." if content["rounds"] >= LEAST_ROUNDS else "A trial, no measurement."
    data = "; ".join(["MNIST, standardized pixels", *(f"{title}: a table" for title in tables)])
    text(16, height - 14, f"{data}. {results[0]['dtype']}, {machine(content)}. {meaning}", "faint")
    return "\n".join([*lines, "</svg>"]) + "\n"


def heats(content: Result, optimizer: str) -> list[Result]:
    """Results of one optimizer."""
    return [result for result in content["results"] if result["optimizer"] == optimizer]


def machine(content: Result) -> str:
    """The processor, and how many of them are usable."""
    count = content["usable_processors"]
    return f"{content['processor']}, {count} processor{'' if count == 1 else 's'}"


def measured(content: Result) -> str:
    """A sentence on how a race was measured, where, and of what."""
    rounds, seconds = content["rounds"], content["seconds"]
    turns = f"{rounds} round{'' if rounds == 1 else 's'} of turns of {seconds:g} s"
    word = "Measured" if rounds >= LEAST_ROUNDS else "A trial and no measurement,"
    return f"{word} in {turns}: {in_words(content)}."


def shares(result: Result, when: str, which: slice) -> str:
    """Percentages of zeros with xpnet's weights."""
    return percents(result["zeros"][when].get(BASE, [])[which])


def table(content: Result, optimizer: str) -> str:
    """Markdown table: microseconds a step, with the time relative to xpnet in brackets, and zeros."""
    results = heats(content, optimizer)
    lines = [f"| {TITLES[optimizer]} | {' | '.join(column_title(result) for result in results)} |"]
    lines.append("|---|" + "---:|" * len(results))

    def cell(result: Result, name: str) -> str:
        if name not in result["step_us"]:
            return ""
        digits = 2 if name in (WITH_ZEROS, "the floor") else 1
        ratio = "" if name == BASE else f" ({result['ratio'][name]:.{digits}f})"
        return f"{result['step_us'][name]:,.0f}{ratio}"

    rows = {
        title: [cell(result, name) for result in results]
        for name, title in ROWS.items()
        if any(name in result["step_us"] for result in results)
    } | {
        "gain by leaving out zeros": [gain(result) for result in results],
        "zeros in the input, %": [shares(result, "end", slice(1)) for result in results],
        "zeros behind each ReLU at the start, %": [shares(result, "start", slice(1, None)) for result in results],
        "zeros behind each ReLU at the end, %": [shares(result, "end", slice(1, None)) for result in results],
    }
    return "\n".join([*lines, *(f"| {' | '.join([title, *cells])} |" for title, cells in rows.items())]) + "\n"


def in_column(result: Result) -> str:
    """The column of a table, in words."""
    return f"{network_title(result['network'])[0]} with {TITLES[result['optimizer']]}"


def summary(content: Result) -> str:
    """Sentences on what leaving out zeros gains, and on the distance to JAX's scan."""
    results = content["results"]
    gains = [
        f"{result['ratio'][WITH_ZEROS]:.2f} times as fast for {in_column(result)}"
        for result in results
        if result["ratio_range"].get(WITH_ZEROS, (0.0,))[0] >= GAIN
    ]
    others = "; of the other columns no gain is shown" if len(gains) < len(results) else ""
    said = [
        f"Leaving out zeros makes xpnet {', '.join(gains)}{others}."
        if gains
        else "No gain by leaving out zeros is shown."
    ]
    scans = sorted((r["ratio"]["JAX, scan"], in_column(r)) for r in results if "JAX, scan" in r["ratio"])
    if scans:
        (low, where), (high, _) = scans[0], scans[-1]
        said.append(f"JAX's scan takes {low:.2f} times (for {where}) to {high:.2f} times as long as xpnet.")
    return " ".join(said)


def section(content: Result) -> str:
    """Tables of a race, a sentence on how it was measured, and what it shows, where it is no trial."""
    tables = [table(content, optimizer) for optimizer in TITLES if heats(content, optimizer)]
    told = (measured, summary) if content["rounds"] >= LEAST_ROUNDS else (measured,)
    texts = [textwrap.fill(words(content), 118, break_on_hyphens=False) for words in told]
    return "\n".join([*tables, *(f"{text}\n" for text in texts)])


def picture(content: Result) -> str:
    """The chart in the README, with its numbers as the text for those who do not see it."""
    results = heats(content, "adam")
    ranges = []
    for peer in ("JAX", "PyTorch", "scikit-learn"):
        ratios = [r["ratio"][name] for r in results for name in BARS if name.startswith(peer) and name in r["ratio"]]
        if ratios:
            ranges.append(f"{peer} {min(ratios):.1f} to {max(ratios):.1f}")
    words = f"Time of a training step with Adam on {len(results)} networks, relative to xpnet: {', '.join(ranges)}"
    words += "" if content["rounds"] >= LEAST_ROUNDS else " (a trial, no measurement)"
    image = textwrap.fill(
        f'<img alt="{escape(words)}" src="docs/speed-adam-light.svg">',
        118,
        initial_indent="  ",
        subsequent_indent="  ",
        break_on_hyphens=False,
    )
    source = '  <source media="(prefers-color-scheme: dark)" srcset="docs/speed-adam-dark.svg">'
    return f"<picture>\n{source}\n{image}\n</picture>"


def replaced(path: Path, pattern: str, made: str, page: str) -> str:
    """A page with the one text that a pattern finds replaced."""
    found, count = re.subn(pattern, lambda match: made, page, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{path.relative_to(ROOT)} must have one {pattern}")
    return found


def made_files() -> dict[Path, str]:
    """Text of every file that this script makes."""
    files = {}
    readme, benchmarks = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
    page = benchmarks.read_text(encoding="utf-8")
    for race in RACES:
        content = json.loads((ROOT / "bench" / "results" / f"race-{race}.json").read_text(encoding="utf-8"))
        first, last = f"<!-- race-{race} -->\n\n", "\n<!-- end -->"
        made = f"{first}{section(content)}{last}"
        page = replaced(benchmarks, f"{first}((?!<!-- ).)*?{last}", made, page)
        if race == FIRST:
            text = readme.read_text(encoding="utf-8")
            files[readme] = replaced(readme, "<picture>.*?</picture>", picture(content), text)
            for optimizer in (one for one in TITLES if heats(content, one)):
                for theme in THEMES:
                    files[ROOT / "docs" / f"speed-{optimizer}-{theme}.svg"] = chart(content, optimizer, theme)
    return files | {benchmarks: page}


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
