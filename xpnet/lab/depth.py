"""python -m xpnet.lab depth: shallow against deep, narrow against wide."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from ..commands import cli
from ..model import MLP
from ..optim import Adam
from ..optim.schedules import one_cycle
from ..training import Trainer, evaluate
from . import experiment
from .activations import Data
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to

DEPTHS = (1, 2, 3, 4)
WIDTHS = (10, 20, 50, 100, 200)
SEEDS = 3
STEPS = 250
BATCH = 100
RATE = 0.005  # the peak, for all sizes alike


@dataclass(frozen=True)
class Point:
    """Networks of one size, one for each seed.

    Attributes:
        depth: hidden layers.
        width: units in each.
        parameters: of one network.
        accuracies: on the test rows, one for each seed.
    """

    depth: int
    width: int
    parameters: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the accuracies."""
        return float(np.mean(self.accuracies))

    @property
    def deviation(self) -> float:
        """The standard deviation of the accuracies, that of a sample; 0 of a single one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


def measure(lab: Lab, data: Data, depth: int, width: int) -> Point:
    """Train the networks of a size side by side, on the same batches."""
    x, y, *test = data
    options = lab.options
    model = MLP([x.shape[1], *[width] * depth, 10], replicas=options.seeds, seed=lab.seed, device=lab.device)
    trainer = Trainer(
        model, Adam(options.rate), schedule=one_cycle(options.steps), batch_size=options.batch_size, seed=lab.seed
    )
    trainer.fit(x, y, steps=options.steps)
    parameters = sum(slot.size for slot in model.network.layout.slots)
    return Point(depth, width, parameters, tuple(evaluate(model, *test)[1]))


def add_options(parser: cli.Parser) -> None:
    """Add the sizes, and how they are trained."""
    add = parser.add_argument
    add(
        "--depth", type=up_to(20), nargs="+", default=list(DEPTHS), metavar="N", help="hidden layers (default: 1 2 3 4)"
    )
    widths = " ".join(map(str, WIDTHS))
    add("--width", type=up_to(2000), nargs="+", default=list(WIDTHS), metavar="N", help=f"units (default: {widths})")
    add("--seeds", type=up_to(100), default=SEEDS, metavar="N", help=f"networks of each size (default: {SEEDS})")
    add("--rate", type=positive, default=RATE, metavar="RATE", help=f"of Adam, the peak (default: {RATE:g})")
    add("--steps", type=up_to(1_000_000), default=STEPS, metavar="N", help=f"of each training (default: {STEPS})")
    add("--batch-size", type=up_to(10_000), default=BATCH, metavar="ROWS", help=f"(default: {BATCH})")


def run(lab: Lab) -> list[Point]:
    """Train every size, and tabulate and draw accuracy against parameters."""
    options = lab.options
    depths, widths = sorted(set(options.depth)), sorted(set(options.width))
    data = lab.pixels(lab.mnist())
    lab.say(
        f"ReLU networks after {options.steps} steps of {options.batch_size} rows, one cycle up to {options.rate:g}:"
        " parameters, and"
    )
    lab.say(f"test accuracy in percent, mean and standard deviation of {options.seeds} seeds")
    points = []
    for depth in depths:
        lab.progress(f"depth: {depth} hidden layer{'s' * (depth > 1)}")
        points += [measure(lab, data, depth, width) for width in widths]
    rows = []
    for width in widths:
        cells = []
        for point in (point for point in points if point.width == width):
            cells += [str(point.parameters), f"{100.0 * point.mean:.2f} ±{100.0 * point.deviation:.2f}"]
        rows.append((str(width), *cells))
    head = ["units a layer"]
    for depth in depths:
        head += ["parameters", f"{depth} layer{'s' * (depth > 1)}"]
    lab.table(head, rows)
    lab.draw("depth", CAPTION, partial(_draw, points))
    return points


def _draw(points: list[Point]) -> Any:
    """Draw accuracy against parameters, a line for each depth."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 1, width=7.0, height=4.4)
    axes = grid[0, 0]
    styles = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"))
    depths, widths = (sorted({getattr(point, name) for point in points}) for name in ("depth", "width"))
    for depth, color, (line, marker) in zip(depths, cycle(PALETTE), cycle(styles), strict=False):
        mine = [point for point in points if point.depth == depth]
        axes.errorbar(
            [point.parameters for point in mine],
            [100.0 * point.mean for point in mine],
            [100.0 * point.deviation for point in mine],
            color=color,
            linestyle=line,
            marker=marker,
            markersize=5,
            capsize=3,
            label=f"{depth} hidden layer{'s' * (depth > 1)}",
        )
    axes.set_xscale("log")
    axes.set_xlabel("parameters")
    axes.set_ylabel("test accuracy, %")
    axes.legend(loc="lower right", title=f"{', '.join(map(str, widths))} units a layer")
    return figure


CAPTION = Words(
    "Accuracy by number of parameters, mean and deviation over seeds",
    "매개변수 수에 따른 정확도, 시드별 평균과 표준편차",
)


def _judge_experiment(points: list[Point]) -> Verdict | None:
    """Whether sizes differ by more than seeds do, so that an experiment can choose between them."""
    if len(points) < 2:
        return None
    best, worst = max(points, key=lambda point: point.mean), min(points, key=lambda point: point.mean)
    tied = [point for point in points if best.mean - point.mean <= best.deviation + point.deviation]
    apart = best.mean - worst.mean > best.deviation + worst.deviation
    sizes = ", ".join(f"{point.depth} x {point.width}" for point in tied)
    numbers = "; ".join(
        f"{point.depth} x {point.width}: {100.0 * point.mean:.2f} ± {100.0 * point.deviation:.2f} %"
        for point in (best, worst)
    )
    if not apart:
        return Verdict(
            "wrong",
            numbers,
            Words("These sizes differ no more than seeds do.", "이 크기들의 차이는 시드에 따른 차이를 넘지 않는다."),
        )
    return Verdict(
        "right" if len(tied) == 1 else "conditional",
        numbers,
        Words(
            f"The experiment tells sizes apart; it cannot tell which of these is the best (layers x units): {sizes}."
            if len(tied) > 1
            else f"The experiment finds one best size (layers x units): {sizes}.",
            f"실험으로 우열을 가릴 수 있지만, 다음 가운데 무엇이 가장 좋은지는 가리지 못한다(층 x 뉴런): {sizes}."
            if len(tied) > 1
            else f"실험으로 가장 좋은 크기를 찾을 수 있다(층 x 뉴런): {sizes}.",
        ),
    )


EXPERIMENT = Experiment(
    name="depth",
    title=Words("Depth and width", "층의 수와 뉴런의 수"),
    text=Words(
        "The post says that the number of layers and of their units is found by experiment: here is one. Every size"
        " trains for the same short time, at the same rates, from several seeds. On MNIST, wider was better at every"
        " depth. With 10 units a layer, where all that is known about a digit has to pass through ten numbers each"
        " time, one hidden layer was best. With 50 and more a second hidden layer paid for itself, better than the"
        " same number of parameters spent on width; a third and a fourth changed no more than the seed does."
        " These are results of a short training on simple pictures, and no law.",
        "글에서는 은닉층의 수와 층별 뉴런의 수를 실험으로 정한다고 한다. 여기서는 그런 실험을 해 본다. 모든 크기의"
        " 신경망을 같은 짧은 시간 동안 같은 학습률로, 여러 시드에서 학습시킨다. MNIST에서는 층의 수와 관계없이"
        " 뉴런이 많을수록 좋았다. 층마다 뉴런이 10개이면 숫자에 대한 정보가 층마다 열 개의 수로 줄어드는데,"
        " 이때에는 은닉층 하나가 가장 나았다. 50개 이상에서는 둘째 은닉층이 효과가 있었고, 같은 수의 매개변수로"
        " 폭을 넓히는 것보다 나았다. 셋째와 넷째 은닉층의 효과는 시드에 따른 차이를 거의 넘지 못했다. 단순한"
        " 이미지로 짧게 학습한 결과일 뿐, 법칙은 아니다.",
    ),
    run=run,
    add_options=add_options,
    formula=("parameters = Σ (units in + 1) · units out, over all layers",),
    claims=(
        Claim(
            "003",
            Words(
                "The best numbers of hidden layers and of units in them are found by experiment.",
                "은닉층의 개수와 층별 노드의 개수는 실험을 통해 최적의 값을 정한다.",
            ),
            _judge_experiment,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
