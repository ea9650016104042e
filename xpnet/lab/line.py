"""python -m xpnet.lab line: a line fitted to points by descent on slope and intercept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import Array, HostArray
from ..optim import SGD
from ..training.descent import Descent, descend
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to

POINTS = 40
SLOPE, INTERCEPT, NOISE = 2.0, 1.0, 0.8  # the line that the points lie around
START = (-1.0, 4.0)
RATE = 0.1
STEPS = 5000
MOST_STEPS = 1_000_000  # their path is kept
MOST_POINTS = 100_000
TOLERANCE = 1e-6  # of the gradient
MOMENTS = (0, 1, 3, 30, 100)  # steps after which the line is drawn
SHARES = (0.1, 0.5, 0.9, 1.1)  # of the largest rate that does not diverge


def draw_points(
    seed: int, points: int = POINTS, slope: float = SLOPE, intercept: float = INTERCEPT, noise: float = NOISE
) -> tuple[HostArray, HostArray]:
    """Draw points around a line, with this deviation from it: x and y, each (points,)."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(0.0, 4.0, points)
    return x, slope * x + intercept + noise * generator.normal(size=points)


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
    """Descend on slope and intercept from the start."""
    points = lab.device.asarray(x), lab.device.asarray(y)
    loss, slopes = mean_squared_error(*points), gradient(*points)
    return descend(loss, lab.options.start, SGD(rate), steps, gradient=slopes, tolerance=tolerance, device=lab.device)


def least_squares(x: HostArray, y: HostArray) -> HostArray:
    """Slope and intercept of the exact solution, (2,)."""
    return np.asarray(np.linalg.lstsq(np.stack([x, np.ones_like(x)], axis=1), y)[0])


def curvatures(x: HostArray) -> HostArray:
    """Smallest and largest curvature of the loss, (2,): the eigenvalues of its second derivatives.

    These are 2 mean(x^2), 2 mean(x) and 2, for any y; descent diverges above the rate 2 / the largest.
    """
    second = 2.0 * np.array([[(x**2).mean(), x.mean()], [x.mean(), 1.0]])
    return np.asarray(np.linalg.eigvalsh(second))


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        exact: slope and intercept of the least squares solution, (2,).
        rate: of the descent.
        found: the descent.
        largest_rate: above it descent diverges.
    """

    exact: HostArray
    rate: float
    found: Descent
    largest_rate: float

    @property
    def distance(self) -> float:
        """Largest distance of slope or intercept from the exact solution."""
        return float(np.abs(self.found.x - self.exact).max())


def add_options(parser: cli.Parser) -> None:
    """Add the line, its points, the start, the rate and the steps."""
    add = parser.add_argument
    add("--points", type=up_to(MOST_POINTS), default=POINTS, metavar="N", help=f"(default: {POINTS})")
    add(
        "--slope",
        type=cli.number,
        default=SLOPE,
        metavar="A",
        help=f"the points lie around A x + B (default: {SLOPE:g})",
    )
    add("--intercept", type=cli.number, default=INTERCEPT, metavar="B", help=f"(default: {INTERCEPT:g})")
    add("--noise", type=positive, default=NOISE, metavar="S", help=f"their deviation from it (default: {NOISE:g})")
    add("--start", type=cli.number, nargs=2, default=list(START), metavar=("A", "B"), help="(default: -1 4)")
    add("--rate", type=positive, default=RATE, metavar="RATE", help=f"(default: {RATE:g})")
    add("--steps", type=up_to(MOST_STEPS), default=STEPS, metavar="N", help=f"the most (default: {STEPS})")


def run(lab: Lab) -> Results:
    """Fit the line, compare it with the exact solution, and find which rates work, with x and with centred x."""
    options = lab.options
    steps = options.steps
    if options.points < 2:
        raise cli.UsageError("a line needs at least 2 points (--points)")
    x, y = draw_points(lab.seed, options.points, options.slope, options.intercept, options.noise)
    exact = least_squares(x, y)
    found = fit(lab, x, y, options.rate, steps, TOLERANCE)
    best = mean_squared_error(x, y)(exact)
    lab.say(
        f"{options.points} points around y = {options.slope:g} x + {options.intercept:g}, descent from"
        f" {tuple(options.start)} at rate {options.rate:g}"
    )
    rows = []
    for step in sorted({min(step, found.steps) for step in (*MOMENTS, found.steps)}):
        (slope, intercept), loss = found.path[step], found.values[step]
        rows.append((str(step), f"{slope:.7f}", f"{intercept:.7f}", f"{loss:.7f}", f"{loss - best:.2e}"))
    rows.append(("least squares", f"{exact[0]:.7f}", f"{exact[1]:.7f}", f"{best:.7f}", ""))
    lab.table(("steps", "slope", "intercept", "loss", "above the least"), rows)
    results = Results(exact, options.rate, found, 2.0 / float(curvatures(x)[1]))
    lab.say(f"{found.reason} after {found.steps} steps; off the exact solution by {results.distance:.1e} at the most")

    lab.say()
    lab.say(f"steps until the gradient is at most {TOLERANCE:g}, by the rate as a share of the largest stable one;")
    lab.say("centred: with the mean taken off x, which changes the intercept alone")
    limits = []
    for name, inputs in (("x as it is", x), ("x centred", x - x.mean())):
        least, greatest = curvatures(inputs)
        ends = [_end(fit(lab, inputs, y, share * 2.0 / greatest, steps, TOLERANCE)) for share in SHARES]
        limits.append((name, f"{greatest / least:.2f}", f"{2.0 / greatest:.3f}", *ends))
    head = ("inputs", "steep / flat", "largest rate", *(f"{share:.0%} of it" for share in SHARES))
    lab.table(head, limits)
    lab.draw("line", _caption(results), partial(_draw, x, y, results))
    return results


def _end(found: Descent) -> str:
    return str(found.steps) if found.reason == "converged" else found.reason


def _draw(x: HostArray, y: HostArray, results: Results) -> Any:
    """Draw the points with the line at MOMENTS, the path on the loss, and the loss above the least by step."""
    from ..plots import PALETTE, SURFACE, new_figure

    exact, found = results.exact, results.found
    figure, grid = new_figure(1, 3, height=4.2)
    points, surface, curve = grid[0]
    loss = mean_squared_error(x, y)
    inside = (np.abs(found.path - found.path[0]) <= 3.0 * np.abs(exact - found.path[0]).max()).all(axis=-1)
    there = found.path if inside.all() else found.path[: max(int(inside.argmin()), 4)]  # a start of what diverges
    moments = list(dict.fromkeys(min(step, len(there) - 1) for step in MOMENTS))

    ends = np.array([-0.2, 4.2])
    points.plot(x, y, "o", color="0.6", markersize=4)
    styles = ("-", (0, (1, 1)), "--", "-.", (0, (8, 2)))
    for step, style, color in zip(moments, styles, (6, 1, 4, 5, 2), strict=False):
        slope, intercept = found.path[step]
        line = points.plot(ends, slope * ends + intercept, color=PALETTE[color], linestyle=style)
        line[0].set_label(f"after {step} steps")
    points.plot(ends, exact[0] * ends + exact[1], color=PALETTE[0], linewidth=4.0, alpha=0.4, label="least squares")
    points.set(xlabel="x", ylabel="y", title="the line")
    points.legend(loc="upper left", fontsize=8)

    corners = np.stack([there.min(axis=0), there.max(axis=0), exact])
    low, high = corners.min(axis=0) - 0.5, corners.max(axis=0) + 0.5
    low, high = np.minimum(low, [-1.5, -2.5]), np.maximum(high, [4.5, 5.0])
    a, b = np.meshgrid(np.linspace(low[0], high[0], 200), np.linspace(low[1], high[1], 200))
    above = loss(np.stack([a, b], axis=-1)) - loss(exact)
    surface.contour(a, b, above, levels=np.geomspace(0.05, 100.0, 12), norm="log", cmap=SURFACE, linewidths=0.8)
    surface.plot(there[:, 0], there[:, 1], "o-", color=PALETTE[1], markersize=3, linewidth=1.0)
    surface.plot(*found.path[0], "s", color=PALETTE[6], markersize=7, label="start")
    surface.plot(*exact, "*", color=PALETTE[0], markersize=14, label="least squares", zorder=4)
    surface.set(xlabel="slope", ylabel="intercept", title="the loss, and the path on it")
    surface.legend(loc="lower left")

    curve.semilogy(np.maximum(found.values - loss(exact), 1e-16), color=PALETTE[1])
    curve.set(xlabel="step", ylabel="loss above that of least squares", title="how fast it gets there")
    return figure


def _caption(results: Results) -> Words:
    """Caption, by the end of the descent."""
    if results.found.reason == "diverged":
        return Words(
            f"A line fitted by descent: at rate {results.rate:g} it diverges",
            f"경사 하강법으로 맞춘 직선: 학습률 {results.rate:g}에서는 발산한다",
        )
    if results.distance > 0.01:
        return Words(
            f"A line fitted by descent: {results.found.steps} steps at rate {results.rate:g} are too few",
            f"경사 하강법으로 맞춘 직선: 학습률 {results.rate:g}로 {results.found.steps}번 갱신하는 것으로는 모자란다",
        )
    return Words(
        "A line fitted by descent: it walks to the least squares solution",
        "경사 하강법으로 맞춘 직선: 최소제곱해에 다가간다",
    )


def _judge_arrival(results: Results) -> Verdict:
    """Whether descent came near the least squares solution; a rate above the largest one explains that it did not."""
    found, rate, largest = results.found, results.rate, results.largest_rate
    near = f"|Δ| = {results.distance:.1e}; η = {rate:g}, η_max = {largest:.3f}"
    if found.reason != "diverged" and results.distance < 1e-3:
        return Verdict(
            "right",
            near,
            Words(
                f"After {found.steps} steps it is within {results.distance:.1e} of the exact solution; a suitable rate"
                f" is one below {largest:.3f}.",
                f"{found.steps}번 갱신하면 정확한 해와의 차이가 {results.distance:.1e}이다. 적당한 학습률이란"
                f" {largest:.3f}보다 작은 학습률이다.",
            ),
        )
    if found.reason == "diverged":
        return Verdict(
            "conditional",
            near,
            Words(
                f"This rate is not suitable: above {largest:.3f} descent diverges.",
                f"이 학습률은 적당하지 않다. {largest:.3f}보다 크면 발산한다.",
            ),
        )
    return Verdict(
        "conditional",
        near,
        Words(f"{found.steps} steps are not enough at this rate.", f"이 학습률로 {found.steps}번은 충분하지 않다."),
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
    add_options=add_options,
    formula=(
        "J(a, b) = mean of (a x + b - y)²",
        "a ← a - 2η mean of (a x + b - y) x",
        "b ← b - 2η mean of (a x + b - y)",
    ),
    claims=(
        Claim(
            "001",
            Words(
                "With a suitable rate and enough steps gradient descent converges to the minimum of the loss.",
                "적당한 학습률로 충분히 많이 반복하면 손실 함수가 최솟값으로 수렴한다.",
            ),
            _judge_arrival,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
