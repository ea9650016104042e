"""xpnet's estimators against scikit-learn's: the same program with one import line changed, from end to end.

    python bench/peers/estimators.py [--problems NAME ...] [--rounds 5] [--epochs N] [--data-dir FOLDER] [--json FILE]

Each run is a process of its own, the two libraries take turns, and a comparison is the median over rounds of two times
of the same round. Timed are `fit` and `predict` of all rows, together; what the process takes before, with imports and
data, is told beside it. Both start from the same `random_state`, and so take the same steps: where the scores or the
numbers of epochs differ (for float32, which rounds, by more than a little), the exit code is 1. The first run of all,
of xpnet, may have to compile, and is told apart.

FOLDER, with MNIST in it, is XPNET_DATA_DIR by default. Variables that hold a BLAS back are cleared.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from host import check_modules, environment, markdown
from networks import PROBLEMS
from surroundings import in_words, noted, surroundings, write_results

LIBRARIES = ("scikit-learn", "xpnet")
ROWS = 50_000
SAME = {"float64": 1e-9, "float32": 0.02}  # how far scores may lie apart


def table(dtype: str) -> tuple[Any, Any]:
    """Return a table of 30 columns, float64 as a data frame, and two classes that depend on some of them."""
    import pandas as pd

    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, 30))
    noise = 0.5 * generator.normal(size=ROWS)
    y = (x[:, 0] * x[:, 1] + np.sin(x[:, 2:5]).sum(axis=1) + noise > 0).astype(int)
    return (pd.DataFrame(x) if dtype == "float64" else x.astype(dtype)), y


def mnist(folder: str | None, standardized: bool) -> tuple[Any, Any]:
    """Return MNIST's training rows, float64, from 0 to 1 (most are 0) or standardized (none is), and their labels."""
    from sklearn.preprocessing import StandardScaler

    from xpnet import load_mnist

    data = load_mnist(folder)
    x = data.x_train.reshape(len(data.x_train), -1) / 255.0
    return (StandardScaler().fit_transform(x) if standardized else x), data.y_train


def iris() -> tuple[Any, Any]:
    """Return 150 flowers of three kinds."""
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return x, y


def data_of(problem: str, folder: str | None) -> tuple[Any, Any]:
    """Return the rows and classes of a problem."""
    if problem == "iris":
        return iris()
    if problem.startswith("MNIST"):
        return mnist(folder, problem.endswith("standardized"))
    return table(PROBLEMS[problem]["dtype"])


def run(library: str, problem: str, epochs: int | None, folder: str | None) -> dict[str, Any]:
    """Fit and predict in this process, and return what it took and brought."""
    warnings.simplefilter("ignore")  # that it has not converged
    before = time.perf_counter()
    module = importlib.import_module("xpnet.sklearn" if library == "xpnet" else "sklearn.neural_network")
    x, y = data_of(problem, folder)
    arguments = PROBLEMS[problem]["arguments"] | ({} if epochs is None else {"max_iter": epochs})
    start, processor = time.perf_counter(), time.process_time()
    model = module.MLPClassifier(random_state=0, **arguments).fit(x, y)
    fitted = time.perf_counter()
    predicted = model.predict(x)
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "fit": fitted - start,
        "predict": end - fitted,
        "processor": time.process_time() - processor,
        "before": start - before,
        "score": float((predicted == y).mean()),
        "epochs": model.n_iter_,
    }


def run_apart(library: str, problem: str, epochs: int | None, folder: str | None) -> dict[str, Any]:
    """Run in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--run", library, json.dumps([problem, epochs, folder])],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(problem: str, rounds: int, epochs: int | None, folder: str | None) -> dict[str, Any]:
    """Let the libraries take turns at a problem."""
    found: dict[str, list[dict[str, Any]]] = {library: [] for library in LIBRARIES}
    first = run_apart("xpnet", problem, epochs, folder)
    for number in range(rounds):
        for library in LIBRARIES if number % 2 else LIBRARIES[::-1]:
            found[library].append(run_apart(library, problem, epochs, folder))
    theirs, ours = (found[library] for library in LIBRARIES)
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(theirs, ours, strict=True)]
    apart = abs(theirs[0]["score"] - ours[0]["score"])
    exact = PROBLEMS[problem]["dtype"] == "float64"
    return {
        "problem": problem,
        "ratio": statistics.median(ratios),
        "ratio_range": (min(ratios), max(ratios)),
        "first_run_of_xpnet": first,
        "runs": found,
        "same": apart <= SAME[PROBLEMS[problem]["dtype"]] and (theirs[0]["epochs"] == ours[0]["epochs"] or not exact),
    }


def row(result: dict[str, Any]) -> list[str]:
    """Return a line of the table."""

    def median(library: str, key: str) -> float:
        return statistics.median(float(one[key]) for one in result["runs"][library])

    cells = [result["problem"]]
    for library in LIBRARIES:
        cells.append(f"{median(library, 'seconds'):.3f}")
        cells.append(f"{median(library, 'epochs'):.0f}")
        cells.append(f"{median(library, 'score'):.4f}")
    low, high = result["ratio_range"]
    cells.append(f"{result['ratio']:.2f} ({low:.2f} to {high:.2f})")
    cells.append(f"{result['first_run_of_xpnet']['seconds']:.3f}")
    return cells if result["same"] else [*cells[:-1], f"{cells[-1]} **not the same**"]


def main() -> int:
    """Compare, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="at most; by default as many as scikit-learn's defaults take")
    parser.add_argument("--data-dir", default=os.environ.get("XPNET_DATA_DIR"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--run", nargs=2, metavar=("LIBRARY", "WHAT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run(options.run[0], *json.loads(options.run[1]))))
        return 0
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    check_modules(parser, "sklearn", "pandas")
    found = surroundings()
    results: list[dict[str, Any]] = []
    for problem in options.problems:
        print(f"{problem} ...", file=sys.stderr, flush=True)
        results.append(compare(problem, options.rounds, options.epochs, options.data_dir))
        if options.json:
            content = {"rounds": options.rounds, "epochs": options.epochs, "results": results}
            write_results(options.json, found, content)
    print(f"{in_words(noted(found))}\n\nSeconds of fit and predict, medians of {options.rounds} rounds:\n")
    header = ["problem", *[f"{library}{what}" for library in LIBRARIES for what in ("", ": epochs", ": score")]]
    print(markdown([*header, "ratio", "xpnet's first run"], [row(result) for result in results]))
    return int(not all(result["same"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
