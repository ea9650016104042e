"""A whole job: the command that brings 784-512-512-10 to 98 % of MNIST's test rows, and what its seconds go to.

    python bench/job.py [--seeds 0 1 2 ...] [--data-dir FOLDER] [--json FILE] [-- OPTIONS OF TRAIN]

For each seed, `python -m xpnet.train` runs in a process of its own, and its time is taken from outside: from before
Python starts until the process has ended. The number of epochs was chosen for this accuracy; a run's accuracy is that
of its last epoch. One run more, before all others, may have to compile, and is told apart.

FOLDER, with MNIST in it, is XPNET_DATA_DIR by default. Options after -- are in place of the recipe's.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent / "peers"))  # last: tests/ has an `estimators` too

from host import environment, markdown
from surroundings import in_words, noted, surroundings, write_results

RECIPE = "--dataset mnist --hidden 512 512 --lr 0.004 --schedule one-cycle --epochs 2"
PARTS = ("imports", "data", "compiling", "training", "evaluation")


def run(options: list[str]) -> dict[str, Any]:
    """Run the command, and return its accuracy, its seconds from outside, and what they went to."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "xpnet.train", *options, "--quiet", "--json"],
        env=environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    seconds = time.perf_counter() - start
    result = json.loads(done.stdout)
    parts = {part: result["seconds_by_part"].get(part, 0.0) for part in PARTS}
    return {
        "seconds": seconds,
        **parts,
        "the rest": seconds - sum(parts.values()),
        "test_accuracy": result["test_accuracy"],
        "threads": result["threads"],
        "compiled": result["compiled"],
    }


def main() -> None:
    """Run the command with each seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--data-dir", default=os.environ.get("XPNET_DATA_DIR"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("options", nargs="*", help="of train, in place of the recipe's")
    given = parser.parse_args()
    options = given.options or shlex.split(RECIPE)
    place = [] if given.data_dir is None else ["--data-dir", given.data_dir]
    around, results = surroundings(), []
    first = run([*options, *place, "--seed", str(given.seeds[0])])
    for seed in given.seeds:
        results.append({"seed": seed} | run([*options, *place, "--seed", str(seed)]))
        if given.json:
            write_results(given.json, around, {"options": shlex.join(options), "first": first, "runs": results})
    columns = ["seconds", *PARTS, "the rest"]
    lines = [
        [f"seed {one['seed']}", *(f"{one[name]:.2f}" for name in columns), f"{one['test_accuracy']:.4f}"]
        for one in [*results, {"seed": f"{given.seeds[0]}, the first run"} | first]
    ]
    middle = [f"{statistics.median(one[name] for one in results):.2f}" for name in columns]
    scores = [one["test_accuracy"] for one in results]
    lines.append(["median", *middle, f"{statistics.median(scores):.4f} ({min(scores):.4f} to {max(scores):.4f})"])
    print(f"{in_words(noted(around))}\n\nxpnet train {shlex.join(options)}\n")
    print(markdown(["s", "in all", *columns[1:], "test accuracy"], lines))


if __name__ == "__main__":
    main()
