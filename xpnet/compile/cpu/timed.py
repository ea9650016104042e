"""Programs that count the time of each instruction and barrier, on each thread.

Their driver is a second text, compiled when times are asked for; `runtime.driver` knows nothing of it. Each thread has
a row of counters, in ticks of a clock. A lap is the time since the thread's last lap, and is added to one counter; so
the counters of a row add up to the time of all calls, with nothing left over.

The clock is the processor's cycle counter on x86, and elsewhere the operating system's monotonic clock.
"""

from __future__ import annotations

import ctypes
import sys
import time
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from ...core.device import CPU
from ..executable import Arrays
from ..llvm.builder import Builder
from ..once import Once
from ..passes.instructions import Product
from . import runtime
from .compiler import compiler
from .helpers import HelperChoice
from .partition import ThreadedPlan
from .program import DRIVER, FUNCTION, LINE, HostArray, Program
from .target import is_x86

LAST, CURRENT, THREADS, DRIVING, FIRST = range(5)
"""Counters of a row: the time of the last lap, the address of the counter of what is no instruction at present, the
time to start and join threads, and that of the driver itself. From `FIRST` on there are two for each instruction: its
own time, and that of the barrier behind it, if there is one."""


class ClockReader(Builder):
    """Writer of a clock's reading.

    Args:
        cycles: whether the clock is the processor's counter of cycles.
    """

    def __init__(self, cycles: bool) -> None:
        self.cycles = cycles
        super().__init__()

    def now(self, clock: str) -> str:
        """Read the clock; `clock` is the address of the system's function."""
        if self.cycles:
            self.declared.add("declare i64 @llvm.readcyclecounter()")
            return self.let("call i64 @llvm.readcyclecounter()")
        found = self.variable("[2 x i64]")  # seconds and nanoseconds, or one number on Windows
        if sys.platform == "win32":
            self.let(f"call i32 {clock}(ptr {found})")
            return self.get(found)
        self.let(f"call i32 {clock}(i32 {time.CLOCK_MONOTONIC}, ptr {found})")
        return self.op("add", self.op("mul", self.get(found), 10**9), self.field(found, 1))


class TimedDriver(ClockReader, runtime.Driver):
    """Writer of the driver with laps; the last number in a thread's row of pointers is the address of its counters."""

    def _row(self, memory: str) -> str:
        """Address of the counters of a thread, from that of its pointers."""
        size = self.given("bytes of a row")
        return self.as_pointer(self.get(self.at("i8", memory, self.op("sub", size, 8))))

    def _row_of(self, thread: str) -> str:
        size = self.given("bytes of a row")
        return self._row(self.at("i8", self.pointer("memory"), self.op("mul", thread, size)))

    def _lap(self, row: str, counter: str) -> None:
        """Add the time since the last lap to a counter."""
        now, last = self.now(self.pointer("clock")), self.at("i64", row, str(LAST))
        self.set(counter, self.op("add", self.get(counter), self.op("sub", now, self.get(last))))
        self.set(last, now)

    def _lap_current(self, row: str) -> None:
        self._lap(row, self.get(self.at("i64", row, str(CURRENT)), "ptr"))

    def _run(self) -> None:
        """Run; a helper's time before its first lap and after its last one is that of threads."""
        with self.loop(self.op("add", self.given("helpers"), 1)) as thread:
            self.set(self.at("i64", self._row_of(thread), str(LAST)), self.now(self.pointer("clock")))
        super()._run()
        with self.loop(self.op("add", self.given("helpers"), 1)) as thread:
            row = self._row_of(thread)
            self._lap(row, self.at("i64", row, str(THREADS)))

    def _steps(self) -> None:
        row = self._row_of("%me")
        self._lap(row, self.at("i64", row, str(THREADS)))
        self.set(self.at("i64", row, str(CURRENT)), self.at("i64", row, str(DRIVING)), "ptr")
        super()._steps()
        self._lap_current(row)

    def _call(self, instruction: str, part: str, parts: str) -> None:
        row = self._row("%memory")
        self._lap_current(row)
        super()._call(instruction, part, parts)
        addresses = [self.let(f"ptrtoint ptr {one} to i64") for one in (instruction, self.pointer("instructions"))]
        number = self.op("udiv", self.op("sub", *addresses), 8 * runtime.INSTRUCTION)
        self._lap(row, self.at("i64", row, self.op("add", self.op("mul", number, 2), FIRST)))

    def _wait(self) -> None:
        """Wait; while this thread does parts of others, their instructions have its time."""
        row = self._row("%memory")
        self._lap_current(row)
        current, end = self.at("i64", row, str(CURRENT)), self.op("mul", self.field("%phase", 2), 2)
        self.set(current, self.at("i64", row, self.op("add", end, FIRST - 1)), "ptr")
        super()._wait()
        self._lap_current(row)
        self.set(current, self.at("i64", row, str(DRIVING)), "ptr")


@cache
def timed_driver(cycles: bool) -> str:
    """LLVM text of the driver with laps."""
    return TimedDriver(cycles).text


class Clock:
    """The drivers' clock, set against Python's monotonic one.

    Attributes:
        cycles: whether it is the processor's counter of cycles.
    """

    def __init__(self, cycles: bool) -> None:
        self.cycles = cycles
        writer = ClockReader(cycles)
        with writer.define("i64 @clock(ptr %clock)", "ret i64 %now"):
            writer.line(f"%now = add i64 {writer.now('%clock')}, 0")
        read = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(compiler().address(writer.text))
        self._read = partial(read, runtime.system_functions()["clock"])
        self._start = self._pair()

    def tick(self) -> float:
        """Seconds of a tick, measured from the time when this clock was made, or for at least 20 ms."""
        while True:
            seconds, ticks = (now - start for now, start in zip(self._pair(), self._start, strict=True))
            if seconds >= 0.02:
                return seconds / ticks

    def _pair(self) -> tuple[float, int]:
        """The same moment by both clocks: of some pairs, the one that was read fastest."""
        found = []
        for _ in range(10):
            before, ticks, after = time.perf_counter(), self._read(), time.perf_counter()
            found.append((after - before, (before + after) / 2.0, ticks))
        return min(found)[1:]


@Once
def clock() -> Clock:
    """The clock of this process."""
    return Clock(is_x86())


class AlwaysHelpers(HelperChoice):
    """No choice: what is measured has its helpers."""

    def record(self, steps: int, seconds: float) -> None:
        """Learn nothing."""


class TimedRun(NamedTuple):
    """One or more calls of a program.

    Attributes:
        steps: in all.
        seconds: by the monotonic clock, around the calls.
        ticks: the counters of each thread that ran, (threads, counters).
    """

    steps: int
    seconds: float
    ticks: HostArray


class TimedProgram(Program):
    """A program with counters, in memory of its own.

    Attributes:
        order: the instructions, in the order of their counters.
        clock: the counters' clock.

    Args:
        plan: the plan.
        of_clock: another clock than the usual one.
    """

    def __init__(self, plan: ThreadedPlan, of_clock: Clock | None = None) -> None:
        super().__init__(plan)
        self.order = self._order
        self.clock = clock() if of_clock is None else of_clock
        self._choice = AlwaysHelpers()
        numbers = FIRST + 2 * len(self.order)
        self._ticks = CPU.zeros((plan.threads, -(-numbers // LINE) * LINE), "int64")
        self._memory[:, -1] = [row.ctypes.data for row in self._ticks]
        timed = DRIVER(compiler().address(timed_driver(self.clock.cycles)))
        self._drivers = {False: self._driver, True: partial(timed, self._driver_arguments.ctypes.data)}
        self._zeros: dict[Product, float] | None = None  # while they are counted

    def run_timed(self, arrays: Arrays, steps: int, *, counted: bool = True) -> TimedRun:
        """Run the plan `steps` times, as `run` does, and return the times.

        Args:
            arrays, steps: as for `run`.
            counted: whether the driver has laps; else the counters are zero.
        """
        call = self.bind(arrays, steps)
        self._driver = self._drivers[counted]
        self._ticks[...] = 0
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        threads = int(self._driver_arguments[runtime.CALL.index("helpers")]) + 1
        return TimedRun(steps, seconds, self._ticks[:threads].copy())

    def zeros(self, arrays: Arrays) -> dict[Product, float]:
        """Run one step, and return the share of zeros in the left factor of each product."""
        self._zeros = {}
        try:
            self.run(arrays)
            return self._zeros
        finally:
            self._zeros = None

    def _run_on_threads(self, steps: int) -> None:
        if self._zeros is None:
            super()._run_on_threads(steps)
            return
        memory = self._memory.ctypes.data
        for instruction, (address, _, table, *_) in zip(self.order, self._rows.tolist(), strict=True):
            if isinstance(instruction, Product):
                factor = self._array(instruction.matrices[0])
                self._zeros[instruction] = 1.0 - float(np.count_nonzero(factor) / factor.size)
            FUNCTION(address)(self._tables[table:].ctypes.data, memory, 0, 1)
