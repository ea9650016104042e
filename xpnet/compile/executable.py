"""The interface of a target: a step that can be run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .ir import Input, Trace

Arrays = Mapping[str, Any]


AllReduceCall = Callable[[Any, Any], None]
"""Sums its first array over all ranks into its second one."""


class Executable(Protocol):
    """A step made ready to run on one target, and the memory that it works in.

    Attributes:
        compiled: whether its operations run as compiled code, and not as calls of an array library.
        asynchronous: whether the work goes on after `run`.
    """

    compiled: bool
    asynchronous: bool

    def run(self, arrays: Arrays, steps: int = 1) -> None:
        """Run the step `steps` times; one thread at a time may. The work may go on after the call: see `wait`.

        Args:
            arrays: the memory of each input, in C order, by name, on the target's device; of an input per step, with an
                axis of steps in front. They must not overlap, and the caller keeps them until the work is done. A call
                may bring others than the last one.
            steps: the number of steps.

        Raises:
            ValueError: an array is not what was recorded, or is written and may not be.
            IndexError: an index has a row that is not there, or a negative one. A target whose index is not in the
                host's memory clips instead.
        """

    def bind(self, arrays: Arrays, steps: int = 1) -> Callable[[], object]:
        """Return a call that runs the step `steps` times on these arrays, which may be checked here alone.

        Arguments and errors are those of `run`; indices among the arrays must not change. The call keeps the arrays.
        """

    def wait(self) -> None:
        """Wait until all work has been done."""

    def release(self) -> None:
        """Keep none of the arrays that it ran on."""


def run_inputs(trace: Trace) -> list[Input]:
    """The inputs that are handed over when a step runs."""
    return [one for one in trace.inputs if one.constant is None]


def check_arrays(inputs: Sequence[Input], arrays: Arrays, steps: int) -> None:
    """Raise the errors of `Executable.run` that shapes, types and flags show."""
    for one in inputs:
        array = arrays.get(one.name)
        if array is None:
            raise ValueError(f"{one.name} is missing among the arrays")
        shape = (steps, *one.shape) if one.per_step else one.shape
        if one.gathered:
            shape = array.shape[:1] + shape[1:]
        if array.shape != shape or array.dtype != one.dtype or not array.flags.c_contiguous:
            raise ValueError(f"{one.name} must be {shape} {one.dtype} in C order, as when it was recorded")
        if one.stored and not getattr(array.flags, "writeable", True):
            raise ValueError(f"{one.name} is read-only, and the step assigns to it")


def check_indices(inputs: Sequence[Input], arrays: Arrays, steps: int) -> None:
    """Raise IndexError where an index, in the host's memory, has a row that is not there, or a negative one."""
    for one in inputs:
        if one.gathers_from and steps:
            index = arrays[one.name]
            rows = min(each if isinstance(each, int) else len(arrays[each.name]) for each in one.gathers_from)
            if index.min() < 0 or index.max() >= rows:
                raise IndexError(f"{one.name} gathers rows {index.min()} to {index.max()} of {rows}")
