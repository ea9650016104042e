"""Driver loop of a program, in LLVM's language: start and join threads, share out the work, wait at barriers.

A program runs phase by phase, with a barrier after each. The work of a phase is in units: one for each part of the
batch (all instructions of the phase, in order), and the pieces of its long loops. A thread claims its own part, then
pieces, then, after a moment, parts that no thread has claimed: where a processor is busy with another process, the
others do its work. Results do not depend on which thread does a unit.

Everything from the start of the threads to their end is one call out of Python. Ctrl-C is an exception that Python
raises between two of its instructions: it comes before the call or after it, when no thread uses the arrays.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

from ..llvm.builder import Builder
from .target import is_x86

LINE = 64  # bytes of a cache line; one for each counter, against false sharing
SPINS = 2000  # loads of a counter, some 20 to 80 microseconds, before a thread sleeps: about what waking it takes
PATIENCE = 100  # loads of a counter before a thread does parts that others have not claimed

# Arguments of a call, 8 bytes each, in this order.
CALL = (
    "phases",  # rows of 5: first instruction, first one in pieces, end, number of units, line
    "number of phases",
    "instructions",  # rows of 5: address, share (0: part 0 alone, 1: all parts, n: n pieces a part), table, line, order
    "tables",
    "lines",  # counters, a cache line each: units done of a phase, then claims of each part, or of each part's pieces
    "memory",  # a row of pointers for each thread, advanced after each step
    "bytes of a row",
    "strides",  # bytes by which they advance
    "number of pointers",
    "steps",
    "parts",
    "helpers",  # threads beside the caller's
    "threads",  # rows of 3 for the helpers: handle, address of the call, number
    "sleeping",  # how many threads sleep
    "patience",
    "spins",
    "create",  # functions of the system
    "join",
    "close",  # Windows alone
    "wait",
    "yield",
    "clock",
)
INSTRUCTION = 5  # numbers in a row of instructions
FUTEX_WAIT, FUTEX_WAKE = 128, 129  # of one process


class Driver(Builder):
    """Writer of the driver, `void run(i64 *call)`."""

    def __init__(self) -> None:
        super().__init__()
        with self.define("void @run(ptr %call)"):
            self._run()
        with self.define("internal ptr @help(ptr %thread)", "ret ptr null"):
            call = self.as_pointer(self.field("%thread", 1))
            self.line(f"call void @steps(ptr {call}, i64 {self.field('%thread', 2)})")
        with self.define("internal void @steps(ptr %call, i64 %me)"):
            self._steps()
        with self.define("internal void @part(ptr %call, ptr %phase, ptr %memory, i64 %step, i64 %part)"):
            self._part()
        with self.define("internal void @pieces(ptr %call, ptr %phase, ptr %memory, i64 %step, i64 %me)"):
            self._pieces()
        with self.define("internal void @finish(ptr %call, ptr %phase, i64 %step)"):
            self._finish()
        with self.define("internal void @wait(ptr %call, ptr %phase, ptr %memory, i64 %step, i64 %me)"):
            self._wait()

    def given(self, name: str) -> str:
        """Argument of the call, as a number."""
        return self.field("%call", CALL.index(name))

    def pointer(self, name: str) -> str:
        """Argument of the call, as a pointer."""
        return self.as_pointer(self.given(name))

    def counter(self, line: str) -> str:
        """Address of a counter."""
        return self.at("i8", self.pointer("lines"), self.op("mul", line, LINE))

    def watch(self, counter: str) -> str:
        """Atomic load of a counter."""
        return self.let(f"load atomic i64, ptr {counter} seq_cst, align 8")

    def increase(self, counter: str, number: int) -> str:
        """Atomic addition to a counter; its value before."""
        return self.let(f"atomicrmw add ptr {counter}, i64 {number} seq_cst")

    def claim(self, counter: str, shown: str) -> str:
        """Atomic step of a counter from `shown` to `shown` + 1; whether it succeeded."""
        pair = self.let(f"cmpxchg ptr {counter}, i64 {shown}, i64 {self.op('add', shown, 1)} seq_cst seq_cst")
        return self.let(f"extractvalue {{ i64, i1 }} {pair}, 1")

    # The functions

    def _run(self) -> None:
        """Start the helpers, run, and join them; where a thread cannot be started, the others do its work."""
        started = self.variable()
        self.set(started, 0)
        threads = self.pointer("threads")
        with self.loop(self.given("helpers")) as index:
            thread = self.at("i64", threads, self.op("mul", index, 3))
            self.set(self.at("i64", thread, "1"), self.let("ptrtoint ptr %call to i64"))
            self.set(self.at("i64", thread, "2"), self.op("add", index, 1))
            with self.when(self._create(thread)):
                last = self.get(started)  # handles of those that started come first
                self.set(self.at("i64", threads, self.op("mul", last, 3)), self.get(thread))
                self.set(started, self.op("add", last, 1))
        self.line("call void @steps(ptr %call, i64 0)")
        with self.loop(self.get(started)) as index:
            self._join(self.get(self.at("i64", threads, self.op("mul", index, 3))))

    def _create(self, thread: str) -> str:
        """Start a helper; whether that succeeded."""
        create = self.pointer("create")
        if sys.platform == "win32":
            handle = self.let(f"call ptr {create}(ptr null, i64 0, ptr @help, ptr {thread}, i32 0, ptr null)")
            self.set(thread, handle, "ptr")
            return self.let(f"icmp ne ptr {handle}, null")
        failed = self.let(f"call i32 {create}(ptr {thread}, ptr null, ptr @help, ptr {thread})")
        return self.op("icmp eq", failed, 0, "i32")

    def _join(self, handle: str) -> None:
        if sys.platform == "win32":
            self.let(f"call i32 {self.pointer('join')}(i64 {handle}, i32 -1)")
            self.let(f"call i32 {self.pointer('close')}(i64 {handle})")
        else:
            self.let(f"call i32 {self.pointer('join')}(i64 {handle}, ptr null)")

    def _steps(self) -> None:
        """Go through the program, step by step."""
        memory = self.at("i8", self.pointer("memory"), self.op("mul", "%me", self.given("bytes of a row")))
        strides = self.pointer("strides")
        with self.loop(self.given("steps")) as step:
            with self.loop(self.given("number of phases")) as index:
                phase = self.at("i64", self.pointer("phases"), self.op("mul", index, 5))
                self.line(f"call void @part(ptr %call, ptr {phase}, ptr {memory}, i64 {step}, i64 %me)")
                for name in ("pieces", "wait"):
                    self.line(f"call void @{name}(ptr %call, ptr {phase}, ptr {memory}, i64 {step}, i64 %me)")
            with self.loop(self.given("number of pointers")) as index:
                pointer = self.at("i64", memory, index)
                self.set(pointer, self.op("add", self.get(pointer), self.get(self.at("i64", strides, index))))

    def _call(self, instruction: str, part: str, parts: str) -> None:
        function = self.as_pointer(self.field(instruction, 0))
        table = self.at("i64", self.pointer("tables"), self.field(instruction, 2))
        self.line(f"call void {function}(ptr {table}, ptr %memory, i64 {part}, i64 {parts})")

    def _instruction(self, index: str) -> str:
        return self.at("i64", self.pointer("instructions"), self.op("mul", index, INSTRUCTION))

    def _part(self) -> None:
        """Claim a part of a phase and do it, if no thread has claimed it in this step; its claims count steps."""
        parts = self.given("parts")
        claims = self.counter(self.op("add", self.field("%phase", 4), self.op("add", "%part", 1)))
        with self.when(self.claim(claims, "%step")):
            with self.loop(self.field("%phase", 1), begin=self.field("%phase", 0)) as index:
                instruction = self._instruction(index)
                alone = self.op("icmp eq", self.field(instruction, 1), 0)
                with self.when(self.op("or", self.op("icmp eq", "%part", 0), self.op("xor", alone, 1, "i1"), "i1")):
                    self._call(instruction, "%part", self.let(f"select i1 {alone}, i64 1, i64 {parts}"))
            self.line("call void @finish(ptr %call, ptr %phase, i64 %step)")

    def _pieces(self) -> None:
        """Claim pieces and do them until none is left: first those of the own part, then the others'."""
        parts = self.given("parts")
        with self.loop(self.field("%phase", 2), begin=self.field("%phase", 1)) as index:
            instruction = self._instruction(index)
            pieces = self.field(instruction, 1)
            before = self.op("mul", "%step", pieces)
            all_pieces = self.op("mul", pieces, parts)
            order = self.at("i64", self.pointer("tables"), self.field(instruction, 4))
            with self.loop(parts) as away:
                whose = self.op("urem", self.op("add", "%me", away), parts)
                claims = self.counter(self.op("add", self.field(instruction, 3), whose))
                piece = self.variable()

                def left(claims: str = claims, piece: str = piece, before: str = before, pieces: str = pieces) -> str:
                    self.set(piece, self.op("sub", self.watch(claims), before))
                    return self.op("icmp slt", self.get(piece), pieces)

                with self.repeat(left):
                    mine = self.get(piece)
                    with self.when(self.claim(claims, self.op("add", before, mine))):
                        number = self.get(self.at("i64", order, self.op("add", self.op("mul", whose, pieces), mine)))
                        self._call(instruction, number, all_pieces)
                        self.line("call void @finish(ptr %call, ptr %phase, i64 %step)")

    def _target(self) -> str:
        """Value of a phase's counter when all of its units are done in this step."""
        return self.op("mul", self.field("%phase", 3), self.op("add", "%step", 1))

    def _finish(self) -> None:
        """Count a unit as done; after the last one, wake the threads that sleep."""
        done = self.counter(self.field("%phase", 4))
        now = self.op("add", self.increase(done, 1), 1)
        last = self.op("icmp eq", now, self._target())
        with self.when(last), self.when(self.op("icmp ne", self.watch(self.pointer("sleeping")), 0)):
            self._futex(done, FUTEX_WAKE, str(2**31 - 1))

    def _wait(self) -> None:
        """Barrier: spin, then do the parts that no thread has claimed, then sleep until the phase is done."""
        done, target, parts = self.counter(self.field("%phase", 4)), self._target(), self.given("parts")
        patience = self.given("patience")
        # No thread may sleep before all parts are claimed.
        awake = self.function("smax", patience, f"i64 {self.given('spins')}")
        looks = self.variable()
        self.set(looks, 0)
        with self.repeat(lambda: self.op("icmp slt", self.watch(done), target)):
            now = self.get(looks)
            self.set(looks, self.op("add", now, 1))
            with self.when(self.op("icmp eq", now, patience)), self.loop(parts, begin="1") as away:
                part = self.op("urem", self.op("add", "%me", away), parts)
                self.line(f"call void @part(ptr %call, ptr %phase, ptr %memory, i64 %step, i64 {part})")
            if is_x86():
                self.declared.add("declare void @llvm.x86.sse2.pause()")
                self.line("call void @llvm.x86.sse2.pause()")
            with self.when(self.op("icmp sgt", now, awake)):
                if not has_futex():
                    self.let(f"call i32 {self.pointer('yield')}()")
                else:
                    sleeping = self.pointer("sleeping")
                    self.increase(sleeping, 1)
                    shown = self.watch(done)
                    with self.when(self.op("icmp slt", shown, target)):
                        self._futex(done, FUTEX_WAIT, self.let(f"trunc i64 {shown} to i32"))
                    self.increase(sleeping, -1)

    def _futex(self, counter: str, what: int, number: str) -> None:
        """Sleep while the lower half of a counter equals `number`, or wake `number` threads: futex(2)."""
        if has_futex():
            call = f"i64 {_futex_number()}, ptr {counter}, i32 {what}, i32 {number}, ptr null"
            self.let(f"call i64 (i64, ...) {self.pointer('wait')}({call})")


def _futex_number() -> int | None:
    """Number of Linux's system call futex(2); None where it is not known."""
    known = {"x86_64": 202, "aarch64": 98}
    return known.get(platform.machine()) if sys.platform == "linux" and sys.byteorder == "little" else None


def has_futex() -> bool:
    """Whether threads can sleep until a counter changes; elsewhere they yield the processor."""
    return _futex_number() is not None


@cache
def driver() -> str:
    """LLVM text of the driver."""
    return Driver().text


@cache
def system_functions() -> dict[str, int]:
    """Addresses of the operating system's functions that `CALL` names."""
    if sys.platform == "win32":
        library: Any = ctypes.windll.kernel32
        names = {
            "create": "CreateThread",
            "join": "WaitForSingleObject",
            "close": "CloseHandle",
            "yield": "SwitchToThread",
            "clock": "QueryPerformanceCounter",
        }
    else:
        library = ctypes.CDLL(None)
        names = {"create": "pthread_create", "join": "pthread_join", "yield": "sched_yield"}
        names["clock"] = "clock_gettime"
        names |= {"wait": "syscall"} if has_futex() else {}
    found = {what: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for what, name in names.items()}
    return {name: found.get(name, 0) for name in ("create", "join", "close", "wait", "yield", "clock")}
