"""Running a step fast: it is recorded once, planned, compiled, and then replayed without the interpreter.

The step is plain array code against `xp`. `trace` has an `xp` that only records. `plan` makes loops of what was
recorded, and decides what runs when, on which thread and in which memory. `loops` writes the loops in LLVM's language,
by means of `writer` and `functions`; `native` compiles them; `program` runs them on `threads`, around the products of
NumPy's own `blas` (by `routines`), or, for factors that are mostly zeros, those of `sparse`. Where there is no LLVM,
`replay` makes NumPy's calls, into memory that is planned.

>>> import numpy as np
>>> def step(xp, a):
...     a["total"][...] = a["total"] + (a["x"] * a["x"]).sum(axis=-1)
>>> arrays = {"x": np.array([1.0, 2.0]), "total": np.array(0.0)}
>>> program = compile_step(step, arrays)
>>> program.run(arrays, steps=3)
>>> float(arrays["total"])
15.0
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

import numpy as np

from ..checks import check_int
from ..errors import one_line
from . import blas
from .executable import Executable
from .native import compiler
from .plan import make_plan, useful_threads
from .program import Program
from .replay import Replay
from .trace import Trace, TracedArray, TracingModule, UntraceableError

Arrays = Mapping[str, np.ndarray[Any, Any]]
Step = Callable[[TracingModule, dict[str, TracedArray]], None]

__all__ = [
    "CompileError",
    "Executable",
    "Program",
    "Replay",
    "UntraceableError",
    "compile_step",
    "record",
    "why_not_compiled",
]


class CompileError(RuntimeError):
    """A step was recorded, and could not be planned or compiled: a fault of this package."""


def record(step: Step, arrays: Arrays, gathered: Collection[str] = (), per_step: Collection[str] = ()) -> Trace:
    """Return what `step` does with arrays of these shapes and types; raises whatever it does not like."""
    trace = Trace(list(arrays.values()))
    traced = {
        name: trace.leaf(name, a.shape, a.dtype, gathered=name in gathered, per_step=name in per_step)
        for name, a in arrays.items()
    }
    step(TracingModule(trace), traced)
    trace.memory = ()  # it served while recording, and would else live as long as the program
    return trace


def compile_step(
    step: Step,
    arrays: Arrays,
    *,
    gathered: Collection[str] = (),
    per_step: Collection[str] = (),
    threads: int | None = None,
    steps_per_call: int | None = None,
) -> Executable:
    """Record a step, and return what runs it: a compiled `Program`, or, without LLVM, a `Replay` by NumPy.

    Args:
        step: called twice, with an `xp` that records, and a traced array for each of `arrays`, by its name. It writes
            with `[...] =` alone. Rows are taken by an array among `arrays` that is int64, (B,); each of its elements
            must be the number of a row, from 0. What is not an array is as it was when the step was recorded.
        arrays: arrays of one step, in C order; only their shapes and types matter here.
        gathered: names of arrays that the step only takes rows from, by an index: those that it runs on may have any
            number of rows.
        per_step: names of arrays that each step has one of its own of, which it only reads: `run` takes them with an
            axis of steps in front.
        threads: how many threads there may be; by default as many as NumPy's BLAS may use.
        steps_per_call: steps that a call of `run` takes, where known: for a few small ones no thread is started.

    Raises:
        CompileError: what was recorded could not be planned or compiled.
        Exception: whatever the step does not like about being recorded: `UntraceableError`, but also any other.
    """
    if threads is not None:
        check_int("threads", threads)
    if steps_per_call is not None:
        check_int("steps_per_call", steps_per_call)
    trace = record(step, arrays, gathered, per_step)
    if trace.signature != record(step, arrays, gathered, per_step).signature:
        raise UntraceableError("a step that is not the same each time (are its random numbers from outside of it?)")
    try:
        if why_not_compiled() is not None:
            return Replay(trace)
        found = blas.find()
        most = 1 if found is None else threads or found.threads
        return Program(make_plan(trace, useful_threads(trace, most, steps_per_call)))
    except MemoryError:
        raise
    except Exception as error:
        raise CompileError(one_line(error)) from error


@cache
def why_not_compiled() -> str | None:
    """Return why nothing can be compiled on this machine; None where it can."""
    try:
        compiler()
    except ImportError:
        return "llvmlite is not installed, so that NumPy replays the step: pip install 'xpnet[fast]'"
    except Exception as error:
        return f"LLVM cannot be used: {one_line(error)}"
    return None
