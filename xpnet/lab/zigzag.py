"""python -m xpnet.lab zigzag: the wasted steps of plain descent in a long valley, and other rules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..optim import SGD, AdaGrad, Adam, Momentum, Optimizer, RMSprop
from ..training.descent import Descent, descend
from . import experiment
from .experiment import Experiment, Lab, Words

START = (-7.0, 2.0)
STEPS = 3000
NEAR = 0.05  # from the minimum at the origin: there it has arrived
SHOWN = 60  # steps of a path in the picture
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


def walk(lab: Lab, rule: str, rates: float | Sequence[float], length: float) -> Descent:
    """Descend down a valley from START by a rule; several rates give paths side by side."""
    curvature = lab.device.asarray(np.array([2.0 / length, 2.0]))  # the gradient is (2 x / length, 2 y)
    start = START if isinstance(rates, float) else [START] * len(rates)
    optimizer = RULES[rule][0](rates)
    return descend(
        lambda points: valley(points, length),
        start,
        optimizer,
        STEPS,
        gradient=lambda points: points * curvature,
        device=lab.device,
    )


def arrival(path: Any, near: float = NEAR) -> int | None:
    """Number of steps after which both coordinates of a path, (steps + 1, 2), stay near 0; None for never."""
    far = np.flatnonzero(~(np.abs(path).max(axis=-1) <= near))  # NaN is far
    last = int(far[-1]) if len(far) else -1
    return None if last == len(path) - 1 else last + 1


def fewest(lab: Lab, rule: str, length: float) -> tuple[int | None, float]:
    """Smallest number of steps to the minimum at any of RATES, and the rate; None where none arrives."""
    paths = walk(lab, rule, RATES.tolist(), length).path  # (steps + 1, rates, 2)
    steps = [arrival(paths[:, i]) for i in range(len(RATES))]
    best = int(np.argmin([STEPS + 1 if count is None else count for count in steps]))
    return steps[best], float(RATES[best])


def run(lab: Lab) -> None:
    """Walk with each rule from one point, and count the steps to the minimum."""
    found = {rule: walk(lab, rule, rate, LENGTHS[0]) for rule, (_, rate) in RULES.items()}
    lab.say(f"x^2/20 + y^2 from {START}: steps until a path stays within {NEAR} of the minimum,")
    lab.say(f"at the book's rate and at the best of {len(RATES)} rates; and the same on x^2/1000 + y^2")
    rows = []
    for rule, descent in found.items():
        turns = int((np.diff(np.sign(descent.path[: SHOWN + 1, 1])) != 0).sum())
        best = [f"{_count(steps)} at {rate:.3g}" for steps, rate in (fewest(lab, rule, length) for length in LENGTHS)]
        rows.append((rule, f"{_count(arrival(descent.path))} at {RULES[rule][1]:g}", *best, str(turns)))
    lab.table(("rule", "book", "best, 20:1", "best, 1000:1", f"crossings in {SHOWN} steps"), rows)
    lab.draw("zigzag", CAPTION, partial(_draw, found))


def _count(steps: int | None) -> str:
    return "never" if steps is None else str(steps)


def _draw(found: dict[str, Descent]) -> Any:
    """Draw each path on the contours."""
    from ..plots import PALETTE, SURFACE, new_figure

    figure, grid = new_figure(2, 3, height=3.2, sharex=True, sharey=True)
    x, y = np.meshgrid(np.linspace(-8.0, 8.0, 200), np.linspace(-3.0, 3.0, 200))
    levels = np.geomspace(0.02, 12.0, 14)
    for axes, (name, descent) in zip(grid.flat, found.items(), strict=False):
        axes.contour(x, y, valley(np.stack([x, y], axis=-1)), levels=levels, cmap=SURFACE, linewidths=0.8)
        path = descent.path[: SHOWN + 1]
        axes.plot(path[:, 0], path[:, 1], "o-", color=PALETTE[1], markersize=3, linewidth=1.0)
        axes.plot(*START, "s", color=PALETTE[6], markersize=6)
        axes.plot(0.0, 0.0, "*", color=PALETTE[2], markersize=12)
        steps = arrival(descent.path)
        end = "never stays there" if steps is None else f"arrives after {steps} steps"
        axes.set_title(f"{name}, rate {RULES[name][1]:g}: {end}")
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
        axes.text(0.0, 0.5, f"square: start\nstar: minimum\n{SHOWN} steps are drawn", transform=axes.transAxes)
    figure.supxlabel("x")
    figure.supylabel("y")
    return figure


CAPTION = Words(
    "Paths on x²/20 + y²: plain descent crosses the valley again and again",
    "x²/20 + y² 위의 경로: 단순한 경사 하강법은 골짜기를 계속 가로지른다",
)

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
        " 가파른 방향이 견디는 한계까지 학습률을 키우면 단순한 경사 하강법(SGD)은 양쪽 벽을 오가며 최솟값"
        " 쪽으로는 조금씩만 나아간다. 모멘텀은 오가는 움직임을 평균내어 없애고, AdaGrad, RMSprop, Adam은"
        " 방향마다 가파른 정도를 재어 그것으로 나눈다. 골짜기를 가로지르는 방향이 따라가는 방향보다 20배 가파른"
        " 글의 골짜기에서는 모멘텀과 Adam에 이득이 없다. 가장 좋은 학습률에서는 SGD가 먼저 도착한다. 1000배인"
        " 골짜기에서는 SGD의 갱신 횟수가 두 방법의 서른 배쯤 된다. 갈수록 갱신 폭이 작아지는 AdaGrad는 두 곳"
        " 모두에서 가장 빠르고, 갱신 폭이 작아지지 않는 RMSprop은 학습률을 작게 잡아야 수렴한다.",
    ),
    run=run,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
