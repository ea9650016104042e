"""python -m xpnet.lab zigzag: the wasted steps of plain descent in a long valley, and other rules."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import HostArray
from ..optim import SGD, AdaGrad, Adam, Momentum, Optimizer, RMSprop
from ..training.descent import Descent, descend
from . import experiment, functions
from .experiment import Claim, Experiment, Lab, Verdict, Words, one_of, positive, up_to

FUNCTION = "x^2/20 + y^2"
START = (-7.0, 2.0)
STEPS = 3000
MOST_STEPS = 20_000  # paths of all RATES are kept
NEAR = 0.05  # from the minimum: there it has arrived
SHOWN = 60  # steps of a path in the picture, of valleys
SHOWN_ELSEWHERE = 1000
LENGTHS = (20.0, 1000.0)  # how much steeper a valley is across than along: the post's, and a longer one
RATES = np.geomspace(1e-3, 10.0, 161)
# The rates of the book behind the posts.
RULES: dict[str, tuple[Callable[..., Optimizer], float]] = {
    "SGD": (SGD, 0.95),
    "Momentum": (Momentum, 0.1),
    "AdaGrad": (AdaGrad, 1.5),
    "RMSprop": (RMSprop, 0.1),
    "Adam": (Adam, 0.3),
}


def valley(points: Any, length: float = 20.0) -> Any:
    """Return x^2 / length + y^2 of points, (..., 2)."""
    return points[..., 0] ** 2 / length + points[..., 1] ** 2


def landscapes(lab: Lab) -> dict[str, tuple[Any, Any]]:
    """Functions that are walked on, with their gradients: the two valleys, or the user's function."""
    f = lab.options.function
    if f.text != FUNCTION:
        f = replace(f, xp=lab.device.xp)
        return {f.text: (f, f.gradient)}
    curvatures = {length: lab.device.asarray(np.array([2.0 / length, 2.0])) for length in LENGTHS}
    return {
        f"{length:g}:1": (partial(valley, length=length), lambda points, c=curvature: points * c)
        for length, curvature in curvatures.items()
    }


def walk(lab: Lab, rule: str, rates: float | Sequence[float], landscape: tuple[Any, Any]) -> Descent:
    """Descend from the start by a rule; several rates give paths side by side."""
    start = lab.options.start
    f, gradient = landscape
    optimizer = RULES[rule][0](rates)
    try:
        return descend(
            f,
            start if isinstance(rates, float) else [start] * len(rates),
            optimizer,
            lab.options.steps,
            gradient=gradient,
            device=lab.device,
        )
    except ValueError as error:  # of a start where the function is not finite
        raise cli.UsageError(f"{lab.options.function.text} from {tuple(start)}: {error}") from None


def arrival(path: Any, near: float = NEAR) -> int | None:
    """Number of steps after which both coordinates of a path, (steps + 1, 2), stay near 0; None for never."""
    far = np.flatnonzero(~(np.abs(path).max(axis=-1) <= near))  # NaN is far
    last = int(far[-1]) if len(far) else -1
    return None if last == len(path) - 1 else last + 1


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        minimum: where arrivals are counted, (2,).
        paths: the path of each rule at its rate.
        rates: those rates.
        fewest: by landscape and rule, the smallest number of steps at any of RATES, None for no arrival, and the rate.
    """

    minimum: HostArray
    paths: dict[str, Descent]
    rates: dict[str, float]
    fewest: dict[str, dict[str, tuple[int | None, float]]]


def fewest(lab: Lab, found: Descent, minimum: HostArray) -> tuple[int | None, float]:
    """Smallest number of steps to the minimum by a descent at all RATES, and the rate; None where none arrives."""
    steps = [arrival(found.path[:, i] - minimum) for i in range(len(RATES))]
    best = int(np.argmin([lab.options.steps + 1 if count is None else count for count in steps]))
    return steps[best], float(RATES[best])


def lowest(descents: Sequence[Descent]) -> HostArray:
    """Lowest point of all paths, (2,)."""
    values = [np.where(np.isfinite(found.values), found.values, np.inf) for found in descents]
    best = min(range(len(values)), key=lambda i: values[i].min())
    return np.asarray(descents[best].path.reshape(-1, 2)[values[best].argmin()])


def add_options(parser: cli.Parser) -> None:
    """Add the function, the start, the rules with their rates, and the steps."""
    add = parser.add_argument
    add(
        "--function",
        type=functions.option("xy"),
        default=functions.parse(FUNCTION, "xy"),
        metavar="F",
        help='of x and y: an expression such as "x^2 + 3*y^2", or bowl, valley, saddle, rosenbrock or himmelblau'
        f" (default: {FUNCTION})",
    )
    add("--start", type=cli.number, nargs=2, default=list(START), metavar=("X", "Y"), help="(default: -7 2)")
    names = ", ".join(RULES)
    add(
        "--rule",
        type=one_of(RULES, "rule"),
        nargs="+",
        default=list(RULES),
        metavar="NAME",
        help=f"of {names} (default: all)",
    )
    add("--rate", type=positive, nargs="+", metavar="RATE", help="of all rules, or of each (default: the book's)")
    add("--steps", type=up_to(MOST_STEPS), default=STEPS, metavar="N", help=f"of each walk (default: {STEPS})")


def rates_of(options: argparse.Namespace) -> dict[str, float]:
    """Rate of each of the rules that walk."""
    names = list(dict.fromkeys(options.rule))
    given = options.rate or [RULES[name][1] for name in names]
    if len(given) not in (1, len(names)):
        raise cli.UsageError(f"give one rate for all rules, or one for each of {len(names)}, not {len(given)}")
    return dict(zip(names, given * len(names) if len(given) == 1 else given, strict=True))


def run(lab: Lab) -> Results:
    """Walk with each rule from one point, and count the steps to the minimum."""
    options = lab.options
    rates, grounds = rates_of(options), landscapes(lab)
    valleys = options.function.text == FUNCTION
    first = next(iter(grounds.values()))
    found = {rule: walk(lab, rule, rate, first) for rule, rate in rates.items()}
    walks = {
        name: {rule: walk(lab, rule, RATES.tolist(), ground) for rule in rates} for name, ground in grounds.items()
    }
    minimum = np.zeros(2) if valleys else lowest([*found.values(), *walks[options.function.text].values()])
    best = {name: {rule: fewest(lab, one, minimum) for rule, one in by_rule.items()} for name, by_rule in walks.items()}
    whose = "the given" if options.rate else "the book's"
    if valleys:
        lab.say(f"{FUNCTION} from {tuple(options.start)}: steps until a path stays within {NEAR} of")
        lab.say(f"the minimum, at {whose} rate and the best of {len(RATES)}; and on x^2/{LENGTHS[1]:g} + y^2")
    else:
        where = f"({minimum[0]:.4g}, {minimum[1]:.4g})"
        lab.say(f"{options.function.text} from {tuple(options.start)}: steps until a path stays within {NEAR} of")
        lab.say(f"{where}, the lowest point reached, at {whose} rate and at the best of {len(RATES)} rates")
    rows = []
    for rule, descent in found.items():
        turns = int((np.diff(np.sign(descent.path[: SHOWN + 1, 1])) != 0).sum())
        cells = [f"{_count(steps)} at {rate:.3g}" for steps, rate in (by_rule[rule] for by_rule in best.values())]
        crossings = [str(turns)] if valleys else []
        rows.append((rule, f"{_count(arrival(descent.path - minimum))} at {rates[rule]:g}", *cells, *crossings))
    head = ["rule", whose.split()[1].removesuffix("'s"), *(f"best, {name}" if valleys else "best" for name in best)]
    lab.table(head + [f"crossings in {SHOWN} steps"] * valleys, rows)
    results = Results(minimum, found, rates, best)
    lab.draw("zigzag", _caption(lab), partial(_draw, lab, results))
    return results


def _count(steps: int | None) -> str:
    return "never" if steps is None else str(steps)


def _draw(lab: Lab, results: Results) -> Any:
    """Draw each path on the contours."""
    from ..plots import PALETTE, SURFACE, new_figure

    valleys = lab.options.function.text == FUNCTION
    start, minimum = np.array(lab.options.start), results.minimum
    columns = min(len(results.paths) + 1, 3)
    figure, grid = new_figure(-(-(len(results.paths) + 1) // columns), columns, height=3.2, sharex=True, sharey=True)
    shown = SHOWN if valleys else SHOWN_ELSEWHERE
    low, high = np.minimum(start, minimum), np.maximum(start, minimum)
    points = np.concatenate([found.path[: shown + 1] for found in results.paths.values()])
    farthest = (high - low).max() + 0.1  # a path that diverges leaves the picture
    near = points[(np.abs(points - start) <= farthest).all(axis=-1)]
    low, high = np.minimum(low, near.min(axis=0)), np.maximum(high, near.max(axis=0))
    room = 0.15 * (high - low) + 0.05 * farthest
    low, high = low - room, high + room
    if valleys and tuple(start) == START:
        low, high = np.array([-8.0, -3.0]), np.array([8.0, 3.0])
    x, y = np.meshgrid(np.linspace(low[0], high[0], 200), np.linspace(low[1], high[1], 200))
    f = valley if valleys else lab.options.function
    heights = f(np.stack([x, y], axis=-1)) - (0.0 if valleys else f(minimum))
    levels: Any = np.geomspace(0.02, 12.0, 14)
    if not (valleys and tuple(start) == START):
        there = heights[np.isfinite(heights) & (heights > 0.0)]
        levels = np.unique(np.quantile(there, np.linspace(0.01, 0.95, 14))) if len(there) else [1.0]
    for axes, (name, descent) in zip(grid.flat, results.paths.items(), strict=False):
        axes.contour(x, y, heights, levels=levels, cmap=SURFACE, linewidths=0.8)
        path = descent.path[: shown + 1]
        axes.plot(path[:, 0], path[:, 1], "o-", color=PALETTE[1], markersize=3, linewidth=1.0)
        axes.plot(*start, "s", color=PALETTE[6], markersize=6)
        axes.plot(*minimum, "*", color=PALETTE[2], markersize=12)
        if not valleys:
            axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        steps = arrival(descent.path - minimum)
        end = "never stays there" if steps is None else f"arrives after {steps} steps"
        axes.set_title(f"{name}, rate {results.rates[name]:g}: {end}")
    star = "minimum" if valleys else "lowest point reached"
    for axes in grid.flat[len(results.paths) :]:
        axes.set_axis_off()
    axes = grid.flat[len(results.paths)]
    axes.text(
        0.0,
        0.5,
        f"square: start\nstar: {star}\n{min(shown, lab.options.steps)} steps are drawn",
        transform=axes.transAxes,
    )
    figure.supxlabel("x")
    figure.supylabel("y")
    return figure


def _caption(lab: Lab) -> Words:
    f, start = lab.options.function, "({:g}, {:g})".format(*lab.options.start)
    if not experiment.changed(EXPERIMENT, lab.options):
        return Words(
            "Paths on x²/20 + y²: plain descent crosses the valley again and again",
            "x²/20 + y² 위의 경로: 단순한 경사 하강법은 골짜기를 계속 가로지른다",
        )
    return Words(
        f"Paths on {f.pretty} from {start}, by update rule",
        f"{start}에서 출발한 {f.pretty} 위의 경로, 매개변수 갱신 방법별",
    )


def _judge_waste(results: Results) -> Verdict | None:
    """Compare SGD, at its best rate, with the best of the other rules but those that settle slowly, in each valley."""
    others = [rule for rule in ("Momentum", "Adam") if rule in results.rates]
    if "SGD" not in results.rates or not others:
        return None
    numbers, slower = [], []
    for name, by_rule in results.fewest.items():
        counts = {rule: by_rule[rule][0] for rule in ("SGD", *others)}
        numbers.append(f"{name}: " + ", ".join(f"{rule} {_count(steps)}" for rule, steps in counts.items()))
        known = {rule: np.inf if steps is None else steps for rule, steps in counts.items()}
        if known["SGD"] > min(known[rule] for rule in others):
            slower.append(name)
    answer = "right" if len(slower) == len(results.fewest) else "conditional" if slower else "wrong"
    than = " and ".join(others)
    korean = ", ".join("모멘텀" if rule == "Momentum" else rule for rule in others)
    reasons = {
        "right": Words(
            f"At the best rate of each, SGD takes more steps than the better of {than}.",
            f"각각 가장 좋은 학습률에서 SGD의 갱신 횟수가 {korean}보다 많다.",
        ),
        "conditional": Words(
            f"At the best rate of each, SGD takes more steps than {than} in {' and '.join(slower)} alone: the valley"
            " must be long enough.",
            f"각각 가장 좋은 학습률에서 SGD의 갱신 횟수가 {korean}보다 많은 것은 {', '.join(slower)} 골짜기뿐이다."
            " 골짜기가 충분히 길어야 한다.",
        ),
        "wrong": Words(
            f"At the best rate of each, SGD arrives no later than {than}.",
            f"각각 가장 좋은 학습률에서 SGD는 {korean}만큼 빨리 도착한다.",
        ),
    }
    return Verdict(answer, "; ".join(numbers), reasons[answer])


EXPERIMENT = Experiment(
    name="zigzag",
    title=Words("Why plain descent zigzags", "경사 하강법은 왜 지그재그로 움직이는가"),
    text=Words(
        "The gradient points down the steepest way, and in a long valley that is across it, hardly along it. A rate as"
        " large as the steep direction allows makes plain descent (SGD) jump from side to side while it creeps towards"
        " the minimum. Momentum averages the jumps away; AdaGrad, RMSprop and Adam measure the steepness of each"
        " direction, and divide by it. In the post's valley, 20 times as steep across as along, Momentum and Adam gain"
        " nothing by that: at its best rate SGD arrives before them. In one of 1000 to 1 it needs about thirty times"
        " their steps. AdaGrad, whose steps shrink as it goes, is the quickest in both; RMSprop, whose steps do not,"
        " has to take a small rate to settle at all.",
        "기울기는 가장 가파른 방향을 가리키는데, 긴 골짜기에서 그 방향은 골짜기를 따라가지 않고 가로지른다."
        " 가장 가파른 방향에서 발산하지 않는 한계까지 학습률을 키우면 단순한 경사 하강법(SGD)은 양쪽 벽을 오가며"
        " 최솟값 쪽으로는 조금씩만 나아간다. 모멘텀은 오가는 움직임을 평균 내어 없애고, AdaGrad, RMSprop, Adam은"
        " 방향마다 가파른 정도를 재어 그것으로 나눈다. 글에 나온 골짜기에서는 y 방향이 x 방향보다 20배"
        " 가파른데, 이 정도로는 모멘텀과 Adam을 써도 이득이 없다. 가장 좋은 학습률을 쓰면 SGD가 먼저 도착한다. 1000배"
        " 가파르면 SGD가 두 방법보다 서른 배쯤 많이 갱신해야 한다. 갈수록 갱신 폭이 작아지는 AdaGrad는"
        " 두 곳 모두에서 가장 빠르고, 갱신 폭이 작아지지 않는 RMSprop은 학습률을 작게 잡아야 수렴한다.",
    ),
    run=run,
    add_options=add_options,
    formula=(
        "SGD:       x ← x - η g",
        "Momentum:  v ← μ v + g,  x ← x - η v",
        "AdaGrad:   h ← h + g²,  x ← x - η g / √h",
        "RMSprop:   h ← β h + (1 - β) g²,  x ← x - η g / √h",
        "Adam:      m ← β₁ m + (1 - β₁) g,  h ← β₂ h + (1 - β₂) g²,  x ← x - η m̂ / √ĥ",
    ),
    claims=(
        Claim(
            "004",
            Words(
                "Plain gradient descent goes back and forth as it converges, which wastes steps; Momentum, Adam and the"
                " like avoid that.",
                "기본 경사 하강법은 왔다 갔다 하면서 수렴하므로 불필요한 반복이 생긴다. 그래서 모멘텀, Adam 같은 변형을"
                " 쓴다.",
            ),
            _judge_waste,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
