"""Many networks at once: the time of a step of 1, 8, 32 and 128 replicas.

    python bench/replicas.py [--device cpu|cuda] [--counts 1 8 32 128] [--rounds 5] [--seconds 0.2] [--json FILE]

The network is 784-100x4-10 at batch 128, with Adam, and replicas see the same batches. Eager and compiled steps of all
counts take turns; a ratio is the median over rounds of the time of a step over that of one network of the same round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent / "peers"))  # last: tests/ has an `estimators` too
from contest import LeftOut, Worker, made_problem
from host import markdown, missing
from networks import NETWORKS
from surroundings import in_words, noted, surroundings, write_results
from xpnet_steps import XpnetSteps

NETWORK = next(iter(NETWORKS))
PIECE = 32  # steps in a call
WAYS = ("compiled", "eager")


def table(content: dict[str, Any]) -> str:
    """Return microseconds a step by way and count, with the ratio to one network and its range; and who is missing."""

    def spread(one: dict[str, Any]) -> str:
        return "{:.2f} to {:.2f}".format(*one["ratio_range"])

    rows = [
        [way, *[f"{one['step_us']:,.0f} ({one['ratio']:.2f}, {spread(one)})" for one in found.values()]]
        for way, found in content["results"].items()
    ]
    header = ["µs a step of R replicas (times one network's)", *[f"R = {count}" for count in content["counts"]]]
    return f"{markdown(header, rows)}\n\n{missing(content)}"


def compared(rounds: list[list[float]], counts: list[int]) -> dict[str, dict[str, Any]]:
    """Return the median time for each count, and the median ratio to the first, from rows of times by count."""
    found = {}
    for k, count in enumerate(counts):
        ratios = [times[k] / times[0] for times in rounds]
        step_us = statistics.median(times[k] for times in rounds)
        ratio_range = (min(ratios), max(ratios))
        found[str(count)] = {"step_us": step_us, "ratio": statistics.median(ratios), "ratio_range": ratio_range}
    return found


def main() -> int:
    """Time all counts, print a table, and return the exit code: 1 where one failed or nothing was timed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a turn")
    parser.add_argument("--piece", type=int, default=PIECE, help="steps in a call")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    options = parser.parse_args()
    found = surroundings(options.device)
    problem = replace(made_problem(*NETWORKS[NETWORK], "adam"), device=options.device)
    content: dict[str, Any] = {
        "network": NETWORK,
        "counts": options.counts,
        "results": {},
        "left_out": {},
        "failed": {},
    }
    for way in WAYS:
        try:
            workers = []
            for count in options.counts:
                workers.append(Worker(partial(XpnetSteps, way=way, replicas=count)))
                workers[-1].begin(problem)
                workers[-1].steps(options.piece)
            rounds = [
                [w.turn(options.seconds, options.piece)["microseconds"] for w in workers] for _ in range(options.rounds)
            ]
            content["results"][way] = compared(rounds, options.counts)
        except LeftOut as reason:
            content["left_out"][way] = str(reason)
        except Exception as error:  # memory, say
            content["failed"][way] = f"{type(error).__name__}: {error}"
        if options.json:
            write_results(options.json, found, content)
    print(in_words(noted(found)), table(content), sep="\n\n")
    return int(bool(content["failed"]) or not content["results"])


if __name__ == "__main__":
    sys.exit(main())
