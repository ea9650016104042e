"""What is recorded: views and types are NumPy's, and what cannot be recorded is refused in words."""

from __future__ import annotations

import operator
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import LLVM, WAYS, check, code_folder, copied, recorded, results, runner  # noqa: F401

from xpnet.compile import UntraceableError, traceable_names
from xpnet.compile.ir import overlap
from xpnet.compile.recorder import Recorder
from xpnet.compile.tracer import FUNCTIONS, TracedArray, TracingModule

quick = settings(derandomize=True, deadline=None, max_examples=200, database=None)


def array(recorder, name, shape, dtype):
    return TracedArray(recorder, recorder.input(name, shape, dtype))


def positions(view):
    """Which elements of its source a view has, in its shape."""
    index = np.full(view.shape, view.offset)
    for axis, stride in enumerate(view.strides):
        index += stride * np.arange(view.shape[axis]).reshape((-1,) + (1,) * (view.ndim - axis - 1))
    return index


def key(draw, length):
    """Draw an index of one axis: a whole number, or a slice that keeps something."""
    kind = draw(st.sampled_from(["all", "integer", "slice", "none"]))
    if kind == "integer":
        return draw(st.integers(-length, length - 1))
    if kind == "none":
        return None
    if kind == "all":
        return slice(None)
    start = draw(st.integers(0, length - 1))
    stop = draw(st.integers(start + 1, length))
    step = draw(st.sampled_from([1, 1, 2, -1]))
    return slice(start, stop, step) if step > 0 else slice(stop - 1, None if start == 0 else start - 1, -1)


@st.composite
def views(draw):
    """The shape of a leaf, and changes that make a view of it: functions of an array."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    array, changes = np.zeros(shape), []
    for kind in draw(st.lists(st.sampled_from(["index", "swap", "transpose", "reshape", "broadcast"]), max_size=4)):
        if kind == "index" and array.ndim:
            keys = []
            for length in array.shape:
                one = key(draw, length)
                keys += [None, slice(None)] if one is None else [one]
            changed = operator.itemgetter(tuple(keys))
        elif kind == "swap" and array.ndim > 1:
            changed = operator.methodcaller("swapaxes", -1, -2)
        elif kind == "transpose":
            changed = operator.methodcaller("transpose")
        elif kind == "reshape" and np.shares_memory(array, array.reshape(-1)) and array.size % 2 == 0:
            changed = operator.methodcaller("reshape", *draw(st.sampled_from([(-1,), (2, -1), (-1, 2), (1, -1, 1)])))
        elif kind == "broadcast" and array.ndim and array.shape[0] == 1:
            changed = broadcast_to((3, *array.shape[1:]))
        else:
            continue
        array = changed(array)
        changes.append(changed)
        if array.ndim > 4:
            break
    return shape, changes


def broadcast_to(shape):
    return lambda x: np.broadcast_to(x, shape) if isinstance(x, np.ndarray) else x.broadcast_to(shape)


def changed(x, changes):
    for change in changes:
        x = change(x)
    return x


@quick
@given(views())
def test_a_view_has_the_elements_that_numpys_has(made):
    shape, changes = made
    expected = changed(np.arange(np.prod(shape)).reshape(shape), changes)
    recorder = Recorder()
    view = changed(array(recorder, "x", shape, "float64"), changes)
    assert view.shape == expected.shape
    if not recorder.trace.operations:  # a reshape that is none of a view has made a copy
        np.testing.assert_array_equal(positions(view.view), expected)
        assert view.view.last == expected.reshape(-1)[-1]


@quick
@given(views(), views())
def test_views_with_an_element_in_common_overlap(one, other):
    (shape, first), (_, second) = one, other
    recorder = Recorder()
    leaf = array(recorder, "x", shape, "float64")
    try:
        views = changed(leaf, first), changed(leaf, second)
    except (IndexError, ValueError, UntraceableError):
        return  # the second one is for a leaf of another shape
    if not recorder.trace.operations and np.intersect1d(positions(views[0].view), positions(views[1].view)).size:
        assert overlap(*(one.view for one in views))


def test_columns_of_a_flat_vector_do_not_overlap_their_neighbours():
    """Otherwise each layer's parameters would depend on all others'."""
    flat = array(Recorder(), "p", (3, 10), "float64")
    W, b = flat[..., :6].reshape(3, 2, 3), flat[..., 6:9].reshape(3, 1, 3)
    assert not overlap(W.view, b.view)
    assert overlap(W.view, flat[..., 5:7].view)
    assert not overlap(flat[0].view, flat[1:].view)


# Types

OF_TYPES = ("float32", "float64", "int64", "int32", "uint8", "uint32", "bool")
NUMBERS = (2, 0.5)
OPERATORS = (
    *("add", "sub", "mul", "truediv", "and_", "or_", "xor", "lshift", "rshift", "lt", "le", "gt", "ge", "eq", "ne"),
)


def dtype_of(make):
    """The type that an expression has, or "none" where there is none of it."""
    try:
        return np.dtype(make())
    except (TypeError, UntraceableError):
        return "none"


def traced(dtype):
    return array(Recorder(), "x", (2, 3), dtype)


def known(dtype):
    """Whether a trace knows a type; NumPy's float16 and int8, for small integers, it refuses."""
    return dtype == "none" or dtype != np.float16


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_give_numpys_types(name):
    function = getattr(operator, name)
    for one, other in product(OF_TYPES, OF_TYPES):
        recorder = Recorder()
        x, y = array(recorder, "x", (2, 3), one), array(recorder, "y", (3,), other)
        expected = dtype_of(lambda x=one, y=other: function(np.ones((2, 3), x), np.ones(3, y)).dtype)
        if known(expected):
            assert dtype_of(lambda x=x, y=y: function(x, y).dtype) == expected, (name, one, other)
    for one, number in product(OF_TYPES, NUMBERS):
        assert_type_of_numpys(function, one, number)


def assert_type_of_numpys(function, dtype, number):
    """With the number on either side."""
    for swapped in (False, True):

        def of(x, swapped=swapped):
            return (function(number, x) if swapped else function(x, number)).dtype

        expected = dtype_of(lambda of=of: of(np.ones((2, 3), dtype)))
        if known(expected):
            assert dtype_of(lambda of=of: of(traced(dtype))) == expected, (dtype, number)


@pytest.mark.parametrize("dtype", OF_TYPES)
def test_true_is_a_number_as_any_other(dtype):
    assert_type_of_numpys(operator.mul, dtype, True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_numpys_types(name):
    function = getattr(np, name)
    for one in OF_TYPES:
        expected = dtype_of(lambda one=one: function(*[np.ones(3, one)] * function.nin).dtype)
        recorder = Recorder()
        x = array(recorder, "x", (3,), one)
        if known(expected):
            same = getattr(TracingModule(recorder), name)
            found = dtype_of(lambda x=x, same=same: same(*[x] * function.nin).dtype)
            assert found == expected, (name, one)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "all", "any", "argmax", "argmin"])
@pytest.mark.parametrize("one", OF_TYPES)
def test_reductions_give_numpys_types_and_shapes(one, name):
    for axis in (-1,) if name.startswith("arg") else (-1, -2, None, (-2, -1)):
        for keepdims in (False, True):
            expected = getattr(np.ones((2, 3, 4), one), name)(axis=axis, keepdims=keepdims)
            found = getattr(array(Recorder(), "x", (2, 3, 4), one), name)(axis=axis, keepdims=keepdims)
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype), (axis, keepdims)


@pytest.mark.parametrize("power", [0.5, 1, 2, 2.0, 3, 4])
@pytest.mark.parametrize("one", ["float32", "float64", "int64"])
def test_powers_give_numpys_types(one, power):
    assert (traced(one) ** power).dtype == (np.ones((2, 3), one) ** power).dtype


@pytest.mark.parametrize(
    "of",
    [
        lambda xp, x: xp.where(x > 0, 1.0, 0.0),
        lambda xp, x: xp.where(x > 0, x, 0.0),
        lambda xp, x: xp.where(x > 0, 1, x),
        lambda xp, x: xp.where(x > 0, True, False),
        lambda xp, x: xp.arange(3),
        lambda xp, x: xp.arange(1, 3, dtype="uint32"),
        lambda xp, x: xp.arange(3, dtype="float32"),
        lambda xp, x: xp.zeros((2,)),
        lambda xp, x: xp.ones_like(x),
        lambda xp, x: xp.full((2, 2), 7),
        lambda xp, x: xp.clip(x, 0, 1),
        lambda xp, x: x * np.float32(2.0),
        lambda xp, x: x * np.ones(3),
        lambda xp, x: x.astype("float32") * 0.1,
        lambda xp, x: ((x > 0) * (x > 1)) + (x > 2),
    ],
)
@pytest.mark.parametrize("one", ["float32", "float64", "int64", "uint8"])
def test_expressions_have_numpys_types(one, of):
    recorder = Recorder()
    found = of(TracingModule(recorder), array(recorder, "x", (2, 3), one))
    assert found.dtype == of(np, np.ones((2, 3), one)).dtype


def test_a_scalar_of_numpys_counts_by_its_type():
    """float32 times np.float64 is float64, since NumPy 2: it is no number of Python's."""
    assert (traced("float32") * np.float64(2.0)).dtype == np.float64


# What cannot be recorded

REFUSED = {
    "float(x)": (lambda xp, x: float(x.sum()), "value"),
    "int(x)": (lambda xp, x: int(x.sum()), "value"),
    "bool(x)": (lambda xp, x: bool(x.sum()), "value"),
    "if x": (lambda xp, x: x if x.sum() > 0 else -x, "value"),
    "x < y < z": (lambda xp, x: 0.0 < x < 1.0, "value"),
    "for row in x": (lambda xp, x: [row for row in x], "value"),  # noqa: C416
    "x.tolist()": (lambda xp, x: x.tolist(), "value"),
    "np.asarray(x)": (lambda xp, x: np.asarray(x), "value"),
    "np.where(x)": (lambda xp, x: np.where(x), "value"),
    "x[mask]": (lambda xp, x: x[x > 0], "indexing by an array"),
    "x[list]": (lambda xp, x: x[[0, 1]], "indexing by an array"),
    "xp.linalg": (lambda xp, x: xp.linalg.norm(x), "xp.linalg"),
    "xp.random": (lambda xp, x: xp.random.random(3), "xp.random"),
    "xp.sort": (lambda xp, x: xp.sort(x), "xp.sort"),
    "x[0] = result": (lambda xp, x: operator.setitem(x * 2, 0, 1.0), "computed in the step"),
    "result += 1": (lambda xp, x: operator.iadd(x * 2, 1.0), "computed in the step"),
    "over replicas": (lambda xp, x: x.sum(axis=0), "replicas"),
    "over replicas, by name": (lambda xp, x: xp.max(x, axis=-3), "replicas"),
    "x ** 5": (lambda xp, x: x**5, "power of 5"),
    "x ** x": (lambda xp, x: x**x, "power of"),
    "argmax of rows": (lambda xp, x: x.argmax(axis=-2), "position of an extreme"),
    "x @ row": (lambda xp, x: x @ x[0, 0], "product of arrays of 3 and 1 axes"),
    "float32 @ float64": (lambda xp, x: x @ x.astype("float32").swapaxes(-1, -2), "product of float64 and float32"),
    "four axes": (lambda xp, x: x[None] + 1.0, "4 axes"),
    "half precision": (lambda xp, x: x.astype("float16"), "float16"),
    "take by a list": (lambda xp, x: x.take([0, 1], axis=0), "take"),
    "take of a result": (lambda xp, x: (x + 1.0).take(x[0, 0], axis=0), "take"),
    "take along rows": (lambda xp, x: xp.take_along_axis(x, xp.arange(24).reshape(2, 3, 4), axis=1), "another axis"),
    "take by floats": (lambda xp, x: xp.take_along_axis(x, x, axis=-1), "whole numbers"),
    "nothing": (lambda xp, x: x + None, "NoneType"),
    "another trace": (lambda xp, x: x + traced("float64")[0], "another trace"),
    "arange of a float": (lambda xp, x: xp.arange(2.5), "whole numbers"),
    "nothing to add up": (lambda xp, x: x[:, :0].sum(axis=-2), "nothing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_recorded_is_said_in_words(name):
    do, words = REFUSED[name]
    with pytest.raises(UntraceableError, match=words):
        recorded(lambda xp, a: do(xp, a["x"]), {"x": np.ones((2, 3, 4))})


def test_the_list_of_names_has_all_that_can_be_recorded():
    functions, both, methods = (set(names) for names in traceable_names().values())
    defined = {name for name, value in vars(TracingModule).items() if name[0] != "_" and callable(value)}
    assert functions | both == {*FUNCTIONS, *defined, "abs"}
    assert methods >= {"T", "astype", "shape"}
    assert both >= {"sum", "argmax", "reshape"}
    assert not (both | methods) & {"item", "tolist", "broadcast_to", "sum_over_ranks"}
    for name in functions | both:
        assert getattr(TracingModule(Recorder([])), name)


@pytest.mark.parametrize("do", [np.exp, np.sum, lambda x: np.add(np.ones(4), x)])
def test_numpys_own_functions_refuse_a_traced_array(do):
    """By what NumPy says itself: it has no ufunc for such an operand."""
    with pytest.raises((TypeError, UntraceableError)):
        recorded(lambda xp, a: do(a["x"]), {"x": np.ones(4)})


def test_wrong_shapes_raise_what_numpy_raises():
    for do, error in (
        (lambda x: x + x[:, :2], ValueError),
        (lambda x: x @ x, ValueError),
        (lambda x: x.reshape(5, 5), ValueError),
        (lambda x: x[7], IndexError),
        (lambda x: x[0, 0, 0], IndexError),
        (lambda x: x.sum(axis=4), ValueError),
        (lambda x: x.__setitem__(0, x), ValueError),
    ):
        with pytest.raises(error):
            do(np.ones((3, 4)))
        with pytest.raises(error):
            do(array(Recorder(), "x", (3, 4), "float64"))


# Either as NumPy does it, or refused; never something else


def as_numpy_or_refused(step, arrays, steps=1):
    expected = results(step, arrays, "eager", steps)
    for way in WAYS:
        found = copied(arrays)
        try:
            one = runner(step, arrays, way)
        except (UntraceableError, TypeError, ValueError):
            continue  # while it is recorded: then it runs eagerly
        one.run(found, steps)
        for name, one in expected.items():
            np.testing.assert_allclose(found[name], one, rtol=1e-12, err_msg=f"{name}, {way}")


def numbers(*shape):
    return np.arange(1.0, 1.0 + np.prod(shape)).reshape(shape)


def test_an_array_made_in_the_step_can_be_filled_or_is_refused():
    def step(xp, a):
        z = xp.zeros((6,))
        z[:3] = a["x"]
        z[3:] = a["x"] * 2.0
        a["y"][...] = z

    as_numpy_or_refused(step, {"x": numbers(3), "y": numbers(6)})


def test_a_constant_is_the_same_in_every_step():
    def step(xp, a):
        c = xp.asarray([1.0, 2.0, 3.0])
        c[...] = c + a["x"]
        a["y"][...] = c

    as_numpy_or_refused(step, {"x": numbers(3), "y": numbers(3)}, steps=3)


@pytest.mark.parametrize(
    "copy",
    [
        lambda xp, x, i: x.copy(),
        lambda xp, x, i: x.astype(x.dtype),
        lambda xp, x, i: xp.array(x),
        lambda xp, x, i: x.take(i, axis=0),
        lambda xp, x, i: x.swapaxes(0, 1).reshape(-1).reshape(4, 4),
    ],
    ids=["copy", "astype", "array", "take", "reshape"],
)
def test_a_copy_stays_what_it_was(copy):
    def step(xp, a):
        before = copy(xp, a["x"], a["i"])
        a["x"][...] = a["x"] * 2.0
        a["y"][...] = before + 1.0

    as_numpy_or_refused(step, {"x": numbers(4, 4), "i": np.array([2, 1, 3, 3]), "y": numbers(4, 4)})


@pytest.mark.parametrize("dtype", ["float32", "bool"])
@pytest.mark.parametrize("lead", [(5,), (40,), (3, 18)])
@pytest.mark.parametrize(("columns", "taken"), [(7, 40), (20, 3), (1, 17), (9, 1)])
def test_elements_are_taken_at_an_index_that_is_computed(lead, columns, taken, dtype, rng):
    """Of an input, of a result and of a view that counts backwards, into loops that add up along columns too."""
    arrays = {
        "x": rng.integers(0, 200, (*lead, columns)).astype(dtype),
        "q": rng.random((*lead, taken)),
        "table": rng.normal(size=(1,) * (len(lead) - 1) + (1, columns)),
        "y": np.zeros((*lead, taken), dtype),
        "z": np.zeros((*lead, taken)),
        "s": np.zeros((*lead, 1)),
    }

    def step(xp, a):
        index = xp.floor(a["q"] * columns)
        result = a["x"].astype("float64") * 2.0 + a["s"]
        a["y"][...] = xp.take_along_axis(a["x"], index.astype("int64"), axis=-1)
        found = xp.take_along_axis(result, index.astype("int32"), axis=-1)
        found = found + a["q"] * xp.take_along_axis(result[..., ::-1], index.astype("uint8"), axis=-1)
        a["z"][...] = found + xp.take_along_axis(a["table"], index.astype("uint32"), axis=-1)
        a["s"][...] = 0.1 * found.sum(axis=-1, keepdims=True)

    check(step, arrays, steps=2, rtol=1e-12)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "replay"])
def test_an_index_that_is_out_of_bounds_reads_within_them(way):
    arrays = {"x": np.arange(40.0).reshape(20, 2), "i": np.full((20, 3), 2**31 - 1), "y": np.zeros((20, 3))}
    arrays["i"][:, 1] = -5

    def step(xp, a):
        a["y"][...] = xp.take_along_axis(a["x"] * 1.0, a["i"] * 4, axis=-1)

    found = results(step, arrays, way)["y"]
    assert (found == arrays["x"][:, 1:]).all()


def test_rows_are_taken_by_the_index_as_it_is_then():
    def step(xp, a):
        before = a["x"].take(a["i"], axis=0) * 1.0
        a["i"][...] = a["i"] + 1
        a["y"][...] = before + 10.0 * a["x"].take(a["i"], axis=0)

    as_numpy_or_refused(step, {"x": numbers(5, 3), "i": np.array([2, 1]), "y": numbers(2, 3)})


def test_argmax_of_everything():
    def step(xp, a):
        a["y"][...] = a["x"].argmax()

    as_numpy_or_refused(step, {"x": numbers(3, 4), "y": np.zeros(3, np.int64)})


def test_arange_from_a_negative_number():
    def step(xp, a):
        a["y"][...] = xp.arange(-1, 2).sum()

    as_numpy_or_refused(step, {"y": np.zeros((), np.int64)})


def test_counting_backwards():
    def step(xp, a):
        a["y"][...] = xp.arange(2, 8)[::-1] + a["x"]

    as_numpy_or_refused(step, {"x": np.zeros(6), "y": np.zeros(6)})


def test_whole_numbers_to_a_power_that_is_a_float():
    def step(xp, a):
        a["y"][...] = a["x"] ** 2.0

    as_numpy_or_refused(step, {"x": np.array([2**32, 3]), "y": np.zeros(2)})


@pytest.mark.parametrize("number", [300, -1, 255, 0])
def test_small_integers_against_numbers_beyond_them(number):
    def step(xp, a):
        a["less"][...] = a["x"] < number
        a["equal"][...] = a["x"] == number

    names = {"less": np.zeros(3, bool), "equal": np.zeros(3, bool)}
    as_numpy_or_refused(step, {"x": np.array([1, 50, 255], np.uint8), **names})


def test_integers_with_a_sign_against_those_without():
    def step(xp, a):
        a["less"][...] = a["x"] < a["y"]
        a["more"][...] = a["y"] < a["x"]

    x, y = np.array([1, -1, 5]), np.array([2**63 + 1, 5, 3], np.uint64)
    as_numpy_or_refused(step, {"x": x, "y": y, "less": np.zeros(3, bool), "more": np.zeros(3, bool)})


@pytest.mark.parametrize("dtype", [">i4", ">f4", ">f8", ">u2"])
def test_numbers_in_the_other_byte_order(dtype):
    def step(xp, a):
        a["y"][...] = a["x"] + a["x"]

    as_numpy_or_refused(step, {"x": np.array([1, 2, 3], dtype), "y": np.zeros(3)})


def test_a_condition_that_is_a_number():
    def step(xp, a):
        a["y"][...] = xp.where(a["x"], 1.0, 2.0)

    as_numpy_or_refused(step, {"x": np.array([0.0, 1.0, np.nan]), "y": np.zeros(3)})


def test_a_number_that_a_type_does_not_hold_is_refused():
    """As by NumPy, which raises OverflowError for uint8 and 300."""
    if LLVM:
        with pytest.raises((OverflowError, UntraceableError)):
            results(
                lambda xp, a: a["y"].__setitem__(..., a["x"] + 300), {"x": np.ones(3, "u1"), "y": np.ones(3)}, WAYS[1]
            )


@pytest.mark.parametrize("shape", [(2, 2, 2, 2), ()])
def test_every_element_of_named_memory_is_filled(shape):
    def step(xp, a):
        a["x"][...] = 3.0

    as_numpy_or_refused(step, {"x": np.ones(shape)})


def test_a_view_that_repeats_elements_is_not_stored_into():
    """NumPy's broadcast_to is read-only, too."""
    for way in ("eager", *WAYS):
        with pytest.raises((ValueError, UntraceableError)):
            results(lambda xp, a: xp.broadcast_to(a["x"], (4, 3)).__setitem__(..., 1.0), {"x": numbers(3)}, way)


def test_what_is_asked_for_twice_is_recorded_once():
    def step(xp, a):
        a["y"][...] = xp.exp(a["x"]) + xp.exp(a["x"])

    trace = recorded(step, {"x": numbers(3), "y": numbers(3)})
    assert [operation.name for operation in trace.operations] == ["exp", "add", "store"]


def test_what_was_stored_is_not_loaded_again():
    """Reading a view after a store into it is reading what was stored; a store over a part of it ends that."""

    def step(xp, a):
        a["x"][...] = a["x"] * 2.0
        a["y"][...] = a["x"] + 1.0
        a["x"][1:] = 0.0
        a["z"][...] = a["x"] + 1.0

    arrays = {"x": numbers(3), "y": numbers(3), "z": numbers(3)}
    trace = recorded(step, arrays)
    first, second = (operation for operation in trace.operations if operation.name == "add")
    assert first.arguments[0].source.name == "multiply"
    assert second.arguments[0].source.name == "x"
    check(step, arrays)


@pytest.mark.parametrize(
    ("do", "error"),
    [
        (lambda xp, x: x.transpose(0, 3), ValueError),
        (lambda xp, x: x.sum(axis=(0, 0)), ValueError),
        (lambda xp, x: x.reshape(0, -1), ValueError),
    ],
)
def test_axes_are_checked_as_numpys_are(do, error):
    with pytest.raises(error):
        do(np, np.zeros((2, 3)))
    with pytest.raises(error):
        do(None, array(Recorder(), "x", (2, 3), "float64"))


@pytest.mark.parametrize(
    "do",
    [
        lambda x: x.astype("int32") << 40,
        lambda x: x * 10**400,
        lambda x: x.astype("int64") ** -1,
    ],
)
def test_numbers_that_no_element_can_hold_are_refused(do):
    with pytest.raises(UntraceableError):
        do(array(Recorder(), "x", (2, 3), "float64"))


def test_powers_of_truths_are_numpys():
    def step(xp, a):
        truth = a["x"] > 0.5
        a["y"][...] = truth**2 + truth**2

    check(step, {"x": np.linspace(0.0, 1.0, 7), "y": np.zeros(7)})


def test_asarray_of_the_same_type_is_the_array():
    def step(xp, a):
        x = xp.asarray(a["x"], dtype="float64")
        a["x"][...] = 7.0
        a["y"][...] = x

    check(step, {"x": numbers(3), "y": numbers(3)})


def test_arrays_that_are_missing_are_named():
    one = runner(lambda xp, a: a["y"].__setitem__(..., a["x"] + 1.0), {"x": numbers(3), "y": numbers(3)}, "replay")
    with pytest.raises(ValueError, match="x is missing"):
        one.run({"y": numbers(3)})


def test_what_is_gathered_from_is_the_same_in_all_steps():
    with pytest.raises(ValueError, match="both"):
        Recorder().input("x", (3, 2), "float64", gathered=True, per_step=True)
