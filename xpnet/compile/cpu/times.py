"""Times of a compiled step: of each instruction, beside its bytes, its operations, and the ceilings of the machine."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from ..executable import Arrays
from ..ir import Input
from ..passes.describe import formulas_of, heading
from ..passes.instructions import AllReduce, Barrier, Instruction, Product
from ..passes.memory import accessed
from ..passes.work import bytes_moved, operations_done, view_bytes
from . import blas
from .ceilings import Ceilings, measured_ceilings
from .compiler import compiler
from .partition import ThreadedPlan, instructions_by_phase
from .program import Program
from .sparse import LEAST_ZEROS
from .timed import DRIVING, FIRST, THREADS, TimedProgram, TimedRun

ROUNDS = 21  # with the counters, and as many without them
ROUND = 0.03  # seconds of a round, about
CALL = 0.03  # seconds of a call, about: as in training
SHOWN_THREADS = 4  # with a column each
BUSY = 1.2  # median round over the fastest one
LONGEST = 60  # letters of an instruction in a line


@dataclass(frozen=True)
class TimesRow:
    """What a part of the step takes.

    Attributes:
        kind: "loop", "product" or "barrier"; "driver" for the driver between them, "threads" for their start and end,
            "call" for the call from Python.
        number: of an instruction, as in the plan.
        text: in words: of an instruction its results, or its formula.
        seconds: of a step, on each thread.
        workers: threads that share the instruction.
        bytes: of the views that it reads and writes, each once.
        operations: on floating-point numbers.
        zeros: share of zeros in the left factor of a product, which may be left out.
    """

    kind: str
    number: int | None
    text: str
    seconds: tuple[float, ...]
    workers: int = 1
    bytes: int = 0
    operations: int = 0
    zeros: float | None = None

    @property
    def total_seconds(self) -> float:
        """Seconds of a step, on all threads together."""
        return sum(self.seconds)

    def per_second(self, amount: float) -> float | None:
        """An amount over the time of the thread that is at it longest; another may have come late."""
        longest = max(self.seconds)
        return amount / longest if amount and longest > 0.0 else None


@dataclass(frozen=True)
class StepTimes:
    """Where the time of a compiled step goes.

    Attributes:
        plan: the plan in words, with numbers.
        rows: in the order of the plan; the seconds of each thread add up to `step_seconds`.
        step_seconds: of a step, with the counters, in the fastest round.
        median_seconds: in the median round.
        uncounted_seconds: of a step without the counters, in the fastest round of its own.
        steps, steps_per_call: steps of a round, and of a call.
        dtype: of the products, or of other numbers where there are none.
        working_set: bytes that a step uses.
        ceilings: by the number of threads.
    """

    plan: str
    rows: tuple[TimesRow, ...]
    step_seconds: float
    median_seconds: float
    uncounted_seconds: float
    steps: int
    steps_per_call: int
    dtype: str
    working_set: int
    ceilings: dict[int, Ceilings]

    @property
    def threads(self) -> int:
        """The number of threads."""
        return len(self.rows[0].seconds)

    def figures(self, row: TimesRow) -> dict[str, Any]:
        """Return rates per second of a row, and their shares of the ceilings; None where there are none."""
        ceilings = self.ceilings[row.workers]
        moved, done = row.per_second(row.bytes), row.per_second(row.operations)
        return {
            "share": row.total_seconds / self.threads / self.step_seconds,
            "bytes_per_second": moved,
            "bandwidth_share": None if moved is None else moved / ceilings.bandwidth,
            "operations_per_second": done,
            "product_rate_share": None if done is None else done / ceilings.product_rate,
            "operations_per_byte": row.operations / row.bytes if row.bytes else None,
        }

    def numbers(self) -> dict[str, Any]:
        """Return all as JSON values, in seconds, bytes and operations."""
        plain = {name: value for name, value in vars(self).items() if name not in ("plan", "rows", "ceilings")}
        rows = [asdict(row) | {"total_seconds": row.total_seconds} | self.figures(row) for row in self.rows]
        return plain | {
            "threads": self.threads,
            "ceilings": [asdict(one) for one in self.ceilings.values()],
            "rows": rows,
        }

    def __str__(self) -> str:
        return "\n".join([self.plan, "", *self._about(), "", *self._table(), "", *self._notes()])

    def _about(self) -> list[str]:
        """What was measured, and the ceilings, in words."""
        counted, middle, uncounted = (
            f"{one * 1e6:,.1f} µs" for one in (self.step_seconds, self.median_seconds, self.uncounted_seconds)
        )
        lines = [
            f"times of {self.steps:,} steps, {self.steps_per_call:,} a call: {counted} a step in the fastest of"
            f" {ROUNDS} rounds, {middle} in the median one, and {uncounted} in the fastest without counters"
        ]
        for count, one in self.ceilings.items():
            threads = "one thread" if count == 1 else f"{count} threads"
            lines.append(
                f"ceilings of {threads}, {self.dtype}: {one.product_rate / 1e9:,.1f} GFLOP/s in products;"
                f" {one.bandwidth / 1e9:,.1f} GB/s in {_bytes(self.working_set)}, which a step uses;"
                f" {one.memory_bandwidth / 1e9:,.1f} GB/s in memory"
            )
        if self.median_seconds > BUSY * self.step_seconds:
            lines.append("other processes keep this machine busy: rounds differ, and figures are worth little")
        return lines

    def _table(self) -> list[str]:
        """A line a row, and their sum."""
        several = 1 < self.threads <= SHOWN_THREADS
        header = ["", *([f"thread {number}" for number in range(1, self.threads + 1)] if several else [])]
        header += ["µs", "share", "kB", "GB/s", "of peak", "kFLOP", "GFLOP/s", "of peak", "FLOP/B"]
        lines = [header]
        for row in self.rows:
            figures = self.figures(row)
            own = [_number(seconds * 1e6) for seconds in row.seconds] if several else []
            lines.append([
                "" if row.number is None else f"[{row.number}]",
                *own,
                _number(row.total_seconds / self.threads * 1e6),
                _share(figures["share"]),
                _number(row.bytes / 1e3) if row.bytes else "",
                _number(figures["bytes_per_second"], 1e9),
                _share(figures["bandwidth_share"]),
                _number(row.operations / 1e3) if row.operations else "",
                _number(figures["operations_per_second"], 1e9),
                _share(figures["product_rate_share"]),
                _number(figures["operations_per_byte"]),
            ])  # fmt: skip
        totals = [sum(row.seconds[thread] for row in self.rows) for thread in range(self.threads)]
        sums = [_number(one * 1e6) for one in (*(totals if several else []), sum(totals) / self.threads)]
        lines.append(["", *sums, _share(sum(totals) / self.threads / self.step_seconds), *[""] * 7])
        texts = ["", *(row.text for row in self.rows), "all: a step"]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return [
            f"{'  '.join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))}  {text}".rstrip()
            for line, text in zip(lines, texts, strict=True)
        ]

    def _notes(self) -> list[str]:
        """How to read the table."""
        mean = "; the mean of the threads" if self.threads > 1 else ""
        return [
            f"µs        of a step{mean}. All rows add up to its wall time",
            "kB        of the views that are read and written, each once",
            "kFLOP     of a product 2 M N K; of a loop one for each operation on an element, be it +, exp, / or <",
            "of peak   of the bandwidth in as many bytes as a step uses, and of the product rate. A loop is above",
            "          where its arrays lie in a nearer cache, and a product where it leaves out zeros on its left, as",
            f"          it does from {LEAST_ZEROS[compiler().registers.number]:.1%} of them on",
        ]


def why_no_times(program: Program) -> str | None:
    """Why a program's instructions have no times; None where they have."""
    if any(isinstance(one, AllReduce) for one in program.plan.instructions):
        return "ranks share the step, and wait for each other in it"
    if blas.numpy_is_faster():
        return "products are calls of Apple's Accelerate from Python"
    return None


def step_times(program: Program, arrays: Arrays, steps: int) -> StepTimes:
    """Time a program, in some four seconds on a quiet machine.

    Args:
        program: the program, for which `why_no_times` has no reason. Another one is made of its plan, and runs.
        arrays: as for `Executable.run`, which are not changed.
        steps: the largest number of steps that `arrays` are for; each round begins with the first one.
    """
    timed = TimedProgram(program.plan)
    rounds = _Rounds(timed, arrays, steps)
    dtype, used, threads = _dtype(program.plan), _working_set(program.plan), rounds.threads

    def measured() -> dict[int, Ceilings]:
        return {count: measured_ceilings(dtype, used, count) for count in sorted({1, threads})}

    before = measured()
    counted, uncounted = [], []
    for _ in range(ROUNDS):  # side by side: what else the machine does disturbs both
        counted.append(rounds.run(counted=True))
        uncounted.append(rounds.run(counted=False))
    best = min(counted, key=lambda run: run.seconds)  # what else the machine does is no part of the step
    ceilings = {count: one.or_better(before[count]) for count, one in measured().items()}
    return StepTimes(
        plan=program.describe(numbered=True),
        rows=tuple(_rows(timed, best, rounds.zeros())),
        step_seconds=best.seconds / best.steps,
        median_seconds=median(run.seconds / run.steps for run in counted),
        uncounted_seconds=min(run.seconds / run.steps for run in uncounted),
        steps=best.steps,
        steps_per_call=rounds.per_call,
        dtype=dtype.name,
        working_set=used,
        ceilings=ceilings,
    )


class _Rounds:
    """Rounds of steps on copies of the arrays that are written; each goes through the same steps.

    Attributes:
        per_call: steps of a call.
        threads: those that run it.
    """

    def __init__(self, program: TimedProgram, arrays: Arrays, steps: int) -> None:
        self._program, self._arrays = program, arrays
        inputs = {one.name: one for one in program.plan.trace.inputs}
        self._per_step = {name for name in arrays if name in inputs and inputs[name].per_step}
        self._written = {name for name in arrays if name in inputs and inputs[name].stored}
        self._copies = {name: array.copy() if name in self._written else array for name, array in arrays.items()}
        self._passes, self._steps, self.per_call = 1, min(steps, 2), 1
        self.run(counted=True)  # touches all memory
        while True:
            run = self.run(counted=True)
            self.threads = len(run.ticks)
            step = run.seconds / run.steps
            self._steps = min(steps, max(1, int(ROUND / step)))
            self.per_call = max(1, min(self._steps, int(CALL / step)))
            self._passes = max(1, int(ROUND / step / self._steps))
            if run.seconds >= ROUND / 2 or self._steps * self._passes <= 2 * run.steps:
                break

    def run(self, *, counted: bool) -> TimedRun:
        """Run a round."""
        runs = []
        for _ in range(self._passes):
            for name in self._written:
                self._copies[name][...] = self._arrays[name]
            for first in range(0, self._steps, self.per_call):
                count = min(self.per_call, self._steps - first)
                runs.append(self._program.run_timed(self._of_steps(first, count), count, counted=counted))
        steps, seconds, ticks = zip(*runs, strict=True)
        return TimedRun(sum(steps), sum(seconds), np.sum(ticks, axis=0))

    def zeros(self) -> dict[Product, float]:
        """Share of zeros in the left factor of each product, in a step after those of a round."""
        return self._program.zeros(self._of_steps(self._steps - 1, 1))

    def _of_steps(self, first: int, count: int) -> Arrays:
        """The arrays of some steps."""
        return {
            name: array[first : first + count] if name in self._per_step else array
            for name, array in self._copies.items()
        }


def _rows(program: TimedProgram, run: TimedRun, zeros: dict[Product, float]) -> list[TimesRow]:
    """The rows of a run."""
    plan, threads = program.plan, len(run.ticks)
    seconds = run.ticks * program.clock.tick() / run.steps

    def of(counter: int | list[int]) -> tuple[float, ...]:
        return tuple(seconds[:, counter].reshape(threads, -1).sum(axis=1).tolist())

    counters = {instruction: FIRST + 2 * place for place, instruction in enumerate(program.order)}
    ends = [max(counters[one] for one in phase) + 1 for phase in instructions_by_phase(plan.instructions)]
    barriers = iter(ends)
    rows: list[TimesRow] = []
    for instruction, formulas in formulas_of(plan):
        if isinstance(instruction, Barrier):
            rows.append(TimesRow("barrier", None, "--- barrier", of(next(barriers))))
            continue
        number = sum(row.number is not None for row in rows) + 1
        product = instruction if isinstance(instruction, Product) else None
        rows.append(
            TimesRow(
                kind="loop" if product is None else "product",
                number=number,
                text=_title(instruction, formulas, None if product is None else zeros[product]),
                seconds=of(counters[instruction]),
                workers=1 if plan.divisions[instruction][0] == "one" else threads,
                bytes=bytes_moved(instruction, plan.inlining),
                operations=operations_done(instruction, plan.inlining),
                zeros=None if product is None else zeros[product],
            )
        )
    others = [DRIVING, *barriers, *([THREADS] if threads == 1 else [])]
    rows.append(TimesRow("driver", None, "driver: goes from one instruction to the next", of(others)))
    if threads > 1:
        rows.append(TimesRow("threads", None, "threads: their start and end, once a call", of(THREADS)))
    rest = run.seconds / run.steps - np.array([row.seconds for row in rows]).sum(axis=0)
    rows.append(TimesRow("call", None, "call: from Python, and back", tuple(rest.tolist())))
    return rows


def _title(instruction: Instruction, formulas: list[str], zeros: float | None) -> str:
    """An instruction in a line."""
    if isinstance(instruction, Product):
        text = f"product {formulas[0].partition('    #')[0]}"
        return _cut(text) + (f"  ({zeros:.0%} zeros on the left)" if zeros and zeros >= 0.005 else "")
    results = [line.partition(" = ")[0] for line in formulas if " = " in line]
    lasting = [name for name in results if not (name[0] == "t" and name[1:].isdecimal())]
    return _cut(f"{heading(instruction).partition(' ')[0]} {', '.join(lasting)}")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _dtype(plan: ThreadedPlan) -> np.dtype[Any]:
    """Type of the products; where there are none, of the widest floating-point numbers that are computed."""
    operations = plan.trace.operations
    products = [one.dtype for one in operations if one.kind == "product"]
    floats = [one.dtype for one in operations if one.dtype.kind == "f"] or [np.dtype(np.float32)]
    return products[0] if products else max(floats, key=lambda dtype: dtype.itemsize)


def _working_set(plan: ThreadedPlan) -> int:
    """Bytes that a step uses: results, inputs, and of inputs whose rows are gathered, those rows."""
    gathered = {
        view.key: view
        for instruction in plan.instructions
        if not isinstance(instruction, Barrier)
        for view, _ in accessed(instruction, plan.inlining)
        if view.gather is not None and isinstance(view.source, Input)
    }
    whole = [one for one in plan.trace.inputs if not one.gathered]
    inputs = sum(math.prod(one.shape) * one.dtype.itemsize for one in whole)
    return plan.size + inputs + sum(view_bytes(view) for view in gathered.values())


def _bytes(number: float) -> str:
    return f"{number / 1e6:,.1f} MB" if number >= 1e6 else f"{number / 1e3:,.1f} kB"


def _number(value: float | None, unit: float = 1.0) -> str:
    """A number with three digits, or all before the point."""
    if value is None:
        return ""
    value /= unit
    return f"{value:,.{max(0, min(2, 2 - math.floor(math.log10(abs(value) or 1.0))))}f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
