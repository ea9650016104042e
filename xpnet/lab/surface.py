"""python -m xpnet.lab surface: the loss as a curve and as a surface, with its minima and its saddle."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import HostArray
from ..optim import SGD
from ..training.descent import descend
from . import experiment, line, minima
from .experiment import Claim, Experiment, Lab, Verdict, Words

START = 4.0
CURVE = np.arange(-4.5, 4.5, 0.1)  # the post's points
REACH = 0.3  # of the sections through the saddle
SIDE = 121  # points along each side of the surface


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        places: the bowl's minimum, the two local minima, and the saddle, (4, 2).
        offsets: distances from the saddle, (N,).
        sections: heights above the saddle along x and along y, (2, N).
        third: largest third difference of a line's mean squared error, to the loss itself.
    """

    places: HostArray
    offsets: HostArray
    sections: HostArray
    third: float


def add_options(parser: cli.Parser) -> None:
    """Add the start."""
    parser.add_argument("--start", type=on_curve, default=START, metavar="X", help=f"on the curve (default: {START:g})")


def on_curve(text: str) -> float:
    """Type of an option: a number that the curve reaches."""
    value = cli.number(text)
    if not CURVE[0] <= value <= CURVE[-1]:
        raise argparse.ArgumentTypeError(f"must be from {CURVE[0]:g} to {CURVE[-1]:.1f}, not {value:g}")
    return value


def sections_through(point: HostArray) -> tuple[HostArray, HostArray]:
    """Return offsets, (N,), and the landscape above its height at a point, along x and along y, (2, N)."""
    offsets = np.linspace(-REACH, REACH, 81)
    moved = point + offsets[:, None] * np.eye(2)[:, None]  # (2, N, 2)
    return offsets, minima.SHALLOW(moved) - minima.SHALLOW(point)


def find_places(lab: Lab) -> HostArray:
    """Return the bowl's minimum, the two local minima, and the saddle, (4, 2): where descent stops."""
    dents = minima.SHALLOW
    starts = [[1.0, 0.0], [dents.x, dents.y], [dents.x, -dents.y], list(minima.ON_THE_AXIS)]
    rule = SGD(minima.RATE)
    found = descend(dents, starts, rule, 10_000, gradient=dents.gradient, tolerance=1e-12, device=lab.device)
    return found.x


def third_difference(seed: int) -> float:
    """Largest third difference of the mean squared error of a line, along slope and intercept, to the loss itself.

    It is 0 but for rounding where the loss is quadratic.
    """
    loss = line.mean_squared_error(*line.draw_points(seed))
    steps = np.arange(4.0)[:, None] * np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]])  # (3, 4, 2)
    values = loss(np.array([-1.0, 4.0]) + steps)  # (3, 4)
    return float(np.abs(np.diff(values, 3, axis=-1)).max() / np.abs(values).max())


def run(lab: Lab) -> Results:
    """Tabulate the start, and the surface's heights beside its saddle."""
    start = lab.options.start
    lab.say(f"x^2 at the post's {len(CURVE)} points, from {CURVE[0]:g} to {CURVE[-1]:.1f}; at the start, {start:g}:")
    lab.say(f"height {start**2:g}, slope {2.0 * start:g}")
    places = find_places(lab)
    offsets, sections = sections_through(places[3])
    lab.say()
    lab.say("a bowl with two dents on its side: height above the saddle between these, on a section")
    shown = np.linspace(0, len(offsets) - 1, 5).astype(int)
    rows = [
        (f"along {name}", *(f"{section[i]:+.4f}" for i in shown)) for name, section in zip("xy", sections, strict=True)
    ]
    lab.table(("section", *(f"{offsets[i]:+.1f}" for i in shown)), rows)
    lab.draw("surface-curve", CURVE_CAPTION, partial(_draw_curve, start))
    third = third_difference(lab.seed)
    lab.say()
    lab.say(f"the mean squared error of a line by slope and intercept: third differences are {third:.0e} of the loss")
    results = Results(places, offsets, sections, third)
    lab.draw("surface-3d", SURFACE_CAPTION, partial(_draw_surface, results))
    return results


def _judge_quadratic(results: Results) -> Verdict:
    """Whether third differences are gone but for rounding."""
    quadratic = results.third < 1e-12
    return Verdict(
        "right" if quadratic else "wrong",
        f"|Δ³J| / |J| = {results.third:.0e}",
        Words(
            "The third differences of a line's mean squared error are rounding: it is quadratic, and has one minimum."
            " The loss of a network with hidden layers is not.",
            "직선의 평균 제곱 오차는 세 번 차분하면 반올림 오차만 남으므로 이차 함수이고 최솟값은 하나이다. 은닉층이"
            " 있는 신경망의 손실은 그렇지 않다.",
        )
        if quadratic
        else Words("Its third differences are not 0.", "세 번 차분한 값이 0이 아니다."),
    )


def _judge_saddle(results: Results) -> Verdict:
    """Whether the saddle is the lowest point of its section along x, and the highest of that along y."""
    along_x, along_y = results.sections
    middle = len(results.offsets) // 2
    others = np.arange(len(results.offsets)) != middle
    saddle = bool((along_x[others] > 0.0).all() and (along_y[others] < 0.0).all())
    return Verdict(
        "right" if saddle else "wrong",
        f"x ± {REACH:g}: {min(along_x[0], along_x[-1]):+.3f}; y ± {REACH:g}: {max(along_y[0], along_y[-1]):+.3f}",
        Words(
            "On the section along x the saddle is the lowest point; on that along y it is the highest, and there the"
            " way down begins.",
            "x 방향 단면에서는 안장점이 가장 낮고, y 방향 단면에서는 가장 높으므로 그쪽으로 내려갈 수 있다.",
        )
        if saddle
        else Words("Not on these sections.", "이 단면들에서는 그렇지 않다."),
    )


def _draw_curve(start: float) -> Any:
    """Draw the plain curve, and the curve with the start, as the post does."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 2, sharey=True)
    for axes, title in zip(grid[0], ("the loss", f"and the start at {start:g}"), strict=True):
        axes.plot(CURVE, CURVE**2, color=PALETTE[0])
        axes.set(xlabel="θ", title=title)
    grid[0, 1].plot(start, start**2, "o", color=PALETTE[1], markersize=12)
    grid[0, 0].set_ylabel("J(θ) = θ²")
    return figure


def _draw_surface(results: Results) -> Any:
    """Draw the surface in space with its places, and the two sections through the saddle."""
    from matplotlib.figure import Figure

    from ..plots import PALETTE, SURFACE

    figure = Figure(figsize=(11.0, 5.0), dpi=120, layout="constrained")
    space = figure.add_subplot(1, 2, 1, projection="3d", computed_zorder=False)
    plane = figure.add_subplot(1, 2, 2)
    x, y = np.meshgrid(np.linspace(-3.0, 2.0, SIDE), np.linspace(-2.0, 2.0, SIDE))
    space.plot_surface(x, y, minima.SHALLOW(np.stack([x, y], axis=-1)), cmap=SURFACE, alpha=0.85, linewidth=0)
    looks = (("global minimum", "*", 0), ("local minima", "v", 1), ("local minima", "v", 1), ("saddle", "X", 6))
    for i, (point, (name, marker, color)) in enumerate(zip(results.places, looks, strict=True)):
        height = float(minima.SHALLOW(point)) + 0.03
        label = None if i == 2 else name
        space.plot(*point, height, marker, color=PALETTE[color], markersize=11, markeredgecolor="white", label=label)
    space.view_init(elev=42.0, azim=-118.0)
    space.set(xlabel="x", ylabel="y", zlabel="loss")
    space.legend(loc="upper left")
    for section, name, style, color in zip(results.sections, "xy", ("-", "--"), (0, 1), strict=True):
        plane.plot(results.offsets, section, style, color=PALETTE[color], linewidth=2.0, label=f"along {name}")
    plane.plot(0.0, 0.0, "X", color=PALETTE[6], markersize=11, label="saddle")
    plane.set(xlabel="distance from the saddle", ylabel="height above it", title="two sections through the saddle")
    plane.grid(alpha=0.3)
    plane.legend()
    return figure


CURVE_CAPTION = Words("The loss as a curve, and the start", "곡선으로 그린 손실 함수와 시작점")
SURFACE_CAPTION = Words(
    "The loss as a surface: a global minimum, two local minima, and a saddle",
    "곡면으로 그린 손실 함수: 전역 최솟값, 지역 최솟값 둘, 안장점",
)

EXPERIMENT = Experiment(
    name="surface",
    title=Words("The loss as a curve and as a surface", "곡선과 곡면으로 본 손실 함수"),
    text=Words(
        "With one parameter the loss is a curve, and the start a point on it. With two it is a surface over the plane."
        " This one is a round bowl with two dents on its side. The bottom of the bowl is the global minimum, those of"
        " the dents are local ones, and between the dents is a saddle: on a section along x it is the lowest point, on"
        " a section along y the highest. Descent stops at any of them, for the gradient is 0 at all four.",
        "매개변수가 하나이면 손실 함수는 곡선이고, 시작점은 그 위의 한 점이다. 매개변수가 둘이면 평면 위의 곡면이"
        " 된다. 여기서 쓰는 곡면은 옆면에 홈이 두 개 파인 둥근 그릇 모양이다. 그릇의 바닥이 전역 최솟값, 두 홈의 바닥이"
        " 지역 최솟값이고, 두 홈 사이에 안장점이 있다. 안장점은 x 방향 단면에서는 가장 낮고 y 방향 단면에서는 가장"
        " 높다. 이 네 곳에서는 기울기가 0이므로, 경사 하강법은 그중 어디에서든 멈출 수 있다.",
    ),
    run=run,
    add_options=add_options,
    formula=("J(θ) = θ²", "∇J(θ) = 0"),
    claims=(
        Claim(
            "000",
            Words(
                "A saddle is a maximum seen from one direction, and a minimum seen from another.",
                "안장점은 어느 방향에서 보면 극댓값이고 다른 방향에서 보면 극솟값이 되는 점이다.",
            ),
            _judge_saddle,
        ),
        Claim(
            "001",
            Words(
                "The loss is a quadratic function of slope and intercept.",
                "손실 함수는 기울기와 절편에 대해서 이차 함수이다.",
            ),
            _judge_quadratic,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
