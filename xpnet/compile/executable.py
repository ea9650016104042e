"""The interface of a target: a step that can be run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .trace import Trace

Arrays = Mapping[str, Any]


class Executable(Protocol):
    """A step made ready to run on one target, and the memory that it works in.

    Attributes:
        compiled: whether its operations run as compiled code, and not as calls of an array library.
    """

    compiled: bool

    def run(self, arrays: Arrays, steps: int = 1) -> None:
        """Run the step `steps` times; one thread at a time may. The work may go on after the call: see `wait`.

        Args:
            arrays: the memory of each input, in C order, by name, on the target's device; of an input per step, with an
                axis of steps in front.
            steps: the number of steps.

        Raises:
            ValueError: an array is not what was recorded, or is written and may not be.
            IndexError: an index has a row that is not there, or a negative one. A target that would have to fetch the
                index from its device does not look.
        """

    def wait(self) -> None:
        """Wait until all work has been done."""

    def release(self) -> None:
        """Keep none of the arrays that it ran on."""


def check_arrays(trace: Trace, arrays: Arrays, steps: int) -> None:
    """Raise the errors of `Executable.run` that shapes, types and flags show."""
    for leaf in trace.leaves:
        if leaf.constant is not None:
            continue
        array = arrays[leaf.name]
        shape = (steps, *leaf.shape) if leaf.per_step else leaf.shape
        if leaf.gathered:
            shape = array.shape[:1] + shape[1:]
        if array.shape != shape or array.dtype != leaf.dtype or not array.flags.c_contiguous:
            raise ValueError(f"{leaf.name} must be {shape} {leaf.dtype} in C order, as when it was recorded")
        if leaf.stored and not getattr(array.flags, "writeable", True):
            raise ValueError(f"{leaf.name} is read-only, and the step assigns to it")


def check_indices(trace: Trace, arrays: Arrays, steps: int) -> None:
    """Raise IndexError where an index, in the host's memory, has a row that is not there, or a negative one."""
    for leaf in trace.leaves:
        if leaf.picks_from and steps:
            index = arrays[leaf.name]
            rows = min(one if isinstance(one, int) else len(arrays[one.name]) for one in leaf.picks_from)
            if index.min() < 0 or index.max() >= rows:
                raise IndexError(f"{leaf.name} picks rows {index.min()} to {index.max()} of {rows}")
