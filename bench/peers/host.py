"""The side of the race that starts the contenders and tells them what to do."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Timer
from typing import Any

import numpy as np
from contest import Array, Weights, activations, read_weights  # puts bench/ on the path, for what follows
from surroundings import CLEARED

from xpnet.data import load_mnist

PEERS = Path(__file__).resolve().parent
PATIENCE = 600.0  # seconds for an answer: compiling may take minutes


@dataclass(frozen=True)
class Entry:
    """A contender.

    Attributes:
        name: for people.
        file, inner: where it is, and its name there.
        module: what it cannot do without.
        epsilon_first: where its Adam adds epsilon, as `reference` has it.
        device: where it trains.
        tolerance: of its loss after the first steps, relative, where the network is float32.
    """

    name: str
    file: str
    inner: str
    module: str
    epsilon_first: bool = False
    device: str = "cpu"
    tolerance: float = 2e-3


BASE = "xpnet, compiled"  # what all others are compared with
WITH_ZEROS = "xpnet, zeros not left out"  # the same, but for its sparse products
CONTENDERS = (
    Entry(BASE, "xpnet_steps.py", "compiled", "llvmlite"),
    Entry(WITH_ZEROS, "xpnet_steps.py", "compiled, zeros not left out", "llvmlite"),
    Entry("xpnet, replayed", "xpnet_steps.py", "replayed", "numpy"),
    Entry("xpnet, eager", "xpnet_steps.py", "eager", "numpy"),
    Entry("PyTorch, eager", "torch_steps.py", "eager", "torch"),
    Entry("PyTorch, compiled", "torch_steps.py", "compiled", "torch"),
    Entry("JAX, a step", "jax_steps.py", "step", "jax"),
    Entry("JAX, scan", "jax_steps.py", "scan", "jax"),
    Entry("scikit-learn", "sklearn_steps.py", "fit", "sklearn", epsilon_first=True),
)
_on_cuda = partial(Entry, device="cuda")
_in_tf32 = partial(_on_cuda, tolerance=0.02)  # of its products' inputs: 2^-11; off by 0.005 in a simulation
_in_bf16 = partial(_on_cuda, tolerance=0.03)  # 2^-9
CUDA_CONTENDERS = (
    _on_cuda(BASE, "xpnet_steps.py", "compiled", "cupy"),
    _in_tf32("xpnet, compiled, tf32", "xpnet_steps.py", "compiled, tf32", "cupy"),
    _in_bf16("xpnet, compiled, bf16", "xpnet_steps.py", "compiled, bf16", "cupy"),
    _on_cuda("xpnet, compiled, fp64", "xpnet_steps.py", "compiled, fp64", "cupy"),
    _on_cuda("xpnet, eager", "xpnet_steps.py", "eager", "cupy"),
    _on_cuda("PyTorch, eager", "torch_steps.py", "eager", "torch"),
    _on_cuda("PyTorch, compiled", "torch_steps.py", "compiled", "torch"),
    _on_cuda("PyTorch, graph", "torch_steps.py", "graph", "torch"),
    _in_tf32("PyTorch, graph, tf32", "torch_steps.py", "graph, tf32", "torch"),
    _in_bf16("PyTorch, graph, bf16", "torch_steps.py", "graph, bf16", "torch"),
    _on_cuda("JAX, scan", "jax_steps.py", "scan", "jax"),
    _in_tf32("JAX, scan, tf32", "jax_steps.py", "scan, tf32", "jax"),
    Entry("xpnet, on the CPU", "xpnet_steps.py", "compiled", "numpy"),
)
FLOORS = (
    Entry("products, divided", "floor.py", "divided", "llvmlite"),
    Entry("products, NumPy", "floor.py", "numpy", "numpy"),
)


def environment(packages: Path | None = None) -> dict[str, str]:
    """Return the environment of a contender, with a folder to import from before all others."""
    found = {name: value for name, value in os.environ.items() if name not in CLEARED}
    if packages is not None:
        found["PYTHONPATH"] = str(packages)
        found.pop("PYTHONDONTWRITEBYTECODE", None)  # every start would compile its modules
    return found


class LeftOutError(Exception):
    """A contender cannot take part; the text says why."""


class FailedError(Exception):
    """A contender should have taken part, and did not; the text says why."""


class Remote:
    """A contender in a process of its own, which sleeps between commands.

    Args:
        entry: the contender.
        folder: for its log and its weights.
        patience: the longest time for an answer, in seconds.
        packages: a folder to import xpnet from, in place of the installed one.
    """

    def __init__(self, entry: Entry, folder: Path, patience: float = PATIENCE, packages: Path | None = None) -> None:
        if find_spec(entry.module) is None:
            raise LeftOutError(f"{entry.module} is not installed")
        self.patience = patience
        self.log, self.weights_file = folder / f"{entry.name}.log", folder / f"{entry.name}.npz"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PEERS / entry.file), "--serve", entry.inner],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(packages),
            )

    def tell(self, command: str, **arguments: Any) -> None:
        """Send a command; `hear` returns the answers in the order of the commands."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `hear` says how it ended
            print(json.dumps({"command": command} | arguments), file=self.process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        """Wait for an answer; the process is killed where there is none in time."""
        assert self.process.stdout is not None
        late = Event()

        def give_up() -> None:
            late.set()
            self.process.kill()

        timer = Timer(self.patience, give_up)
        timer.daemon = True
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:  # Ctrl-C would wait for it
            timer.cancel()
        if not line:
            raise FailedError(f"no answer in {self.patience:g} s" if late.is_set() else self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "left out" in answer:
            raise LeftOutError(answer["left out"])
        if "failed" in answer:
            raise FailedError(answer["failed"])
        return answer

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a command, and return the answer."""
        self.tell(command, **arguments)
        return self.hear()

    def tell_weights(self) -> None:
        """Send the command for weights; `hear_weights` returns them."""
        self.tell("weights", file=str(self.weights_file))

    def hear_weights(self) -> Weights | None:
        """Return the weights as they were at the command; None where there are none."""
        if not self.hear()["written"]:
            return None
        weights = read_weights(self.weights_file)
        self.weights_file.unlink()
        return weights

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()

    def _last_words(self) -> str:
        code = self.process.wait()
        lines = self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return f"ended with code {code}: {lines[-1]}"


def none_trained(entries: Iterable[Entry], names: Collection[str], device: str) -> bool:
    """Return whether none of these names trained on the device, and say so."""
    nobody = not any(entry.name in names for entry in entries if entry.device == device)
    if nobody:
        print(f"no contender ran on {device}", file=sys.stderr)
    return nobody


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder for problems, weights and what workers say, for a while."""
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        yield Path(folder)


def mnist_rows(data_dir: Path | str | None) -> tuple[Array, Array]:
    """Return MNIST's training pictures as rows, (N, 784), and their labels, for `made_problem`."""
    read = load_mnist(data_dir)
    return read.x_train.reshape(len(read.x_train), -1), read.y_train


def mean_loss(weights: Weights, x: Array, t: Array) -> float:
    """Return the cross entropy for inputs of the network, by NumPy in float64."""
    y = activations(weights, x)[-1]
    y = y - y.max(axis=1, keepdims=True)
    return float((np.log(np.exp(y).sum(axis=1)) - y[np.arange(len(t)), t]).mean())


def accuracy(weights: Weights, x: Array, t: Array) -> float:
    """Return the share of rows that are read rightly."""
    return float((activations(weights, x)[-1].argmax(axis=1) == t).mean())


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def missing(*found: dict[str, Any]) -> str:
    """Return a line for each contender that was left out, failed or was wrong, and why; each line once."""
    lines = {
        f"- {trouble.replace('_', ' ')}: {name}: {text}": None
        for trouble in ("left_out", "failed", "wrong")
        for one in found
        for name, text in one.get(trouble, {}).items()
    }
    return "\n".join(lines)


def check_folder(parser: argparse.ArgumentParser, *files: Path | None) -> None:
    """End the program where a file is to be written at its end, and there is no folder for it."""
    for file in filter(None, files):
        if not file.parent.is_dir():
            parser.error(f"there is no folder {file.parent} for {file.name}")


def check_modules(parser: argparse.ArgumentParser, *names: str) -> None:
    """End the program, with the command that installs it, where a module of the extra `bench` is missing."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        parser.error(f"{' and '.join(missing)} cannot be imported: pip install 'xpnet[bench]'")
