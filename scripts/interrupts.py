"""Interrupt fits at random moments, as Ctrl-C does, and check what is left behind.

    python scripts/interrupts.py [--count 1000] [--seed 0] [--cases NAME ...]

After each interrupt no thread may be left, the model must be finite, and the next fit must have the bytes of one in a
fresh process; an interrupted trainer that goes on, and is interrupted again and again, must end with the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import MLP, Adam, Trainer
from xpnet.commands import search
from xpnet.core.device import limit_threads

RNG = np.random.default_rng(0)
X = RNG.random((5000, 784), dtype=np.float32)
Y = np.arange(len(X)) % 10
EPOCHS = 3
FEW = 1000  # rows of which an epoch has too few steps to be compiled; of all rows, it has enough
THREADS = 2


class Interruptible:
    """A kind of fit: `fit` makes a model, which `digest` identifies; `model` is the one of the last fit.

    Attributes:
        stops_quietly: whether an interrupted fit returns with a warning, as scikit-learn's do.
    """

    stops_quietly = False

    def fit(self) -> None:
        """Train a new model."""
        raise NotImplementedError

    def digest(self) -> str:
        """Digest of all parameters of the model; raises FloatingPointError where one is not finite."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Train an interrupted model to its end."""


class TrainerCase(Interruptible):
    """`Trainer.fit`."""

    def __init__(self, *, compile: bool) -> None:
        self.compile, self.rows = compile, len(X) if compile else FEW
        self.trainer: Trainer | None = None

    def fit(self) -> None:  # noqa: D102
        self.trainer = None
        self.trainer = Trainer(MLP([784, 100, 100, 10]), Adam(1e-3), compile=self.compile)
        self.go_on()

    def go_on(self) -> None:  # noqa: D102
        if self.trainer is not None and self.trainer.epoch < EPOCHS:
            self.trainer.fit(X[: self.rows], Y[: self.rows], epochs=EPOCHS - self.trainer.epoch)
            if self.compile and self.trainer.compiled is not True:
                raise RuntimeError(f"the steps were not compiled: {self.trainer.compiled}")

    def digest(self) -> str:  # noqa: D102
        return "" if self.trainer is None else _digest([self.trainer.model.network.values])


class EstimatorCase(Interruptible):
    """`fit` of an estimator."""

    stops_quietly = True

    def __init__(self, rows: int = FEW, **options: Any) -> None:
        self.rows = rows
        self.options: dict[str, Any] = {"hidden_layer_sizes": (100, 100), "max_iter": EPOCHS, "random_state": 0}
        self.options |= options
        self.model: Any = None

    def make(self) -> Any:
        """Make the estimator."""
        from xpnet.sklearn import MLPClassifier

        return MLPClassifier(**self.options)

    def fit(self) -> None:  # noqa: D102
        self.model = self.make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.fit(X[: self.rows], Y[: self.rows])

    def digest(self) -> str:  # noqa: D102
        return _digest([*self.model.coefs_, *self.model.intercepts_]) if hasattr(self.model, "_model") else ""


class RegressorCase(EstimatorCase):
    """`fit` of the regressor."""

    def make(self) -> Any:  # noqa: D102
        from xpnet.sklearn import MLPRegressor

        return MLPRegressor(**self.options)


class SearchCase(Interruptible):
    """`python -m xpnet.search`, in this process."""

    def __init__(self) -> None:
        self.found = ""

    def fit(self) -> None:  # noqa: D102
        self.found = ""
        words = ["--dataset", "digits", "--trials", "6", "--epochs", "2", "--hidden", "32", "32 32"]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            code = search.main([*words, "--quiet", "--json"])
        if code == 130:
            raise KeyboardInterrupt
        if code:
            raise RuntimeError(f"exit code {code}")
        found = json.loads(output.getvalue())
        for trial in found["trials"]:
            del trial["seconds"]
        self.found = json.dumps(found["trials"], sort_keys=True)

    def digest(self) -> str:  # noqa: D102
        return hashlib.sha256(self.found.encode()).hexdigest() if self.found else ""


CASES: dict[str, Callable[[], Interruptible]] = {
    "trainer": lambda: TrainerCase(compile=True),
    "eager trainer": lambda: TrainerCase(compile=False),
    "classifier": lambda: EstimatorCase(len(X)),
    "regressor": RegressorCase,
    "classifier, lbfgs": lambda: EstimatorCase(solver="lbfgs"),
    "search": SearchCase,
}


def _digest(arrays: list[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        if not np.isfinite(array).all():
            raise FloatingPointError("a parameter is not finite")
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def interrupted(fit: Callable[[], None], delay: float) -> bool:
    """Call `fit`, and raise SIGINT after a while; whether KeyboardInterrupt came out."""
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        try:
            fit()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    except KeyboardInterrupt:
        return True
    return False


def threads() -> int:
    """Number of threads of this process."""
    tasks = Path("/proc/self/task")
    return len(os.listdir(tasks)) if tasks.exists() else threading.active_count()  # noqa: PTH208


def digests(names: list[str]) -> dict[str, str]:
    """Digest of a first fit, for each case."""
    found = {}
    for name in names:
        case = CASES[name]()
        case.fit()
        found[name] = case.digest()
    return found


def main() -> int:
    """Run the script; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--digests", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    with limit_threads(THREADS):
        if options.digests:
            print(json.dumps(digests(options.cases)))
            return 0
        command = [sys.executable, __file__, "--digests", "--cases", *options.cases]
        fresh = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        wrong = 0
        for name in options.cases:
            wrong += _try(name, options.count // len(options.cases), random.Random(options.seed), fresh[name])
    return 1 if wrong else 0


def _try(name: str, count: int, generator: random.Random, fresh: str) -> int:
    """Interrupt one kind of fit `count` times; the number of faults found."""
    case = CASES[name]()
    case.fit()
    start = time.perf_counter()
    case.fit()
    seconds = time.perf_counter() - start
    before = threads()
    faults: list[str] = []
    hits = stopped = 0
    while hits < count:
        hit = interrupted(case.fit, generator.uniform(1e-5, seconds))
        case.digest()  # raises where a parameter is not finite
        if case.stops_quietly and not hit and case.digest() != fresh:
            hit = True
        stopped += hit and bool(case.digest())
        hits += hit
        if not hit:
            continue
        while interrupted(case.go_on, generator.uniform(1e-5, seconds)):
            hits, stopped = hits + 1, stopped + 1
        if threads() != before:
            faults.append(f"{threads()} threads, {before} before")
        if isinstance(case, TrainerCase) and case.digest() not in ("", fresh):
            faults.append("a fit that went on ended elsewhere")
        case.fit()
        if case.digest() != fresh:
            faults.append("the next fit is another than in a fresh process")
    print(f"{name}: {hits} interrupts, {stopped} of them while training, {len(faults)} faults {sorted(set(faults))}")
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
