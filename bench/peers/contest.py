"""What contenders share: the problem, the order of rows, and the worker that takes steps when it is told to.

A contender is made from a `Problem`, and has two methods:

    take(batches)   take a step on each of these batches of rows, (steps, B), and wait until the last one is done:
                    a GPU is waited for once, behind all steps
    weights()       the arrays of each layer (`Weights`), or None where nothing is trained

Its file calls `main`, and so serves the race (`host.py`) as a worker, or times its steps by itself:

    python bench/peers/torch_steps.py [--networks NAME ...] [--optimizer adam|sgd] [--variant NAME] [--dtype NAME]
                                      [--device cpu|cuda]

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from networks import NETWORKS

Array = np.ndarray[Any, Any]
Weights = list[tuple[Array, ...]]
"""Of each layer W (I, O) and b (O,); with batch normalization also gamma, running mean and running variance, all (O,),
and b is its beta."""

LEARNING_RATES = {"adam": 0.001, "sgd": 0.05}
LOW_RATES = LEARNING_RATES | {"adam": 0.0001}  # at 0.001, 86 % of the widest network's units are 0 after 16 steps
VARIANTS = ("plain", "standardized", "batch-norm")
DTYPES = ("float32", "float64")
NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.1  # of batch normalization, in PyTorch and xpnet
SEED = 0
PIXELS = 784  # of MNIST's pictures
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
        x: pictures as bytes, or a table's numbers, (N, I).
        t: labels, int64, (N,).
        weights: of each layer, to start from.
        shift, scale: a step gathers its rows of x, and the network sees (x - shift) / scale.
        dtype: of the network: "float32" or "float64".
        device: "cpu", or "cuda" for those that can.
    """

    sizes: tuple[int, ...]
    batch_size: int
    optimizer: str
    learning_rate: float
    x: Array
    t: Array
    weights: Weights
    shift: float = 0.0
    scale: float = 255.0
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def batch_norm(self) -> bool:
        """Whether the hidden layers are normalized."""
        return len(self.weights[0]) > 2

    def inputs(self, rows: Array | slice) -> Array:
        """Inputs of the network, in float64."""
        return (self.x[rows].astype(np.float64) - self.shift) / self.scale

    def typed_inputs(self, rows: Array | slice) -> Array:
        """Inputs of the network in its own type, for those who scale beforehand."""
        return self.inputs(rows).astype(self.dtype)

    def save(self, file: Path) -> None:
        """Write it for the workers."""
        names = ("sizes", "batch_size", "optimizer", "learning_rate", "shift", "scale", "dtype")
        settings = {name: getattr(self, name) for name in names}
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


def he_normal(sizes: Sequence[int], seed: int = SEED, batch_norm: bool = False) -> Weights:
    """Return weights as He et al. draw them, biases of zero, and batch normalization that does nothing yet."""
    generator = np.random.default_rng(seed)
    weights: Weights = []
    for inputs, outputs in pairwise(sizes):
        w = (generator.standard_normal((inputs, outputs)) * np.sqrt(2.0 / inputs)).astype(np.float32)
        norm = [f(outputs, np.float32) for f in (np.ones, np.zeros, np.ones)] if batch_norm else []
        weights.append((w, np.zeros(outputs, np.float32), *norm))
    return weights[:-1] + [weights[-1][:2]]


def activations(weights: Weights, x: Array, train: bool = False) -> list[Array]:
    """Return x, what is behind each ReLU, and the outputs of the network, in float64.

    Args:
        weights: of each layer.
        x: inputs of the network, (N, I).
        train: normalize by the statistics of these rows, as a step does, and not by running ones.
    """
    ys = [x]
    for layer, (w, b, *norm) in enumerate(weights):
        y = ys[-1] @ w.astype(np.float64)
        if norm:
            gamma, mean, variance = (array.astype(np.float64) for array in norm)
            mean, variance = (y.mean(axis=0), y.var(axis=0)) if train else (mean, variance)
            y = (y - mean) / np.sqrt(variance + NORM_EPSILON) * gamma
        y = y + b
        ys.append(np.maximum(y, 0.0) if layer < len(weights) - 1 else y)
    return ys


def zero_shares(weights: Weights, x: Array) -> list[float]:
    """Return the share of zeros in x, and behind each ReLU, in a training step on these rows."""
    return [float((y == 0.0).mean()) for y in activations(weights, x, train=True)[:-1]]


def data_for(sizes: Sequence[int], data: str) -> str:
    """Return the data of a network's problem: in place of MNIST, a table where it has other inputs."""
    return "table" if data == "mnist" and sizes[0] != PIXELS else data


def made_problem(
    sizes: Sequence[int],
    batch_size: int,
    optimizer: str,
    data: str = "random",
    variant: str = "plain",
    dtype: str = "float32",
    mnist: tuple[Array, Array] | None = None,
) -> Problem:
    """Return a problem; all of its variants and types have the same data, and begin with the same W.

    There are 2^n batches of rows, so that pieces of 2^k batches go round evenly.

    Args:
        sizes, batch_size, optimizer: of the problem.
        data: "mnist"; "random" for pictures whose pixels are random bytes; "table" for random normal numbers. Labels
            that are not MNIST's come from a random network, the teacher.
        variant: "plain", whose pixels are divided by 255; "standardized", whose pixels have mean 0 and deviation 1, all
            together, so that none is 0, with a rate of Adam that leaves units alive; or "batch-norm", plain with batch
            normalization before each ReLU. The numbers of a table are standardized in all.
        dtype: of the network, and of the numbers of a table.
        mnist: MNIST's pictures, (N, 784), and labels.
    """
    most = DATA_BYTES / (sizes[0] * (4 if data == "table" else 1))
    if mnist is not None and data == "mnist":
        most = min(most, len(mnist[0]))
    rows = batch_size * 2 ** int(np.log2(most / batch_size))
    generator = np.random.default_rng(SEED)
    shift, scale = 0.0, 255.0
    if data == "mnist":
        assert mnist is not None
        x, t = mnist[0][:rows], np.asarray(mnist[1][:rows], np.int64)
    elif data == "table":
        x, scale = generator.standard_normal((rows, sizes[0]), np.float32).astype(dtype), 1.0
    else:
        x = generator.integers(0, 256, (rows, sizes[0]), dtype=np.uint8)
    if variant == "standardized" and data != "table":
        shift, scale = float(x.mean()), float(x.std())
    weights = he_normal(sizes, batch_norm=variant == "batch-norm")
    weights = [tuple(array.astype(dtype) for array in layer) for layer in weights]
    if data != "mnist":
        teacher = he_normal((sizes[0], 32, sizes[-1]), SEED + 1)
        t = np.empty(rows, np.int64)
        for piece in range(0, rows, 4096):
            y = activations(teacher, x[piece : piece + 4096] / (1.0 if data == "table" else 255.0))[-1]
            t[piece : piece + 4096] = (y - y.mean(axis=0)).argmax(axis=1)  # no class is rare
    rate = (LOW_RATES if variant == "standardized" else LEARNING_RATES)[optimizer]
    return Problem(tuple(sizes), batch_size, optimizer, rate, x, t, weights, shift, scale, dtype)


def epoch_order(rows: int, batch_size: int, epoch: int) -> Array:
    """Return the batches of an epoch, (batches, B): all rows but those that fill no batch, in an order of its own."""
    batches = rows // batch_size
    order = np.random.default_rng((SEED, epoch)).permutation(rows)
    return order[: batches * batch_size].reshape(batches, batch_size)


class Worker:
    """Takes steps when it is told to; each method is a command, and returns its answer."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.piece = self.next = self.taken = 0

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
        self.taken += count
        return {"libraries": libraries()}

    def turn(self, seconds: float, piece: int = 0) -> dict[str, Any]:
        """Take steps for so long, `piece` in a call; the first turn finds out how many where none is given.

        The answer has microseconds per step, and the number of steps since the start.
        """
        self.piece = min(piece, len(self.order)) or self.piece or self._choose_piece()
        taken, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            self._take_piece(self.piece)
            taken += self.piece
        return {"microseconds": spent / taken * 1e6, "steps": self.taken}

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
        piece = 1
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
        self.taken += piece

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
    parser.add_argument("--variant", choices=VARIANTS, default="plain")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", choices=devices, default=devices[0])
    options = parser.parse_args()
    if options.serve:
        Worker(contenders[options.serve]).serve()
        return
    failed = False
    for network in options.networks:
        for name, make in contenders.items():
            problem = made_problem(*NETWORKS[network], options.optimizer, variant=options.variant, dtype=options.dtype)
            found = _time_alone(make, replace(problem, device=options.device))
            failed = failed or "failed" in found
            about = {one: getattr(options, one) for one in ("optimizer", "variant", "dtype", "device")}
            about = {"contender": name, "network": network} | about
            print(json.dumps(about | found), flush=True)
    sys.exit(failed)


def _time_alone(make: Make, problem: Problem) -> dict[str, Any]:
    worker = Worker(make)
    try:
        worker.begin(problem)
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


ARRAYS = ("W", "b", "gamma", "mean", "variance")  # of a layer


def _flat(weights: Weights) -> dict[str, Any]:  # of arrays; `savez` has a flag among its keywords
    return {f"{name}{k}": array for k, layer in enumerate(weights) for name, array in zip(ARRAYS, layer, strict=False)}


def _layers(arrays: Mapping[str, Array]) -> Weights:
    layers = sum(name.startswith("W") for name in arrays)
    return [tuple(arrays[f"{name}{k}"] for name in ARRAYS if f"{name}{k}" in arrays) for k in range(layers)]


def read_weights(file: Path) -> Weights:
    """Return the weights that a worker has written."""
    with np.load(file) as arrays:
        return _layers(arrays)
