"""python -m xpnet.lab activations: every activation with its derivative; why step cannot learn; units that die."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import Array, HostArray
from ..model import MLP
from ..nn import ACTIVATIONS, Layer, Linear, Sequential
from ..nn.gradient_check import central_differences
from ..optim import Adam
from ..training import Trainer, evaluate
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, one_of, positive, up_to

POINTS = np.linspace(-4.0, 4.0, 801)
KINK = 1e-3  # so near to 0 no difference quotient is compared: some slopes jump there
TANH_AT = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
TRAIN_ROWS, TEST_ROWS = 10000, 5000  # at the most
BATCH = 100
STEP_HIDDEN = (100,)
STEP_STEPS = 500
DYING_HIDDEN = (100, 100, 100)
DYING_STEPS = 500
DYING_EVERY = 10  # steps between two counts
DYING_NAMES = ("relu", "leaky-relu")
DYING_RATES = (0.001, 0.01, 0.03, 0.1)  # of Adam, whose default is the first
SAMPLE = 1000  # rows; a unit that is off for all of them counts as dead

Data = tuple[Array, Array, Array, Array]  # training rows and labels, test rows and labels


def curve(lab: Lab, name: str) -> tuple[HostArray, HostArray, float]:
    """An activation and its derivative at POINTS, and the derivative's distance from central differences.

    Rows are (x, 0), and the function is the first output by the first input: y(x) for activations of single elements,
    and, for softmax, the probability of one of two classes. The derivative is the layer's own backward.
    """
    network = Sequential([ACTIVATIONS[name]()], dtype="float64", device=lab.device)
    x = lab.device.asarray(np.stack([POINTS, 0.0 * POINTS], axis=-1))  # (points, 2)
    y = lab.device.to_host(network.forward(x, train=True))[:, 0]
    first = lab.device.asarray(np.tile([1.0, 0.0], (len(POINTS), 1)))
    slope = lab.device.to_host(network.backward(first, input_gradient=True))[:, 0]
    difference = lab.device.to_host(central_differences(lambda points: network.forward(points)[..., 0], x))[:, 0]
    return y, slope, float(np.abs(slope - difference)[np.abs(POINTS) > KINK].max())


def tanh_by_sigmoid(lab: Lab) -> list[tuple[float, float, float, float]]:
    """Return x, tanh(x), 2 sigmoid(2 x) - 1 and 2 sigmoid(x) - 1 for each x of TANH_AT."""
    x = np.array(TANH_AT)[:, None]

    def at(name: str, points: HostArray) -> HostArray:
        network = Sequential([ACTIVATIONS[name]()], dtype="float64", device=lab.device)
        return lab.device.to_host(network.forward(lab.device.asarray(points)))[:, 0]

    columns = (x[:, 0], at("tanh", x), 2.0 * at("sigmoid", 2.0 * x) - 1.0, 2.0 * at("sigmoid", x) - 1.0)
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Moved:
    """Changes of a network in training.

    Attributes:
        gradients: the norm of the gradient of each layer's weights, in the last step.
        weights: how far each layer's weights moved, as a share of their norm at the start.
        accuracy: on the test rows.
    """

    gradients: list[float]
    weights: list[float]
    accuracy: float


def train(lab: Lab, activation: str, hidden: Sequence[int], data: Data) -> Moved:
    """Train a network with these hidden layers, and measure the change of its weights."""
    x, y, *test = data
    model = MLP([x.shape[1], *hidden, 10], activation=activation, seed=lab.seed, device=lab.device)
    linears = [layer for layer in model.network.layers if isinstance(layer, Linear)]
    before = [layer.W.copy() for layer in linears]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers below a step do not learn: the point of this experiment
        trainer = Trainer(model, Adam(), batch_size=lab.options.batch_size, seed=lab.seed)
    trainer.fit(x, y, steps=lab.options.steps or STEP_STEPS)

    def norm(array: Array) -> float:
        return float(np.linalg.norm(lab.device.to_host(array)))

    gradients = [norm(layer.grads["W"]) for layer in linears]
    weights = [norm(layer.W - old) / norm(old) for layer, old in zip(linears, before, strict=True)]
    return Moved(gradients, weights, evaluate(model, *test)[1])


def outputs_of(network: Sequential, kind: type[Layer], x: Array, train: bool = False) -> list[Array]:
    """Outputs of each layer of a kind, (..., B, O), for rows x, (B, I)."""
    found = []
    with network.device.activate(), np.errstate(all="ignore"):
        for layer in network.layers:
            x = layer.forward(x, train)
            if isinstance(layer, kind):
                found.append(x)
    return found


@dataclass(frozen=True)
class Dying:
    """Units over a training at each of several rates.

    Attributes:
        rates: of Adam.
        steps: after which units were looked at.
        off: whether a unit was off for all rows of the sample, (steps, rates, units).
        accuracy: on the test rows, (rates,).
    """

    rates: list[float]
    steps: list[int]
    off: HostArray
    accuracy: list[float]

    @property
    def shares(self) -> HostArray:
        """The share of units that were off, (steps, rates)."""
        return np.asarray(self.off.mean(axis=-1))

    def returned(self) -> list[tuple[int, int]]:
        """For each rate, the number of units that were ever off, and of these that were on in the end."""
        ever = self.off.any(axis=0)  # (rates, units)
        back = ever & ~self.off[-1]
        return list(zip(ever.sum(axis=-1).tolist(), back.sum(axis=-1).tolist(), strict=True))


def watch(lab: Lab, activation: str, data: Data) -> Dying:
    """Train networks of one activation, one for each rate, and count the units that are off."""
    x, y, *test = data
    options = lab.options
    rates = sorted(set(options.rate))
    count = len(rates)
    sizes = [x.shape[1], *options.hidden, 10]
    model = MLP(sizes, activation=activation, replicas=count, seed=[lab.seed] * count, device=lab.device)
    sample = x[:SAMPLE]
    steps: list[int] = []
    looks: list[Array] = []

    def look(step: int) -> None:
        if step % DYING_EVERY == 0:
            outputs = outputs_of(model.network, ACTIVATIONS[activation], sample)
            steps.append(step)
            looks.append(model.network.xp.concatenate([out.max(axis=-2) <= 0.0 for out in outputs], axis=-1))

    look(0)
    trainer = Trainer(model, Adam(rates), batch_size=options.batch_size, seed=lab.seed)
    trainer.fit(x, y, steps=options.steps or DYING_STEPS, on_step=look)
    off = np.stack([lab.device.to_host(one) for one in looks])
    return Dying(rates, steps, off, evaluate(model, *test)[1])


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        curves: values and slopes at POINTS, and the slopes' distance from central differences, by activation.
        tanh: x, tanh(x), 2 sigmoid(2 x) - 1 and 2 sigmoid(x) - 1, in rows.
        moved: changes of a network with a hidden layer of step units, and of one of sigmoids.
        dying: units that are off, by activation.
    """

    curves: dict[str, tuple[HostArray, HostArray, float]]
    tanh: list[tuple[float, float, float, float]]
    moved: dict[str, Moved]
    dying: dict[str, Dying]


def add_options(parser: cli.Parser) -> None:
    """Add what the networks in which units die are made of, and how networks are trained."""
    add = parser.add_argument
    add(
        "--activation",
        type=one_of([name for name in ACTIVATIONS if name not in ("step", "softmax")], "activation"),
        nargs="+",
        default=list(DYING_NAMES),
        metavar="NAME",
        help=f"whose units are counted that are off (default: {' '.join(DYING_NAMES)})",
    )
    hidden, rates = (" ".join(f"{value:g}" for value in values) for values in (DYING_HIDDEN, DYING_RATES))
    add(
        "--hidden",
        type=up_to(2000),
        nargs="+",
        default=list(DYING_HIDDEN),
        metavar="UNITS",
        help=f"(default: {hidden})",
    )
    add("--rate", type=positive, nargs="+", default=list(DYING_RATES), metavar="RATE", help=f"(default: {rates})")
    add("--steps", type=up_to(100_000), metavar="N", help=f"of all trainings (default: {DYING_STEPS})")
    add("--batch-size", type=up_to(TRAIN_ROWS), default=BATCH, metavar="ROWS", help=f"(default: {BATCH})")


def run(lab: Lab) -> Results:
    """Tabulate the activations, try to train through a step, and count the units that die."""
    options = lab.options
    curves = {name: curve(lab, name) for name in ACTIVATIONS}
    lab.say("each activation, and its slope by its own backward, held against central differences")
    rows: list[tuple[str, ...]] = []
    for name, (y, slope, error) in curves.items():
        values = (y[0], y[len(y) // 2], y[-1], slope[0], slope.max(), slope[-1])
        rows.append((name, *(f"{value:.4f}" for value in values), f"{error:.0e}"))
    lab.table(("activation", "y(-4)", "y(0)", "y(4)", "slope(-4)", "steepest", "slope(4)", "error"), rows)
    lab.draw("activations", CURVES_CAPTION, partial(_draw_curves, curves))

    lab.say()
    lab.say("tanh as a sigmoid: 2 sigmoid(2x) - 1, and not 2 sigmoid(x) - 1, which is tanh(x / 2)")
    head = ("x", "tanh(x)", "2 sigmoid(2x) - 1", "2 sigmoid(x) - 1")
    tanh = tanh_by_sigmoid(lab)
    lab.table(head, [tuple(f"{number:.6f}" for number in row) for row in tanh])

    x, y, x_test, y_test = lab.pixels(lab.mnist())
    data = (x[:TRAIN_ROWS], y[:TRAIN_ROWS], x_test[:TEST_ROWS], y_test[:TEST_ROWS])
    lab.say()
    lab.say(
        f"one hidden layer of {STEP_HIDDEN[0]} units, {options.steps or STEP_STEPS} steps: the gradients of its weights"
    )
    found = [(name, train(lab, name, STEP_HIDDEN, data)) for name in ("step", "sigmoid")]
    rows = []
    for name, moved in found:
        numbers = (moved.gradients[0], moved.weights[0], moved.gradients[1], moved.weights[1])
        rows.append((name, *(f"{number:.4g}" for number in numbers), f"{moved.accuracy:.4f}"))
    rows.append(("no hidden layer", "", "", "", "", f"{train(lab, 'identity', (), data).accuracy:.4f}"))
    lab.table(("hidden units", "gradient", "moved by", "gradient above", "moved by", "test accuracy"), rows)

    lab.say()
    units = sum(options.hidden)
    lab.say(
        f"units, of {units} in {len(options.hidden)} hidden layers, that are off for all of {len(data[0][:SAMPLE])}"
    )
    lab.say(
        f"training rows: after {options.steps or DYING_STEPS} steps of Adam, ever, and how many of these are on again"
    )
    dying = {name: watch(lab, name, data) for name in dict.fromkeys(options.activation)}
    rows = []
    for name, one in dying.items():
        for i, (rate, (ever, back)) in enumerate(zip(one.rates, one.returned(), strict=True)):
            off = int(one.off[-1, i].sum())
            rows.append((name, f"{rate:g}", str(off), str(ever), str(back), f"{one.accuracy[i]:.4f}"))
    lab.table(("activation", "rate", "off at the end", "ever off", "on again", "test accuracy"), rows)
    lab.draw("activations-dying", _dying(options.activation), partial(_draw_dying, dying))
    return Results(curves, tanh, dict(found), dying)


def _draw_curves(curves: dict[str, tuple[HostArray, HostArray, float]]) -> Any:
    """Draw each activation and its derivative."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(3, 5, width=2.9, height=2.6)
    for axes, (name, (y, slope, _)) in zip(grid.flat, curves.items(), strict=False):
        axes.plot(POINTS, _gaps(y), color=PALETTE[0], linewidth=2.0)
        axes.plot(POINTS, _gaps(slope), color=PALETTE[1], linestyle="--", linewidth=1.6)
        axes.set_ylim(-2.2, 2.2)
        axes.set_yticks(range(-2, 3))
        axes.set_title("softmax of (x, 0)" if name == "softmax" else name)
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    grid.flat[len(curves)].legend(grid[0, 0].lines, ["y", "slope dy/dx"], loc="center", fontsize=12)
    figure.supxlabel("x")
    return figure


def _gaps(values: HostArray) -> HostArray:
    """Insert a gap into values at each jump, which would be drawn as a steep line."""
    return np.where(np.abs(np.diff(values, prepend=values[0])) > 0.5, np.nan, values)


def _draw_dying(dying: dict[str, Dying]) -> Any:
    """Draw the share of units that are off against the step."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, len(dying), sharey=True)
    styles = list(zip(cycle(PALETTE), ("-", "--", "-.", ":") * 8, ("o", "s", "^", "D") * 8, strict=False))
    for axes, (name, one) in zip(grid.flat, dying.items(), strict=True):
        for i, rate in enumerate(one.rates):
            color, line, marker = styles[i % len(styles)]
            axes.plot(
                one.steps,
                100.0 * one.shares[:, i],
                color=color,
                linestyle=line,
                marker=marker,
                markevery=(2 * i, 10),
                markersize=5,
                label=f"rate {rate:g}",
            )
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.set_ylim(-3.0, 103.0)
    grid[0, 0].set_ylabel("units that are off for every row, %")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure


CURVES_CAPTION = Words(
    "Every activation, and its slope as the layer's backward gives it",
    "모든 활성화 함수와, 층의 역전파가 계산한 기울기",
)


def _dying(names: Sequence[str]) -> Words:
    korean = "(죽은 ReLU)" if {*names} <= {*DYING_NAMES} else ""
    return Words(
        "Units that are off for every row, by learning rate",
        f"모든 데이터에서 입력이 음수인 뉴런{korean}의 비율, 학습률별",
    )


def _judge_tanh(results: Results) -> Verdict:
    """Whether 2 sigmoid(x) - 1 is tanh(x)."""
    post = max(abs(tanh - bare) for _, tanh, _, bare in results.tanh)
    stretched = max(abs(tanh - inside) for _, tanh, inside, _ in results.tanh)
    return Verdict(
        "right" if post < 1e-12 else "wrong",
        f"|Δ| = {post:.3f}; 2 sigmoid(2x) - 1: {stretched:.0e}",
        Words(
            f"sigmoid·2 - 1 is tanh(x/2), off by up to {post:.2f}; with a 2 inside, 2 sigmoid(2x) - 1, it is tanh.",
            f"sigmoid·2 - 1은 tanh(x/2)이고 tanh(x)와 최대 {post:.2f} 다르다. 안쪽에도 2를 곱한 2 sigmoid(2x) - 1이"
            " tanh(x)이다.",
        ),
    )


def _judge_sigmoid(results: Results) -> Verdict:
    """Whether the slope of a sigmoid vanishes at both ends."""
    slope = results.curves["sigmoid"][1]
    ends = max(float(slope[0]), float(slope[-1]))
    return Verdict(
        "right" if ends < 0.1 * float(slope.max()) else "wrong",
        f"dy/dx: {slope.max():.2f} → {ends:.4f}",
        Words(
            f"The slope is {slope.max():.2f} at 0 and {ends:.4f} at {POINTS[-1]:g}.",
            f"기울기가 0에서는 {slope.max():.2f}, {POINTS[-1]:g}에서는 {ends:.4f}이다.",
        ),
    )


def _judge_step(results: Results) -> Verdict:
    """Whether a step lets no gradient pass."""
    step, sigmoid = results.moved["step"], results.moved["sigmoid"]
    return Verdict(
        "right" if step.gradients[0] == 0.0 and step.weights[0] == 0.0 else "wrong",
        f"|∇W| = {step.gradients[0]:g}; {step.accuracy:.3f} < {sigmoid.accuracy:.3f}",
        Words(
            "The reason is not the single point 0, though: the slope is 0 everywhere else, so that the weights below"
            f" get a gradient of {step.gradients[0]:g} and do not move.",
            "다만 이유는 0이라는 한 점이 아니다. 나머지 모든 곳에서 기울기가 0이어서 그 아래 가중치의 기울기가"
            f" {step.gradients[0]:g}이고, 가중치가 움직이지 않는다.",
        ),
    )


def _judge_relu(results: Results) -> Verdict | None:
    """Whether units of ReLU lose their gradient, and whether that depends on the rate."""
    if "relu" not in results.dying:
        return None
    one = results.dying["relu"]
    off, units = one.off[-1].sum(axis=-1), one.off.shape[-1]
    numbers = ", ".join(f"η = {rate:g}: {int(count)}/{units}" for rate, count in zip(one.rates, off, strict=True))
    if not off.any():
        return Verdict("wrong", numbers, Words("No unit is off for every row.", "모든 데이터에서 꺼진 뉴런이 없다."))
    return Verdict(
        "right",
        numbers,
        Words(
            f"Units that are off for every row get no gradient: {int(off.min())} to {int(off.max())} of {units} in the"
            " end, by the rate.",
            f"모든 데이터에서 출력이 0인 뉴런은 기울기를 받지 못한다. 학습이 끝났을 때 그런 뉴런은 학습률에 따라"
            f" {units}개 가운데 {int(off.min())}개에서 {int(off.max())}개이다.",
        ),
    )


CLAIMS = (
    Claim("004", Words("tanh is sigmoid·2 - 1.", "tanh 함수는 sigmoid·2 - 1이다."), _judge_tanh),
    Claim(
        "003",
        Words(
            "The slope of a sigmoid goes to 0 where its input is very small or large.",
            "시그모이드는 입력값이 아주 작거나 커질수록 미분값이 0으로 수렴한다.",
        ),
        _judge_sigmoid,
    ),
    Claim(
        "003",
        Words(
            "A step function cannot be differentiated at 0, so that backpropagation is impossible.",
            "계단 함수는 0에서 미분이 불가능하므로 역전파를 할 수 없다.",
        ),
        _judge_step,
    ),
    Claim(
        "004",
        Words(
            "Below 0 the gradient of ReLU is 0.",
            "ReLU는 0보다 작은 쪽에서 기울기가 0이 되어 버린다.",
        ),
        _judge_relu,
    ),
)

EXPERIMENT = Experiment(
    name="activations",
    title=Words("Activations", "활성화 함수"),
    text=Words(
        "Each panel has an activation, and the slope that its layer passes back. tanh is a sigmoid stretched both"
        " ways, 2 sigmoid(2x) - 1: the post's sigmoid*2-1 lacks the 2 inside, and is tanh(x/2). A step has slope 0"
        " wherever it has one: the gradient below it is exactly 0, its hidden weights do not move at all, and only"
        " the layer above learns, from features that stay as they were drawn. A ReLU that is off for every row gets"
        " no gradient either. Such units are counted here. On MNIST, the higher the rate, the more there are, and the"
        " smaller the share that comes back. Leaky ReLU does not keep units from going off, but at high rates more of"
        " them return.",
        "각 칸은 활성화 함수와, 그 층이 역전파로 넘겨 주는 기울기이다. tanh는 시그모이드를 두 방향으로 늘인 2"
        " sigmoid(2x) - 1이다. 글의 sigmoid*2-1에는 안쪽의 2가 빠져 있는데, 그 식은 tanh(x/2)이다. 계단 함수의"
        " 기울기는 정의되는 곳마다 0이므로 그 앞의 층으로 가는 기울기는 정확히 0이다. 은닉층은 초깃값 그대로이고"
        " 마지막 층만 학습된다. 모든 데이터에서 출력이 0인 ReLU 뉴런(죽은 ReLU)도 기울기를 받지 못한다. 여기서"
        " 그런 뉴런을 세어 보면, MNIST에서는 학습률이 높을수록 많고, 다시 살아나는 비율은 낮다. Leaky ReLU도"
        " 뉴런이 그렇게 되는 것을 막지는 못하지만, 학습률이 높을 때 더 많은 뉴런이 되살아난다.",
    ),
    run=run,
    add_options=add_options,
    formula=(
        "sigmoid: y = 1 / (1 + e⁻ˣ),  dy/dx = y (1 - y)",
        "tanh: y = 2 sigmoid(2x) - 1,  dy/dx = 1 - y²",
        "ReLU: y = max(0, x),  dy/dx = 1 where x > 0, else 0",
    ),
    claims=CLAIMS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
