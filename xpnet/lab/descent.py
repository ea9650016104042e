"""python -m xpnet.lab descent: the gradient, and walking down it: rates that creep, arrive and diverge."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..commands import cli
from ..nn.gradient_check import central_differences
from ..optim import SGD
from ..training.descent import Descent, descend
from . import experiment, functions
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to
from .zigzag import valley

FUNCTION = "x^2"
START = 4.0
CASES = ((0.01, 5), (1.2, 5), (0.1, 5), (0.1, 50), (0.01, 500))  # the post's rates and steps, in its order
MOST_CASES = 11  # that fit in the picture
CASE_STEPS = 50  # where a rate is given, and no number of steps
MOST_STEPS = 100_000
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
    """Descend on the chosen function from the chosen start, with the gradient that the options choose."""
    options = lab.options
    f = replace(options.function, xp=lab.device.xp)
    gradient = None if options.numerical else f.gradient
    try:
        return descend(f, [options.start], SGD(rate), steps, gradient=gradient, tolerance=tolerance, device=lab.device)
    except ValueError as error:  # of a start where the function is not finite
        raise cli.UsageError(f"{f.text} from {options.start:g}: {error}") from None


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
    """Add the function, the start, rates and steps, and --numerical."""
    add = parser.add_argument
    names = "parabola, two-valleys or waves"
    add(
        "--function",
        type=functions.option("x"),
        default=functions.parse(FUNCTION, "x"),
        metavar="F",
        help=f'of x: an expression such as "x^4 - 3*x^2", or {names} (default: {FUNCTION})',
    )
    add("--start", type=cli.number, default=START, metavar="X", help=f"(default: {START:g})")
    add(
        "--rate", type=positive, nargs="+", metavar="RATE", help="of each walk that is drawn (default: the post's five)"
    )
    add(
        "--steps",
        type=up_to(MOST_STEPS),
        nargs="+",
        metavar="N",
        help=f"of all of these walks, or of each (default: the post's, or {CASE_STEPS} where --rate is given)",
    )
    add("--numerical", action="store_true", help="walk by central differences, without the formula of the slope")


def cases_of(options: argparse.Namespace) -> list[tuple[float, int]]:
    """Rate and steps of each walk that is drawn: the post's, or those of the options."""
    if options.rate is None and options.steps is None:
        return list(CASES)
    rates = options.rate or sorted({rate for rate, _ in CASES})
    steps = options.steps or [CASE_STEPS]
    if len(rates) != len(steps):
        if 1 not in (len(rates), len(steps)):
            raise cli.UsageError(f"give one number of steps for each of {len(rates)} rates, or one for all")
        pairs = list(product(rates, steps))
    else:
        pairs = list(zip(rates, steps, strict=True))
    if len(pairs) > MOST_CASES:
        raise cli.UsageError(f"at most {MOST_CASES} walks can be drawn, not {len(pairs)}")
    return pairs


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        cases: each walk that is drawn, with its rate and number of steps.
        stops: for each of RATES, the descent until the slope is gone, and its seconds.
        angles: largest angle between the negative gradient and the way to the minimum, by function, in degrees.
    """

    cases: list[tuple[float, int, Descent]]
    stops: list[tuple[Descent, float]]
    angles: dict[str, float]


def run(lab: Lab) -> Results:
    """Walk the cases, then with many rates until the slope is gone, then in two variables."""
    options = lab.options
    f, start, pairs = options.function, options.start, cases_of(options)
    quadratic = f.text == FUNCTION
    slope = "2x" if quadratic else "by the chain rule"
    cases = [(rate, steps, walk(lab, rate, steps)) for rate, steps in pairs]
    lab.say(f"{f.text} from {start:g}, gradient {'by central differences' if options.numerical else slope}")
    head = ["rate", "steps", "x at the end", f"{start:g} (1 - 2 rate)^steps", f.text, "why it stopped"]
    rows = []
    for rate, steps, found in cases:
        numbers = [found.x[0], start * (1.0 - 2.0 * rate) ** steps, found.values[-1]]
        rows.append([f"{rate:g}", str(found.steps), *(f"{number:.6g}" for number in numbers), found.reason])
    if not quadratic:  # the formula is that of x^2
        for row in (head, *rows):
            del row[3]
    lab.table(head, rows)

    lab.say()
    lab.say(f"the same until the gradient is at most {TOLERANCE:g}, or {STEPS} steps are used up")
    stops = [timed(lab, rate) for rate in RATES]
    table: list[tuple[str, ...]] = []
    for rate, (found, seconds) in zip(RATES, stops, strict=True):
        table.append((f"{rate:g}", str(found.steps), f"{1e3 * seconds:.1f}", f"{found.x[0]:.3g}", found.reason))
    lab.table(("rate", "steps", "ms", "x at the end", "why it stopped"), table)

    lab.say()
    lab.say(f"x0^2 + x1^2 from {PLANE_START}, {PLANE_STEPS} steps: where it ends by the formula (2 x0, 2 x1) and")
    lab.say(f"by central differences with h = {BOOK_H:g}, the book's")
    table = []
    for rate in PLANE_RATES:
        ends = (plane_walk(lab, rate, gradient).x for gradient in (bowl_gradient, book_gradient))
        table.append((f"{rate:g}", *(f"({end[0]:.6g}, {end[1]:.6g})" for end in ends)))
    lab.table(("rate", "formula", "central differences"), table)

    lab.say()
    fields = {"x² + y²": field(lab, bowl), f"x²/{LENGTH:g} + y²": field(lab, valley)}
    lab.say("the largest angle between the negative gradient and the way to the minimum, at points of a grid")
    angles = {name.replace("²", "^2"): widest_angle(arrows) for name, arrows in fields.items()}
    lab.table(("function", "angle"), [(name, f"{angle:.1f} degrees") for name, angle in angles.items()])

    lab.draw("descent-parabola", _parabola(options), partial(_draw_parabola, f, cases))
    lab.draw("descent-rates", _stops(options), partial(_draw_rates, stops))
    lab.draw("descent-field", FIELD, partial(_draw_field, fields, plane_walk(lab, PLANE_RATES[0], bowl_gradient)))
    return Results(cases, stops, angles)


def _draw_parabola(f: functions.Function, cases: list[tuple[float, int, Descent]]) -> Any:
    """Draw each walk on the curve, and by step how far it is from the lowest place."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(-(-(len(cases) + 1) // 3), 3, height=3.2)
    for axes, (rate, steps, found) in zip(grid.flat, cases, strict=False):
        path = found.path[:, 0]
        path = path[np.isfinite(found.values)]  # a walk that diverges may leave the numbers
        low, high = path.min(), path.max()
        if f.text == FUNCTION:
            high = max(4.5, np.abs(path).max())
            low = -high
        margin = 0.05 * (high - low) if f.text == FUNCTION else 0.5 * (high - low) + 0.5
        x = np.linspace(low - margin, high + margin, 300)
        axes.plot(x, f(x[:, None]), color="0.6")
        axes.plot(path, f(path[:, None]), "o-", color=PALETTE[1], markersize=4, linewidth=1.0)
        axes.plot(path[0], f(path[:1, None]), "s", color=PALETTE[6], markersize=7)
        axes.set_title(f"rate {rate:g}, {steps} steps: x = {found.x[0]:.3g}")
        axes.set(xlabel="x")
        axes.set_ylabel(f.pretty, parse_math=False)
    last = grid.flat[len(cases)]
    longest = {rate: found for rate, _, found in sorted(cases, key=lambda case: case[1])}
    lowest = min(np.nanmin(found.values) for found in longest.values())
    for (rate, found), style in zip(reversed(longest.items()), ("-", "--", ":", "-.") * len(cases), strict=False):
        if f.text == FUNCTION:
            distances = np.abs(found.path[1:, 0])
        else:
            distances = found.values[1:] - lowest
        if (distances > 0.0).any():
            last.loglog(np.arange(1, found.steps + 1), distances, style, label=f"rate {rate:g}", linewidth=2.0)
    known = f.text == FUNCTION
    last.set_title("distance from the minimum" if known else "height above the lowest that was reached")
    last.set(xlabel="step", ylabel="|x|" if known else "height")
    if last.lines:
        last.legend(loc="lower left")
    for axes in grid.flat[len(cases) + 1 :]:
        axes.set_axis_off()
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


def _parabola(options: argparse.Namespace) -> Words:
    """Caption of the walks, which calls rates too small or large where they are the post's."""
    f, start = options.function, options.start
    if options.rate is None and options.steps is None and f.text == FUNCTION:
        return Words(
            f"{f.pretty} from {start:g}: too small a rate creeps, too large a one diverges",
            f"{start:g}에서 출발한 {f.pretty}: 학습률이 너무 작으면 기어가고, 너무 크면 발산한다",
        )
    return Words(
        f"{f.pretty} from {start:g}, by rate and steps", f"{start:g}에서 출발한 {f.pretty}: 학습률과 갱신 횟수별"
    )


def _stops(options: argparse.Namespace) -> Words:
    f = options.function.pretty
    return Words(
        f"Steps and time until the slope of {f} is gone, by learning rate",
        f"{f}의 기울기가 0에 가까워질 때까지의 갱신 횟수와 시간, 학습률별",
    )


FIELD = Words(
    "The negative gradient points down, not always towards the minimum",
    "음의 기울기는 아래를 가리키지만, 늘 최솟값 쪽은 아니다",
)


def _judge_rates(results: Results) -> Verdict | None:
    """Whether some rate diverges, and the smallest is far from where others arrive after STEPS."""
    reasons = {rate: found for rate, (found, _) in zip(RATES, results.stops, strict=True)}
    diverged = [rate for rate, found in reasons.items() if found.reason == "diverged"]
    arrived = [found.x[0] for found in reasons.values() if found.reason == "converged"]
    least, slow = next(iter(reasons.items()))
    near = any(abs(slow.x[0] - x) < 0.01 * abs(slow.path[0, 0] - x) for x in arrived)
    if not diverged or near or slow.reason != "steps used up":
        return Verdict(
            "wrong",
            f"{least:g}: {slow.steps}; {RATES[-1]:g}: {reasons[RATES[-1]].reason}",
            Words("Not on this function, at these rates.", "이 함수와 이 학습률들에서는 그렇지 않다."),
        )
    return Verdict(
        "right",
        f"η = {diverged[0]:g}: |x| → ∞; η = {least:g}, n = {slow.steps}: x = {slow.x[0]:.3g}",
        Words(
            f"At a rate of {diverged[0]:g} it diverges; at {least:g} it has not arrived after {slow.steps} steps.",
            f"학습률이 {diverged[0]:g}이면 발산하고, {least:g}이면 {slow.steps}번 갱신해도 도착하지 못한다.",
        ),
    )


def _judge_patience(results: Results) -> Verdict | None:
    """Compare the walk of the smallest rate with one of a larger rate that takes fewer steps."""
    pairs = [
        (slow, fast)
        for slow, fast in product(results.cases, repeat=2)
        if slow[0] < fast[0] and slow[1] > fast[1] and fast[2].reason != "diverged"
    ]
    if not pairs:
        return None
    slow, fast = max(pairs, key=lambda pair: pair[0][1] + pair[1][1])
    better = slow[2].values[-1] < fast[2].values[-1]
    numbers = [f"η = {rate:g}, n = {steps}: f = {found.values[-1]:.2g}" for rate, steps, found in (slow, fast)]
    than = "lower" if better else "no lower"
    return Verdict(
        "conditional" if better else "wrong",
        "; ".join(numbers),
        Words(
            f"{slow[1]} steps at rate {slow[0]:g} end {than} than {fast[1]} steps at rate {fast[0]:g}: the product of"
            " rate and steps decides, until a rate is too large.",
            f"학습률 {slow[0]:g}로 {slow[1]}번 갱신한 함숫값이 {fast[0]:g}로 {fast[1]}번 갱신한 함숫값보다"
            f" {'작다' if better else '작지 않다'}. 학습률이 너무 크지만 않으면 학습률과 갱신 횟수의 곱이 결과를"
            " 정한다.",
        ),
    )


def _judge_direction(results: Results) -> Verdict:
    """Whether the negative gradient points away from the minimum in the valley, and not in the round bowl."""
    (_, round_), (name, long) = results.angles.items()
    name = name.replace("^2", "²")
    return Verdict(
        "right" if long > 5.0 else "wrong",
        f"{round_:.1f}°; {long:.1f}°",
        Words(
            f"In the round bowl it points to the minimum; on {name} it is off by up to {long:.0f} degrees.",
            f"둥근 그릇에서는 최솟값을 가리키지만, {name}에서는 최대 {long:.0f}도 벗어난다.",
        ),
    )


CLAIMS = (
    Claim(
        "000",
        Words(
            "Where the rate is too large the values diverge; where it is too small they hardly change.",
            "학습률이 너무 크면 발산하고, 너무 작으면 거의 갱신되지 않은 채 끝난다.",
        ),
        _judge_rates,
    ),
    Claim(
        "000",
        Words(
            "The negative gradient lowers the function most, and need not point to its minimum.",
            "기울기의 반대 방향은 함숫값을 가장 크게 줄이는 방향이며, 그쪽에 꼭 최솟값이 있는 것은 아니다.",
        ),
        _judge_direction,
    ),
    Claim(
        "001",
        Words(
            "A small rate and as many steps as possible find the minimum more exactly.",
            "작은 학습률로 최대한 많이 반복하면 최솟값을 비교적 정확히 찾을 수 있다.",
        ),
        _judge_patience,
    ),
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
    formula=("x ← x - η ∇f(x)", "f(x) = x²:  x ← (1 - 2η) x"),
    claims=CLAIMS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
