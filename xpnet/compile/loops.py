"""From a loop of the plan to LLVM's language: one function a loop, for any sizes.

A loop handles LANES elements at a time, as vectors, which LLVM cuts to the registers that the processor has; what is
left of a row is handled under a mask. Sizes, strides and numbers are read from a table, so that the text (and what is
compiled from it) is the same for every network in which the loop occurs.

    void loop(i64 *table, ptr *memory, i64 part, i64 parts)

`memory` has a pointer for each leaf, and one for the workspace; the function does the part `part` of `parts`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import functions
from .plan import LANES, Loop, Plan, space_of, space_of_shape, views
from .trace import Counting, Leaf, Operation, Scalar, TracedArray, c_strides

BOOL = np.dtype(bool)
INT64 = np.dtype(np.int64)

COMPARISONS = {
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "equal": "eq",
    "not_equal": "ne",
}
BITWISE = {
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
    "logical_and": "and",
    "logical_or": "or",
    "logical_xor": "xor",
}


class UnsupportedError(Exception):
    """There is no way to compile this operation; the text says which."""


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

    def either(self, a: Value, b: Value) -> Value:
        """Return a or b."""
        return self._two("or", a, b)

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


def apply(w: Writer, operation: Operation, values: list[Value]) -> Value:
    """Write an elementwise operation, on operands of its types."""
    name, a = operation.name, values[0]
    b = values[1] if len(values) > 1 else a
    if name == "cast":
        return w.cast(a, operation.dtype)
    if name == "where":
        return w.select(a, values[1], values[2])
    if name in COMPARISONS:
        kind = COMPARISONS[name]
        if a.dtype.kind == "f":
            prefix = "u" if kind == "ne" else "o"
        else:
            prefix = "" if kind in ("eq", "ne") else "s" if a.dtype.kind == "i" else "u"
        return w.compare(prefix + kind, a, b)
    if name in BITWISE:
        if name.startswith("logical"):
            a, b = w.cast(a, BOOL), w.cast(b, BOOL)
        return w.integer_op(BITWISE[name], a, b)
    if name in ("add", "subtract", "multiply"):
        return getattr(w, name)(a, b)  # type: ignore[no-any-return]
    if name in ("maximum", "minimum"):
        return extreme(w, "max" if name == "maximum" else "min", a, b)
    if name == "divide":
        if a.wide and not b.wide:  # one division in place of many
            return w.multiply(a, w.divide(w.number(1.0, b), b))
        return w.divide(a, b)
    if name in ("left_shift", "right_shift"):
        word = "shl" if name == "left_shift" else "ashr" if a.dtype.kind == "i" else "lshr"
        return w.integer_op(word, a, b)
    if name == "negative":
        return (
            w.emit(f"fneg {a.type} {a.name}", a.dtype, a.wide)
            if a.dtype.kind == "f"
            else w.subtract(w.integer(0, a), a)
        )
    if name == "square":
        return w.multiply(a, a)
    if name in ("invert", "logical_not"):
        a = w.cast(a, BOOL) if name == "logical_not" else a
        return w.integer_op("xor", a, w.integer(-1 if a.dtype != BOOL else 1, a))
    if a.dtype.kind == "f":
        return _apply_float(w, name, a)
    if name == "absolute":
        return (
            a
            if a.dtype.kind != "i"
            else w.select(w.compare("slt", a, w.integer(0, a)), w.subtract(w.integer(0, a), a), a)
        )
    if name == "sign" and a.dtype.kind in "iu":
        positive = w.cast(w.compare("ne" if a.dtype.kind == "u" else "sgt", a, w.integer(0, a)), a.dtype)
        if a.dtype.kind == "u":
            return positive
        return w.subtract(positive, w.cast(w.compare("slt", a, w.integer(0, a)), a.dtype))
    raise UnsupportedError(f"{name} of {a.dtype}")


def _apply_float(w: Writer, name: str, a: Value) -> Value:
    zero, one = w.number(0.0, a), w.number(1.0, a)
    if name in functions.SERIES:
        return functions.SERIES[name](w, a)
    if name in ("sqrt", "floor", "ceil"):
        return w.call(name, a)
    if name == "absolute":
        return w.call("fabs", a)
    if name == "reciprocal":
        return w.divide(one, a)
    if name == "isnan":
        return w.compare("uno", a, a)
    if name in ("isfinite", "isinf"):
        kind = "olt" if name == "isfinite" else "oeq"
        return w.compare(kind, w.call("fabs", a), w.number(np.inf, a))
    if name == "sign":
        negative = w.select(w.compare("olt", a, zero), w.number(-1.0, a), a)  # 0 stays 0, and NaN stays NaN
        return w.select(w.compare("ogt", a, zero), one, negative)
    raise UnsupportedError(f"{name} of {a.dtype}")


def extreme(w: Writer, name: str, a: Value, b: Value) -> Value:
    """Return the larger, or the lesser, of two; NaN where one is NaN."""
    word = "gt" if name == "max" else "lt"
    if a.dtype.kind != "f":
        sign = "s" if a.dtype.kind == "i" else "u"
        return w.select(w.compare(sign + word, a, b), a, b)
    better = w.either(w.compare("o" + word, a, b), w.compare("uno", a, a))
    return w.select(better, a, b)


def combine(w: Writer, name: str, a: Value, b: Value) -> Value:
    """Return what a reduction makes of two values."""
    return w.add(a, b) if name == "sum" else extreme(w, name, a, b)


def neutral(name: str, dtype: np.dtype[Any]) -> float:
    """Return what changes nothing in a reduction."""
    if name == "sum":
        return 0
    if dtype.kind == "f":
        return -np.inf if name == "max" else np.inf
    if dtype == BOOL:
        return name == "min"
    return int(np.iinfo(dtype).min if name == "max" else np.iinfo(dtype).max)


@dataclass
class Slot:
    """In a table: the pointer of this memory."""

    source: Leaf | Operation


Entry = int | float | Slot


@dataclass
class _Pointer:
    """An operand in memory: where it begins, and its strides in elements along (R, rows, columns)."""

    base: str
    strides: tuple[str, str, str]
    zero: tuple[bool, bool, bool]
    unit: bool  # neighbours along columns lie side by side
    picked: tuple[int, TracedArray] | None
    counting: bool


class LoopText:
    """Writes one loop.

    Attributes:
        text: LLVM's language.
        table: what the function reads from its table.
    """

    def __init__(self, loop: Loop, plan: Plan) -> None:
        self.loop, self.plan = loop, plan
        self.w = Writer()
        self.table: list[Entry] = []
        self.entry: list[str] = []  # once
        self.outer: list[str] = []  # in each turn of the outer loop
        self.known: list[dict[Any, Any]] = [{}, {}, {}]  # values by scope: entry, outer, body
        self.mask: str | None = None
        self.level = 0
        self.inside = False  # whether it is the body that is being written
        self.by_rows = loop.along != "rows"
        self.pointers: dict[Any, _Pointer] = {}
        self.sums: dict[Operation, str] = {}
        self.indices = ["%r", "%i", "%j"]  # where the loops are, along (R, rows, columns)
        self.text = self._function()

    # The table

    def _table(self, entry: Entry) -> str:
        """Return the name of an entry of the table, i64, read on entry."""
        index = len(self.table)
        self.table.append(entry)
        name = f"%t{index}"
        self.entry += [
            f"  %ta{index} = getelementptr i64, ptr %table, i64 {index}",
            f"  {name} = load i64, ptr %ta{index}",
        ]
        return name

    # Where a value is made

    def _scope_of_view(self, view: TracedArray) -> int:
        """Return where a view's elements are loaded: 0 on entry, 1 in the outer loop, 2 in the body."""
        strides, picked = self._aligned(view), self._picked(view)
        varies = [s != 0 or (picked is not None and axis == picked[0]) for axis, s in enumerate(strides)]
        if varies[2 if self.by_rows else 1]:
            return 2
        changes = isinstance(view.source, Operation) or view.source in self._stored
        return 1 if any(varies) or changes else 0

    @property
    def _stored(self) -> set[Any]:
        return {operation.target.source for operation in self.loop.operations if operation.target is not None}

    def _picked(self, view: TracedArray) -> tuple[int, TracedArray] | None:
        """Return along which of (R, rows, columns) a view's rows are picked, and by what; None where it is one row."""
        if view.picked is None or view.shape[view.picked[0]] == 1:
            return None
        return view.picked[0] - view.ndim + 3, view.picked[1]

    def _aligned(self, view: TracedArray) -> tuple[int, ...]:
        """Return the strides of a view along (R, rows, columns); 0 along an axis that it does not have."""
        missing = 3 - view.ndim
        strides = (0,) * missing + tuple(0 if n == 1 else s for n, s in zip(view.shape, view.strides, strict=True))
        return strides

    def _scope(self, operand: TracedArray | Scalar) -> int:
        if not isinstance(operand, TracedArray):
            return 0
        source = operand.source
        if not isinstance(source, Operation) or (source not in self.loop.level and source not in self.plan.inlined):
            return self._scope_of_view(operand)
        if source.kind == "reduce":
            return 1
        if source in self.loop.level:
            if not self.loop.outer(source):
                return 2
            return 1
        return max(self._scope(argument) for argument in source.arguments)

    def _lines(self, scope: int) -> list[str]:
        if scope == 0:
            return self.entry
        return self.w.lines if self.inside and scope == 2 else self.outer

    def _at(self, scope: int, make: Any) -> Any:
        """Run `make` with what it writes going to a scope."""
        before, inside, mask = self.w.lines, self.inside, self.mask
        target = self._lines(scope)
        self.w.lines = target
        self.inside = inside and scope == 2
        if scope == 0:
            self.mask = None
        value = make()
        self.w.lines, self.inside, self.mask = before, inside, mask
        return value

    # Values

    def value(self, operand: TracedArray | Scalar, dtype: np.dtype[Any]) -> Value:
        """Return an operand, in the type that an operation takes it in."""
        scope = self._scope(operand)
        if isinstance(operand, TracedArray):
            source = operand.source
            here = isinstance(source, Operation) and (source in self.loop.level or source in self.plan.inlined)
            made = self._result(source, scope) if here else self._loaded(operand, scope)  # type: ignore[arg-type]
            return self._once(scope, ("cast", made.name, dtype), lambda: self.w.cast(made, dtype))
        return self._once(0, ("number", repr(operand), dtype), lambda: self._number(operand, dtype))

    def _once(self, scope: int, key: Any, make: Any) -> Any:
        """Return what was made under this key in this scope, or make it there."""
        if key not in self.known[scope]:
            self.known[scope][key] = self._at(scope, make)
        return self.known[scope][key]

    def _number(self, number: Scalar, dtype: np.dtype[Any]) -> Value:
        if dtype == BOOL:
            return Value("1" if number else "0", BOOL, False)
        if dtype.kind != "f":
            wrapped = int(
                np.array(int(number) & (2 ** (8 * dtype.itemsize) - 1), f"u{dtype.itemsize}")
                .astype(np.uint64)
                .view(np.int64)
            )
            return self.w.cast(Value(self._table(wrapped), INT64, False), dtype)
        bits = Value(self._table(float(number)), INT64, False)
        return self.w.cast(self.w.from_bits(bits, np.dtype(np.float64)), dtype)

    def _result(self, operation: Operation, scope: int) -> Value:
        """Return the result of an operation of this loop, or one that is done wherever it is needed."""
        if operation.kind == "reduce":
            if operation not in self.known[1]:
                raise AssertionError("a reduction is read before its pass")
            return self.known[1][operation]  # type: ignore[no-any-return]
        if operation in self.known[scope]:
            return self.known[scope][operation]  # type: ignore[no-any-return]
        if scope == 2 and operation in self.loop.kept and self.loop.level[operation] < self.level:
            return self._loaded(whole_of(operation), scope)

        def make() -> Value:
            operands = (
                [
                    self.value(argument, dtype)
                    for argument, dtype in zip(operation.arguments, operation.types, strict=True)
                ]
                if operation.name != "cast"
                else [self._uncast(operation.arguments[0])]
            )
            return apply(self.w, operation, operands)

        self.known[scope][operation] = self._at(scope, make)
        return self.known[scope][operation]  # type: ignore[no-any-return]

    def _uncast(self, operand: TracedArray | Scalar) -> Value:
        if isinstance(operand, TracedArray):
            return self.value(operand, operand.dtype)
        return self.value(operand, np.dtype(type(operand)))

    # Memory

    def _pointer(self, view: TracedArray) -> _Pointer:
        key = view.place
        if key not in self.pointers:
            strides = self._aligned(view)
            counting = isinstance(view.source, Counting)
            base = self._table(view.offset) if counting else self._base(view)
            picked = self._picked(view)
            if view.picked is not None and picked is None:
                base = self._only_row(view, base)
            names = tuple(
                "0"
                if s == 0 and not (picked and picked[0] == axis)
                else "1"
                if s == 1 and axis == 2
                else self._table(s)
                for axis, s in enumerate(strides)
            )
            zero = tuple(s == 0 and not (picked and picked[0] == axis) for axis, s in enumerate(strides))
            self.pointers[key] = _Pointer(base, names, zero, strides[2] == 1, picked, counting)  # type: ignore[arg-type]
        return self.pointers[key]

    def _sum(self, terms: list[tuple[str, str]]) -> str:
        """Write the sum of products of i64s, and return its name."""
        total = "0"
        for index, stride in terms:
            product = index
            if stride != "1":
                product = self.w.name("i")
                self.w.line(f"{product} = mul i64 {index}, {stride}")
            if total == "0":
                total = product
            else:
                name = self.w.name("i")
                self.w.line(f"{name} = add i64 {total}, {product}")
                total = name
        return total

    def _index(self, pointer: _Pointer, axis: int) -> str:
        """Return where along an axis of its memory a pointer is, given where the loops are."""
        if pointer.picked is None or pointer.picked[0] != axis:
            return self.indices[axis]
        index = self._picking(pointer.picked[1])
        inner = 2 if self.by_rows else 1

        def make() -> str:
            name = self.w.name("k")
            address = self._element(index, self.indices[axis])
            self.w.line(f"{name} = load i64, ptr {address}")
            return name

        return self._once(2 if axis == inner else 1, ("picked", pointer.picked[1].place, axis), make)  # type: ignore[no-any-return]

    def _only_row(self, view: TracedArray, base: str) -> str:
        """Return where the one row that is picked begins, found on entry."""
        assert view.picked is not None
        axis, index = view.picked
        first = self._base(index)
        stride = self._table(view.strides[axis] * view.dtype.itemsize)
        number = self.w.name("p")
        self.entry += [
            f"  {number}k = load i64, ptr {first}",
            f"  {number}o = mul i64 {number}k, {stride}",
            f"  {number} = getelementptr i8, ptr {base}, i64 {number}o",
        ]
        return number

    def _picking(self, index: TracedArray) -> _Pointer:
        """Return the pointer of an index, (B,), whichever axis it picks along."""
        key = ("index", index.place)
        if key not in self.pointers:
            base = self._base(index)
            self.pointers[key] = _Pointer(
                base, ("0", "0", self._table(index.strides[0])), (True,) * 3, False, None, False
            )
        return self.pointers[key]

    def _element(self, index: _Pointer, at: str) -> str:
        address = self.w.name("q")
        self.w.line(f"{address} = getelementptr i64, ptr {index.base}, i64 {self._sum([(at, index.strides[2])])}")
        return address

    def _base(self, view: TracedArray) -> str:
        """Return the address of a view's first element, found on entry."""
        slot = self._table(Slot(view.source))  # type: ignore[arg-type]
        offset = self._table(view.offset * view.dtype.itemsize)
        name = self.w.name("p")
        self.entry += [
            f"  {name}a = getelementptr ptr, ptr %memory, i64 {slot}",
            f"  {name}m = load ptr, ptr {name}a",
            f"  {name} = getelementptr i8, ptr {name}m, i64 {offset}",
        ]
        return name

    def _address(self, view: TracedArray, scope: int) -> tuple[str, _Pointer]:
        """Return the address (or, of counting numbers, the value) of a view's element at the start of a vector."""
        pointer = self._pointer(view)
        inner = 2 if self.by_rows else 1
        element = memory_type(view.dtype)

        def lanes(axis: int) -> bool:  # each lane picks its own
            return axis == 2 and pointer.picked is not None and pointer.picked[0] == 2

        def outer() -> str:
            axes = [axis for axis in range(3) if axis != inner and not pointer.zero[axis] and not lanes(axis)]
            total = self._sum([(self._index(pointer, axis), pointer.strides[axis]) for axis in axes])
            name = self.w.name("q")
            if pointer.counting:
                self.w.line(f"{name} = add i64 {pointer.base}, {total}")
            else:
                self.w.line(f"{name} = getelementptr {element}, ptr {pointer.base}, i64 {total}")
            return name

        varies = any(not pointer.zero[axis] for axis in range(3) if axis != inner)
        start = self._once(1 if varies or scope else 0, ("outer", view.place), outer) if varies else pointer.base
        if pointer.zero[inner] or scope != 2 or lanes(inner):
            return start, pointer

        def body() -> str:
            total = self._sum([(self._index(pointer, inner), pointer.strides[inner])])
            name = self.w.name("q")
            if pointer.counting:
                self.w.line(f"{name} = add i64 {start}, {total}")
            else:
                self.w.line(f"{name} = getelementptr {element}, ptr {start}, i64 {total}")
            return name

        return self._once(2, ("body", view.place), body), pointer

    def _wide(self, pointer: _Pointer) -> bool:
        return not pointer.zero[2]

    def _loaded(self, view: TracedArray, scope: int) -> Value:
        """Return the elements of a view that this turn is about."""
        return self._once(scope, ("load", view.place), lambda: self._load(view, scope))  # type: ignore[no-any-return]

    def _load(self, view: TracedArray, scope: int) -> Value:
        w, dtype = self.w, view.dtype
        address, pointer = self._address(view, scope)
        if pointer.counting:
            return self._count(view, address, pointer)
        element = memory_type(dtype)
        if not self._wide(pointer):
            loaded = w.emit(f"load {element}, ptr {address}", dtype, False)
        elif pointer.picked is not None and pointer.picked[0] == 2:
            index = self._picking(pointer.picked[1])
            step = Value(index.strides[2], INT64, False)
            first = self._element(index, self.indices[2])
            rows = self._gathered(self._addresses(first, step, "i64"), INT64)
            offsets = w.multiply(rows, Value(pointer.strides[2], INT64, False))
            loaded = self._gathered(self._lane_addresses(address, offsets, element), dtype)
        elif pointer.unit:
            vector = f"<{LANES} x {element}>"
            size = 1 if dtype == BOOL else dtype.itemsize
            if self.mask is None:
                loaded = w.emit(f"load {vector}, ptr {address}, align {size}", dtype, True)
            else:
                suffix = f"v{LANES}{_suffix(element)}.p0"
                w.declared.add(f"declare {vector} @llvm.masked.load.{suffix}(ptr, i32, <{LANES} x i1>, {vector})")
                loaded = w.emit(
                    f"call {vector} @llvm.masked.load.{suffix}(ptr {address}, i32 {size},"
                    f" <{LANES} x i1> {self.mask}, {vector} zeroinitializer)",
                    dtype,
                    True,
                )
        else:
            step = Value(pointer.strides[2], INT64, False)
            loaded = self._gathered(self._addresses(address, step, element), dtype)
        return self._truth(loaded) if dtype == BOOL else loaded

    def _truth(self, loaded: Value) -> Value:
        bytes_ = Value(loaded.name, np.dtype(np.uint8), loaded.wide)
        return self.w.compare("ne", bytes_, self.w.integer(0, bytes_))

    def _addresses(self, address: str, step: Value, element: str) -> str:
        """Return the addresses of elements that lie `step` apart."""
        lanes = Value(f"<{', '.join(f'i64 {k}' for k in range(LANES))}>", INT64, True)
        return self._lane_addresses(address, self.w.multiply(lanes, step), element)

    def _lane_addresses(self, address: str, offsets: Value, element: str) -> str:
        name = self.w.name("q")
        self.w.line(f"{name} = getelementptr {element}, ptr {address}, <{LANES} x i64> {offsets.name}")
        return name

    def _mask(self) -> str:
        return self.mask or f"<{', '.join(['i1 1'] * LANES)}>"

    def _gathered(self, addresses: str, dtype: np.dtype[Any]) -> Value:
        """Return the elements at addresses of their own."""
        w, element = self.w, memory_type(dtype)
        vector = f"<{LANES} x {element}>"
        suffix = f"v{LANES}{_suffix(element)}.v{LANES}p0"
        w.declared.add(f"declare {vector} @llvm.masked.gather.{suffix}(<{LANES} x ptr>, i32, <{LANES} x i1>, {vector})")
        return w.emit(
            f"call {vector} @llvm.masked.gather.{suffix}(<{LANES} x ptr> {addresses}, i32 {dtype.itemsize},"
            f" <{LANES} x i1> {self._mask()}, {vector} zeroinitializer)",
            dtype,
            True,
        )

    def _count(self, view: TracedArray, start: str, pointer: _Pointer) -> Value:
        w = self.w
        first = w.cast(Value(start, INT64, False), view.dtype)
        if not self._wide(pointer):
            return first
        lanes = Value(f"<{', '.join(f'{scalar_type(view.dtype)} {k}' for k in range(LANES))}>", view.dtype, True)
        if not pointer.unit:
            lanes = w.multiply(lanes, w.cast(Value(pointer.strides[2], INT64, False), view.dtype))
        return w.add(first, lanes)

    def _store(self, view: TracedArray, value: Value, scope: int) -> None:
        w = self.w
        address, pointer = self._address(view, scope)
        element = memory_type(view.dtype)
        if view.dtype == BOOL:
            value = w.emit(
                f"zext {value.type} {value.name} to {Value('', np.dtype(np.uint8), value.wide).type}",
                np.dtype(np.uint8),
                value.wide,
            )
        size = 1 if view.dtype == BOOL else view.dtype.itemsize
        if not self._wide(pointer):
            if value.wide:  # of a single column: the first lane is it
                value = w.emit(f"extractelement {value.type} {value.name}, i64 0", value.dtype, False)
            w.line(f"store {element} {value.name}, ptr {address}")
            return
        value = w.widen(value)
        vector = f"<{LANES} x {element}>"
        if not pointer.unit:
            name = self._addresses(address, Value(pointer.strides[2], INT64, False), element)
            suffix = f"v{LANES}{_suffix(element)}.v{LANES}p0"
            w.declared.add(
                f"declare void @llvm.masked.scatter.{suffix}({vector}, <{LANES} x ptr>, i32, <{LANES} x i1>)"
            )
            w.line(
                f"call void @llvm.masked.scatter.{suffix}({vector} {value.name}, <{LANES} x ptr> {name}, i32 {size},"
                f" <{LANES} x i1> {self._mask()})"
            )
        elif self.mask is None:
            w.line(f"store {vector} {value.name}, ptr {address}, align {size}")
        else:
            suffix = f"v{LANES}{_suffix(element)}.p0"
            w.declared.add(f"declare void @llvm.masked.store.{suffix}({vector}, ptr, i32, <{LANES} x i1>)")
            w.line(
                f"call void @llvm.masked.store.{suffix}({vector} {value.name}, ptr {address}, i32 {size},"
                f" <{LANES} x i1> {self.mask})"
            )

    # The loop

    def _function(self) -> str:
        space = [self._table(n) for n in self.loop.space]
        mode = self._table(0 if self.plan.divisions[self.loop][0] == "rows" else 1)
        levels = max(self.loop.level.values()) + 1
        body = self._rows(space, levels) if self.by_rows else self._columns(space, levels)
        sums = [f"  {name} = alloca {kind}" for name, kind in self._allocated]
        head = self._parts(space, mode)
        lines = [
            "define void @loop(ptr noalias %table, ptr noalias %memory, i64 %part, i64 %parts) {",
            "entry:",
            *sums,
            *self.entry,
            *head,
            *body,
            "  ret void",
            "}",
            *sorted(self.w.declared),
        ]
        return "\n".join(lines) + "\n"

    @property
    def _allocated(self) -> list[tuple[str, str]]:
        result = [(f"%counter{k}", "i64") for k in range(self._counters)]
        for operation, name in self.sums.items():
            result.append((name, Value("", operation.dtype, True).type))
        return result

    _counters = 0

    def _parts(self, space: list[str], mode: str) -> list[str]:
        """Return what finds this part's rows, %from to %to, and columns, %left to %right."""
        blocks = LANES - 1
        return [
            f"  %all = mul i64 {space[0]}, {space[1]}",
            f"  %bymode = icmp eq i64 {mode}, 0",
            *_share("rows", "%all"),
            f"  %blocks0 = add i64 {space[2]}, {blocks}",
            f"  %blocks = udiv i64 %blocks0, {LANES}",
            *_share("blocks", "%blocks"),
            f"  %left0 = mul i64 %blocksfrom, {LANES}",
            f"  %right0 = mul i64 %blocksto, {LANES}",
            f"  %beyond = icmp sgt i64 %right0, {space[2]}",
            f"  %right1 = select i1 %beyond, i64 {space[2]}, i64 %right0",
            "  %from = select i1 %bymode, i64 %rowsfrom, i64 0",
            "  %to = select i1 %bymode, i64 %rowsto, i64 %all",
            "  %left = select i1 %bymode, i64 0, i64 %left0",
            f"  %right = select i1 %bymode, i64 {space[2]}, i64 %right1",
        ]

    def _loop(self, index: str, start: str, stop: str, step: int, body: list[str], after: str = "") -> list[str]:
        """Return a loop over `index` from `start` while a whole `step` fits below `stop`."""
        k = self._counters
        self._counters += 1
        fits = f"{index}" if step == 1 else f"%fits{k}"
        return [
            f"  store i64 {start}, ptr %counter{k}",
            f"  br label %head{k}",
            f"head{k}:",
            f"  {index} = load i64, ptr %counter{k}",
            *([f"  %fits{k} = add i64 {index}, {step - 1}"] if step > 1 else []),
            f"  %more{k} = icmp slt i64 {fits}, {stop}",
            f"  br i1 %more{k}, label %body{k}, label %done{k}",
            f"body{k}:",
            *body,
            f"  %next{k} = add i64 {index}, {step}",
            f"  store i64 %next{k}, ptr %counter{k}",
            f"  br label %head{k}",
            f"done{k}:",
            *([after] if after else []),
        ]

    def _effects(self, level: int, *, outer: bool) -> list[Operation]:
        """Return the operations of a pass that write something, inside its loop or, where they are `outer`, before."""
        return [
            operation
            for operation in self.loop.operations
            if self.loop.level[operation] == level
            and self._is_outer(operation) == outer
            and (operation.kind in ("reduce", "store") or operation in self.loop.kept)
        ]

    def _is_outer(self, operation: Operation) -> bool:
        """Whether an operation writes once in a turn of the outer loop."""
        if operation.kind == "reduce":
            return False
        shape = space_of_shape(operation.target.shape) if operation.target is not None else space_of(operation)
        return shape[2 if self.by_rows else 1] == 1

    def _write(self, operations: list[Operation]) -> None:
        """Write what operations do, in their order; what goes to the workspace comes last, as others may read there."""
        later = []
        for operation in operations:
            for other in self._readers_before(operation):
                if self.loop.outer(other) != self.inside:
                    self._result(other, 2 if self.inside else 1)
            scope = 2 if self.inside else 1
            view = operation.arguments[0]
            if operation.kind == "reduce":
                self._accumulate(operation)
            elif operation.kind == "store":
                assert operation.target is not None
                value = self.value(view, operation.dtype)
                self._store(operation.target, value, scope)
                for key in [
                    key
                    for key in self.known[scope]
                    if isinstance(key, tuple) and key[0] == "load" and key[1][0] is operation.target.source
                ]:
                    del self.known[scope][key]
            else:
                later.append((whole_of(operation), self._result(operation, scope)))
        for view, value in later:
            self._store(view, value, 2 if self.inside else 1)

    def _readers_before(self, operation: Operation) -> list[Operation]:
        """Return the operations that read what a store is about to change."""
        if operation.target is None:
            return []
        return [
            other
            for other in self.loop.operations
            if other.index < operation.index
            and other.kind == "map"
            and self.loop.level[other] <= self.level
            and any(view.source is operation.target.source for view in views(other))
        ]

    def _accumulate(self, operation: Operation) -> None:
        w = self.w
        (view,) = operation.arguments
        value = self.value(view, operation.types[0])
        if operation not in self.sums:
            self.sums[operation] = f"%sum{len(self.sums)}"
        total = self.sums[operation]
        value = w.widen(value)
        kind = value.type
        if self.by_rows and self.mask is not None:
            mask = Value(self.mask, BOOL, True)
            value = w.select(mask, value, self._neutral(operation, value))
        old = w.emit(f"load {kind}, ptr {total}", operation.dtype, True)
        new = combine(w, operation.name, old, value)
        w.line(f"store {kind} {new.name}, ptr {total}")

    def _neutral(self, operation: Operation, like: Value) -> Value:
        start = neutral(operation.name, operation.dtype)
        return self.w.number(start, like) if operation.dtype.kind == "f" else self.w.integer(int(start), like)

    def _pass(self, level: int, loops: Any) -> list[str]:
        """Return one pass: what comes before its loop, the loop, and the results of its reductions."""
        self.level = level
        self.outer = []
        self.inside = False
        self.w.lines = self.outer
        self._write(self._effects(level, outer=True))
        inner = self._effects(level, outer=False)
        if not inner:
            return self.outer
        reductions = [operation for operation in inner if operation.kind == "reduce"]
        body = loops(inner, level)
        self.w.lines = start = []
        for operation in reductions:
            like = Value("", operation.dtype, True)
            self.w.line(f"store {like.type} {self._neutral(operation, like).name}, ptr {self.sums[operation]}")
        self.w.lines = end = []
        for operation in reductions:
            like = Value("", operation.dtype, True)
            total = self.w.emit(f"load {like.type}, ptr {self.sums[operation]}", operation.dtype, True)
            self.known[1][operation] = result = self._across(operation, total) if self.by_rows else total
            if operation in self.loop.kept:
                self._store(whole_of(operation), result, 1)
        return [*self.outer, *start, *body, *end]

    def _across(self, operation: Operation, total: Value) -> Value:
        """Return what a reduction makes of the elements of a vector."""
        w = self.w
        width = LANES
        while width > 1:
            width //= 2
            order = ", ".join(f"i32 {(k + width) % LANES}" for k in range(LANES))
            other = w.emit(
                f"shufflevector {total.type} {total.name}, {total.type} poison, <{LANES} x i32> <{order}>",
                total.dtype,
                True,
            )
            total = combine(w, operation.name, total, other)
        return w.emit(f"extractelement {total.type} {total.name}, i64 0", total.dtype, False)

    def _body(self, operations: list[Operation]) -> list[str]:
        self.known[2] = {}
        self.inside = True
        self.w.lines = lines = []
        self._write(operations)
        self.inside = False
        return lines

    def _rows(self, space: list[str], levels: int) -> list[str]:
        """Return the loop over rows, in which each pass goes over the columns."""

        def loops(operations: list[Operation], level: int) -> list[str]:
            index = self.indices[2] = f"%j{level}"
            self.mask = None
            full = self._loop(index, "%left", "%right", LANES, self._body(operations))
            self.mask = f"%mask{level}"
            tail = _tail(str(level), index, self._body(operations))
            self.mask = None
            return full + tail

        inner: list[str] = []
        for level in range(levels):
            inner += self._pass(level, loops)
        place = [f"  %r = udiv i64 %n, {space[1]}", f"  %i = urem i64 %n, {space[1]}"]
        return self._loop("%n", "%from", "%to", 1, place + inner)

    def _columns(self, space: list[str], levels: int) -> list[str]:
        """Return the loop over blocks of columns, in which each pass goes over the rows."""

        def block(name: str) -> list[str]:
            def loops(operations: list[Operation], level: int) -> list[str]:
                index = self.indices[1] = f"%i{name}{level}"
                return self._loop(index, "0", space[1], 1, self._body(operations))

            self.known[1] = {}
            lines: list[str] = []
            for level in range(levels):
                lines += self._pass(level, loops)
            return lines

        self.mask = None
        full = self._loop("%j", "%left", "%right", LANES, block("f"))
        self.mask = "%masktail"
        tail = _tail("tail", "%j", block("t"))
        self.mask = None
        return self._loop("%r", "0", space[0], 1, full + tail)


def whole_of(operation: Operation) -> TracedArray:
    """Return the whole result of an operation, as it lies."""
    return TracedArray(None, operation, operation.shape, c_strides(operation.shape), 0)  # type: ignore[arg-type]


def _tail(name: str, start: str, body: list[str]) -> list[str]:
    """Return what does the columns from `start` to %right, fewer than LANES, if there are any, under a mask."""
    lanes = ", ".join(f"i32 {k}" for k in range(LANES))
    kind = f"<{LANES} x i32>"
    return [
        f"  %rest{name} = icmp slt i64 {start}, %right",
        f"  br i1 %rest{name}, label %some{name}, label %none{name}",
        f"some{name}:",
        f"  %left64{name} = sub i64 %right, {start}",
        f"  %left32{name} = trunc i64 %left64{name} to i32",
        f"  %one{name} = insertelement {kind} poison, i32 %left32{name}, i64 0",
        f"  %wide{name} = shufflevector {kind} %one{name}, {kind} poison, {kind} zeroinitializer",
        f"  %mask{name} = icmp slt {kind} <{lanes}>, %wide{name}",
        *body,
        f"  br label %none{name}",
        f"none{name}:",
    ]


def _share(name: str, count: str) -> list[str]:
    """Return what finds where a part of `count` begins and ends."""
    return [
        f"  %{name}a = mul i64 {count}, %part",
        f"  %{name}from = udiv i64 %{name}a, %parts",
        f"  %{name}b = add i64 %{name}a, {count}",
        f"  %{name}to = udiv i64 %{name}b, %parts",
    ]


def _suffix(element: str) -> str:
    return {"float": "f32", "double": "f64"}.get(element, element)
