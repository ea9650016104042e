"""python -m xpnet.lab neuron: one neuron; AND, OR and NAND, and XOR, which needs two layers."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import HostArray
from ..model import MLP
from ..nn import ACTIVATIONS, BinaryCrossEntropy, Layer, Linear, Sequential, Step
from ..optim import SGD, Adam
from ..training import Trainer, evaluate
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, one_of, positive, up_to
from .plane import draw_points, draw_values, mesh

# One sum on each side of 0, so that activations differ.
ROWS = ((1.0, 2.0), (-1.0, 0.5))
WEIGHTS, BIAS = (0.8, -0.3), 0.5

CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
CORNER_NAMES = tuple(f"{int(a)} {int(b)}" for a, b in CORNERS)
GATES = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "NAND": (1, 1, 1, 0), "XOR": (0, 1, 1, 0)}
# Weights and bias of the book behind the posts; for XOR there are none.
BY_HAND = {"AND": ((0.5, 0.5), -0.7), "OR": ((0.5, 0.5), -0.2), "NAND": ((-0.5, -0.5), 0.7)}
RATE = 1.0  # of each of the four neurons
STEPS = 2000
MOST_STEPS = 100_000  # the logits of each step are kept

SEEDS = 100  # networks of each kind that try XOR
HIDDEN = (2, 4, 8)
ACTIVATION_NAMES = ("sigmoid", "tanh", "relu")
DEEP_RATE = 0.05  # of Adam
DEEP_STEPS = 1000
SHOWN = ("tanh", 2)  # whose first network that learnt XOR is drawn
LOW, HIGH = (-0.5, -0.5), (1.5, 1.5)  # of the pictures


def layers_of(lab: Lab, layers: Sequence[Layer], values: Sequence[tuple[Any, Any]]) -> Sequential:
    """Return a network of these layers, its Linear ones with the given W, (I, O), and b, (O,)."""
    network = Sequential(layers, dtype="float64", device=lab.device, draw=False)
    linears = [layer for layer in network.layers if isinstance(layer, Linear)]
    for linear, (weights, bias) in zip(linears, values, strict=True):
        linear.W, linear.b = np.array(weights), np.array([bias])
    return network


def neuron(lab: Lab, weights: Sequence[float], bias: float, activation: str) -> Sequential:
    """Return one neuron: the activation of x w + b."""
    return layers_of(lab, [Linear(len(weights), 1), ACTIVATIONS[activation]()], [([[w] for w in weights], [bias])])


def outputs(lab: Lab, network: Sequential, rows: Any) -> HostArray:
    """Outputs, (B,), of a network of one output, for rows, (B, I)."""
    return lab.device.to_host(network.forward(lab.device.asarray(np.array(rows))))[:, 0]


def xor_by_hand(lab: Lab) -> Sequential:
    """Return XOR of the gates set by hand: AND of NAND and OR."""
    (nand, nand_bias), (either, either_bias), (both, both_bias) = (BY_HAND[name] for name in ("NAND", "OR", "AND"))
    hidden = (np.array([nand, either]).T, [nand_bias, either_bias])  # (2, 2): a column for each unit
    last = (np.array([both]).T, [both_bias])
    return layers_of(lab, [Linear(2, 2), Step(), Linear(2, 1), Step()], [hidden, last])


@dataclass(frozen=True)
class Gates:
    """A trained layer of four neurons, one for each of GATES.

    Attributes:
        model: the layer, whose outputs are the gates' probabilities.
        losses: of each gate before and after each step, (steps + 1, 4).
    """

    model: MLP
    losses: HostArray


def learn_gates(lab: Lab) -> Gates:
    """Train a neuron for each gate: four in one layer, which share inputs and nothing else."""
    model = MLP([2, len(GATES)], task="multilabel", dtype="float64", seed=lab.seed, device=lab.device)
    targets = np.array(list(GATES.values()), dtype=np.float64).T  # (4 rows, 4 gates)
    corners = lab.device.asarray(np.array(CORNERS))
    logits = [model.forward(corners)]
    # The loss is the mean over the four neurons, so that each sees a quarter of the rate.
    trainer = Trainer(model, SGD(lab.options.rate * len(GATES)), batch_size=len(CORNERS), seed=lab.seed)
    trainer.fit(CORNERS, targets, steps=lab.options.steps, on_step=lambda step: logits.append(model.forward(corners)))
    z = np.stack([lab.device.to_host(one) for one in logits])  # (steps + 1, 4 rows, 4 gates)
    loss = BinaryCrossEntropy()
    sums = [loss(np, z[..., i : i + 1], targets[:, i : i + 1])[0] for i in range(len(GATES))]
    return Gates(model, np.stack(sums, axis=1) / len(CORNERS))


def gradient_at_zero(lab: Lab) -> HostArray:
    """Return the gradient of the loss on XOR by w1, w2 and b where all three are 0."""
    network = layers_of(lab, [Linear(2, 1)], [([[0.0], [0.0]], [0.0])])
    z = network.forward(lab.device.asarray(np.array(CORNERS)), train=True)
    network.backward(BinaryCrossEntropy()(network.xp, z, lab.device.asarray(np.array(GATES["XOR"])))[2])
    layer = network.layers[0]
    return np.concatenate([lab.device.to_host(layer.grads[name]).ravel() for name in ("W", "b")])


def learn_xor(lab: Lab, activation: str, hidden: int) -> tuple[MLP, HostArray]:
    """Train networks with one hidden layer on XOR; return them, and whether each has all four right, (networks,)."""
    options = lab.options
    model = MLP([2, hidden, 1], activation=activation, replicas=options.networks, seed=lab.seed, device=lab.device)
    trainer = Trainer(model, Adam(options.deep_rate), batch_size=len(CORNERS), seed=lab.seed)
    trainer.fit(CORNERS, GATES["XOR"], steps=options.deep_steps)
    return model, np.array(evaluate(model, CORNERS, GATES["XOR"])[1]) == 1.0


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        difference: largest difference of a sum with the bias as such from one with the bias as a weight.
        losses: of the neuron of each gate, before training and after it.
        learnt: by activation and number of hidden units, how many of the networks learnt XOR.
        networks: of each kind.
    """

    difference: float
    losses: dict[str, tuple[float, float]]
    learnt: dict[tuple[str, int], int]
    networks: int


def add_options(parser: cli.Parser) -> None:
    """Add the neuron that is worked by hand, and what gates and networks are trained with."""
    add = parser.add_argument
    add("--weights", type=cli.number, nargs=2, default=list(WEIGHTS), metavar=("W1", "W2"), help="(default: 0.8 -0.3)")
    add("--bias", type=cli.number, default=BIAS, metavar="B", help=f"(default: {BIAS:g})")
    add("--rate", type=positive, default=RATE, metavar="RATE", help=f"of the four neurons (default: {RATE:g})")
    add("--steps", type=up_to(MOST_STEPS), default=STEPS, metavar="N", help=f"of the four neurons (default: {STEPS})")
    add(
        "--hidden",
        type=up_to(1000),
        nargs="+",
        default=list(HIDDEN),
        metavar="UNITS",
        help="to learn XOR (default: 2 4 8)",
    )
    add(
        "--activation",
        type=one_of(ACTIVATIONS, "activation"),
        nargs="+",
        default=list(ACTIVATION_NAMES),
        metavar="NAME",
        help=f"of the hidden units (default: {' '.join(ACTIVATION_NAMES)})",
    )
    add("--networks", type=up_to(10_000), default=SEEDS, metavar="N", help=f"of each kind (default: {SEEDS})")
    add("--deep-rate", type=positive, default=DEEP_RATE, metavar="RATE", help=f"of Adam (default: {DEEP_RATE:g})")
    add("--deep-steps", type=up_to(MOST_STEPS), default=DEEP_STEPS, metavar="N", help=f"(default: {DEEP_STEPS})")


def run(lab: Lab) -> Results:
    """Work one neuron, set and learn gates, and try XOR with one layer and with two."""
    difference = say_sums(lab)
    lab.say()
    say_gates(lab)
    gates = learn_gates(lab)
    lab.say()
    say_learnt(lab, gates)
    lab.say()
    lab.say("XOR by two layers set by hand, AND of NAND and OR:")
    lab.say(" ".join(f"{output:g}" for output in outputs(lab, xor_by_hand(lab), CORNERS)))
    lab.say()
    learnt, deep = say_xor(lab)
    lab.draw("neuron", CAPTION, partial(_draw, gates, deep))
    ends = {name: (float(first), float(last)) for name, first, last in zip(GATES, *gates.losses[[0, -1]], strict=True)}
    return Results(difference, ends, learnt, lab.options.networks)


def say_sums(lab: Lab) -> float:
    """Print the weighted sum with a bias, and with the bias as a weight on a constant 1; and every activation of it.

    Returns the largest difference between the two sums.
    """
    weights, bias = tuple(lab.options.weights), lab.options.bias
    lab.say(f"one neuron: w = {weights}, b = {bias}; the bias as such, and as the weight of an input that is always 1")
    sums = outputs(lab, neuron(lab, weights, bias, "identity"), ROWS)
    as_weight = outputs(lab, neuron(lab, (*weights, bias), 0.0, "identity"), [(*row, 1.0) for row in ROWS])
    table = []
    for row, z, other in zip(ROWS, sums, as_weight, strict=True):
        products = [f"{w * x:g}" for w, x in zip(weights, row, strict=True)]
        table.append((str(row), *products, f"{bias:g}", f"{z:g}", f"{other:g}"))
    lab.table(("x", "w1 x1", "w2 x2", "b", "sum", "with b as a weight"), table)
    lab.say()
    lab.say("each activation of the two sums (softmax shares 1 among the neurons of a layer: a single one has it all)")
    table = []
    for name in ACTIVATIONS:
        table.append((name, *(f"{y:.6f}" for y in outputs(lab, neuron(lab, weights, bias, name), ROWS))))
    lab.table(("activation", *(f"of {z:g}" for z in sums)), table)
    return float(np.abs(sums - as_weight).max())


def say_gates(lab: Lab) -> None:
    """Print the gates that are set by hand."""
    lab.say("gates by hand: step(w1 x1 + w2 x2 + b)")
    rows = []
    for name, (weights, bias) in BY_HAND.items():
        found = outputs(lab, neuron(lab, weights, bias, "step"), CORNERS)
        right = "yes" if tuple(found) == GATES[name] else "no"
        rows.append((name, *(f"{value:g}" for value in (*weights, bias, *found)), right))
    lab.table(("gate", "w1", "w2", "b", *CORNER_NAMES, "right"), rows)


def say_learnt(lab: Lab, gates: Gates) -> None:
    """Print the gates that one layer has learnt, and why XOR is not among them."""
    steps = lab.options.steps
    lab.say(f"gates learnt by one neuron each, {steps} steps: the probability of a 1 by sigmoid(w1 x1 + w2 x2 + b)")
    layer = gates.model.network.layers[0]
    weights, bias = lab.device.to_host(layer.W), lab.device.to_host(layer.b)[0]
    probabilities = gates.model.predict(CORNERS)
    rows = []
    for i, name in enumerate(GATES):
        numbers = (*weights[:, i], bias[i], *probabilities[:, i])
        cells = [f"{round(float(value), 3) + 0.0:.3f}" for value in numbers]  # + 0.0 makes 0 of -0
        rows.append((name, *cells, f"{gates.losses[-1, i]:.6f}"))
    lab.table(("gate", "w1", "w2", "b", *CORNER_NAMES, "loss"), rows)
    gradient = ", ".join(f"{value:g}" for value in gradient_at_zero(lab))
    lab.say(f"log 2 is {math.log(2.0):.6f}; at w1 = w2 = b = 0, the gradient of the loss on XOR is ({gradient})")


def say_xor(lab: Lab) -> tuple[dict[tuple[str, int], int], tuple[MLP, int, str] | None]:
    """Print how many networks with a hidden layer learn XOR; return these numbers, and what is drawn.

    Drawn is the first network that learnt it of the kind SHOWN, or of the first kind: networks, its place among them,
    and its name; None where none did.
    """
    options = lab.options
    count = options.networks
    lab.say(
        f"XOR with one hidden layer: of {count} networks, those with all four right after {options.deep_steps} steps"
        " of Adam"
    )
    kinds = [(name, hidden) for name in options.activation for hidden in options.hidden]
    chosen = SHOWN if SHOWN in kinds else kinds[0]
    found, drawn = {}, None
    for name, hidden in kinds:
        lab.progress(f"{count} networks with {hidden} {name} units")
        model, learnt = learn_xor(lab, name, hidden)
        found[name, hidden] = int(learnt.sum())
        if (name, hidden) == chosen and learnt.any():
            drawn = model, int(learnt.argmax()), f"XOR, {hidden} hidden {name} units"
    rows = [(name, *(str(found[name, hidden]) for hidden in options.hidden)) for name in options.activation]
    lab.table(("activation", *(f"{hidden} units" for hidden in options.hidden)), rows)
    return found, drawn


def _draw(gates: Gates, deep: tuple[MLP, int, str] | None) -> Any:
    """Draw the predictions of each neuron and of two layers, and the losses of the neurons."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(2, 3, width=3.9)
    _, _, points = mesh(LOW, HIGH)
    answers = {f"{name}, one neuron": (gates.model.predict(points)[:, i], name) for i, name in enumerate(GATES)}
    if deep is not None:
        model, replica, title = deep
        answers[title] = (model.predict(points)[replica, :, 1], "XOR")
    for axes, (title, (values, name)) in zip(grid.flat, answers.items(), strict=False):
        surface = draw_values(axes, LOW, HIGH, values, np.linspace(0.0, 1.0, 12))  # 1/2 is inside a band
        if np.ptp(values) > 0.1:  # a surface that is flat but for rounding has no boundary
            first, second, _ = mesh(LOW, HIGH)
            axes.contour(first, second, values.reshape(first.shape), levels=[0.5], colors="black")
        draw_points(axes, np.array(CORNERS), np.array(GATES[name]), size=12.0)
        axes.set(title=title, xlabel="x1", ylabel="x2", aspect="equal", xticks=[0, 1], yticks=[0, 1])
    text = "probability of a 1 (circle: 0, square: 1)"
    figure.colorbar(surface, ax=grid, shrink=0.6, ticks=[0.0, 0.5, 1.0], label=text)
    axes = grid[1, 2]
    for i, (name, style) in enumerate(zip(GATES, ("-", "--", "-.", ":"), strict=True)):
        axes.plot(gates.losses[:, i], style, color=PALETTE[i], linewidth=2.0, label=name)
    axes.axhline(math.log(2.0), color="black", linewidth=0.8)
    axes.set(title="loss of each neuron (line: log 2)", xlabel="step", ylabel="loss", xscale="symlog", xlim=(0, None))
    axes.legend()
    return figure


CAPTION = Words(
    "One neuron cuts the plane along a line; XOR needs a second layer",
    "뉴런 하나는 평면을 직선으로 나눈다. XOR에는 층이 하나 더 필요하다",
)


def _judge_bias(results: Results) -> Verdict:
    """Whether the bias is the weight of an input that is always 1."""
    same = results.difference < 1e-12
    return Verdict(
        "right" if same else "wrong",
        f"|Δ| = {results.difference:.1g}",
        Words("Both ways give the same sums.", "두 방법의 합이 같다.")
        if same
        else Words("The sums differ.", "두 방법의 합이 다르다."),
    )


def _judge_adjusting(results: Results) -> Verdict:
    """Whether training brings each gate's loss down: it cannot for XOR, which no line separates."""
    numbers = ", ".join(f"{name}: {first:.2f} → {last:.4f}" for name, (first, last) in results.losses.items())
    near = [name for name, (_, last) in results.losses.items() if last < 0.1]
    if len(near) == len(GATES):
        return Verdict("right", numbers, Words("All four gates are learnt.", "네 게이트를 모두 학습한다."))
    (activation, hidden), count = max(results.learnt.items(), key=lambda item: item[1])
    learnt, xor = ", ".join(near), results.losses["XOR"][1]
    return Verdict(
        "conditional" if near else "wrong",
        numbers,
        Words(
            f"Gates that one neuron learns in this run: {learnt or 'none'}. For XOR no weights are right: its loss ends"
            f" at {xor:.3f}. With a hidden layer of {hidden} {activation} units {count} of {results.networks} networks"
            " learn it.",
            f"이번 실행에서 뉴런 하나가 학습한 게이트: {learnt or '없음'}. XOR에는 맞는 가중치가 없어 손실이"
            f" {xor:.3f}에서 끝난다. {activation} 뉴런이 {hidden}개인 은닉층을 두면 신경망 {results.networks}개 가운데"
            f" {count}개가 XOR를 학습한다.",
        ),
    )


EXPERIMENT = Experiment(
    name="neuron",
    title=Words("One neuron, and what it cannot do", "뉴런 하나와 그 한계"),
    text=Words(
        "A neuron multiplies each input by a weight, adds the products and a bias, and hands the sum to an activation."
        " The bias is nothing special: it is the weight of an input that is always 1. One neuron says yes on one side"
        " of a straight line, which is enough for AND, OR and NAND, set by hand or learnt. For XOR no line will do: the"
        " loss is convex, and its gradient vanishes where all weights are 0, so the neuron ends at probabilities of 1/2"
        " and a loss of log 2. NAND and OR, with AND behind them, make XOR: a second layer. Two layers can be learnt"
        " too, but with just two hidden units not from every start; spare units help.",
        "뉴런은 입력마다 가중치를 곱해 모두 더하고, 거기에 편향을 더한 값을 활성화 함수에 넘긴다. 편향은 특별한"
        " 것이 아니라 항상 1인 입력의 가중치이다. 뉴런 하나는 직선의 한쪽에서만 1을 출력하므로 AND, OR, NAND는"
        " 손으로 정하든 학습하든 표현할 수 있다. XOR는 직선 하나로 나눌 수 없다. 손실 함수가 볼록하고 가중치가"
        " 모두 0인 곳에서 기울기가 0이므로, 뉴런은 네 입력 모두에 0.5를 출력하고 손실은 log 2에서 멈춘다. NAND와"
        " OR 뒤에 AND를 놓으면, 곧 층을 하나 더 쌓으면 XOR가 된다. 두 층도 학습할 수 있지만, 은닉층의 뉴런이"
        " 둘뿐이면 시작점에 따라 실패하기도 하고, 뉴런이 더 많으면 성공하는 경우가 늘어난다.",
    ),
    run=run,
    add_options=add_options,
    formula=("y = h(w₁ x₁ + w₂ x₂ + b)", "XOR(x₁, x₂) = AND(NAND(x₁, x₂), OR(x₁, x₂))"),
    claims=(
        Claim(
            "003",
            Words(
                "The bias is a weight on an input that is always 1.",
                "편향은 항상 1인 입력에 가중치를 곱한 것이다.",
            ),
            _judge_bias,
        ),
        Claim(
            "003",
            Words(
                "Adjusting weights and bias brings the output near the right answer.",
                "가중치와 편향을 조정하면 실제값과 출력값의 차이를 줄일 수 있다.",
            ),
            _judge_adjusting,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
