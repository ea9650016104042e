"""The kernels that go from step to step: the number of the step, and each step's own inputs, are on the device."""

from __future__ import annotations

from collections.abc import Sequence

from ..llvm.builder import Builder
from .mapping import HEADER, special_register

THREADS = 256


class StepKernels(Builder):
    """Base of the kernels, whose parameters are numbers; the first is the address of the position.

    The position is an array of int64: the number of the step, and the addresses of the inputs of all steps.
    """

    def __init__(self, entries: int) -> None:
        super().__init__()
        with self.define(f"ptx_kernel void @loop(ptr byval([{entries} x i64]) align 8 %table)"):
            self.position = self.as_pointer(self.field("%table", 0))
            self.write(entries)
        self.kernel = HEADER + self.text

    def write(self, entries: int) -> None:
        """Write the body."""
        raise NotImplementedError


class Start(StepKernels):
    """Sets the position, by one thread."""

    def write(self, entries: int) -> None:  # noqa: D102
        for number in range(1, entries):
            self.set(self.at("i64", self.position, str(number - 1)), self.field("%table", number))


class Advance(StepKernels):
    """Goes on to the next step, by one thread."""

    def write(self, entries: int) -> None:  # noqa: D102
        self.set(self.position, self.op("add", self.get(self.position), 1))


class Fetch(StepKernels):
    """Copies the step's own inputs to where the step reads them; one block also goes on to the next step.

    The other parameters are, for each input, an address and a number of elements.

    Args:
        sizes: of an element of each input, in bytes.
        advances: whether it is one block, and goes on.
    """

    def __init__(self, sizes: Sequence[int], *, advances: bool) -> None:
        self.sizes, self.advances = sizes, advances
        super().__init__(1 + 2 * len(sizes))

    def write(self, entries: int) -> None:  # noqa: D102
        step = self.get(self.position)
        width = special_register(self, "ntid.x")
        thread = self.op(
            "add", self.op("mul", special_register(self, "ctaid.x"), width), special_register(self, "tid.x")
        )
        threads = self.op("mul", special_register(self, "nctaid.x"), width)
        for number, size in enumerate(self.sizes):
            target = self.as_pointer(self.field("%table", 1 + 2 * number))
            count = self.field("%table", 2 + 2 * number)
            stacked = self.as_pointer(self.field(self.position, 1 + number))
            kind = f"i{8 * size}"
            source = self.at(kind, stacked, self.op("mul", step, count))
            with self.loop(count, begin=thread, step=threads) as index:
                self.set(self.at(kind, target, index), self.get(self.at(kind, source, index), kind), kind)
        if self.advances:
            self.declared.add("declare void @llvm.nvvm.barrier0()")
            self.line("call void @llvm.nvvm.barrier0()")
            with self.when(self.op("icmp eq", thread, 0)):
                self.set(self.position, self.op("add", step, 1))
