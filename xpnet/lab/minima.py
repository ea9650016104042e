"""python -m xpnet.lab minima: local minima and a saddle: many starts at once, restarts and kicks of the rate."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import Array, HostArray
from ..optim import SGD, Schedule
from ..optim.schedules import constant, cosine_restarts, join
from ..training.descent import Descent, descend
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to

BOX = 3.0  # starts are drawn from -BOX to BOX in both coordinates
SHOWN = 100  # starts in the picture: the post's number
STARTS = 100_000
MOST_STARTS = 1_000_000
DEPTHS = (0.25, 0.43)  # of shallow dents: less has no minimum, and more is lower than the bowl
FEWER = 25_000  # of them, in the second landscape
PIECE = 25_000  # starts in one array: on the CPU, of 100,000 most of the time goes into fetching them from memory
STEPS = 1000
NEAR = 0.1  # from a minimum or a saddle: there it has ended

RATE = 0.2  # small enough for every place of both landscapes
PEAK = 3.0  # too large for the dents, and not for the bowl
SETTLE = 250  # steps at RATE, after which every walk has settled somewhere, before the rate grows
PERIOD = 250  # steps from one restart to the next
KICK = 100  # steps for which a kick lasts
H = 1e-6  # the step of central differences
NUDGES = (0.0, 1e-12, 1e-9, 1e-6, 1e-3)
ON_THE_AXIS = (-2.9, 0.0)
CAUGHT = (-2.6, 1.2)  # a start from which a constant rate ends in the upper dent

KINDS = ("bowl", "upper dent", "lower dent", "saddle", "elsewhere")  # of places; the last is -1


@dataclass(frozen=True)
class Landscape:
    """A round bowl around the origin, with two dents on its side, at (x, y) and (x, -y).

    f(p) = bowl |p|^2 / 2 - depth (1 - |p - d|^2 / radius^2)^2, the latter for each dent d, and only within its radius.
    It is symmetric about the axis y = 0, so that a descent that starts on the axis never leaves it.
    """

    depth: float
    bowl: float = 0.2
    x: float = -2.0
    y: float = 0.6
    radius: float = 0.9

    def __call__(self, points: Array) -> Array:
        """Return the height at points, (..., 2)."""
        x, y = points[..., 0], points[..., 1]
        height = (x * x + y * y) * (0.5 * self.bowl)
        for side in (self.y, -self.y):
            inside = 1.0 - ((x - self.x) * (x - self.x) + (y - side) * (y - side)) * (1.0 / self.radius**2)
            inside = inside * (inside > 0.0)
            height = height - self.depth * inside * inside
        return height

    def gradient(self, points: Array) -> Array:
        """Return the gradient, (..., 2), with few operations on whole arrays."""
        x, y = points[..., 0], points[..., 1]
        g = points * self.bowl
        strength = 4.0 * self.depth / self.radius**2
        for side in (self.y, -self.y):
            dx, dy = x - self.x, y - side
            pull = strength - (dx * dx + dy * dy) * (strength / self.radius**2)
            pull = pull * (pull > 0.0)
            g[..., 0] = g[..., 0] + pull * dx
            g[..., 1] = g[..., 1] + pull * dy
        return g


SHALLOW = Landscape(depth=0.3)  # the dents are local minima, and the bowl is the global one
DEEP = Landscape(depth=0.8)  # the dents are the global minima, narrower than the bowl


def schedules(rate: float = RATE, peak: float = PEAK, kick: int = KICK) -> dict[str, Schedule]:
    """Schedules by their names: factors of the rate, all 1 until the walks have settled."""
    settle = (SETTLE, constant())
    annealing = cosine_restarts(PERIOD)

    def high(taken: int) -> float:
        return peak / rate

    return {
        "constant": constant(),
        "cosine restarts": join([settle], lambda taken: peak / rate * annealing(taken)),
        "kick, 1 step": join([settle, (1, high)], constant()),
        f"kick, {kick} steps": join([settle, (kick, high)], constant()),
    }


def chosen_schedules(lab: Lab) -> dict[str, Schedule]:
    """Schedules by their names, of the chosen rates and kick."""
    return schedules(lab.options.rate, lab.options.peak, lab.options.kick)


def walk(
    lab: Lab,
    landscape: Landscape,
    start: Any,
    schedule: str = "constant",
    *,
    steps: int | None = None,
    rate: float | None = None,
    tolerance: float | None = None,
    keep_path: bool = True,
) -> Descent:
    """Descend from one point or many, with the schedule of a name, by default with the chosen steps and rate."""
    return descend(
        landscape,
        start,
        SGD(lab.options.rate if rate is None else rate),
        lab.options.steps if steps is None else steps,
        gradient=landscape.gradient,
        schedule=chosen_schedules(lab)[schedule],
        tolerance=tolerance,
        keep_path=keep_path,
        device=lab.device,
    )


def ends(lab: Lab, landscape: Landscape, starts: HostArray, schedule: str) -> HostArray:
    """Descend from starts, (S, 2), a piece of them at a time; return the ends, (S, 2)."""
    pieces = (starts[i : i + PIECE] for i in range(0, len(starts), PIECE))
    return np.concatenate([walk(lab, landscape, piece, schedule, keep_path=False).x for piece in pieces])


def places(lab: Lab, landscape: Landscape) -> HostArray:
    """Return the bowl's minimum, those of the upper and the lower dent, and the saddle between them, (4, 2).

    Descent finds each to rounding, from where its basin is known to be; the saddle from a point on the axis.
    """
    x, y = landscape.x, landscape.y
    starts = [[1.0, 0.0], [x, y], [x, -y], list(ON_THE_AXIS)]
    return walk(lab, landscape, starts, steps=10 * STEPS, rate=RATE, tolerance=1e-12, keep_path=False).x


def curvatures(landscape: Landscape, point: HostArray) -> HostArray:
    """Smallest and largest curvature at a point, (2,): the eigenvalues of the second derivatives."""
    beside = point + H * np.array([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]])  # (2, 2, 2)
    above, below = landscape.gradient(beside)
    return np.asarray(np.linalg.eigvalsh((above - below) / (2.0 * H)))


def basins(points: HostArray, known: HostArray) -> HostArray:
    """Index of the known place, (K, 2), near each point, (S, 2); -1 for none."""
    distances = np.linalg.norm(points[:, None] - known, axis=-1)  # (S, K)
    return np.where(distances.min(axis=-1) < NEAR, distances.argmin(axis=-1), -1)


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        slopes: largest component of the gradient at each of the low places.
        nudges: for each of NUDGES, the steps until the walk has left the axis, None for never.
        shares: by schedule, the share of starts that end in the global minimum, with shallow dents and with deep ones.
        first: by schedule, how many of the first starts end in the global minimum, with shallow dents.
        shown: the number of these first starts.
    """

    slopes: list[float]
    nudges: list[int | None]
    shares: dict[str, tuple[float, float]]
    first: dict[str, int]
    shown: int


def _depth(text: str) -> float:
    value = positive(text)
    if not DEPTHS[0] <= value <= DEPTHS[1]:
        raise argparse.ArgumentTypeError(f"must be from {DEPTHS[0]:g} to {DEPTHS[1]:g}, not {value:g}")
    return value


def add_options(parser: cli.Parser) -> None:
    """Add the rates, the kick, the starts and steps, and the depth of the shallow dents."""
    add = parser.add_argument
    add("--rate", type=positive, default=RATE, metavar="RATE", help=f"of all walks (default: {RATE:g})")
    add("--peak", type=positive, default=PEAK, metavar="RATE", help=f"of restarts and kicks (default: {PEAK:g})")
    add("--kick", type=up_to(STEPS), default=KICK, metavar="N", help=f"steps of the longer kick (default: {KICK})")
    add("--starts", type=up_to(MOST_STARTS), default=STARTS, metavar="N", help=f"(default: {STARTS})")
    add("--steps", type=up_to(10 * STEPS), default=STEPS, metavar="N", help=f"of each walk (default: {STEPS})")
    add(
        "--depth",
        type=_depth,
        default=SHALLOW.depth,
        metavar="D",
        help=f"of shallow dents, {DEPTHS[0]:g} to {DEPTHS[1]:g} (default: {SHALLOW.depth:g})",
    )


def run(lab: Lab) -> Results:
    """List the places, walk from the saddle's axis, then from many starts under each schedule."""
    options = lab.options
    if options.kick == 1:
        raise cli.UsageError("a kick of 1 step is walked anyway: --kick is the longer one, at least 2")
    shallow = replace(SHALLOW, depth=options.depth)
    known = {landscape: places(lab, landscape) for landscape in (shallow, DEEP)}
    slopes = []
    for landscape, words in ((shallow, "shallow dents"), (DEEP, "deep dents")):
        lab.say(f"a bowl with two {words}: its low places, and the largest rate at which descent can stay there")
        rows = []
        for name, place in zip(KINDS, known[landscape], strict=False):
            least, greatest = curvatures(landscape, place)
            where = f"({place[0] + 0.0:.3f}, {place[1] + 0.0:.3f})"
            limit = f"{2.0 / greatest:.2f}" if least > 0.0 else "none"
            height = float(landscape(place))
            rows.append((name, where, f"{height:.4f}", f"{least:.2f} to {greatest:.2f}", limit))
            slopes.append(float(np.abs(landscape.gradient(place)).max()))
        lab.table(("place", "(x, y)", "height", "curvature", "largest rate"), rows)
        lab.say()

    nudged = walk(lab, shallow, [(ON_THE_AXIS[0], nudge) for nudge in NUDGES])
    lab.say(
        f"from ({ON_THE_AXIS[0]:g}, nudge), at rate {options.rate:g}: steps until it is {NEAR:g} off the axis, and the"
        " end"
    )
    walks, left = [], []
    for i, nudge in enumerate(NUDGES):
        away = np.abs(nudged.path[:, i, 1]) > NEAR
        place = int(basins(nudged.x[i : i + 1], known[shallow])[0])
        left.append(int(away.argmax()) if away.any() else None)
        walks.append((f"{nudge:g}", "never" if left[-1] is None else str(left[-1]), KINDS[place]))
    lab.table(("nudge", "steps", "end"), walks)
    lab.say()

    starts = np.random.default_rng(lab.seed).uniform(-BOX, BOX, size=(options.starts, 2))
    count, steps = len(starts), options.steps
    shown = {}
    lab.say(f"{count} starts, {steps} steps: the share that ends in the global minimum (with deep dents: in either)")
    table, shares, first = [], {}, {}
    for schedule in chosen_schedules(lab):
        # The untimed walks come first: in them the C library learns to keep memory instead of giving it back each step.
        deep = basins(ends(lab, DEEP, starts[:FEWER], schedule), known[DEEP])
        begun = time.perf_counter()
        found = basins(ends(lab, shallow, starts, schedule), known[shallow])
        seconds = time.perf_counter() - begun
        shown[schedule] = found[:SHOWN]
        first[schedule] = int((found[:SHOWN] == 0).sum())
        shares[schedule] = float((found == 0).mean()), float(np.isin(deep, (1, 2)).mean())
        cells = (f"{shares[schedule][0]:.2%}", f"{seconds:.1f}", f"{shares[schedule][1]:.2%}")
        table.append((schedule, f"{first[schedule]} of {len(found[:SHOWN])}", *cells))
        lab.progress(f"{schedule}: done")
    head = ("schedule", "shallow dents", f"of {count}", "seconds", f"deep dents, of {min(FEWER, count)}")
    lab.table(head, table)

    lab.draw("minima-starts", _basins(min(SHOWN, count)), partial(_draw_starts, starts[:SHOWN], shown, shallow, known))
    lab.draw("minima-saddle", SADDLE, partial(_draw_saddle, nudged, shallow, known[shallow]))
    caught = {schedule: walk(lab, shallow, CAUGHT, schedule) for schedule in chosen_schedules(lab)}
    lab.draw("minima-schedules", _escape(lab), partial(_draw_schedules, lab, caught, shallow, known[shallow]))
    return Results(slopes, left, shares, first, min(SHOWN, count))


def _draw_starts(
    starts: HostArray, shown: dict[str, HostArray], landscape: Landscape, places: dict[Landscape, HostArray]
) -> Any:
    """Draw each start in the colour of the place where it ends, under each schedule."""
    from ..plots import PALETTE, new_figure

    known = places[landscape]
    figure, grid = new_figure(2, 2, width=4.4, height=4.2)
    for axes, (schedule, found) in zip(grid.flat, shown.items(), strict=True):
        _draw_contours(axes, landscape)
        for place, (marker, color) in enumerate((("o", 0), ("^", 1), ("v", 4))):
            chosen = starts[found == place]
            axes.plot(chosen[:, 0], chosen[:, 1], marker, color=PALETTE[color], markersize=6, label=KINDS[place])
            axes.plot(*known[place], "*", color=PALETTE[color], markersize=18, markeredgecolor="black")
        axes.set_title(f"{schedule}: {(found == 0).sum()} of {len(found)} in the bowl")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, title="ends in (stars)")
    return figure


def _draw_saddle(nudged: Descent, landscape: Landscape, known: HostArray) -> Any:
    """Draw the paths from beside the axis, and how far off it they are by step."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 2, width=5.2, height=4.2)
    plane, curve = grid[0]
    _draw_contours(plane, landscape, across=(-3.0, 0.2), up=(-1.7, 1.5))
    plane.plot(*nudged.path[:, 0].T, "o-", color=PALETTE[6], markersize=4, label="on the axis")
    plane.plot(*nudged.path[:, -1].T, "^--", color=PALETTE[1], markersize=4, label=f"nudged by {NUDGES[-1]:g}")
    plane.plot(*known[3], "X", color=PALETTE[3], markersize=12, markeredgecolor="black", label="saddle")
    plane.plot(*known[1:3].T, "*", color=PALETTE[0], markersize=15, markeredgecolor="black", label="local minima")
    plane.legend(loc="lower left", ncols=2, fontsize=8)
    for i, style in zip(range(1, len(NUDGES)), ("-", "--", "-.", ":"), strict=False):
        curve.semilogy(nudged.path[:200, i, 1], style, color=PALETTE[i - 1], label=f"{NUDGES[i]:g}")
    curve.set(xlabel="step", ylabel="distance from the axis, y", title="without a nudge, y stays 0")
    curve.legend(loc="lower right", title="nudge")
    return figure


def _draw_schedules(lab: Lab, caught: dict[str, Descent], landscape: Landscape, known: HostArray) -> Any:
    """Draw the walks from one start under each schedule: the rates, the heights, and the path that is kicked."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 3, width=4.8, height=4.2)
    rates, heights, plane = grid[0]
    # Wide lines first, so that those which lie on each other are all seen.
    looks = ((6, "-", 5.0, 0.3), (0, "-", 1.0, 1.0), (4, "--", 2.0, 1.0), (1, ":", 2.0, 1.0))
    for (schedule, found), (color, style, width, alpha) in zip(caught.items(), looks, strict=True):
        look = {"color": PALETTE[color], "linestyle": style, "linewidth": width, "alpha": alpha}
        factors = map(chosen_schedules(lab)[schedule], range(lab.options.steps))
        rates.plot([lab.options.rate * factor for factor in factors], **look)
        heights.plot(found.values, **look, label=schedule)
    rates.set(xlabel="step", ylabel="learning rate")
    heights.set(xlabel="step", ylabel="height")
    heights.legend(loc="upper right")
    _draw_contours(plane, landscape)
    schedule = f"kick, {lab.options.kick} steps"
    path = caught[schedule].path
    path = np.where(np.abs(path) <= BOX, path, np.nan)  # a walk that diverges leaves the picture
    plane.plot(*path[: SETTLE + 1].T, "o-", color=PALETTE[4], markersize=4, label="before the kick")
    plane.plot(*path[SETTLE:].T, "^--", color=PALETTE[1], markersize=4, linewidth=1.0, label="from the kick on")
    plane.plot(*known[:3].T, "*", color=PALETTE[0], markersize=15, markeredgecolor="black", label="minima")
    plane.set_title(schedule)
    plane.legend(loc="lower right")
    return figure


def _draw_contours(
    axes: Any,
    landscape: Landscape,
    across: tuple[float, float] = (-BOX, BOX),
    up: tuple[float, float] = (-BOX, BOX),
) -> None:
    """Draw a landscape."""
    from ..plots import SURFACE

    x, y = np.meshgrid(np.linspace(*across, 240), np.linspace(*up, 240))
    axes.contour(x, y, landscape(np.stack([x, y], axis=-1)), levels=16, cmap=SURFACE, linewidths=0.8)
    axes.set_aspect("equal")
    axes.set(xlabel="x", ylabel="y")


def _basins(count: int) -> Words:
    return Words(
        f"{'A hundred' if count == 100 else count} starts, coloured by where they end under each schedule",
        f"학습률 일정별로, 끝나는 곳에 따라 색을 입힌 시작점 {count}개",
    )


SADDLE = Words(
    "A start on the axis stays at the saddle; a nudge along y leaves it",
    "축 위에서 출발하면 안장점에 머물고, y 방향으로 조금만 밀면 빠져나온다",
)


def _escape(lab: Lab) -> Words:
    if not experiment.changed(EXPERIMENT, lab.options):
        return Words(
            "Out of a local minimum: restarts, and a kick of the rate that lasts",
            "지역 최솟값에서 빠져나오기: 재시작, 그리고 한동안 크게 키운 학습률",
        )
    rate, peak = lab.options.rate, lab.options.peak
    return Words(
        f"From one start: rate {rate:g}, with restarts and kicks up to {peak:g}",
        f"한 시작점에서: 학습률 {rate:g}, 재시작과 일시적으로 키운 학습률 {peak:g}",
    )


def _judge_zero(results: Results) -> Verdict:
    """Whether the gradient is zero at minima and at the saddle."""
    largest = max(results.slopes)
    return Verdict(
        "right" if largest < 1e-6 else "wrong",
        f"|∇f| ≤ {largest:.0e}",
        Words(
            f"At the global and the local minima and at the saddle no component of the gradient exceeds {largest:.0e}.",
            f"전역 최솟값, 지역 최솟값, 안장점에서 기울기의 성분은 모두 {largest:.0e} 이하이다.",
        ),
    )


def _judge_saddle(results: Results) -> Verdict:
    """Whether a walk that is moved along another direction leaves the saddle."""
    still, *nudged = results.nudges
    left = [steps for steps in nudged if steps is not None]
    numbers = f"0: {_steps(still)}; {NUDGES[1]:g}: {_steps(nudged[0])}"
    if still is None and len(left) == len(nudged):
        return Verdict(
            "right",
            numbers,
            Words(
                f"On the axis it never leaves; moved by {NUDGES[1]:g} across it is away after {nudged[0]} steps.",
                f"축 위에서는 빠져나오지 못하지만, 옆으로 {NUDGES[1]:g}만 옮기면 {nudged[0]}번 갱신한 뒤 빠져나온다.",
            ),
        )
    return Verdict(
        "conditional" if left else "wrong",
        numbers,
        Words(
            f"Of {len(nudged)} nudges, {len(left)} lead away within the steps of this run.",
            f"옆으로 옮긴 {len(nudged)}번 가운데 {len(left)}번만 이 갱신 횟수 안에 빠져나온다.",
        ),
    )


def _steps(steps: int | None) -> str:
    return "∞" if steps is None else str(steps)


def _judge_kick(results: Results) -> Verdict:
    """Whether one step at a large rate leads out of local minima, or only many."""
    (_, constant_), _, (_, one), (kick, many) = ((name, share) for name, (share, _) in results.shares.items())
    deep = results.shares[kick][1]
    numbers = f"{constant_:.1%} → 1: {one:.1%}; {kick.split()[1]}: {many:.1%}"
    if one > constant_ + 0.01:
        return Verdict(
            "right",
            numbers,
            Words("A single large step is enough here.", "여기서는 한 번 크게 주는 것으로 충분하다."),
        )
    if many > constant_ + 0.01:
        return Verdict(
            "conditional",
            numbers,
            Words(
                f"One step changes nothing, for at the bottom the gradient is zero; {kick.split()[1]} steps do. And"
                f" curvature counts, not depth: with deep dents {deep:.1%} end in the global minima.",
                f"바닥에서는 기울기가 0이므로 한 번으로는 달라지지 않고, {kick.split()[1]}번은 키워야 한다. 또 깊이가"
                f" 아니라 곡률이 중요하다. 홈이 깊으면 {deep:.1%}가 전역 최솟값에서 끝난다.",
            ),
        )
    return Verdict(
        "wrong",
        numbers,
        Words("Neither one step nor many at this rate lead out.", "이 학습률로는 한 번도 여러 번도 빠져나오지 못한다."),
    )


def _judge_starts(results: Results) -> Verdict:
    """Whether some of the first starts end in the global minimum."""
    found = results.first["constant"]
    return Verdict(
        "right" if found else "wrong",
        f"{found}/{results.shown}",
        Words(
            f"{found} of {results.shown} random starts end in the global minimum, so the lowest end is it."
            if found
            else f"None of {results.shown} starts ends in the global minimum.",
            f"시작점 {results.shown}개 가운데 {found}개가 전역 최솟값에서 끝나므로, 가장 낮은 끝점이 전역 최솟값이다."
            if found
            else f"시작점 {results.shown}개 가운데 전역 최솟값에서 끝나는 것이 없다.",
        ),
    )


CLAIMS = (
    Claim(
        "000",
        Words(
            "The gradient is zero at the minimum, at local minima and at saddle points.",
            "최솟값, 극솟값, 안장점에서 기울기는 0이다.",
        ),
        _judge_zero,
    ),
    Claim(
        "001",
        Words(
            "A saddle point can be left by moving along another parameter.",
            "안장점으로 수렴하더라도 다른 단면(파라미터)으로 움직이면 빠져나올 수 있다.",
        ),
        _judge_saddle,
    ),
    Claim(
        "001",
        Words(
            "Local minima are shallow, so that one large step leads out of them.",
            "지역 최솟값은 보통 골이 얕으므로 학습률을 한 번 크게 주면 빠져나올 수 있다.",
        ),
        _judge_kick,
    ),
    Claim(
        "001",
        Words(
            "Descent from a hundred random points finds the global minimum.",
            "임의의 점 100개에서 경사 하강법을 적용하면 전역 최솟값을 찾을 수 있다.",
        ),
        _judge_starts,
    ),
)

EXPERIMENT = Experiment(
    name="minima",
    title=Words("Global minimum, local minima and saddle", "전역 최솟값, 지역 최솟값, 안장점"),
    text=Words(
        "The function is a round bowl with two dents on its side. Shallow dents are local minima, and between them is"
        " a saddle: the lowest place along x, the highest along y. What starts exactly on the axis walks to the saddle"
        " and stays; a tiny nudge along y is enough to leave it. A hundred thousand starts walk side by side, each as"
        " it would alone. With a small constant rate a start ends in the minimum of the basin in which it lies. At a"
        " large rate no walk can stay where the function curves steeply: restarts and a kick of the rate throw walks"
        " out of the narrow dents, and the wide bowl holds them. But a single step at a large rate does nothing, for"
        " at the bottom the gradient is zero; it takes many. And curvature counts, not depth: where the dents"
        " are deeper than the bowl, and so the global minima, the same kick throws the walks out of these.",
        "이 함수는 비탈에 홈이 두 개 파인 둥근 그릇이다. 홈이 얕으면 지역 최솟값이 되고, 두 홈 사이에는 안장점이"
        " 있다. 안장점은 x 방향으로는 가장 낮고 y 방향으로는 가장 높은 곳이다. 정확히 축 위에서 출발하면"
        " 안장점까지 가서 머물지만, y 방향으로 아주 조금만 밀어도 빠져나온다. 시작점 10만 개를 나란히"
        " 움직이는데, 각각은 혼자 움직일 때와 똑같이 움직인다. 학습률이 작고 일정하면 출발한 골의 최솟값에서"
        " 끝난다. 학습률이 크면 곡률이 큰 곳에는 머물 수 없다. 그래서 재시작을 하거나 학습률을 한동안 크게"
        " 키우면 점들이 좁은 홈에서 빠져나와 넓은 그릇에 머문다. 그러나 갱신 한 번 동안만 키워서는 아무 일도"
        " 일어나지 않는다. 바닥에서는 기울기가 0이므로 여러 번 갱신해야 한다. 또 중요한 것은 깊이가 아니라"
        " 곡률이다. 홈이 그릇보다 깊어 전역 최솟값이 되어도, 같은 방법을 쓰면 점들이 그 홈에서 빠져나온다.",
    ),
    run=run,
    add_options=add_options,
    formula=("f(p) = k|p|²/2 - Σ d (1 - |p - c|²/r²)²,  over the dents c, within their radius r", "p ← p - η ∇f(p)"),
    claims=CLAIMS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
