"""Running a step fast: it is recorded once, planned, compiled, and then run without the interpreter.

The step is plain array code against `xp`. `tracer` has an `xp` that records the step into the representation of `ir`.
The `passes` turn the record into a plan: loops, products and the memory of their results. A target runs the plan: `cpu`
in loops and products compiled with LLVM (written by `llvm`), on threads; `numpy` by NumPy's calls, where there is no
LLVM. `api` chooses among them.

>>> import numpy as np
>>> def step(xp, a):
...     a["total"][...] = a["total"] + (a["x"] * a["x"]).sum(axis=-1)
>>> arrays = {"x": np.array([1.0, 2.0]), "total": np.array(0.0)}
>>> executable = compile_step(step, arrays)
>>> executable.run(arrays, steps=3)
>>> float(arrays["total"])
15.0
"""

from .api import CompileError, Step, compile_step, plan_for, record, step_times, why_not_compiled
from .cpu.times import StepTimes, TimesRow
from .cuda.target import PRECISIONS
from .executable import AllReduceCall, Executable
from .tracer import TracedArray, traceable_names
from .types import UntraceableError

__all__ = [
    "PRECISIONS",
    "AllReduceCall",
    "CompileError",
    "Executable",
    "Step",
    "StepTimes",
    "TimesRow",
    "TracedArray",
    "UntraceableError",
    "compile_step",
    "plan_for",
    "record",
    "step_times",
    "traceable_names",
    "why_not_compiled",
]
