"""What contenders share: the problem, the order of rows, and the worker that takes steps when it is told to.

A contender is made from a `Problem`, and has two methods:

    take(batches)   take a step on each of these batches of rows, (steps, B), and wait until the last one is done:
                    a GPU is waited for once, behind all steps
    weights()       the weights and biases of each layer, W (I, O) and b (O,), or None where nothing is trained

Its file calls `main`, and so serves the race (`host.py`) as a worker, or times its steps by itself:

    python bench/peers/torch_steps.py [--networks NAME ...] [--optimizer adam|sgd] [--device cpu|cuda]

NumPy alone is imported here: what a peer needs, and how much memory it takes, is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from networks import NETWORKS

Array = np.ndarray[Any, Any]
Weights = list[tuple[Array, Array]]

LEARNING_RATES = {"adam": 0.001, "sgd": 0.05}
SEED = 0
DATA_BYTES = 2**25  # of rows to train on: beyond the caches of a core, as MNIST is
PIECE = 0.03  # seconds: so long, or longer, is a call of `take` in a turn
SECONDS = 3.0  # for each network, where a contender's file is run by itself


class LeftOut(Exception):
    """A contender cannot take part on this machine; the text says why."""


@dataclass(frozen=True)
class Problem:
    """What all contenders train, and from where.

    Attributes:
        sizes, batch_size: of the network, and of a step.
        optimizer, learning_rate: "adam" or "sgd", plain.
        x: pictures as bytes, (N, I): a step gathers its rows, and divides them by 255.
        t: labels, int64, (N,).
        weights: W, (I, O), and b, (O,), of each layer, to start from.
        device: "cpu", or "cuda" for those that can.
    """

    sizes: tuple[int, ...]
    batch_size: int
    optimizer: str
    learning_rate: float
    x: Array
    t: Array
    weights: Weights
    device: str = "cpu"

    def save(self, file: Path) -> None:
        """Write it for the workers."""
        settings = {name: getattr(self, name) for name in ("sizes", "batch_size", "optimizer", "learning_rate")}
        np.savez(file, x=self.x, t=self.t, settings=json.dumps(settings), **_flat(self.weights))

    @classmethod
    def load(cls, file: Path, device: str = "cpu") -> Problem:
        """Read a saved problem, for one device."""
        with np.load(file) as arrays:
            settings = json.loads(str(arrays["settings"]))
            settings["sizes"] = tuple(settings["sizes"])
            return cls(**settings, x=arrays["x"], t=arrays["t"], weights=_layers(arrays), device=device)


class Contender(Protocol):
    """One who takes training steps."""

    def take(self, batches: Array) -> None: ...
    def weights(self) -> Weights | None: ...


Make = Callable[[Problem], Contender]


def he_normal(sizes: Sequence[int], seed: int = SEED) -> Weights:
    """Return weights as He et al. draw them, and biases of zero."""
    generator = np.random.default_rng(seed)
    return [
        (
            (generator.standard_normal((inputs, outputs)) * np.sqrt(2.0 / inputs)).astype(np.float32),
            np.zeros(outputs, np.float32),
        )
        for inputs, outputs in pairwise(sizes)
    ]


def logits(weights: Weights, x: Array) -> Array:
    """Return the outputs of the network, in float64, for pictures as bytes."""
    y = x / 255.0
    for layer, (w, b) in enumerate(weights):
        y = (y if layer == 0 else np.maximum(y, 0.0)) @ w.astype(np.float64) + b
    return y


def made_problem(sizes: Sequence[int], batch_size: int, optimizer: str) -> Problem:
    """Return a problem of random pictures whose labels a random network, the teacher, has given.

    There are 2^n batches of them, so that pieces of 2^k batches go round evenly.
    """
    batches = 2 ** int(np.log2(DATA_BYTES / (batch_size * sizes[0])))
    generator = np.random.default_rng(SEED)
    x = generator.integers(0, 256, (batches * batch_size, sizes[0]), dtype=np.uint8)
    teacher = he_normal((sizes[0], 32, sizes[-1]), SEED + 1)
    t = np.empty(len(x), np.int64)
    for piece in range(0, len(x), 4096):
        y = logits(teacher, x[piece : piece + 4096])
        t[piece : piece + 4096] = (y - y.mean(axis=0)).argmax(axis=1)  # no class is rare
    return Problem(tuple(sizes), batch_size, optimizer, LEARNING_RATES[optimizer], x, t, he_normal(sizes))


def epoch_order(rows: int, batch_size: int, epoch: int) -> Array:
    """Return the batches of an epoch, (batches, B): all rows but those that fill no batch, in an order of its own."""
    batches = rows // batch_size
    order = np.random.default_rng((SEED, epoch)).permutation(rows)
    return order[: batches * batch_size].reshape(batches, batch_size)


class Worker:
    """Takes steps when it is told to; each method is a command, and returns its answer."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.piece = self.next = 0

    def start(self, problem: str, device: str) -> dict[str, Any]:
        """Read the problem, and make the contender."""
        self.begin(Problem.load(Path(problem), device))
        return {}

    def begin(self, problem: Problem) -> None:
        """Make the contender."""
        self.problem = problem
        self.order = epoch_order(len(problem.x), problem.batch_size, 0)
        self.contender = self.make(problem)

    def steps(self, count: int) -> dict[str, Any]:
        """Take the first steps of epoch 0."""
        self.contender.take(self.order[:count])
        return {"libraries": libraries()}

    def turn(self, seconds: float, piece: int = 0) -> dict[str, Any]:
        """Take steps for so long, `piece` in a call; the first turn finds out how many where none is given."""
        self.piece = min(piece, len(self.order)) or self.piece or self._choose_piece()
        taken, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            self._take_piece(self.piece)
            taken += self.piece
        return {"microseconds": spent / taken * 1e6, "steps": taken}

    def timed_pieces(self, count: int, piece: int) -> dict[str, Any]:
        """Take `count` pieces of `piece` steps; return the time of a step in each, and its processor time."""
        clocks = {"wall": time.perf_counter, "processor": time.process_time}
        found: dict[str, list[float]] = {name: [] for name in clocks}
        for _ in range(count):
            start = {name: clock() for name, clock in clocks.items()}
            self._take_piece(piece)
            for name, clock in clocks.items():
                found[name].append((clock() - start[name]) / piece * 1e6)
        return found

    def _choose_piece(self) -> int:
        piece = 4
        while True:
            self._take_piece(piece)  # a length that is new may have to be compiled
            start = time.perf_counter()
            self._take_piece(piece)
            if time.perf_counter() - start > PIECE or 4 * piece > len(self.order):
                return piece
            piece *= 4

    def _take_piece(self, piece: int) -> None:
        self.next = -(-self.next // piece) * piece % len(self.order)
        self.contender.take(self.order[self.next : self.next + piece])
        self.next += piece

    def epoch(self, number: int) -> dict[str, Any]:
        """Take the steps of an epoch."""
        order = epoch_order(len(self.problem.x), self.problem.batch_size, number)
        start = time.perf_counter()
        self.contender.take(order)
        return {"seconds": time.perf_counter() - start}

    def weights(self, file: str) -> dict[str, Any]:
        """Write the weights as they are now, where there are any."""
        weights = self.contender.weights()
        if weights is not None:
            np.savez(file, **_flat(weights))
        return {"written": weights is not None}

    def memory(self) -> dict[str, Any]:
        """Return the most memory that this process ever had."""
        return {"peak_mib": peak_memory() / 2**20}

    def serve(self) -> None:
        """Answer commands, a JSON object a line, until there are no more."""
        # What libraries print must not get between the answers: it goes to standard error.
        answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = getattr(self, command.pop("command"))(**command)
            except LeftOut as reason:
                answer = {"left out": str(reason)}
            except Exception as error:
                answer = _failed(error)
            print(json.dumps(answer), file=answers, flush=True)


def _failed(error: Exception) -> dict[str, Any]:
    traceback.print_exc()
    return {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def main(contenders: Mapping[str, Make], devices: Sequence[str] = ("cpu",)) -> None:
    """Serve the race, or time the contenders of this file; one that fails is an exit code of 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="NAME", choices=contenders, help="take commands on standard input")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--optimizer", choices=LEARNING_RATES, default="adam")
    parser.add_argument("--device", choices=devices, default=devices[0])
    options = parser.parse_args()
    if options.serve:
        Worker(contenders[options.serve]).serve()
        return
    failed = False
    for network in options.networks:
        for name, make in contenders.items():
            found = _time_alone(make, network, options.optimizer, options.device)
            failed = failed or "failed" in found
            about = {"contender": name, "network": network, "optimizer": options.optimizer, "device": options.device}
            print(json.dumps(about | found), flush=True)
    sys.exit(failed)


def _time_alone(make: Make, network: str, optimizer: str, device: str) -> dict[str, Any]:
    worker = Worker(make)
    try:
        worker.begin(replace(made_problem(*NETWORKS[network], optimizer), device=device))
        turns = [worker.turn(seconds=SECONDS / 8) for _ in range(9)]
    except LeftOut as reason:
        return {"left out": str(reason)}
    except Exception as error:
        return _failed(error)
    return {"step_us": statistics.median(turn["microseconds"] for turn in turns[1:])}


def peak_memory() -> int:
    """Return the most memory that this process ever had, in bytes.

    Linux counts what the parent had at the time of the fork into `ru_maxrss`; VmHWM is this process's own.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def libraries() -> list[str]:
    """Return the BLAS and OpenMP libraries of this process, with the kernels they chose and their threads."""
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return []
    names = ("internal_api", "version", "architecture", "num_threads")
    return [", ".join(f"{name} {one[name]}" for name in names if one.get(name)) for one in threadpool_info()]


def _flat(weights: Weights) -> dict[str, Any]:  # of arrays; `savez` has a flag among its keywords
    return {f"{name}{k}": array for k, pair in enumerate(weights) for name, array in zip("Wb", pair, strict=True)}


def _layers(arrays: Mapping[str, Array]) -> Weights:
    return list(_pairs(arrays))


def _pairs(arrays: Mapping[str, Array]) -> Iterator[tuple[Array, Array]]:
    k = 0
    while f"W{k}" in arrays:
        yield arrays[f"W{k}"], arrays[f"b{k}"]
        k += 1


def read_weights(file: Path) -> Weights:
    """Return the weights that a worker has written."""
    with np.load(file) as arrays:
        return _layers(arrays)
