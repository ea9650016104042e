"""Compiling loops with LLVM, keeping them on disk, and running a plan's program on threads.

A program is a table of numbers: for each instruction its function's address, how it is divided, and where its own table
is. The functions are few, since they serve any sizes: each is compiled once, and found on disk from then on. One
function, `run`, goes through a program for many steps, without Python; each thread runs it on its own part, and they
meet where the plan says.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import struct
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..device import ALIGNMENT, CPU
from . import blas
from .loops import Entry, LoopText, Slot
from .plan import Meeting, Plan, Product
from .trace import Leaf, TracedArray, UntraceableError, blas_layout

# What goes through a program. An instruction is five numbers: the function, whether all threads take part (else the
# first alone does it), and where its table begins; a meeting's table has the counter's address.
DRIVER = """
define void @run(ptr %program, i64 %count, ptr %tables, ptr %memory, ptr %strides, i64 %slots, i64 %steps,
                 i64 %part, i64 %parts) {
entry:
  br label %step.head
step.head:
  %s = phi i64 [0, %entry], [%s.next, %step.end]
  %s.more = icmp slt i64 %s, %steps
  br i1 %s.more, label %code.head, label %done
code.head:
  %c = phi i64 [0, %step.head], [%c.next, %code.next]
  %c.more = icmp slt i64 %c, %count
  br i1 %c.more, label %code, label %move.head
code:
  %at = mul i64 %c, 3
  %p0 = getelementptr i64, ptr %program, i64 %at
  %address = load i64, ptr %p0
  %p1 = getelementptr i64, ptr %p0, i64 1
  %shared = load i64, ptr %p1
  %p2 = getelementptr i64, ptr %p0, i64 2
  %offset = load i64, ptr %p2
  %table = getelementptr i64, ptr %tables, i64 %offset
  %function = inttoptr i64 %address to ptr
  %all = icmp ne i64 %shared, 0
  br i1 %all, label %divided, label %alone
divided:
  call void %function(ptr %table, ptr %memory, i64 %part, i64 %parts)
  br label %code.next
alone:
  %first = icmp eq i64 %part, 0
  br i1 %first, label %mine, label %code.next
mine:
  call void %function(ptr %table, ptr %memory, i64 0, i64 1)
  br label %code.next
code.next:
  %c.next = add i64 %c, 1
  br label %code.head
move.head:
  %k = phi i64 [0, %code.head], [%k.next, %move]
  %k.more = icmp slt i64 %k, %slots
  br i1 %k.more, label %move, label %step.end
move:
  %m = getelementptr ptr, ptr %memory, i64 %k
  %pointer = load ptr, ptr %m
  %st = getelementptr i64, ptr %strides, i64 %k
  %stride = load i64, ptr %st
  %moved = getelementptr i8, ptr %pointer, i64 %stride
  store ptr %moved, ptr %m
  %k.next = add i64 %k, 1
  br label %move.head
step.end:
  %s.next = add i64 %s, 1
  br label %step.head
done:
  ret void
}
"""

# Threads meet at a counter that only grows: the last to come makes it a multiple of their number. Who waits long gives
# its time slice away, since the one it waits for may need that very processor.
MEETING = """
define void @meet(ptr %table, ptr %memory, i64 %part, i64 %parts) {
entry:
  %count = load i64, ptr %table
  %counter = inttoptr i64 %count to ptr
  %t1 = getelementptr i64, ptr %table, i64 1
  %yield = load i64, ptr %t1
  %give = inttoptr i64 %yield to ptr
  %before = atomicrmw add ptr %counter, i64 1 seq_cst
  %rounds = udiv i64 %before, %parts
  %round = add i64 %rounds, 1
  %target = mul i64 %round, %parts
  br label %wait
wait:
  %tries = phi i64 [0, %entry], [%tries.next, %again], [0, %giving]
  %now = load atomic i64, ptr %counter acquire, align 8
  %there = icmp uge i64 %now, %target
  br i1 %there, label %done, label %spin
spin:
  PAUSE
  %tries.next = add i64 %tries, 1
  %long = icmp ugt i64 %tries.next, 2000
  br i1 %long, label %giving, label %again
again:
  br label %wait
giving:
  %ignored = call i32 %give()
  br label %wait
done:
  ret void
}
"""

# C = A B for each replica, rows from %from to %to of all of them. The table: the function, replicas, M, N, K, and for A
# and B whether they are transposed, for all three slot, offset in bytes, stride between replicas and between rows.
PRODUCT = """
define void @product(ptr %table, ptr %memory, i64 %part, i64 %parts) {
entry:
  LOADS
  %sgemm = inttoptr i64 %t0 to ptr
  %all = mul i64 %t1, %t2
  %a0 = mul i64 %all, %part
  %from = udiv i64 %a0, %parts
  %a1 = add i64 %a0, %all
  %to = udiv i64 %a1, %parts
  %first = udiv i64 %from, %t2
  br label %head
head:
  %r = phi i64 [%first, %entry], [%r.next, %next]
  %begin = mul i64 %r, %t2
  %more = icmp slt i64 %begin, %to
  br i1 %more, label %body, label %done
body:
  %end = add i64 %begin, %t2
  %below = icmp slt i64 %from, %begin
  %lo = select i1 %below, i64 %begin, i64 %from
  %above = icmp slt i64 %to, %end
  %hi = select i1 %above, i64 %to, i64 %end
  %rows = sub i64 %hi, %lo
  %row = sub i64 %lo, %begin
  %some = icmp sgt i64 %rows, 0
  br i1 %some, label %multiply, label %next
multiply:
  %ta = trunc i64 %t5 to i32
  %tb = trunc i64 %t6 to i32
  %turned = icmp eq i64 %t5, 112
  %step = select i1 %turned, i64 1, i64 %t10
  %ar = mul i64 %r, %t9
  %am = mul i64 %row, %step
  %ao = add i64 %ar, %am
  %pa = getelementptr ELEMENT, ptr %ma, i64 %ao
  %bo = mul i64 %r, %t13
  %pb = getelementptr ELEMENT, ptr %mb, i64 %bo
  %cr = mul i64 %r, %t17
  %cm = mul i64 %row, %t18
  %co = add i64 %cr, %cm
  %pc = getelementptr ELEMENT, ptr %mc, i64 %co
  call void %sgemm(i32 101, i32 %ta, i32 %tb, i64 %rows, i64 %t3, i64 %t4, ELEMENT 1.0, ptr %pa, i64 %t10, ptr %pb,
                   i64 %t14, ELEMENT 0.0, ptr %pc, i64 %t18)
  br label %next
next:
  %r.next = add i64 %r, 1
  br label %head
done:
  ret void
}
"""


def product_text(dtype: str) -> str:
    """Return the function that multiplies matrices of a type."""
    loads = []
    for k in range(19):
        loads += [f"%q{k} = getelementptr i64, ptr %table, i64 {k}", f"%t{k} = load i64, ptr %q{k}"]
    for name, slot, offset in (("a", 7, 8), ("b", 11, 12), ("c", 15, 16)):
        loads += [
            f"%s{name} = getelementptr ptr, ptr %memory, i64 %t{slot}",
            f"%o{name} = load ptr, ptr %s{name}",
            f"%m{name} = getelementptr i8, ptr %o{name}, i64 %t{offset}",
        ]
    element = "float" if dtype == "float32" else "double"
    return PRODUCT.replace("LOADS", "\n  ".join(loads)).replace("ELEMENT", element)


class Compiler:
    """Compiles functions, each a module of its own, and keeps what it made in a folder."""

    def __init__(self, folder: Path | None) -> None:
        import llvmlite
        import llvmlite.binding as llvm

        self.llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        name, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        self.machine = target.create_target_machine(
            cpu=name, features=features, opt=3, jit=True, codemodel="jitdefault"
        )
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self.machine)
        self.folder = folder
        self.made_for = f"{llvmlite.__version__} {target.triple} {name} {features}"
        self.functions: dict[str, int] = {}
        self.compiled = 0  # how many were not on disk

    def address(self, text: str) -> int:
        """Return the address of the one function that `text` defines."""
        if text not in self.functions:
            digest = hashlib.sha256(f"{self.made_for}\n{text}".encode()).hexdigest()[:32]
            name = text.partition("@")[2].partition("(")[0]
            unique = f"{name}_{digest}"
            code = self._kept(digest) or self._compile(text.replace(f"@{name}(", f"@{unique}(", 1), digest)
            self.engine.add_object_file(self.llvm.ObjectFileRef.from_data(code))
            self.engine.finalize_object()
            self.functions[text] = self.engine.get_function_address(unique)
        return self.functions[text]

    def _compile(self, text: str, digest: str) -> bytes:
        llvm = self.llvm
        module = llvm.parse_assembly(text)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = options.slp_vectorization = False
        builder = llvm.create_pass_builder(self.machine, options)
        builder.getModulePassManager().run(module, builder)
        code: bytes = self.machine.emit_object(module)
        self.compiled += 1
        self._keep(digest, code)
        return code

    # A file holds the code and, before it, its SHA-256: a damaged one is not run.
    def _kept(self, digest: str) -> bytes | None:
        if self.folder is None:
            return None
        try:
            data = (self.folder / f"{digest}.o").read_bytes()
        except OSError:
            return None
        return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None

    def _keep(self, digest: str, code: bytes) -> None:
        if self.folder is None:
            return
        temporary = self.folder / f".{digest}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(hashlib.sha256(code).digest() + code)
            temporary.replace(self.folder / f"{digest}.o")
        except OSError:
            self.folder = None  # a disk that is full, or read-only: what is compiled is just not kept


@cache
def compiler() -> Compiler:
    """Return the compiler of this process."""
    return Compiler(Path("/tmp/xpnet-cache"))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="xpnet")


class Program:
    """A plan, compiled, with its workspace.

    Args:
        plan: what to run.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        found = blas.find()
        if found is None:
            raise UntraceableError("NumPy's BLAS is not one whose functions are known")
        self.blas = found
        make = compiler()
        self.slots: dict[Any, int] = {}
        for leaf in plan.trace.leaves:
            self.slots[leaf] = len(self.slots)
        for operation in plan.places:
            self.slots[operation] = len(self.slots)
        self.workspace = CPU.zeros((max(plan.size, 1),), "uint8")
        self.counter = np.zeros(ALIGNMENT // 8, np.int64)
        code: list[int] = []
        tables: list[int] = []
        for instruction in plan.instructions:
            if isinstance(instruction, Meeting):
                address, table, shared = make.address(meeting_text()), self._meeting(), 1
            elif isinstance(instruction, Product):
                dtype = instruction.operation.dtype.name
                address, table, shared = make.address(product_text(dtype)), self._product(instruction), 1
            else:
                loop = LoopText(instruction, plan)
                address, table = make.address(loop.text), [self._entry(entry) for entry in loop.table]
                shared = int(plan.divisions[instruction][0] != "one")
            code += [address, shared, len(tables)]
            tables += table
        self.code = np.array(code, np.int64)
        self.tables = np.array(tables, np.int64)
        function = make.address(DRIVER)
        self.function = ctypes.CFUNCTYPE(
            None, *[ctypes.c_void_p, ctypes.c_int64] * 1, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 4
        )(function)
        # A row for each thread: pointers move from step to step, and each thread moves its own.
        self.memory = np.zeros((plan.threads, -(-len(self.slots) // 8) * 8), np.int64)
        self.strides = np.zeros(len(self.slots), np.int64)
        self.given: dict[Leaf, int] = {}
        for leaf in plan.trace.leaves:
            if leaf.constant is None:
                self.given[leaf] = self.slots[leaf]
            else:
                self.memory[:, self.slots[leaf]] = leaf.constant.ctypes.data
        for operation, place in plan.places.items():
            self.memory[:, self.slots[operation]] = self.workspace.ctypes.data + place

    def _entry(self, entry: Entry) -> int:
        if isinstance(entry, Slot):
            return self.slots[entry.source]
        if isinstance(entry, float):
            return int(struct.unpack("<q", struct.pack("<d", entry))[0])
        return int(entry)

    def _meeting(self) -> list[int]:
        return [self.counter.ctypes.data, _yield_address()]

    def _product(self, product: Product) -> list[int]:
        a, b = product.operation.arguments
        assert isinstance(a, TracedArray)
        assert isinstance(b, TracedArray)
        shape = product.operation.shape
        replicas = shape[0] if len(shape) == 3 else 1
        table = [self.blas.products[product.operation.dtype.name], replicas, shape[-2], shape[-1], a.shape[-1]]
        layouts = [blas_layout(a), blas_layout(b)]
        table += [112 if layout and layout[0] else 111 for layout in layouts]
        for view, layout in ((a, layouts[0]), (b, layouts[1])):
            assert layout is not None
            step = view.strides[0] if view.ndim == 3 and view.shape[0] > 1 else 0
            table += [self.slots[view.source], view.offset * view.dtype.itemsize, step, layout[1]]
        target = product.target
        if target is None:
            table += [self.slots[product.operation], 0, shape[-2] * shape[-1], shape[-1]]
        else:
            layout = blas_layout(target)
            assert layout is not None
            step = target.strides[0] if target.ndim == 3 else 0
            table += [self.slots[target.source], target.offset * target.dtype.itemsize, step, layout[1]]
        return table

    def run(
        self,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        steps: int = 1,
        moves: Mapping[str, int] | None = None,
        first: int = 0,
    ) -> None:
        """Run the plan `steps` times.

        Args:
            arrays: the memory of each leaf, in C order, by name; of what moves, that of step 0.
            steps: how often.
            moves: by how many bytes the memory of a leaf lies further on in each step; by default none moves.
            first: the number of the first step, for what moves.

        Raises ValueError for an array that is not what was recorded. That what moves stays inside of its memory, and
        that rows that are taken are there, is for the caller to see to.
        """
        for leaf, slot in self.given.items():
            array = arrays[leaf.name]
            if array.shape != leaf.shape or array.dtype != leaf.dtype or not array.flags.c_contiguous:
                raise ValueError(f"{leaf.name} must be {leaf.shape} {leaf.dtype} in C order, as when it was recorded")
            move = 0 if moves is None else moves.get(leaf.name, 0)
            self.memory[:, slot] = array.ctypes.data + first * move
            self.strides[slot] = move
        threads = self.plan.threads
        self.counter[0] = 0
        with self.blas.one_thread():
            waiting = [_pool(threads).submit(self._part, part, steps) for part in range(1, threads)]
            self._part(0, steps)
            for future in waiting:
                future.result()

    def _part(self, part: int, steps: int) -> None:
        self.function(
            self.code.ctypes.data,
            len(self.code) // 3,
            self.tables.ctypes.data,
            self.memory[part].ctypes.data,
            self.strides.ctypes.data,
            len(self.slots),
            steps,
            part,
            self.plan.threads,
        )


def meeting_text() -> str:
    """Return the function in which threads meet."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    pause = "call void @llvm.x86.sse2.pause()" if x86 else ""
    return MEETING.replace("PAUSE", pause) + ("declare void @llvm.x86.sse2.pause()\n" if x86 else "")


@cache
def _yield_address() -> int:
    """Return the address of the system's function that gives a time slice away."""
    if sys.platform == "win32":
        function: Any = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
