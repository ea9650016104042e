"""What grows: memory and time of streaming with the chunks, time to compile and to load with the depth.

    python bench/growth.py [chunks] [depth] [load]

A table a subject, on stdout. Compile times are for a cold cache of code, in a folder of its own, and for a warm one.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NoReturn
from unittest.mock import patch

import numpy as np
from sklearn.neural_network import MLPClassifier as Theirs
from threadpoolctl import threadpool_limits

from xpnet import MLP, Trainer
from xpnet.compile import Step, UntraceableError, record
from xpnet.compile.api import Arrays
from xpnet.compile.cpu import compiler as native
from xpnet.compile.cpu import program
from xpnet.compile.cpu.partition import threaded_plan
from xpnet.compile.cpu.target import COSTS
from xpnet.compile.passes.dependence import Dependence
from xpnet.compile.passes.fuse import Fusion
from xpnet.compile.passes.inline import Inlining
from xpnet.model import compiled
from xpnet.sklearn import MLPClassifier

CHUNKS = 1000
CHECKPOINTS = (100, 400, 1000)
DEPTHS = (20, 40, 80, 200)
LOADED_DEPTHS = (200, 500, 1000, 4000)


def resident_mib() -> float:
    """Resident memory of this process, in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """CHUNKS chunks of 50 to 1000 rows, 20 features, 3 classes."""
    generator = np.random.default_rng(0)
    for rows in generator.integers(50, 1001, CHUNKS):
        x = generator.normal(size=(rows, 20))
        yield x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)


def stream() -> None:
    """Print memory after some of the chunks, and milliseconds a chunk, side by side with scikit-learn."""
    ours = MLPClassifier((100,), random_state=0)
    theirs = Theirs((100,), random_state=0)
    seconds: dict[str, list[float]] = {"xpnet": [], "scikit-learn": []}
    print("chunk  MiB    runners  ms xpnet  ms scikit-learn   (medians since the last line; 'mean' of all)")
    last = 0
    for number, (x, y) in enumerate(chunks(), start=1):
        for name, estimator in (("xpnet", ours), ("scikit-learn", theirs)):
            start = time.perf_counter()
            estimator.partial_fit(x, y, classes=[0, 1, 2])
            seconds[name].append(time.perf_counter() - start)
        if number in CHECKPOINTS:
            fitting = ours._fitting
            assert fitting is not None  # it is kept between chunks
            runners = sum(len(runner._executables) for runner in fitting._runners.values())
            ms = [1000 * median(times[last:]) for times in seconds.values()]
            print(f"{number:5}  {resident_mib():5.0f}  {runners:7}  {ms[0]:8.2f}  {ms[1]:15.2f}", flush=True)
            last = number
    ms = [1000 * sum(times) / len(times) for times in seconds.values()]
    print(f" mean                  {ms[0]:8.2f}  {ms[1]:15.2f}")


def compile_seconds(trainer: Trainer, x: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], int]:
    """Processor seconds of each part of compiling a step, and the number of distinct functions."""
    parts: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any], *arguments: object) -> Any:
        start = time.process_time()
        result = function(*arguments)
        parts[name] = time.process_time() - start
        return result

    traces = []

    def catch(step: Step, arrays: Arrays, gathered: Collection[str] = (), **_: object) -> NoReturn:
        traces.append(timed("record", record, step, arrays, gathered))
        raise UntraceableError("measured")

    with patch.object(compiled, "compile_step", catch):
        trainer.plan(x, y)
    (trace,) = traces
    timed("signature", lambda: trace.signature)
    dependence = timed("dependence", Dependence, trace)
    instructions = timed("fusion", lambda: Fusion(dependence, Inlining(dependence, COSTS)).instructions)
    made = timed("plan", threaded_plan, trace, 2)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "warm"):
            compiler = native.Compiler(Path(folder))
            with patch.object(program, "compiler", lambda compiler=compiler: compiler):
                timed(name, program.Program, made)
            if name == "cold":
                functions = compiler.compiled
    for name in ("cold", "warm"):  # a step is recorded twice, to see whether it is the same each time
        parts[f"all {name}"] = sum(parts[one] for one in ("record", "record", "signature", "signature", "plan", name))
    return parts | {"instructions": float(len(instructions))}, functions


def deepen() -> None:
    """Print seconds of the parts of compiling, and of a first epoch, by default and eagerly, by depth."""
    x = np.random.default_rng(0).normal(size=(1280, 32)).astype("f")
    y = np.arange(1280) % 4
    for batch_norm in (True, False):
        print(f"batch_norm={batch_norm}: seconds; an epoch has 10 steps; plan includes dependence and fusion")
        for depth in DEPTHS:

            def trainer(compiled: bool, depth: int = depth, batch_norm: bool = batch_norm) -> Trainer:
                return Trainer(MLP([32] * depth + [4], batch_norm=batch_norm), batch_size=128, compile=compiled)

            parts, functions = compile_seconds(trainer(True), x, y)
            for compile in (False, True):
                one = trainer(compile)
                start = time.perf_counter()
                one.fit(x, y, epochs=1)
                parts["fit" if compile else "fit eager"] = time.perf_counter() - start
            words = "  ".join(f"{name} {value:.3g}" for name, value in parts.items())
            print(f"{depth:4} layers  {words}  functions {functions}", flush=True)


def load() -> None:
    """Print seconds to load a model file, by depth."""
    for depth in LOADED_DEPTHS:
        with tempfile.TemporaryDirectory() as folder:
            model = MLP([4] * depth + [2])
            model.save(Path(folder) / "model.safetensors")
            start = time.perf_counter()
            MLP.load(Path(folder) / "model.safetensors")
            print(f"{depth:5} layers: {time.perf_counter() - start:.3f} s", flush=True)


def main() -> None:
    """Run the subjects that are named, or all."""
    subjects = {"chunks": stream, "depth": deepen, "load": load}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*")
    for subject in parser.parse_args().subjects or subjects:
        with threadpool_limits(2):
            print(json.dumps({"subject": subject}))
            subjects[subject]()


if __name__ == "__main__":
    main()
