"""python -m xpnet.lab drift: how weights and outputs of a deep network drift while it trains."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import HostArray
from ..data import load_digits
from ..model import MLP
from ..nn import ACTIVATIONS, Linear
from ..optim import Adam
from ..training import Trainer, evaluate
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to

HIDDEN = (50, 50, 50, 50, 50)
RATE, BATCH, STEPS = 0.003, 64, 1500
LOOKS = 30
SHARES = (1, 25, 50, 75, 99)  # percentiles of weights
EDGE = 0.05  # a sigmoid's output within this of 0 or 1 counts as pushed aside: its slope is below 0.05
KINDS = ("sigmoid", "relu")
STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))  # of lines, by layer


@dataclass(frozen=True)
class Drift:
    """A training.

    Attributes:
        steps: after which was measured, (looks,).
        weights: percentiles SHARES of each layer's weights, (looks, layers, 5).
        deviations: of each layer's weights, (looks, layers).
        aside: share of each hidden layer's outputs near 0 or 1, (looks, hidden layers); of ReLU, of zeros.
        accuracy: on the test rows.
    """

    steps: HostArray
    weights: HostArray
    deviations: HostArray
    aside: HostArray
    accuracy: float


def add_options(parser: cli.Parser) -> None:
    """Add the hidden layers, the rate of Adam, the number of steps, and the batch size."""
    add = parser.add_argument
    add(
        "--hidden",
        type=up_to(10_000),
        nargs="+",
        default=list(HIDDEN),
        metavar="UNITS",
        help="(default: five times 50)",
    )
    add("--batch-size", type=up_to(10_000), default=BATCH, metavar="ROWS", help=f"(default: {BATCH})")
    add("--rate", type=positive, default=RATE, metavar="RATE", help=f"of Adam (default: {RATE:g})")
    add("--steps", type=up_to(100_000), default=STEPS, metavar="N", help=f"of the training (default: {STEPS})")


def train(lab: Lab, kind: str) -> Drift:
    """Train a deep network of one activation on the bundled digits, and measure it on the way."""
    data, total = load_digits(), lab.options.steps
    sizes = [data.x_train[0].size, *lab.options.hidden, len(data.class_names)]
    model = MLP(sizes, activation=kind, input_scale=data.input_scale, seed=lab.seed, device=lab.device)
    linears = [layer for layer in model.network.layers if isinstance(layer, Linear)]
    rows = lab.device.asarray((data.x_train.reshape(len(data.x_train), -1) / data.input_scale).astype("float32"))
    wanted = set(np.linspace(0, total, LOOKS).astype(int).tolist())
    steps: list[int] = []
    weights: list[list[HostArray]] = []
    outputs: list[list[float]] = []

    def look(step: int) -> None:
        if step not in wanted:
            return
        steps.append(step)
        weights.append([lab.device.to_host(layer.W).ravel().copy() for layer in linears])
        x, shares = rows, []
        for layer in model.network.layers:
            x = layer.forward(x, False)
            if isinstance(layer, ACTIVATIONS[kind]):
                a = lab.device.to_host(x)
                shares.append(float((np.minimum(a, 1.0 - a) < EDGE).mean() if kind == "sigmoid" else (a == 0.0).mean()))
        outputs.append(shares)

    look(0)
    Trainer(model, Adam(lab.options.rate), batch_size=lab.options.batch_size, seed=lab.seed).fit(
        data.x_train, data.y_train, steps=total, on_step=look
    )
    return Drift(
        np.array(steps),
        np.array([[np.percentile(w, SHARES) for w in look] for look in weights]),
        np.array([[w.std() for w in look] for look in weights]),
        np.array(outputs),
        evaluate(model, data.x_test, data.y_test)[1],
    )


def run(lab: Lab) -> dict[str, Drift]:
    """Train with sigmoids and with ReLUs, and tabulate weights and outputs before and after."""
    options = lab.options
    lab.say(f"hidden layers {'-'.join(map(str, options.hidden))}, bundled digits, {options.steps} steps of Adam at")
    lab.say(f"rate {options.rate:g}:")
    lab.say("deviation of each layer's weights, and the share of its outputs pushed aside")
    lab.say(f"(sigmoid: within {EDGE:g} of 0 or 1; relu: 0), before and after")
    results = {kind: train(lab, kind) for kind in KINDS}
    rows, hidden = [], len(options.hidden)
    for kind, one in results.items():
        for layer in range(hidden + 1):
            ends = one.deviations[[0, -1], layer]
            shares = [f"{share:.1%}" for share in one.aside[[0, -1], layer]] if layer < hidden else ["", ""]
            rows.append((f"{kind} {layer + 1}", *(f"{end:.3f}" for end in ends), f"{ends[1] / ends[0]:.1f}", *shares))
    lab.table(("layer", "deviation", "after", "times", "aside", "after"), rows)
    for kind, one in results.items():
        lab.say(f"test accuracy, {kind}: {one.accuracy:.4f}")
    lab.draw("drift", CAPTION, partial(_draw, results))
    return results


def _judge(results: dict[str, Drift]) -> Verdict:
    """Whether weights of sigmoids grow and outputs are pushed aside, and ReLU's weights grow less."""
    sigmoid, relu = (results[kind].deviations[-1] / results[kind].deviations[0] for kind in KINDS)
    aside = results["sigmoid"].aside.mean(axis=1)
    drifts = sigmoid.max() > 1.5 and aside[-1] > aside[0] + 0.1
    answer = ("right" if relu.max() < sigmoid.max() else "conditional") if drifts else "wrong"
    return Verdict(
        answer,
        f"sigmoid: {sigmoid.max():.1f}, {aside[0]:.0%} → {aside[-1]:.0%}; ReLU: {relu.max():.1f}",
        Words(
            f"The deviation of some layer's weights grows {sigmoid.max():.1f} times with sigmoids, {relu.max():.1f}"
            f" times with ReLU; sigmoid outputs near 0 or 1 go from {aside[0]:.0%} to {aside[-1]:.0%}. Their"
            f" test accuracy is {results['sigmoid'].accuracy:.1%} and {results['relu'].accuracy:.1%}.",
            f"가장 많이 변한 층의 가중치 표준편차는 시그모이드에서 {sigmoid.max():.1f}배, ReLU에서 {relu.max():.1f}배가"
            f" 된다. 0이나 1에 가까운 시그모이드 출력의 비율은 {aside[0]:.0%}에서 {aside[-1]:.0%}로 바뀐다. 두 신경망의"
            f" 테스트 정확도는 각각 {results['sigmoid'].accuracy:.1%}, {results['relu'].accuracy:.1%}이다.",
        ),
    )


def _draw(results: dict[str, Drift]) -> Any:
    """Draw the percentiles of each layer's weights, and the outputs that are pushed aside, against the step."""
    from ..plots import PALETTE, new_figure

    layers = results[KINDS[0]].weights.shape[1]
    figure, grid = new_figure(2, layers + 1, width=2.4, height=2.6, sharex=True)
    for (kind, one), row, color in zip(results.items(), grid, PALETTE, strict=False):
        top = 1.05 * max(np.abs(found.weights).max() for found in results.values())
        for layer, axes in enumerate(row[:layers]):
            low, lower, middle, upper, high = one.weights[:, layer].T
            axes.fill_between(one.steps, low, high, color=color, alpha=0.2, linewidth=0)
            axes.fill_between(one.steps, lower, upper, color=color, alpha=0.4, linewidth=0)
            axes.plot(one.steps, middle, color=color)
            axes.set(ylim=(-top, top), title=f"{kind}, W{layer + 1}")
        for layer, style in zip(range(layers - 1), cycle(STYLES), strict=False):
            row[-1].plot(
                one.steps, 100.0 * one.aside[:, layer], linestyle=style, color=color, label=f"layer {layer + 1}"
            )
        row[-1].set(ylim=(0, 100), title="near 0 or 1, %" if kind == "sigmoid" else "zero, %")
        row[-1].legend(fontsize=7)
        row[0].set_ylabel("weights: 1 to 99 %,\n25 to 75 %, median")
    figure.supxlabel("step")
    return figure


CAPTION = Words(
    "Weights of each layer while a deep network trains, and outputs pushed to the edge",
    "심층 신경망이 학습하는 동안 층별 가중치의 분포와, 한쪽으로 치우친 출력의 비율",
)

EXPERIMENT = Experiment(
    name="drift",
    title=Words("Weights that drift in training", "학습하는 동안 치우치는 가중치"),
    text=Words(
        "A post says that with sigmoids the weights become very large or very small as training goes on, to the left"
        " and to the right, and that ReLU helps. Here a network of five hidden layers trains with either on the bundled"
        " digits. Each panel shows one layer's weights: the band of the middle half, the band from 1 to 99 percent, and"
        " the median. The last panel shows outputs where the slope is nearly gone: sigmoids within 0.05 of 0 or 1, and"
        " ReLUs that are 0.",
        "글에 따르면 시그모이드를 쓰면 학습이 진행될수록 가중치가 아주 커지거나 작아져 좌우로 치우치며, ReLU가 이를"
        " 어느 정도 막아 준다. 여기서는 은닉층이 다섯인 신경망을 내장된 손글씨 숫자 데이터로 각각 학습시킨다. 그림의"
        " 칸 하나는 한 층의 가중치를 나타낸다. 진한 띠는 가운데 50%, 옅은 띠는 1%에서 99%까지의 범위, 선은"
        " 중앙값이다. 마지막 칸은 기울기가 거의 사라진 출력의 비율이다. 시그모이드에서는 0이나 1과의 차이가 0.05보다"
        " 작은 출력을, ReLU에서는 0인 출력을 셌다.",
    ),
    run=run,
    add_options=add_options,
    formula=("W ← W - η ∂L/∂W",),
    claims=(
        Claim(
            "003",
            Words(
                "With sigmoids, weights drift to very large and very small values, to both sides; ReLU helps.",
                "시그모이드를 쓰면 갈수록 가중치가 아주 크거나 작아져 좌우로 치우치는데, ReLU를 쓰면"
                " 어느 정도 극복할 수 있다.",
            ),
            _judge,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
