"""The functions of every program, in LLVM's language: they multiply matrices.

Like a loop, a routine that an instruction names takes its table, the memory, and which part of how many it is to do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..llvm.builder import scalar_type

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


def product_text(dtype: np.dtype[Any]) -> str:
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
