"""python -m xpnet.lab descent: the gradient, and walking down it: rates that creep, arrive and diverge."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..commands import cli
from ..nn.gradient_check import central_differences
from ..optim import SGD
from ..training.descent import Descent, descend
from . import experiment
from .experiment import Experiment, Lab, Words
from .zigzag import valley

START = (4.0,)
CASES = ((0.01, 5), (1.2, 5), (0.1, 5), (0.1, 50), (0.01, 500))  # the post's rates and steps, in its order
RATES = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 1.0, 1.1, 1.2)
STEPS = 10_000
TOLERANCE = 1e-6  # of the gradient: at 2x it stops within 5e-7 of the minimum
PLANE_START = (-3.0, 4.0)
PLANE_STEPS = 100
PLANE_RATES = (0.1, 10.0, 1e-10)  # the book's: a good one, one too large, one too small
BOOK_H = 1e-4  # the book's step for numerical gradients
LENGTH = 20.0  # how much steeper the second function is along y than along x
GRID = np.stack(np.meshgrid(np.linspace(-4.0, 4.0, 11), np.linspace(-4.0, 4.0, 11)), axis=-1)  # (11, 11, 2)


def bowl(points: Any) -> Any:
    """Return the sum of the squares of each point's coordinates, (...), for points (..., D): x^2 where D is 1."""
    return (points**2).sum(axis=-1)


def bowl_gradient(points: Any) -> Any:
    """Return 2 x for each coordinate, (..., D)."""
    return 2.0 * points


def walk(lab: Lab, rate: float, steps: int, tolerance: float | None = None) -> Descent:
    """Descend on x^2 from START, with the gradient that the options choose."""
    gradient = None if lab.options.numerical else bowl_gradient
    return descend(bowl, START, SGD(rate), steps, gradient=gradient, tolerance=tolerance, device=lab.device)


def timed(lab: Lab, rate: float) -> tuple[Descent, float]:
    """Descend at a rate until the gradient is below TOLERANCE; also return the seconds."""
    begun = time.perf_counter()
    found = walk(lab, rate, STEPS, TOLERANCE)
    return found, time.perf_counter() - begun


def plane_walk(lab: Lab, rate: float, gradient: Callable[[Any], Any]) -> Descent:
    """Descend on x0^2 + x1^2, as in the book."""
    return descend(bowl, PLANE_START, SGD(rate), PLANE_STEPS, gradient=gradient, device=lab.device)


def book_gradient(points: Any) -> Any:
    """Return the central differences of the bowl with the book's step."""
    return central_differences(bowl, points, BOOK_H)


def field(lab: Lab, f: Callable[[Any], Any]) -> Any:
    """Return the negative gradient of f at each point of GRID, (11, 11, 2), by central differences."""
    with lab.device.activate():
        return -lab.device.to_host(central_differences(f, lab.device.asarray(GRID)))


def widest_angle(arrows: Any) -> float:
    """Return the largest angle, in degrees, between arrows at GRID and the way from there to the origin."""
    lengths = np.linalg.norm(arrows, axis=-1) * np.linalg.norm(GRID, axis=-1)
    there = lengths > 1e-6  # at the minimum itself there is no way to go
    cosines = (arrows * -GRID).sum(axis=-1)[there] / lengths[there]
    return float(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))).max())


def add_options(parser: cli.Parser) -> None:
    """Add --numerical."""
    parser.add_argument("--numerical", action="store_true", help="walk on x^2 by central differences, without 2x")


def run(lab: Lab) -> None:
    """Walk the post's cases, then with many rates until the slope is gone, then in two variables."""
    lab.say(f"x^2 from {START[0]:g}, gradient {'by central differences' if lab.options.numerical else '2x'}")
    cases = [walk(lab, rate, steps) for rate, steps in CASES]
    rows = []
    for (rate, steps), found in zip(CASES, cases, strict=True):
        formula = START[0] * (1.0 - 2.0 * rate) ** steps
        end = [f"{number:.6g}" for number in (found.x[0], formula, found.values[-1])]
        rows.append((f"{rate:g}", str(found.steps), *end, found.reason))
    lab.table(("rate", "steps", "x at the end", "4 (1 - 2 rate)^steps", "x^2", "why it stopped"), rows)

    lab.say()
    lab.say(f"the same until the gradient is at most {TOLERANCE:g}, or {STEPS} steps are used up")
    stops = [timed(lab, rate) for rate in RATES]
    rows = []
    for rate, (found, seconds) in zip(RATES, stops, strict=True):
        rows.append((f"{rate:g}", str(found.steps), f"{1e3 * seconds:.1f}", f"{found.x[0]:.3g}", found.reason))
    lab.table(("rate", "steps", "ms", "x at the end", "why it stopped"), rows)

    lab.say()
    lab.say(f"x0^2 + x1^2 from {PLANE_START}, {PLANE_STEPS} steps: where it ends by the formula (2 x0, 2 x1) and")
    lab.say(f"by central differences with h = {BOOK_H:g}, the book's")
    rows = []
    for rate in PLANE_RATES:
        ends = (plane_walk(lab, rate, gradient).x for gradient in (bowl_gradient, book_gradient))
        rows.append((f"{rate:g}", *(f"({end[0]:.6g}, {end[1]:.6g})" for end in ends)))
    lab.table(("rate", "formula", "central differences"), rows)

    lab.say()
    fields = {"x² + y²": field(lab, bowl), f"x²/{LENGTH:g} + y²": field(lab, valley)}
    lab.say("the largest angle between the negative gradient and the way to the minimum, at points of a grid")
    angles = [f"{widest_angle(arrows):.1f} degrees" for arrows in fields.values()]
    lab.table(
        ("function", "angle"), [(name.replace("²", "^2"), angle) for name, angle in zip(fields, angles, strict=True)]
    )

    lab.draw("descent-parabola", PARABOLA, partial(_draw_parabola, cases))
    lab.draw("descent-rates", STOPS, partial(_draw_rates, stops))
    lab.draw("descent-field", FIELD, partial(_draw_field, fields, plane_walk(lab, PLANE_RATES[0], bowl_gradient)))


def _draw_parabola(cases: list[Descent]) -> Any:
    """Draw each of the post's cases on the curve, and the distance from the minimum by step of all of them."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(2, 3, height=3.2)
    for axes, (rate, steps), found in zip(grid.flat, CASES, cases, strict=False):
        path = found.path[:, 0]
        reach = 1.1 * max(4.5, np.abs(path).max())
        x = np.linspace(-reach, reach, 300)
        axes.plot(x, x**2, color="0.6")
        axes.plot(path, path**2, "o-", color=PALETTE[1], markersize=4, linewidth=1.0)
        axes.plot(path[0], path[0] ** 2, "s", color=PALETTE[6], markersize=7)
        axes.set_title(f"rate {rate:g}, {steps} steps: x = {path[-1]:.3g}")
        axes.set(xlabel="x", ylabel="x²")
    last = grid[1, 2]
    for index, style in ((4, "-"), (3, "--"), (1, ":")):  # the longest case of each rate
        rate, steps = CASES[index]
        distances = np.abs(cases[index].path[1:, 0])
        last.loglog(np.arange(1, steps + 1), distances, style, label=f"rate {rate:g}", linewidth=2.0)
    last.set_title("distance from the minimum")
    last.set(xlabel="step", ylabel="|x|")
    last.legend(loc="lower left")
    return figure


# How a descent that stopped so is drawn.
MARKS = {"converged": ("o", 0), "steps used up": ("s", 4), "diverged": ("X", 1)}


def _draw_rates(stops: list[tuple[Descent, float]]) -> Any:
    """Draw steps and time against the rate, marked by the reason for which each descent stopped."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 2, width=5.6)
    quantities: dict[str, list[Any]] = {
        "steps": [found.steps for found, _ in stops],
        "time, ms": [1e3 * seconds for _, seconds in stops],
    }
    for axes, (name, values) in zip(grid[0], quantities.items(), strict=True):
        axes.semilogy(values, color="0.7", zorder=1)
        for reason, (marker, color) in MARKS.items():
            chosen = [i for i, (found, _) in enumerate(stops) if found.reason == reason]
            axes.plot(chosen, [values[i] for i in chosen], marker, color=PALETTE[color], markersize=8, label=reason)
        axes.set_xticks(range(len(RATES)), [f"{rate:g}" for rate in RATES], rotation=45)
        axes.set(xlabel="learning rate", ylabel=name)
        axes.legend(loc="lower left")
    return figure


def _draw_field(fields: dict[str, Any], found: Descent) -> Any:
    """Draw the negative gradients of both functions as arrows, and the path on the first."""
    from ..plots import PALETTE, SURFACE, new_figure

    figure, grid = new_figure(1, 3, height=4.4, sharex=True, sharey=True)
    x, y = np.meshgrid(np.linspace(-4.8, 4.8, 200), np.linspace(-4.8, 4.8, 200))
    points = np.stack([x, y], axis=-1)
    for axes, f in zip(grid[0], (bowl, valley, bowl), strict=True):
        axes.contour(x, y, f(points), levels=12, cmap=SURFACE, linewidths=0.8)
        axes.set_aspect("equal")
        axes.set_xlabel("x")
    for axes, (name, arrows) in zip(grid[0], fields.items(), strict=False):
        axes.quiver(GRID[..., 0], GRID[..., 1], arrows[..., 0], arrows[..., 1], color=PALETTE[0], zorder=3)
        axes.plot(0.0, 0.0, "*", color=PALETTE[1], markersize=14, zorder=4)
        axes.set_title(f"{name}: at most {widest_angle(arrows):.0f}° off")
    last = grid[0, 2]
    last.plot(found.path[:, 0], found.path[:, 1], "o-", color=PALETTE[1], markersize=4, linewidth=1.0)
    last.plot(*PLANE_START, "s", color=PALETTE[6], markersize=7)
    last.set_title(f"x² + y²: {found.steps} steps at rate {PLANE_RATES[0]:g}")
    grid[0, 0].set_ylabel("y")
    return figure


PARABOLA = Words(
    "x² from 4: too small a rate creeps, too large a one diverges",
    "4에서 출발한 x²: 학습률이 너무 작으면 기어가고, 너무 크면 발산한다",
)
STOPS = Words(
    "Steps and time until the slope of x² is gone, by learning rate",
    "x²의 기울기가 0에 가까워질 때까지의 갱신 횟수와 시간, 학습률별",
)
FIELD = Words(
    "The negative gradient points down, not always towards the minimum",
    "음의 기울기는 아래를 가리키지만, 늘 최솟값 쪽은 아니다",
)

EXPERIMENT = Experiment(
    name="descent",
    title=Words("The gradient, and walking down it", "기울기와 경사 하강법"),
    text=Words(
        "A step of gradient descent moves against the gradient, by the learning rate times its length. On x² each step"
        " multiplies x by 1 - 2 rate: below 0.5 the path creeps down one side, above it jumps across the minimum, and"
        " above 1 it climbs away. A smaller rate does not end closer by itself: 500 steps of 0.01 end further from the"
        " minimum than 50 steps of 0.1. With a tolerance the walk stops where the slope is gone, and says why."
        " In two variables the negative gradient is a field of arrows. They point down the steepest way, which in a"
        " round bowl is the way to the minimum, and in a long valley is far off it. Central differences need no"
        " formula, but lose their digits where values are huge: look at the rate of 10.",
        "경사 하강법은 기울기의 반대 방향으로, 기울기에 학습률을 곱한 만큼 움직인다. x²에서는 갱신할 때마다 x에"
        " 1 - 2(학습률)이 곱해진다. 그래서 학습률이 0.5보다 작으면 한쪽 비탈을 따라 내려가고, 0.5보다 크면"
        " 최솟값을 넘나들며, 1보다 크면 점점 멀어진다. 학습률이 작다고 저절로 더 정확해지지는 않는다. 0.01로"
        " 500번 갱신한 결과는 0.1로 50번 갱신한 결과보다 최솟값에서 더 멀다. 허용 오차를 정해 두면 기울기가"
        " 그보다 작아질 때 멈추고, 왜 멈췄는지도 알려 준다. 변수가 둘이면 음의 기울기는 벡터장이 된다. 화살표는"
        " 가장 가파른 내리막을 가리키는데, 둥근 그릇에서는 그쪽이 최솟값이지만 긴 골짜기에서는 크게 벗어난다."
        " 수치 미분에는 공식이 필요 없지만, 학습률 10의 결과처럼 함숫값이 아주 커지면 자릿수를 잃는다.",
    ),
    run=run,
    add_options=add_options,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
