"""Functions written as text: values, gradients against central differences, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xpnet import SGD
from xpnet.lab import descend, parse
from xpnet.lab.functions import CONSTANTS, FUNCTIONS, LONGEST, NAMED
from xpnet.nn.gradient_check import central_differences


def test_values_by_hand():
    points = np.array([[3.0, 2.0], [-1.0, 0.5]])
    for text, values in {
        "x + y": (5.0, -0.5),
        "x**2 / 2 - y^3": (-3.5, 0.375),
        "-x^2": (-9.0, -1.0),
        "2^y^2 + 0*x": (16.0, 2.0**0.25),
        "e*x + pi*y": (3 * np.e + 2 * np.pi, -np.e + np.pi / 2),
        "abs(x) * sqrt(y)": (3 * np.sqrt(2), np.sqrt(0.5)),
    }.items():
        np.testing.assert_allclose(parse(text, "xy")(points), values, rtol=1e-14, err_msg=text)


@pytest.mark.parametrize(
    "text",
    [
        *(text for text in NAMED if "y" in NAMED[text]),
        *(f"{name}(0.3*x + y^2 + 1)" for name in FUNCTIONS),
        "x/y - y/x + x^-2",
        "(x^2 + 1)^y",
        "x^0 + 2^x",
        "+x - -y",
    ],
)
def test_gradients_are_those_of_central_differences(text, device, rng):
    f = replace(parse(text, "xy"), xp=device.xp)
    points = device.asarray(rng.uniform(0.5, 2.0, size=(20, 2)))
    found, numerical = (device.to_host(one) for one in (f.gradient(points), central_differences(f, points)))
    np.testing.assert_allclose(found, numerical, rtol=1e-6, atol=1e-7)


def test_of_one_variable():
    for name in ("parabola", "two-valleys", "waves"):
        f = parse(name, "x")
        assert f(np.zeros((5, 1))).shape == (5,)
        assert f.gradient(np.zeros((5, 1))).shape == (5, 1)
    assert parse("x²", "x") == parse("x**2", "x") == parse("parabola", "x")
    assert parse("x^2*y^10 - x^3", "xy").pretty == "x²·y^10 - x³"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an expression in x and y"),
        ("x +", "'x +' is not an expression in x and y"),
        ("3", "'3' does not depend on x or y"),
        ("z + x", "unknown name 'z' in the function: choose from: x, y"),
        ("sinn(x)", "unknown function 'sinn': did you mean 'sin'"),
        ("__import__('os').system('true')", "cannot be in a function"),
        ("x.real", "'x.real' cannot be in a function"),
        ("x if y else 2", "cannot be in a function"),
        ("x < y", "'x < y' cannot be in a function"),
        ("x + True", "'True' cannot be in a function"),
        ("x + 'a\x1b[31m'", "cannot be in a function"),
        ("x +\x1b[31m", r"'x +\x1b[31m' is not an expression"),
        ("sin(x, y)", "'sin(x, y)' cannot be in a function"),
        ("+".join(["x"] * LONGEST), f"at most {LONGEST} are read"),
        ("(" * 150 + "x" + ")" * 49, "is not an expression"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError) as caught:
        parse(text, "xy")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_named_function_hides_no_name():
    assert not {*NAMED} & {*FUNCTIONS, *CONSTANTS, "x", "y"}


def test_a_function_says_what_it_is_and_which_points_it_takes():
    f = parse("x + y", "xy")
    assert repr(f) == "Function(text='x + y', variables=('x', 'y'))"
    with pytest.raises(ValueError, match=r"points of x \+ y have 2 coordinates, not 1"):
        descend(f, [1.0], SGD(0.1), 1)
