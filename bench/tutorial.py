"""Post 002's program with `xpnet.tutorial` against the same program with the book's kind of NumPy code.

    python bench/tutorial.py [--iterations 2000] [--rounds 5] [--contenders NAME ...] [--json FILE]

Four update rules train four networks, 784-100-100-100-100-10 in float64, on the same batches of 128 rows of MNIST. The
program is that of `tests/tutorials`, with the figure left undrawn, and `peers/book.py` in place of `xpnet.tutorial` for
the book. Each run is a process of its own, compiling included, importing and reading MNIST left out; in each round all
have a turn, and a ratio is the median over rounds of two times of the same round. NumPy's BLAS has as many threads as
it takes by default, and one for "book, one thread".
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
from pathlib import Path
from typing import Any

from surroundings import in_words, noted, surroundings, write_results

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parent / "tests/tutorials/post_002_optimizers.py"
CONTENDERS = ("xpnet", "book, one thread", "book")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run_program(module: str, iterations: int) -> dict[str, Any]:
    """Run the program up to its figure with the names of a module; return seconds and last losses."""
    sys.path.insert(0, str(HERE / "peers"))
    import numpy as np

    from xpnet import tutorial

    data = tutorial.load_mnist()
    names: dict[str, Any] = {name: getattr(tutorial, name) for name in tutorial.__all__}
    names |= vars(importlib.import_module(module)) | {"load_mnist": lambda normalize: data}
    text = PROGRAM.read_text(encoding="utf-8")
    text = text[: text.index("# 3.")].replace("max_iterations = 2000", f"max_iterations = {iterations}")
    lines = [line for line in text.splitlines() if not line.startswith(("import", "from"))]
    np.random.seed(0)  # noqa: NPY002 (the program's own generator)
    start, cpu = time.perf_counter(), time.process_time()
    exec(compile("\n".join(lines), str(PROGRAM), "exec"), names)
    result = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    return result | {"losses": {key: float(np.mean(one[-100:])) for key, one in names["train_loss"].items()}}


def run_contender(contender: str, iterations: int) -> dict[str, Any]:
    """Run a contender in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    if contender == "book, one thread":
        environment |= dict.fromkeys(THREADS, "1")
    module = "xpnet.tutorial" if contender == "xpnet" else "book"
    command = [sys.executable, __file__, "--child", module, "--iterations", str(iterations)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, encoding="utf-8")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_program(options.child, options.iterations)))
        return
    found = surroundings()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.contenders}
    for _ in range(options.rounds):
        for name in options.contenders:
            runs[name].append(run_contender(name, options.iterations))
            print(
                f"{name}: {runs[name][-1]['seconds']:.1f} s, {runs[name][-1]['cpu_seconds']:.1f} s of CPU", flush=True
            )
    summary = {}
    for name, several in runs.items():
        summary[name] = {key: statistics.median(run[key] for run in several) for key in ("seconds", "cpu_seconds")}
        for key in ("seconds", "cpu_seconds"):
            pairs = zip(several, runs[options.contenders[0]], strict=True)
            summary[name][f"{key}_ratio"] = statistics.median(one[key] / base[key] for one, base in pairs)
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in summary[name].items()))
    if options.json:
        settings = {"iterations": options.iterations, "rounds": options.rounds}
        write_results(options.json, found, settings | {"summary": summary, "runs": runs})
    print(in_words(noted(found)))


if __name__ == "__main__":
    main()
