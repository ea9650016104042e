"""What bench/compare.py would say: simulated on the noise that it has recorded of two equal commits.

    python bench/compare.py HEAD HEAD --json FILE; python bench/compare_noise.py FILE ... [--runs 200] [--block 4]
        [--pairs 12] [--most-pairs 60] [--confidence 0.99] [--interest 2] [--slowdown 5]

A simulated run takes pairs from a record, --block successive ones at a time, so that a spell of load stays together,
and adds pairs as the program does. Printed for each record: the deviation of a pair's ratio (from its median absolute
deviation), how much slower the side that began was, the correlation of a pair with the next, and the share of runs with
each verdict, with equal commits, and with --slowdown per cent put on one of them; with the pairs that they took.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent / "peers"))  # last: tests/ has an `estimators` too
from compare import SLOWER, VERDICTS, is_narrow, judged
from host import markdown

RESAMPLES = 1000  # of a simulated interval


def drawn(ratios: Sequence[float], count: int, block: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return ratios of a record by moving blocks, which go round its end."""
    starts = rng.integers(0, len(ratios), -(-count // block))
    index = (starts[:, None] + np.arange(block)).ravel()[:count]
    found: np.ndarray[Any, Any] = np.asarray(ratios)[index % len(ratios)]
    return found


def simulated(ratios: Sequence[float], slowdown: float, options: argparse.Namespace, seed: int = 0) -> dict[str, Any]:
    """Return the share of each verdict among simulated runs, and the median number of pairs."""
    rng = np.random.default_rng(seed)
    verdicts: Counter[str] = Counter()
    counts = []
    for _ in range(options.runs):
        values = drawn(ratios, options.most_pairs, options.block, rng) * (1.0 + slowdown)
        for count in range(options.pairs, options.most_pairs + 1):
            found = judged(values[:count], options.confidence, options.interest / 100, RESAMPLES)
            if is_narrow(found["interval"], options.interest / 100):
                break
        verdicts[found["verdict"]] += 1
        counts.append(count)
    return {name: verdicts[name] / options.runs for name in VERDICTS} | {"pairs": float(np.median(counts))}


def noise(ratios: Sequence[float], first: Sequence[int]) -> dict[str, float]:
    """Return deviation, effect of beginning, and correlation with the next pair, of logarithms of ratios."""
    logs = np.log(ratios)
    begun = np.asarray(first, bool)  # by the other side, which is the numerator
    off = logs - np.median(logs)
    return {
        "deviation": float(1.4826 * np.median(np.abs(off))),
        "first": float(np.median(logs[begun]) - np.median(logs[~begun])) / 2.0,
        "correlation": float(np.corrcoef(logs[:-1], logs[1:])[0, 1]),
    }


def main() -> int:
    """Simulate, and print tables; the exit code is 1 where fewer than 95 % of runs say what is true."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON of bench/compare.py")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--most-pairs", type=int, default=60)
    parser.add_argument("--confidence", type=float, default=0.99)
    parser.add_argument("--interest", type=float, default=2.0)
    parser.add_argument("--slowdown", type=float, default=5.0)
    options = parser.parse_args()
    records: dict[str, tuple[list[float], list[int]]] = {}
    for file in options.files:
        for one in json.loads(file.read_text(encoding="utf-8"))["results"]:
            for clock, pairs in one["pairs"].items():
                ratios, first = records.setdefault(f"{one['benchmark']}, {clock}", ([], []))
                ratios += [other / base for base, other in pairs]
                first += one["first"]
    rows, right = [], True
    for name, (ratios, first) in records.items():
        about = noise(ratios, first)
        print(
            f"{name}: {len(ratios)} pairs, deviation {about['deviation']:.2%}, the first {about['first']:+.2%} slower,"
            f" correlation with the next {about['correlation']:+.2f}"
        )
        for slowdown, truth in ((0.0, VERDICTS[0]), (options.slowdown / 100, SLOWER)):
            shares = simulated(ratios, slowdown, options)
            right = right and shares[truth] >= 0.95
            rows.append(
                [name, f"{slowdown:.0%}", *[f"{shares[one]:.3f}" for one in VERDICTS], f"{shares['pairs']:.0f}"]
            )
    print(markdown(["benchmark", "slowdown", *VERDICTS, "pairs"], rows))
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
