"""The builder of LLVM text: instructions on vectors of a number of lanes and on single elements, loops and branches."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

BOOL = np.dtype(bool)
INT64 = np.dtype(np.int64)
UINT8 = np.dtype(np.uint8)


class Value(NamedTuple):
    """A value in a register.

    Attributes:
        name: in LLVM, with its %, or a constant.
        dtype: the type of an element.
        lanes: the number of elements of a vector; 1 for a single element.
    """

    name: str
    dtype: np.dtype[Any]
    lanes: int = 1

    @property
    def type(self) -> str:
        """LLVM's name of the type."""
        return f"<{self.lanes} x {scalar_type(self.dtype)}>" if self.wide else scalar_type(self.dtype)

    @property
    def wide(self) -> bool:
        """Whether it is a vector."""
        return self.lanes > 1


def scalar_type(dtype: np.dtype[Any]) -> str:
    """LLVM's name of a type in a register."""
    if dtype == BOOL:
        return "i1"
    if dtype.kind == "f":
        return "float" if dtype.itemsize == 4 else "double"
    return f"i{8 * dtype.itemsize}"


def memory_type(dtype: np.dtype[Any]) -> str:
    """LLVM's name of a type in memory."""
    return "i8" if dtype == BOOL else scalar_type(dtype)


class Builder:
    """Writes instructions, each of which gives a value a name of its own.

    Attributes:
        lanes: the number of elements of a vector.
        aligned: whether vectors in memory begin at multiples of their size.
        lines: the text so far.
        variables: the text that allocates variables, for the begin of the function.
        functions: those that are complete.
        declared: declarations of LLVM's functions that are called.
    """

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.aligned = False
        self.lines: list[str] = []
        self.variables: list[str] = []
        self.functions: list[str] = []
        self.count = 0
        self.declared: set[str] = set()

    def name(self, prefix: str = "v") -> str:
        """Return a new name."""
        self.count += 1
        return f"%{prefix}{self.count}"

    def emit(self, text: str, dtype: np.dtype[Any], lanes: int) -> Value:
        """Write an instruction that makes a value."""
        name = self.name()
        self.lines.append(f"  {name} = {text}")
        return Value(name, dtype, lanes)

    def line(self, text: str) -> None:
        """Write an instruction that makes none."""
        self.lines.append(f"  {text}")

    # Constants

    def number(self, value: float, like: Value) -> Value:
        """Return a constant of the floating type, and the width, of another value."""
        exact = float(np.array(value, like.dtype))  # LLVM takes a float's constant as the double that it equals
        text = f"0x{struct.unpack('>Q', struct.pack('>d', exact))[0]:016X}"
        return Value(self._splat(text, like), like.dtype, like.lanes)

    def integer(self, value: int, like: Value) -> Value:
        """Return a constant of the integer type, and the width, of another value."""
        return Value(self._splat(str(value), like), like.dtype, like.lanes)

    @staticmethod
    def _splat(text: str, like: Value) -> str:
        return f"<{', '.join([f'{scalar_type(like.dtype)} {text}'] * like.lanes)}>" if like.wide else text

    # Width

    def widen(self, value: Value) -> Value:
        """Return a vector of which each element is `value`."""
        if value.wide or self.lanes == 1:
            return value
        wide = self.vector(value.dtype)
        one = self.emit(f"insertelement {wide} poison, {value.type} {value.name}, i64 0", value.dtype, self.lanes)
        text = f"shufflevector {wide} {one.name}, {wide} poison, <{self.lanes} x i32> zeroinitializer"
        return self.emit(text, value.dtype, self.lanes)

    def vector(self, dtype: np.dtype[Any]) -> str:
        """LLVM's name of the type of a vector."""
        return Value("", dtype, self.lanes).type

    def alike(self, *values: Value) -> list[Value]:
        """Return values of one width."""
        if any(value.wide for value in values):
            return [self.widen(value) for value in values]
        return list(values)

    # Arithmetic

    def binary(self, operation: str, a: Value, b: Value) -> Value:
        """Return the result of one of LLVM's instructions on two values."""
        a, b = self.alike(a, b)
        return self.emit(f"{operation} {a.type} {a.name}, {b.name}", a.dtype, a.lanes)

    def add(self, a: Value, b: Value) -> Value:
        """Return a + b."""
        if a.dtype == BOOL:
            return self.binary("or", a, b)
        return self.binary("fadd contract" if a.dtype.kind == "f" else "add", a, b)

    def subtract(self, a: Value, b: Value) -> Value:
        """Return a - b."""
        return self.binary("fsub contract" if a.dtype.kind == "f" else "sub", a, b)

    def multiply(self, a: Value, b: Value) -> Value:
        """Return a b."""
        if a.dtype == BOOL:
            return self.binary("and", a, b)
        return self.binary("fmul contract" if a.dtype.kind == "f" else "mul", a, b)

    def divide(self, a: Value, b: Value) -> Value:
        """Return a / b."""
        return self.binary("fdiv", a, b)

    def compare(self, kind: str, a: Value, b: Value) -> Value:
        """Return the result of a comparison of LLVM's."""
        a, b = self.alike(a, b)
        word = "fcmp" if a.dtype.kind == "f" else "icmp"
        return self.emit(f"{word} {kind} {a.type} {a.name}, {b.name}", BOOL, a.lanes)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """Return a where the condition holds, and b elsewhere."""
        condition, a, b = self.alike(condition, a, b)
        return self.emit(
            f"select {condition.type} {condition.name}, {a.type} {a.name}, {b.type} {b.name}", a.dtype, a.lanes
        )

    def call(self, function: str, *arguments: Value) -> Value:
        """Return the result of an LLVM intrinsic on floats."""
        values = self.alike(*arguments)
        kind = values[0].type
        suffix = f"v{self.lanes}" * values[0].wide + ("f32" if values[0].dtype.itemsize == 4 else "f64")
        self.declared.add(f"declare {kind} @llvm.{function}.{suffix}({', '.join([kind] * len(values))})")
        given = ", ".join(f"{kind} {value.name}" for value in values)
        return self.emit(f"call {kind} @llvm.{function}.{suffix}({given})", values[0].dtype, values[0].lanes)

    def polynomial(self, x: Value, coefficients: list[float]) -> Value:
        """Return a polynomial at x, coefficients from the highest power down."""
        value = self.number(coefficients[0], x)
        for coefficient in coefficients[1:]:
            value = self.add(self.multiply(value, x), self.number(coefficient, x))
        return value

    # Types

    def bits(self, x: Value) -> Value:
        """Return the bits of a float, as a signed integer."""
        result = Value("", np.dtype(f"i{x.dtype.itemsize}"), x.lanes)
        return self.emit(f"bitcast {x.type} {x.name} to {result.type}", result.dtype, x.lanes)

    def from_bits(self, x: Value, dtype: np.dtype[Any]) -> Value:
        """Return the float that has these bits."""
        result = Value("", dtype, x.lanes)
        return self.emit(f"bitcast {x.type} {x.name} to {result.type}", dtype, x.lanes)

    def cast(self, x: Value, dtype: np.dtype[Any]) -> Value:
        """Return x in another type."""
        if x.dtype == dtype:
            return x
        target = Value("", dtype, x.lanes)
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
            return Value(x.name, dtype, x.lanes)
        else:
            word = "sext" if x.dtype.kind == "i" else "zext"
        return self.emit(f"{word} {x.type} {x.name} to {target.type}", dtype, x.lanes)

    # Memory. A bool is a byte there, 0 or 1.

    def load(self, address: str, dtype: np.dtype[Any], lanes: int = 1) -> Value:
        """Return an element (or, of a variable, a vector) in memory."""
        return self.emit(f"load {Value('', dtype, lanes).type}, ptr {address}", dtype, lanes)

    def store(self, address: str, value: Value) -> None:
        """Store a value into memory of its type."""
        self.line(f"store {value.type} {value.name}, ptr {address}")

    def load_vector(self, address: str, dtype: np.dtype[Any], mask: str | None) -> Value:
        """Load neighbouring elements."""
        kind = self.vector(dtype)
        if mask is None:
            return self.emit(f"load {kind}, ptr {address}, align {self._alignment(dtype)}", dtype, self.lanes)
        name = f"@llvm.masked.load.{self._suffix(dtype)}.p0"
        self.declared.add(f"declare {kind} {name}(ptr, i32, {self._mask}, {kind})")
        return self.emit(
            f"call {kind} {name}(ptr {address}, i32 {dtype.itemsize}, {self._mask} {mask}, {kind} zeroinitializer)",
            dtype,
            self.lanes,
        )

    def prefetch(self, address: str) -> None:
        """Fetch an address into the caches."""
        self.declared.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.line(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 3, i32 1)")

    def store_vector(self, address: str, value: Value, mask: str | None) -> None:
        """Store a vector's elements side by side."""
        size = value.dtype.itemsize
        if mask is None:
            self.line(f"store {value.type} {value.name}, ptr {address}, align {self._alignment(value.dtype)}")
            return
        name = f"@llvm.masked.store.{self._suffix(value.dtype)}.p0"
        self.declared.add(f"declare void {name}({value.type}, ptr, i32, {self._mask})")
        self.line(f"call void {name}({value.type} {value.name}, ptr {address}, i32 {size}, {self._mask} {mask})")

    def gather(self, addresses: str, dtype: np.dtype[Any], mask: str | None) -> Value:
        """Load elements from an address each."""
        kind = self.vector(dtype)
        name = f"@llvm.masked.gather.{self._suffix(dtype)}.v{self.lanes}p0"
        self.declared.add(f"declare {kind} {name}({self._pointers}, i32, {self._mask}, {kind})")
        return self.emit(
            f"call {kind} {name}({self._pointers} {addresses}, i32 {dtype.itemsize}, {self._mask} {mask or self._all},"
            f" {kind} zeroinitializer)",
            dtype,
            self.lanes,
        )

    def scatter(self, addresses: str, value: Value, mask: str | None) -> None:
        """Store elements to an address each."""
        name = f"@llvm.masked.scatter.{self._suffix(value.dtype)}.v{self.lanes}p0"
        self.declared.add(f"declare void {name}({value.type}, {self._pointers}, i32, {self._mask})")
        self.line(
            f"call void {name}({value.type} {value.name}, {self._pointers} {addresses}, i32 {value.dtype.itemsize},"
            f" {self._mask} {mask or self._all})"
        )

    def offset(self, address: str, steps: Value, dtype: np.dtype[Any]) -> str:
        """Return the address, or addresses, `steps` elements beyond one."""
        name = self.name("q")
        self.line(f"{name} = getelementptr {scalar_type(dtype)}, ptr {address}, {steps.type} {steps.name}")
        return name

    # Lanes

    def lane_numbers(self, dtype: np.dtype[Any]) -> Value:
        """Return 0, 1, 2, ..., one a lane."""
        return Value(f"<{', '.join(f'{scalar_type(dtype)} {lane}' for lane in range(self.lanes))}>", dtype, self.lanes)

    def below(self, count: Value) -> Value:
        """Return a mask of the first `count` lanes."""
        return self.compare("slt", self.lane_numbers(count.dtype), count)

    def rotate(self, value: Value, by: int) -> Value:
        """Return a vector whose lane k is lane k + `by` of another."""
        order = ", ".join(f"i32 {(lane + by) % self.lanes}" for lane in range(self.lanes))
        given = f"{value.type} {value.name}, {value.type} poison"
        return self.emit(f"shufflevector {given}, <{self.lanes} x i32> <{order}>", value.dtype, self.lanes)

    def first(self, value: Value) -> Value:
        """Return the first lane of a vector, or a single value as it is."""
        if not value.wide:
            return value
        return self.emit(f"extractelement {value.type} {value.name}, i64 0", value.dtype, 1)

    def _alignment(self, dtype: np.dtype[Any]) -> int:
        return dtype.itemsize * (self.lanes if self.aligned else 1)

    @property
    def _mask(self) -> str:
        return f"<{self.lanes} x i1>"

    @property
    def _all(self) -> str:
        return f"<{', '.join(['i1 1'] * self.lanes)}>"

    @property
    def _pointers(self) -> str:
        return f"<{self.lanes} x ptr>"

    def _suffix(self, dtype: np.dtype[Any]) -> str:
        """End of LLVM's names of functions on vectors of a type."""
        return f"v{self.lanes}{'f' if dtype.kind == 'f' else 'i'}{8 * dtype.itemsize}"

    # Single values by name: addresses, counts and conditions

    def let(self, text: str) -> str:
        """Write an instruction that makes a value, and return its name."""
        name = self.name()
        self.line(f"{name} = {text}")
        return name

    def variable(self, kind: str = "i64") -> str:
        """Return the address of a variable; LLVM finds a register for it."""
        name = self.name("s")
        self.variables.append(f"  {name} = alloca {kind}")
        return name

    def get(self, address: str, kind: str = "i64") -> str:
        """Return the value at an address."""
        return self.let(f"load {kind}, ptr {address}")

    def set(self, address: str, value: str | int, kind: str = "i64") -> None:
        """Store a value at an address."""
        self.line(f"store {kind} {value}, ptr {address}")

    def op(self, name: str, a: str | int, b: str | int, kind: str = "i64") -> str:
        """Return the result of an operation on two values of a type."""
        return self.let(f"{name} {kind} {a}, {b}")

    def at(self, kind: str, address: str, index: str) -> str:
        """Return the address of element `index` from an address on."""
        return self.let(f"getelementptr {kind}, ptr {address}, i64 {index}")

    def field(self, row: str, index: int) -> str:
        """Return a number in a row of them."""
        return self.get(self.at("i64", row, str(index)))

    def as_pointer(self, number: str) -> str:
        """Return an address that is given as a number."""
        return self.let(f"inttoptr i64 {number} to ptr")

    def least(self, a: str, b: str | int) -> str:
        """Return the smaller one of two numbers."""
        return self.let(f"select i1 {self.op('icmp slt', a, b)}, i64 {a}, i64 {b}")

    def greatest(self, a: str, b: str | int) -> str:
        """Return the larger one of two numbers."""
        return self.let(f"select i1 {self.op('icmp sgt', a, b)}, i64 {a}, i64 {b}")

    def part_of(self, count: str) -> tuple[str, str]:
        """Return the span of `count` elements that part %part of %parts has."""
        first = self.op("mul", count, "%part")
        return self.op("udiv", first, "%parts"), self.op("udiv", self.op("add", first, count), "%parts")

    def function(self, name: str, arguments: str, *of_one: str) -> str:
        """Return the result of one of LLVM's functions of an i64, and perhaps of what follows."""
        kinds = ", ".join(["i64", *(one.split()[0] for one in of_one)])
        self.declared.add(f"declare i64 @llvm.{name}.i64({kinds})")
        return self.let(f"call i64 @llvm.{name}.i64({', '.join([f'i64 {arguments}', *of_one])})")

    def splat(self, value: str, kind: str, number: int) -> str:
        """Return a vector of which each element is `value`."""
        wide = f"<{number} x {kind}>"
        one = self.let(f"insertelement {wide} poison, {kind} {value}, i64 0")
        return self.let(f"shufflevector {wide} {one}, {wide} poison, <{number} x i32> zeroinitializer")

    def label(self, name: str) -> None:
        """Write a label."""
        self.lines.append(f"{name}:")

    def leave_if(self, condition: str, to: str = "leave") -> None:
        """Write a jump to a label for where a condition holds."""
        stay = self.name("stay")[1:]
        self.line(f"br i1 {condition}, label %{to}, label %{stay}")
        self.label(stay)

    @contextmanager
    def repeat(self, condition: Callable[[], str]) -> Iterator[str]:
        """Write a loop that runs while a condition holds; its value is the label behind it."""
        head, body, end = (self.name(name)[1:] for name in ("head", "body", "end"))
        self.line(f"br label %{head}")
        self.label(head)
        self.line(f"br i1 {condition()}, label %{body}, label %{end}")
        self.label(body)
        yield end
        self.line(f"br label %{head}")
        self.label(end)

    @contextmanager
    def loop(self, end: str | int, *, begin: str | int = 0, step: str | int = 1) -> Iterator[str]:
        """Write a loop for an index from `begin` to below `end`. Behind it, the index is the first one beyond."""
        variable = self.variable()
        self.set(variable, begin)
        index = self.name()

        def below() -> str:
            self.line(f"{index} = load i64, ptr {variable}")
            return self.op("icmp slt", index, end)

        with self.repeat(below):
            yield index
            self.set(variable, self.op("add", index, step))

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Write a branch for where a condition holds."""
        then, behind = (self.name(name)[1:] for name in ("then", "behind"))
        self.line(f"br i1 {condition}, label %{then}, label %{behind}")
        self.label(then)
        yield
        self.line(f"br label %{behind}")
        self.label(behind)

    @contextmanager
    def define(self, head: str | Callable[[], str], end: str = "ret void") -> Iterator[None]:
        """Write a function; its head may be known only when its body is written."""
        self.lines, self.variables = [], []
        yield
        body = [*self.variables, *self.lines, f"  {end}"]
        self.functions.append("\n".join([f"define {head() if callable(head) else head} {{", "entry:", *body, "}"]))

    @property
    def text(self) -> str:
        """The functions, with the declarations that they need."""
        return "\n".join([*self.functions, *sorted(self.declared)]) + "\n"
