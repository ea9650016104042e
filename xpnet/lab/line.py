"""python -m xpnet.lab line: a line fitted to points by descent on slope and intercept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..core.device import Array, HostArray
from ..optim import SGD
from ..training.descent import Descent, descend
from . import experiment
from .experiment import Experiment, Lab, Words

POINTS = 40
SLOPE, INTERCEPT, NOISE = 2.0, 1.0, 0.8  # the line that the points lie around
START = (-1.0, 4.0)
RATE = 0.1
STEPS = 5000
TOLERANCE = 1e-6  # of the gradient
MOMENTS = (0, 1, 3, 30, 100)  # steps after which the line is drawn
SHARES = (0.1, 0.5, 0.9, 1.1)  # of the largest rate that does not diverge


def draw_points(seed: int) -> tuple[HostArray, HostArray]:
    """Draw points around the line: x and y, each (POINTS,)."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(0.0, 4.0, POINTS)
    return x, SLOPE * x + INTERCEPT + NOISE * generator.normal(size=POINTS)


def mean_squared_error(x: Array, y: Array) -> Callable[[Any], Any]:
    """Return the function of lines, (..., 2) slopes and intercepts, that gives the mean of (a x + b - y)^2, (...)."""
    return lambda lines: (residuals(x, y, lines) ** 2).mean(axis=-1)


def gradient(x: Array, y: Array) -> Callable[[Any], Any]:
    """Return the gradient of the mean squared error: 2 mean(r x) by the slope, 2 mean(r) by the intercept."""

    def slopes(lines: Any) -> Any:
        r = residuals(x, y, lines)
        g = lines * 0.0
        g[..., 0], g[..., 1] = 2.0 * (r * x).mean(axis=-1), 2.0 * r.mean(axis=-1)
        return g

    return slopes


def residuals(x: Array, y: Array, lines: Any) -> Any:
    """Return r = a x + b - y, (..., N), for lines, (..., 2), and points x and y, (N,)."""
    return lines[..., 0:1] * x + lines[..., 1:2] - y


def fit(lab: Lab, x: HostArray, y: HostArray, rate: float, steps: int, tolerance: float | None = None) -> Descent:
    """Descend on slope and intercept from START."""
    points = lab.device.asarray(x), lab.device.asarray(y)
    loss, slopes = mean_squared_error(*points), gradient(*points)
    return descend(loss, START, SGD(rate), steps, gradient=slopes, tolerance=tolerance, device=lab.device)


def least_squares(x: HostArray, y: HostArray) -> HostArray:
    """Slope and intercept of the exact solution, (2,)."""
    return np.asarray(np.linalg.lstsq(np.stack([x, np.ones_like(x)], axis=1), y)[0])


def curvatures(x: HostArray) -> HostArray:
    """Smallest and largest curvature of the loss, (2,): the eigenvalues of its second derivatives.

    These are 2 mean(x^2), 2 mean(x) and 2, for any y; descent diverges above the rate 2 / the largest.
    """
    second = 2.0 * np.array([[(x**2).mean(), x.mean()], [x.mean(), 1.0]])
    return np.asarray(np.linalg.eigvalsh(second))


def run(lab: Lab) -> None:
    """Fit the line, compare it with the exact solution, and find which rates work, with x and with centred x."""
    x, y = draw_points(lab.seed)
    exact = least_squares(x, y)
    found = fit(lab, x, y, RATE, STEPS, TOLERANCE)
    best = mean_squared_error(x, y)(exact)
    lab.say(f"{POINTS} points around y = {SLOPE:g} x + {INTERCEPT:g}, descent from {START} at rate {RATE:g}")
    rows = []
    for step in sorted({min(step, found.steps) for step in (*MOMENTS, found.steps)}):
        (slope, intercept), loss = found.path[step], found.values[step]
        rows.append((str(step), f"{slope:.7f}", f"{intercept:.7f}", f"{loss:.7f}", f"{loss - best:.2e}"))
    rows.append(("least squares", f"{exact[0]:.7f}", f"{exact[1]:.7f}", f"{best:.7f}", ""))
    lab.table(("steps", "slope", "intercept", "loss", "above the least"), rows)
    distance = np.abs(found.x - exact).max()
    lab.say(f"{found.reason} after {found.steps} steps; off the exact solution by {distance:.1e} at the most")

    lab.say()
    lab.say(f"steps until the gradient is at most {TOLERANCE:g}, by the rate as a share of the largest stable one;")
    lab.say("centred: with the mean taken off x, which changes the intercept alone")
    limits = []
    for name, inputs in (("x as it is", x), ("x centred", x - x.mean())):
        least, greatest = curvatures(inputs)
        ends = [_end(fit(lab, inputs, y, share * 2.0 / greatest, STEPS, TOLERANCE)) for share in SHARES]
        limits.append((name, f"{greatest / least:.2f}", f"{2.0 / greatest:.3f}", *ends))
    head = ("inputs", "steep / flat", "largest rate", *(f"{share:.0%} of it" for share in SHARES))
    lab.table(head, limits)
    lab.draw("line", CAPTION, partial(_draw, x, y, exact, found))


def _end(found: Descent) -> str:
    return str(found.steps) if found.reason == "converged" else found.reason


def _draw(x: HostArray, y: HostArray, exact: HostArray, found: Descent) -> Any:
    """Draw the points with the line at MOMENTS, the path on the loss, and the loss above the least by step."""
    from ..plots import PALETTE, SURFACE, new_figure

    figure, grid = new_figure(1, 3, height=4.2)
    points, surface, curve = grid[0]
    loss = mean_squared_error(x, y)
    moments = [min(step, found.steps) for step in MOMENTS]

    ends = np.array([-0.2, 4.2])
    points.plot(x, y, "o", color="0.6", markersize=4)
    styles = ("-", (0, (1, 1)), "--", "-.", (0, (8, 2)))
    for step, style, color in zip(moments, styles, (6, 1, 4, 5, 2), strict=True):
        slope, intercept = found.path[step]
        line = points.plot(ends, slope * ends + intercept, color=PALETTE[color], linestyle=style)
        line[0].set_label(f"after {step} steps")
    points.plot(ends, exact[0] * ends + exact[1], color=PALETTE[0], linewidth=4.0, alpha=0.4, label="least squares")
    points.set(xlabel="x", ylabel="y", title="the line")
    points.legend(loc="upper left", fontsize=8)

    a, b = np.meshgrid(np.linspace(-1.5, 4.5, 200), np.linspace(-2.5, 5.0, 200))
    above = loss(np.stack([a, b], axis=-1)) - loss(exact)
    surface.contour(a, b, above, levels=np.geomspace(0.05, 100.0, 12), norm="log", cmap=SURFACE, linewidths=0.8)
    surface.plot(found.path[:, 0], found.path[:, 1], "o-", color=PALETTE[1], markersize=3, linewidth=1.0)
    surface.plot(*START, "s", color=PALETTE[6], markersize=7, label="start")
    surface.plot(*exact, "*", color=PALETTE[0], markersize=14, label="least squares", zorder=4)
    surface.set(xlabel="slope", ylabel="intercept", title="the loss, and the path on it")
    surface.legend(loc="lower left")

    curve.semilogy(np.maximum(found.values - loss(exact), 1e-16), color=PALETTE[1])
    curve.set(xlabel="step", ylabel="loss above that of least squares", title="how fast it gets there")
    return figure


CAPTION = Words(
    "A line fitted by descent: it walks to the least squares solution",
    "경사 하강법으로 맞춘 직선: 최소제곱해에 다가간다",
)

EXPERIMENT = Experiment(
    name="line",
    title=Words("A line fitted by descent", "경사 하강법으로 직선 맞추기"),
    text=Words(
        "A line has two parameters, its slope and its intercept. The mean squared error is a quadratic function of the"
        " two: a bowl whose contours are ellipses, with one minimum, which the least squares formula gives exactly and"
        " descent approaches. It falls into the valley within a few steps, and then takes many along it. The steepest"
        " direction of the bowl limits the rate: 2 divided by its curvature, and above that the walk diverges. With"
        " the mean taken off x the bowl is rounder, and far fewer steps are needed, for the same line.",
        "구할 것은 직선의 기울기(계수) a와 절편 b이다. 평균 제곱 오차는 이 둘에 대한 이차 함수이므로, 등고선이"
        " 타원인 그릇 모양이고 최솟값은 하나뿐이다. 최소제곱법은 그 위치를 공식으로 정확히 구하고, 경사 하강법은"
        " 그 위치에 다가간다. 처음 몇 번의 갱신으로 골짜기까지 내려간 다음, 골짜기를 따라 여러 번 갱신한다."
        " 그릇에서 가장 가파른 방향이 학습률의 한계를 정한다. 한계는 2를 그 방향의 곡률로 나눈 값이고, 그보다"
        " 크면 발산한다. x에서 평균을 빼면 그릇이 더 둥글어져, 같은 직선을 훨씬 적은 갱신으로 찾는다.",
    ),
    run=run,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
