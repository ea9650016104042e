"""Running a step fast: it is recorded once, planned, compiled, and then replayed without the interpreter.

The step is plain array code against `xp`. `trace` has an `xp` that only records; `plan` makes loops of what was recorded
and decides what runs when, on which thread and in which memory; `loops` writes the loops for LLVM, with `functions` for
what it lacks; `native` compiles and runs them, around the products of NumPy's own BLAS (`blas`).

>>> import numpy as np
>>> def step(xp, a):
...     a["total"][...] = a["total"] + (a["x"] * a["x"]).sum(axis=-1)
>>> arrays = {"x": np.array([1.0, 2.0]), "total": np.array(0.0)}
>>> program = compile_step(lambda device, a: step(device.xp, a), arrays)
>>> program.run(arrays, steps=3)
>>> float(arrays["total"])
15.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..device import Device
from . import blas
from .native import Program
from .plan import make_plan, useful_threads
from .trace import Trace, TracedArray, TracingModule, UntraceableError

Arrays = Mapping[str, np.ndarray[Any, Any]]
Step = Callable[["TracingDevice", dict[str, TracedArray]], None]

__all__ = ["Program", "TracingDevice", "UntraceableError", "compile_step", "record"]


class TracingDevice(Device):
    """The device of a step that is being recorded: what is allocated on it is memory that is there already."""

    def __init__(self, trace: Trace) -> None:
        super().__init__("cpu", TracingModule(trace))
        object.__setattr__(self, "given", iter(()))

    def give(self, arrays: Iterable[TracedArray]) -> None:
        """Let the next calls of `zeros` return these."""
        object.__setattr__(self, "given", iter(arrays))

    def zeros(self, shape: tuple[int, ...], dtype: object) -> TracedArray:
        """Return the next array that was given; zeros where there is none left."""
        array: TracedArray | None = next(self.given, None)  # type: ignore[attr-defined]
        if array is None:
            return self.xp.zeros(shape, dtype)  # type: ignore[no-any-return]
        if array.shape != shape or array.dtype != dtype:
            raise UntraceableError(f"an array of {shape} where there is one of {array.shape}")
        return array


def record(step: Step, arrays: Arrays) -> Trace:
    """Return what `step` does with arrays of these shapes and types; raises whatever it does not like."""
    trace = Trace()
    step(TracingDevice(trace), {name: trace.leaf(name, a.shape, a.dtype) for name, a in arrays.items()})
    return trace


def compile_step(step: Step, arrays: Arrays, threads: int | None = None) -> Program:
    """Record and compile a step.

    Args:
        step: called once with a device, whose `xp` records, and a traced array for each of `arrays`, by its name. It
            writes with `[...] =` alone. Rows are taken by an array among `arrays` that is int64, (B,).
        arrays: arrays in C order; only their shapes and types matter here.
        threads: how many threads there may be; by default as many as NumPy's BLAS may use.

    Raises:
        Exception: whatever the step does not like about being recorded: `UntraceableError`, but also any other.
    """
    trace = record(step, arrays)
    found = blas.find()
    if threads is None:
        threads = 1 if found is None else found.threads
    return Program(make_plan(trace, useful_threads(trace, threads)))
