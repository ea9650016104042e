"""The kernels that go from step to step: the number of the step, and each step's own inputs, are on the device."""

from __future__ import annotations

from collections.abc import Sequence

from ..llvm.builder import Builder
from .mapping import HEADER

THREADS = 256


class StepKernels(Builder):
    """Base of the kernels, whose parameters are numbers; the first is the address of the position.

    The position is an array of int64: the number of the step, and the addresses of the inputs of all steps.
    """

    def __init__(self, entries: int) -> None:
        super().__init__()
        with self.define(f"ptx_kernel void @loop(ptr byval([{entries} x i64]) align 8 %table)"):
            self.place = self.as_pointer(self.field("%table", 0))
            self.write(entries)
        self.kernel = HEADER + self.text

    def write(self, entries: int) -> None:
        """Write the body."""
        raise NotImplementedError

    def register(self, name: str) -> str:
        """Return a special register as i64."""
        self.declared.add(f"declare i32 @llvm.nvvm.read.ptx.sreg.{name}()")
        return self.let(f"zext i32 {self.let(f'call i32 @llvm.nvvm.read.ptx.sreg.{name}()')} to i64")


class Start(StepKernels):
    """Sets the position, by one thread."""

    def write(self, entries: int) -> None:  # noqa: D102
        for number in range(1, entries):
            self.set(self.at("i64", self.place, str(number - 1)), self.field("%table", number))


class Advance(StepKernels):
    """Goes on to the next step, by one thread."""

    def write(self, entries: int) -> None:  # noqa: D102
        self.set(self.place, self.op("add", self.get(self.place), 1))


class Fetch(StepKernels):
    """Copies the step's own inputs to where the step reads them.

    The other parameters are, for each input, an address and a number of elements.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes  # of an element, in bytes
        super().__init__(1 + 2 * len(sizes))

    def write(self, entries: int) -> None:  # noqa: D102
        step = self.get(self.place)
        block, width = self.register("ctaid.x"), self.register("ntid.x")
        thread = self.op("add", self.op("mul", block, width), self.register("tid.x"))
        threads = self.op("mul", self.register("nctaid.x"), width)
        for number, size in enumerate(self.sizes):
            target = self.as_pointer(self.field("%table", 1 + 2 * number))
            count = self.field("%table", 2 + 2 * number)
            stacked = self.as_pointer(self.field(self.place, 1 + number))
            kind = f"i{8 * size}"
            source = self.at(kind, stacked, self.op("mul", step, count))
            with self.loop(count, begin=thread, step=threads) as index:
                self.set(self.at(kind, target, index), self.get(self.at(kind, source, index), kind), kind)
