"""Whole training on MNIST: seconds until 97 % and 98 % of the test rows are right, xpnet against its peers.

    python bench/peers/whole.py --data-dir FOLDER [--device cpu|cuda] [--contenders NAME ...] [--goals 0.97 0.98]
                                [--epochs 10] [--json FILE]

One recipe for all: 784-512-512-10, Adam at 0.001, batches of 128 (the rest of an epoch's rows that fill none are left
out of it), from the same weights, on the same rows in the same order. Each contender is a process of its own, one after
the other. FOLDER is XPNET_DATA_DIR by default, else MNIST comes from the cache or is downloaded, as for `xpnet train`.

Two times are given. That of the steps is an epoch's, the median of all but the first, in which a step may be compiled,
times the number of epochs. That in all runs from the start of the process, with imports, reading the data and
compilation in it. The test after each epoch counts in neither.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from contest import LEARNING_RATES, Array, Problem, he_normal
from host import (
    CONTENDERS,
    CUDA_CONTENDERS,
    PATIENCE,
    Entry,
    FailedError,
    LeftOutError,
    Remote,
    accuracy,
    markdown,
    missing,
    none_trained,
    scratch,
)
from surroundings import in_words, noted, surroundings, write_results
from threadpoolctl import threadpool_limits

from xpnet.data import load_mnist

SIZES, BATCH_SIZE = (784, 512, 512, 10), 128
GOALS = (0.97, 0.98)
ENTRIES = {"cpu": CONTENDERS, "cuda": CUDA_CONTENDERS}
LEAST_EPOCHS = 3  # so that the median of the epochs after the first is one


def train(
    entry: Entry, problem: Path, folder: Path, x: Array, t: Array, epochs: int, goals: list[float], patience: float
) -> dict[str, Any]:
    """Train until the last goal is reached; return time and accuracy by epoch and by goal."""
    start = time.perf_counter()
    not_counted = 0.0
    remote = Remote(entry, folder, patience)
    try:
        remote.ask("start", problem=str(problem), device=entry.device)
        rows: list[dict[str, float]] = []
        while len(rows) < epochs and not (len(rows) >= LEAST_EPOCHS and rows[-1]["best"] >= max(goals)):
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
    reached_goals = {}
    for goal in goals:
        reached = [number for number, row in enumerate(rows, 1) if row["accuracy"] >= goal]
        if reached:
            reached_goals[str(goal)] = {
                "epochs": reached[0],
                "seconds": reached[0] * epoch_seconds,
                "wall": rows[reached[0] - 1]["wall"],
            }
    return {"epoch_seconds": epoch_seconds, "goals": reached_goals, "peak_mib": peak, "rows": rows}


def table(results: dict[str, Any], goals: Iterable[float]) -> str:
    """Return a line a contender."""
    header = ["784-512-512-10, Adam", "s per epoch"]
    for goal in goals:
        header += [f"epochs to {100 * goal:g} %", "s of steps", "s in all"]
    lines = []
    for name, result in results.items():
        epochs = [row["seconds"] for row in (result["rows"][1:] or result["rows"])]
        line = [name, f"{result['epoch_seconds']:.2f} ({min(epochs):.2f} to {max(epochs):.2f})"]
        for goal in goals:
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
    names = dict.fromkeys(e.name for entries in ENTRIES.values() for e in entries if e.name != "JAX, a step")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("XPNET_DATA_DIR"))
    parser.add_argument("--device", choices=ENTRIES, default="cpu")
    parser.add_argument("--contenders", nargs="+", choices=names, default=list(names))
    parser.add_argument("--goals", nargs="+", type=float, default=list(GOALS), help="accuracies")
    parser.add_argument("--epochs", type=int, default=10, help="at most")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for an answer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    options = parser.parse_args()
    if options.epochs < 1:
        parser.error("--epochs must be at least 1")
    found = surroundings(options.device)
    threadpool_limits(1, user_api="blas")  # those of a test would spin into the next epoch of a contender
    data = load_mnist(options.data_dir)
    x_train, x_test = data.x_train.reshape(len(data.x_train), -1), data.x_test.reshape(len(data.x_test), -1) / 255.0
    t_train, t_test = (np.asarray(t, np.int64) for t in (data.y_train, data.y_test))
    results: dict[str, Any] = {}
    troubles: dict[str, dict[str, str]] = {"left_out": {}, "failed": {}}
    content = {"goals": options.goals, "results": results} | troubles
    with scratch() as folder:
        problem = folder / "problem.npz"
        Problem(SIZES, BATCH_SIZE, "adam", LEARNING_RATES["adam"], x_train, t_train, he_normal(SIZES)).save(problem)
        for entry in ENTRIES[options.device]:
            name = entry.name
            if name not in options.contenders:
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                arguments = x_test, t_test, options.epochs, options.goals, options.patience
                results[name] = train(entry, problem, folder, *arguments)
            except LeftOutError as reason:
                troubles["left_out"][name] = str(reason)
            except FailedError as reason:
                troubles["failed"][name] = str(reason)
            if options.json:  # what is there already is kept, whatever comes
                write_results(options.json, found, content)
    print(f"{in_words(noted(found))}\n\n{table(results, options.goals)}\n")
    print(missing(troubles))
    if troubles["failed"]:
        print(f"failed: {'; '.join(troubles['failed'])}", file=sys.stderr)
    return int(bool(troubles["failed"]) or none_trained(ENTRIES[options.device], results, options.device))


if __name__ == "__main__":
    sys.exit(main())
