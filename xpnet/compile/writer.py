"""Writing LLVM's language: instructions on vectors of LANES elements, and on single ones."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

LANES = 16  # elements of a vector, which LLVM cuts to the registers that there are: one of float32, with AVX-512
BOOL = np.dtype(bool)
INT64 = np.dtype(np.int64)
UINT8 = np.dtype(np.uint8)
MASK = f"<{LANES} x i1>"
ALL = f"<{', '.join(['i1 1'] * LANES)}>"
POINTERS = f"<{LANES} x ptr>"


class Value(NamedTuple):
    """A value of LLVM's: its name, its type, and whether it is a vector of LANES."""

    name: str
    dtype: np.dtype[Any]
    wide: bool

    @property
    def type(self) -> str:
        """LLVM's name of the type."""
        return f"<{LANES} x {scalar_type(self.dtype)}>" if self.wide else scalar_type(self.dtype)


def scalar_type(dtype: np.dtype[Any]) -> str:
    """Return LLVM's name of a type in a register."""
    if dtype == BOOL:
        return "i1"
    if dtype.kind == "f":
        return "float" if dtype.itemsize == 4 else "double"
    return f"i{8 * dtype.itemsize}"


def memory_type(dtype: np.dtype[Any]) -> str:
    """Return LLVM's name of a type in memory."""
    return "i8" if dtype == BOOL else scalar_type(dtype)


class Writer:
    """Writes instructions, each of which gives a value a name of its own."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0
        self.declared: set[str] = set()

    def name(self, prefix: str = "v") -> str:
        """Return a name that was not used."""
        self.count += 1
        return f"%{prefix}{self.count}"

    def emit(self, text: str, dtype: np.dtype[Any], wide: bool) -> Value:
        """Write an instruction that makes a value."""
        name = self.name()
        self.lines.append(f"  {name} = {text}")
        return Value(name, dtype, wide)

    def line(self, text: str) -> None:
        """Write an instruction that makes none."""
        self.lines.append(f"  {text}")

    # Constants

    def number(self, value: float, like: Value) -> Value:
        """Return a constant of the floating type, and the width, of another value."""
        exact = float(np.array(value, like.dtype))  # LLVM takes a float's constant as the double that it equals
        text = f"0x{struct.unpack('>Q', struct.pack('>d', exact))[0]:016X}"
        return Value(self._splat(text, like), like.dtype, like.wide)

    def integer(self, value: int, like: Value) -> Value:
        """Return a constant of the integer type, and the width, of another value."""
        return Value(self._splat(str(value), like), like.dtype, like.wide)

    @staticmethod
    def _splat(text: str, like: Value) -> str:
        return f"<{', '.join([f'{scalar_type(like.dtype)} {text}'] * LANES)}>" if like.wide else text

    # Width

    def widen(self, value: Value) -> Value:
        """Return a vector of which each element is `value`."""
        if value.wide:
            return value
        wide = Value("", value.dtype, True).type
        one = self.emit(f"insertelement {wide} poison, {value.type} {value.name}, i64 0", value.dtype, True)
        return self.emit(
            f"shufflevector {wide} {one.name}, {wide} poison, <{LANES} x i32> zeroinitializer", value.dtype, True
        )

    def alike(self, *values: Value) -> list[Value]:
        """Return values of one width."""
        if any(value.wide for value in values):
            return [self.widen(value) for value in values]
        return list(values)

    # Arithmetic

    def _two(self, operation: str, a: Value, b: Value) -> Value:
        a, b = self.alike(a, b)
        return self.emit(f"{operation} {a.type} {a.name}, {b.name}", a.dtype, a.wide)

    def add(self, a: Value, b: Value) -> Value:
        """Return a + b."""
        if a.dtype == BOOL:
            return self._two("or", a, b)
        return self._two("fadd contract" if a.dtype.kind == "f" else "add", a, b)

    def subtract(self, a: Value, b: Value) -> Value:
        """Return a - b."""
        return self._two("fsub contract" if a.dtype.kind == "f" else "sub", a, b)

    def multiply(self, a: Value, b: Value) -> Value:
        """Return a b."""
        if a.dtype == BOOL:
            return self._two("and", a, b)
        return self._two("fmul contract" if a.dtype.kind == "f" else "mul", a, b)

    def divide(self, a: Value, b: Value) -> Value:
        """Return a / b."""
        return self._two("fdiv", a, b)

    def integer_op(self, operation: str, a: Value, b: Value) -> Value:
        """Return the result of an integer operation of LLVM's."""
        return self._two(operation, a, b)

    def compare(self, kind: str, a: Value, b: Value) -> Value:
        """Return the result of a comparison of LLVM's."""
        a, b = self.alike(a, b)
        word = "fcmp" if a.dtype.kind == "f" else "icmp"
        return self.emit(f"{word} {kind} {a.type} {a.name}, {b.name}", BOOL, a.wide)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """Return a where the condition holds, and b elsewhere."""
        condition, a, b = self.alike(condition, a, b)
        return self.emit(
            f"select {condition.type} {condition.name}, {a.type} {a.name}, {b.type} {b.name}", a.dtype, a.wide
        )

    def call(self, function: str, *arguments: Value) -> Value:
        """Return the result of an LLVM intrinsic on floats."""
        values = self.alike(*arguments)
        kind = values[0].type
        suffix = f"v{LANES}" * values[0].wide + ("f32" if values[0].dtype.itemsize == 4 else "f64")
        self.declared.add(f"declare {kind} @llvm.{function}.{suffix}({', '.join([kind] * len(values))})")
        given = ", ".join(f"{kind} {value.name}" for value in values)
        return self.emit(f"call {kind} @llvm.{function}.{suffix}({given})", values[0].dtype, values[0].wide)

    def polynomial(self, x: Value, coefficients: list[float]) -> Value:
        """Return a polynomial at x, coefficients from the highest power down."""
        value = self.number(coefficients[0], x)
        for coefficient in coefficients[1:]:
            value = self.add(self.multiply(value, x), self.number(coefficient, x))
        return value

    # Types

    def bits(self, x: Value) -> Value:
        """Return the bits of a float, as a signed integer."""
        result = Value("", np.dtype(f"i{x.dtype.itemsize}"), x.wide)
        return self.emit(f"bitcast {x.type} {x.name} to {result.type}", result.dtype, x.wide)

    def from_bits(self, x: Value, dtype: np.dtype[Any]) -> Value:
        """Return the float that has these bits."""
        result = Value("", dtype, x.wide)
        return self.emit(f"bitcast {x.type} {x.name} to {result.type}", dtype, x.wide)

    def cast(self, x: Value, dtype: np.dtype[Any]) -> Value:
        """Return x in another type."""
        if x.dtype == dtype:
            return x
        target = Value("", dtype, x.wide)
        if dtype == BOOL:
            zero = self.number(0.0, x) if x.dtype.kind == "f" else self.integer(0, x)
            return self.compare("une" if x.dtype.kind == "f" else "ne", x, zero)
        if x.dtype.kind == "f" and dtype.kind == "f":
            word = "fpext" if dtype.itemsize > x.dtype.itemsize else "fptrunc"
        elif dtype.kind == "f":
            word = "sitofp" if x.dtype.kind == "i" else "uitofp"
        elif x.dtype.kind == "f":
            word = "fptosi" if dtype.kind == "i" else "fptoui"
        elif dtype.itemsize < x.dtype.itemsize:
            word = "trunc"
        elif dtype.itemsize == x.dtype.itemsize and x.dtype != BOOL:
            return Value(x.name, dtype, x.wide)
        else:
            word = "sext" if x.dtype.kind == "i" else "zext"
        return self.emit(f"{word} {x.type} {x.name} to {target.type}", dtype, x.wide)

    # Memory. A bool is a byte there, 0 or 1.

    def load(self, address: str, dtype: np.dtype[Any], wide: bool = False) -> Value:
        """Return an element (or, of what was allocated here, a vector) in memory."""
        kind = Value("", dtype, wide).type
        return self.emit(f"load {kind}, ptr {address}", dtype, wide)

    def store(self, address: str, value: Value) -> None:
        """Put a value into memory that holds one of its type."""
        self.line(f"store {value.type} {value.name}, ptr {address}")

    def load_vector(self, address: str, dtype: np.dtype[Any], mask: str | None) -> Value:
        """Return neighbouring elements."""
        kind = Value("", dtype, True).type
        if mask is None:
            return self.emit(f"load {kind}, ptr {address}, align {dtype.itemsize}", dtype, True)
        name = f"@llvm.masked.load.{_suffix(dtype)}.p0"
        self.declared.add(f"declare {kind} {name}(ptr, i32, {MASK}, {kind})")
        return self.emit(
            f"call {kind} {name}(ptr {address}, i32 {dtype.itemsize}, {MASK} {mask}, {kind} zeroinitializer)",
            dtype,
            True,
        )

    def prefetch(self, address: str) -> None:
        """Let what lies at an address be brought into the caches."""
        self.declared.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.line(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 3, i32 1)")

    def store_vector(self, address: str, value: Value, mask: str | None) -> None:
        """Put a vector's elements side by side."""
        size = value.dtype.itemsize
        if mask is None:
            self.line(f"store {value.type} {value.name}, ptr {address}, align {size}")
            return
        name = f"@llvm.masked.store.{_suffix(value.dtype)}.p0"
        self.declared.add(f"declare void {name}({value.type}, ptr, i32, {MASK})")
        self.line(f"call void {name}({value.type} {value.name}, ptr {address}, i32 {size}, {MASK} {mask})")

    def gather(self, addresses: str, dtype: np.dtype[Any], mask: str | None) -> Value:
        """Return elements that have an address each."""
        kind = Value("", dtype, True).type
        name = f"@llvm.masked.gather.{_suffix(dtype)}.v{LANES}p0"
        self.declared.add(f"declare {kind} {name}({POINTERS}, i32, {MASK}, {kind})")
        return self.emit(
            f"call {kind} {name}({POINTERS} {addresses}, i32 {dtype.itemsize}, {MASK} {mask or ALL},"
            f" {kind} zeroinitializer)",
            dtype,
            True,
        )

    def scatter(self, addresses: str, value: Value, mask: str | None) -> None:
        """Put elements to an address each."""
        name = f"@llvm.masked.scatter.{_suffix(value.dtype)}.v{LANES}p0"
        self.declared.add(f"declare void {name}({value.type}, {POINTERS}, i32, {MASK})")
        self.line(
            f"call void {name}({value.type} {value.name}, {POINTERS} {addresses}, i32 {value.dtype.itemsize},"
            f" {MASK} {mask or ALL})"
        )

    def offset(self, address: str, steps: Value, dtype: np.dtype[Any]) -> str:
        """Return addresses that lie so many elements beyond one."""
        name = self.name("q")
        self.line(f"{name} = getelementptr {scalar_type(dtype)}, ptr {address}, {steps.type} {steps.name}")
        return name

    # Lanes

    def steps(self, dtype: np.dtype[Any]) -> Value:
        """Return 0, 1, 2, ..., one a lane."""
        return Value(f"<{', '.join(f'{scalar_type(dtype)} {lane}' for lane in range(LANES))}>", dtype, True)

    def rotate(self, value: Value, by: int) -> Value:
        """Return a vector whose lane k is lane k + `by` of another."""
        order = ", ".join(f"i32 {(lane + by) % LANES}" for lane in range(LANES))
        given = f"{value.type} {value.name}, {value.type} poison"
        return self.emit(f"shufflevector {given}, <{LANES} x i32> <{order}>", value.dtype, True)

    def first(self, value: Value) -> Value:
        """Return the first lane of a vector, or a single value as it is."""
        if not value.wide:
            return value
        return self.emit(f"extractelement {value.type} {value.name}, i64 0", value.dtype, False)


def _suffix(dtype: np.dtype[Any]) -> str:
    """Return what LLVM's names of functions on vectors of a type end in."""
    return f"v{LANES}{'f' if dtype.kind == 'f' else 'i'}{8 * dtype.itemsize}"
