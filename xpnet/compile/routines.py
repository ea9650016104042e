"""The functions of every program, in LLVM's language: they go through it, multiply matrices, and let threads meet.

Like a loop, a routine that an instruction names takes its table, the memory, and which part of how many it is to do.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np

from .native import is_x86
from .writer import scalar_type

# Goes through a program, step by step. An instruction is three numbers: the function's address, how it is shared, and
# where in `tables` its own table begins. Shared is 0 where the first thread does it alone, 1 where each thread does a
# part, and n where each part is in n pieces: a thread that is done with its own helps with the others', so that all
# are done together even if one core is slower. `counters` has a cache line for each part of each instruction: how many
# pieces were asked for. In a step that is once for every piece, and once for every thread that finds none left. After
# each step, memory that moves is moved on by its stride.
DRIVER = """
define void @run(ptr %program, i64 %count, ptr %tables, ptr %counters, ptr %memory, ptr %strides, i64 %slots,
                 i64 %steps, i64 %part, i64 %parts) {
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
  switch i64 %shared, label %pieces [i64 0, label %alone
                                     i64 1, label %divided]
pieces:
  %claims = add i64 %shared, %parts
  %claimed = mul i64 %s, %claims
  %all = mul i64 %shared, %parts
  %line = mul i64 %c, %parts
  br label %visit
visit:
  %d = phi i64 [0, %pieces], [%d.next, %visit.next]
  %d.more = icmp slt i64 %d, %parts
  br i1 %d.more, label %visiting, label %code.next
visiting:
  %around = add i64 %part, %d
  %whose = urem i64 %around, %parts
  %own = add i64 %line, %whose
  %bytes = mul i64 %own, 64
  %counter = getelementptr i8, ptr %counters, i64 %bytes
  %begin = mul i64 %whose, %shared
  br label %take
take:
  %ticket = atomicrmw add ptr %counter, i64 1 monotonic
  %piece = sub i64 %ticket, %claimed
  %left = icmp slt i64 %piece, %shared
  br i1 %left, label %do, label %visit.next
do:
  %number = add i64 %begin, %piece
  call void %function(ptr %table, ptr %memory, i64 %number, i64 %all)
  br label %take
visit.next:
  %d.next = add i64 %d, 1
  br label %visit
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

# Threads meet at a counter that only grows: the last one to come makes it a multiple of their number. Who waits long
# gives its time slice away, since the one it waits for may need that very processor. Nobody waits in a run that is
# abandoned. The table: the addresses of the counter, of the system's function for giving way, and of the flag for that.
MEETING = """
define void @meet(ptr %table, ptr %memory, i64 %part, i64 %parts) {
entry:
  %count = load i64, ptr %table
  %counter = inttoptr i64 %count to ptr
  %t1 = getelementptr i64, ptr %table, i64 1
  %yield = load i64, ptr %t1
  %give = inttoptr i64 %yield to ptr
  %t2 = getelementptr i64, ptr %table, i64 2
  %flag = load i64, ptr %t2
  %abandoned = inttoptr i64 %flag to ptr
  %before = atomicrmw add ptr %counter, i64 1 seq_cst
  %rounds = udiv i64 %before, %parts
  %round = add i64 %rounds, 1
  %target = mul i64 %round, %parts
  br label %wait
wait:
  %tries = phi i64 [0, %entry], [%tries.next, %again], [0, %giving]
  %now = load atomic i64, ptr %counter acquire, align 8
  %there = icmp uge i64 %now, %target
  br i1 %there, label %done, label %alone
alone:
  %stop = load atomic i64, ptr %abandoned acquire, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %done, label %spin
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

# C = A B for each replica; a part is some of the rows of C. The table: the BLAS's function; replicas, M, N, K; the
# BLAS's words for whether A and B are transposed; for A, B and C the number of the pointer, the offset in bytes, and
# the elements from one replica, and from one row, to the next; the function for where A is mostly zeros (`sparse`), or
# 0, its scratch memory, and how many bytes of that there are for each part.
PRODUCT = """
define void @product(ptr %table, ptr %memory, i64 %part, i64 %parts) {
entry:
  LOADS
  %sgemm = inttoptr i64 %t0 to ptr
  %sparse = inttoptr i64 %t19 to ptr
  %looks = icmp ne i64 %t19, 0
  %all.scratch = inttoptr i64 %t20 to ptr
  %own = mul i64 %part, %t21
  %scratch = getelementptr i8, ptr %all.scratch, i64 %own
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
  br i1 %looks, label %look, label %dense
look:
  %did = call i64 %sparse(i64 %rows, i64 %t3, i64 %t4, ptr %pa, i64 %t10, ptr %pb, i64 %t14, ptr %pc, i64 %t18,
                          ptr %scratch)
  %is.done = icmp ne i64 %did, 0
  br i1 %is.done, label %next, label %dense
dense:
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


def product(dtype: np.dtype[Any]) -> str:
    """Return the function that multiplies matrices of a type."""
    loads = []
    for k in range(22):
        loads += [f"%q{k} = getelementptr i64, ptr %table, i64 {k}", f"%t{k} = load i64, ptr %q{k}"]
    for name, slot, offset in (("a", 7, 8), ("b", 11, 12), ("c", 15, 16)):
        loads += [
            f"%s{name} = getelementptr ptr, ptr %memory, i64 %t{slot}",
            f"%o{name} = load ptr, ptr %s{name}",
            f"%m{name} = getelementptr i8, ptr %o{name}, i64 %t{offset}",
        ]
    return PRODUCT.replace("LOADS", "\n  ".join(loads)).replace("ELEMENT", scalar_type(dtype))


def meeting() -> str:
    """Return the function in which threads meet."""
    if not is_x86():
        return MEETING.replace("PAUSE", "")
    return MEETING.replace("PAUSE", "call void @llvm.x86.sse2.pause()") + "declare void @llvm.x86.sse2.pause()\n"


@cache
def yield_address() -> int:
    """Return the address of the system's function that gives a time slice away."""
    if sys.platform == "win32":
        function: Any = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
