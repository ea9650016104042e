"""Whole training on MNIST: how long until 97 % and 98 % of the test rows are read rightly, xpnet against its peers.

    python bench/peers/whole.py --data-dir FOLDER [--contenders NAME ...] [--epochs 10] [--json FILE]

One recipe for all: 784-512-512-10, Adam at 0.001, batches of 128 (the rest of an epoch's rows that fill none are left
out of it), from the same weights, on the same rows in the same order. Each contender is a process of its own, one after
the other. FOLDER is XPNET_DATA_DIR by default, else MNIST comes from the cache or is downloaded, as for `xpnet train`.

Two times are given. That of the steps is an epoch's, the median of all but the first, in which a step may be compiled,
times the number of epochs. That in all runs from the start of the process, with imports, reading the data and
compilation in it. The test after each epoch counts in neither.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from contest import LEARNING_RATES, Array, Problem, he_normal
from host import (
    CONTENDERS,
    Entry,
    FailedError,
    LeftOutError,
    Remote,
    accuracy,
    in_words,
    markdown,
    scratch,
    surroundings,
)

from xpnet.data import load_mnist

SIZES, BATCH_SIZE = (784, 512, 512, 10), 128
GOALS = (0.97, 0.98)
LEAST_EPOCHS = 3  # so that the median of the epochs after the first is one


def train(entry: Entry, problem: Path, folder: Path, x: Array, t: Array, epochs: int) -> dict[str, Any]:
    """Train until the last goal is reached, and return what each epoch took and brought."""
    start = time.perf_counter()
    not_counted = 0.0
    remote = Remote(entry, folder)
    try:
        remote.ask("start", problem=str(problem), device=entry.device)
        rows: list[dict[str, float]] = []
        while len(rows) < epochs and not (len(rows) >= LEAST_EPOCHS and rows[-1]["best"] >= GOALS[-1]):
            seconds = remote.ask("epoch", number=len(rows) + 1)["seconds"]
            done = time.perf_counter()
            remote.tell_weights()
            weights = remote.hear_weights()
            assert weights is not None
            score = accuracy(weights, x, t)
            best = max([score, *(row["best"] for row in rows)])
            rows.append({"seconds": seconds, "wall": done - start - not_counted, "accuracy": score, "best": best})
            not_counted += time.perf_counter() - done
        peak = remote.ask("memory")["peak_mib"]
    finally:
        remote.close()
    epoch_seconds = statistics.median(row["seconds"] for row in (rows[1:] or rows))
    goals = {}
    for goal in GOALS:
        reached = [number for number, row in enumerate(rows, 1) if row["accuracy"] >= goal]
        if reached:
            goals[str(goal)] = {
                "epochs": reached[0],
                "seconds": reached[0] * epoch_seconds,
                "wall": rows[reached[0] - 1]["wall"],
            }
    return {"epoch_seconds": epoch_seconds, "goals": goals, "peak_mib": peak, "rows": rows}


def table(results: dict[str, Any]) -> str:
    """Return a line a contender."""
    header = ["784-512-512-10, Adam", "s per epoch"]
    for goal in GOALS:
        header += [f"epochs to {goal:.0%}", "s of steps", "s in all"]
    lines = []
    for name, result in results.items():
        line = [name, f"{result['epoch_seconds']:.2f}"]
        for goal in GOALS:
            reached = result["goals"].get(str(goal))
            line += (
                [str(reached["epochs"]), f"{reached['seconds']:.2f}", f"{reached['wall']:.2f}"]
                if reached
                else ["-"] * 3
            )
        lines.append([*line, f"{result['rows'][-1]['accuracy']:.4f}", f"{result['peak_mib']:,.0f}"])
    return markdown([*header, "accuracy at the end", "peak memory, MiB"], lines)


def main() -> int:
    """Train with each contender, print the table, and return the exit code."""
    entries = {entry.name: entry for entry in CONTENDERS if entry.name != "JAX, a step"}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("XPNET_DATA_DIR"))
    parser.add_argument("--contenders", nargs="+", choices=entries, default=list(entries))
    parser.add_argument("--epochs", type=int, default=10, help="at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    options = parser.parse_args()
    if options.epochs < 1:
        parser.error("--epochs must be at least 1")
    found = surroundings()
    data = load_mnist(options.data_dir)
    x_train, x_test = (x.reshape(len(x), -1) for x in (data.x_train, data.x_test))
    t_train, t_test = (np.asarray(t, np.int64) for t in (data.y_train, data.y_test))
    results: dict[str, Any] = {}
    troubles: dict[str, dict[str, str]] = {"left_out": {}, "failed": {}}
    with scratch() as folder:
        problem = folder / "problem.npz"
        Problem(SIZES, BATCH_SIZE, "adam", LEARNING_RATES["adam"], x_train, t_train, he_normal(SIZES)).save(problem)
        for name in options.contenders:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                results[name] = train(entries[name], problem, folder, x_test, t_test, options.epochs)
            except LeftOutError as reason:
                troubles["left_out"][name] = str(reason)
            except FailedError as reason:
                troubles["failed"][name] = str(reason)
    print(f"{in_words(found)}\n\n{table(results)}\n")
    for trouble, texts in troubles.items():
        for name, text in texts.items():
            print(f"{trouble.replace('_', ' ')}: {name}: {text}")
    if options.json:
        content = found | {"results": results} | troubles
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(bool(troubles["failed"]))


if __name__ == "__main__":
    sys.exit(main())
