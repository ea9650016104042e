"""python -m xpnet.lab logistic: logistic regression, the smallest network: its boundary, and its graph by hand."""

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
from ..nn import BinaryCrossEntropy, Sequential, Sigmoid, numerical_gradient
from ..optim import SGD
from ..training import Trainer, evaluate
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to
from .plane import clouds, draw_points

# One sample for the graph: x, its label, weights and bias.
X, Y = (2.0, 1.0), 1
W, B = (0.3, -0.5), 0.2
LARGEST_Z = 30.0  # of its weighted sum: logarithms of 1 - sigmoid(z) by hand need digits
STEP = 0.5  # the rate of the one step on it
FORMULAS = {
    "z": "w1 x1 + w2 x2 + b",
    "a": "1 / (1 + exp(-z))",
    "L": "-(y log a + (1-y) log(1-a))",
    "dL/da": "-y/a + (1-y)/(1-a)",
    "da/dz": "a (1 - a)",
    "dL/dz": "dL/da da/dz = a - y",
    "dL/dw1": "dL/dz x1",
    "dL/dw2": "dL/dz x2",
    "dL/db": "dL/dz",
}

CENTRES = ((-1.0, -0.5), (1.0, 0.5))
SPREAD = 0.9  # wide enough for the clouds to overlap: no line is without mistakes
ROWS = 300
START = (-1.0, 1.0), 0.5  # weights and bias: a bad line, so that there is something to see
RATE = 0.5
MOMENTS = (0, 2, 5, 20, 200)  # steps after which the boundary is looked at
STYLES = (":", "--", "-.", (0, (1, 1)), "-")  # of the boundary at each


@dataclass(frozen=True)
class Sample:
    """One row, its label, and the weights and bias of the neuron that sees it."""

    x: tuple[float, float] = X
    y: int = Y
    w: tuple[float, float] = W
    b: float = B


def graph_by_hand(sample: Sample = Sample()) -> dict[str, float]:
    """Values and derivatives of the graph of one neuron and its loss, as computed by hand.

    z = w1 x1 + w2 x2 + b, a = sigmoid(z), L = -(y log a + (1 - y) log(1 - a)).
    """
    x, y, w = sample.x, float(sample.y), sample.w
    z = w[0] * x[0] + w[1] * x[1] + sample.b
    a = 1.0 / (1.0 + math.exp(-z))
    return {
        "z": z,
        "a": a,
        "L": -(y * math.log(a) + (1.0 - y) * math.log(1.0 - a)),
        "dL/da": -y / a + (1.0 - y) / (1.0 - a),
        "da/dz": a * (1.0 - a),
        "dL/dz": a - y,
        "dL/dw1": (a - y) * x[0],
        "dL/dw2": (a - y) * x[1],
        "dL/db": a - y,
    }


def graph_by_library(lab: Lab, sample: Sample = Sample()) -> dict[str, float]:
    """The library's values of the same graph, but dL/da: the sigmoid is built into its loss."""
    linear = model_of(lab, sample.w, sample.b).network
    sigmoid = Sequential([Sigmoid()], dtype="float64", device=lab.device)
    xp, target = linear.xp, lab.device.asarray([[float(sample.y)]])
    z = linear.forward(lab.device.asarray([sample.x]), train=True)  # (1, 1)
    a = sigmoid.forward(z, train=True)
    loss, _, dz = BinaryCrossEntropy()(xp, z, target)
    slope = sigmoid.backward(xp.ones((1, 1), dtype="float64"), input_gradient=True)
    linear.backward(dz)
    found = {"z": z, "a": a, "L": loss, "da/dz": slope, "dL/dz": dz}
    grads = linear.layers[0].grads
    found |= {"dL/dw1": grads["W"][0], "dL/dw2": grads["W"][1], "dL/db": grads["b"]}
    return {name: float(lab.device.to_host(value).reshape(())) for name, value in found.items()}


def graph_by_differences(lab: Lab, sample: Sample = Sample()) -> dict[str, float]:
    """Derivatives by central differences, each of a function of one variable."""
    network, y = model_of(lab, sample.w, sample.b).network, float(sample.y)
    rows, xp, target = lab.device.asarray([sample.x]), network.xp, lab.device.asarray([[y]])

    def loss() -> Any:
        return BinaryCrossEntropy()(xp, network.forward(rows), target)[0]

    def by(f: Any, at: float) -> float:
        point = np.array([at])
        return float(numerical_gradient(lambda: f(float(point[0])), point)[0])

    values = graph_by_hand(sample)
    layer: Any = network.layers[0]
    dw, db = (lab.device.to_host(numerical_gradient(loss, array)).ravel() for array in (layer.W, layer.b))
    return {
        "dL/da": by(lambda a: -(y * math.log(a) + (1.0 - y) * math.log(1.0 - a)), values["a"]),
        "da/dz": by(lambda z: 1.0 / (1.0 + math.exp(-z)), values["z"]),
        "dL/dz": by(lambda z: math.log1p(math.exp(z)) - y * z, values["z"]),
        "dL/dw1": float(dw[0]),
        "dL/dw2": float(dw[1]),
        "dL/db": float(db[0]),
    }


def model_of(lab: Lab, weights: Sequence[float], bias: float) -> MLP:
    """Make a logistic regression with these weights, (w1, w2), and bias: a Linear layer, and the loss's sigmoid."""
    model = MLP([2, 1], dtype="float64", device=lab.device)
    layer: Any = model.network.layers[0]
    layer.W, layer.b = np.array(weights)[:, None], np.array([[bias]])
    return model


@dataclass(frozen=True)
class Line:
    """A boundary w1 x1 + w2 x2 + b = 0, and how good it is.

    Attributes:
        weights: (w1, w2, b).
        loss, accuracy: on all rows.
    """

    weights: tuple[float, float, float]
    loss: float
    accuracy: float

    def at(self, first: HostArray) -> HostArray:
        """Return x2 on the line for x1."""
        w1, w2, b = self.weights
        return -(w1 * first + b) / w2


def line_of(lab: Lab, model: MLP, x: HostArray, y: HostArray) -> Line:
    """Decision boundary of a model, a line."""
    layer: Any = model.network.layers[0]
    w, b = (lab.device.to_host(array).ravel() for array in (layer.W, layer.b))
    loss, accuracy = evaluate(model, x, y)
    return Line((float(w[0]), float(w[1]), float(b[0])), loss, accuracy)


def own_line(lab: Lab, x: HostArray, y: HostArray) -> Line:
    """Line on which a point is equally likely to be of either cloud.

    For clouds around c0 and c1 with deviation s, the logit is ((c1 - c0) x - (|c1|^2 - |c0|^2) / 2) / s^2.
    """
    (c0, c1), spread = np.array(CENTRES), lab.options.spread
    weights, bias = (c1 - c0) / spread**2, float(c0 @ c0 - c1 @ c1) / 2.0 / spread**2
    return line_of(lab, model_of(lab, weights.tolist(), bias), x, y)


def moments(steps: int) -> list[int]:
    """Steps after which the boundary is looked at: MOMENTS, spread over this number of steps."""
    return sorted({round(moment * steps / MOMENTS[-1]) for moment in MOMENTS})


def train(lab: Lab, x: HostArray, y: HostArray) -> tuple[dict[int, Line], list[float]]:
    """Train on all rows at once; return the line at each of `moments`, and the loss before each step."""
    model = model_of(lab, *START)
    trainer = Trainer(model, SGD(lab.options.rate), batch_size=len(x), seed=lab.seed)
    lines = {0: line_of(lab, model, x, y)}
    for moment in moments(lab.options.steps)[1:]:
        trainer.fit(x, y, steps=moment - trainer.step)
        lines[moment] = line_of(lab, model, x, y)
    return lines, [row["train_loss"] for row in trainer.history]


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        errors: largest difference of the derivatives by hand from the library's, and from central differences.
        before, after: loss of the sample before and after the step on it.
        lines: boundary at each moment of the training.
        own: the line on which a point is equally likely to be of either cloud.
    """

    errors: tuple[float, float]
    before: float
    after: float
    lines: dict[int, Line]
    own: Line


def add_options(parser: cli.Parser) -> None:
    """Add the sample and its neuron, and the clouds and the training on them."""
    add = parser.add_argument
    add("--x", type=cli.number, nargs=2, default=list(X), metavar=("X1", "X2"), help="the sample (default: 2 1)")
    add("--y", type=int, choices=(0, 1), default=Y, help=f"its label (default: {Y})")
    add("--w", type=cli.number, nargs=2, default=list(W), metavar=("W1", "W2"), help="weights (default: 0.3 -0.5)")
    add("--b", type=cli.number, default=B, metavar="B", help=f"bias (default: {B:g})")
    add("--step", type=positive, default=STEP, metavar="RATE", help=f"rate of the step on it (default: {STEP:g})")
    add("--spread", type=positive, default=SPREAD, metavar="S", help=f"deviation of the clouds (default: {SPREAD:g})")
    add("--rows", type=up_to(100_000), default=ROWS, metavar="N", help=f"points in both (default: {ROWS})")
    add("--rate", type=positive, default=RATE, metavar="RATE", help=f"of the training on them (default: {RATE:g})")
    add("--steps", type=up_to(100_000), default=MOMENTS[-1], metavar="N", help=f"of it (default: {MOMENTS[-1]})")


def run(lab: Lab) -> Results:
    """Work the graph of one sample, and train on two clouds."""
    options = lab.options
    sample = Sample(tuple(options.x), options.y, tuple(options.w), options.b)
    z = sample.w[0] * sample.x[0] + sample.w[1] * sample.x[1] + sample.b
    if abs(z) > LARGEST_Z:
        raise cli.UsageError(f"the weighted sum of the sample is {z:g}: beyond {LARGEST_Z:g} its sigmoid is 0 or 1")
    if options.rows < 2:
        raise cli.UsageError("two clouds have at least 2 points (--rows)")
    lab.say(f"one sample: x = {sample.x}, y = {sample.y:g}; w = {sample.w}, b = {sample.b}")
    by_hand, library = graph_by_hand(sample), graph_by_library(lab, sample)
    differences = graph_by_differences(lab, sample)
    rows = []
    for name, formula in FORMULAS.items():
        cells = [f"{found[name]:.8f}" if name in found else "" for found in (by_hand, library, differences)]
        rows.append((name, formula.ljust(max(map(len, FORMULAS.values()))), *cells))
    lab.table(("", "formula", "by hand", "library", "central differences"), rows)
    old = (*sample.w, sample.b)
    names = ("dL/dw1", "dL/dw2", "dL/db")
    w1, w2, b = (value - options.step * library[name] for value, name in zip(old, names, strict=True))
    loss = evaluate(model_of(lab, (w1, w2), b), [sample.x], [sample.y])[0]
    lab.say(f"a step of rate {options.step:g}: w = ({w1:.6f}, {w2:.6f}), b = {b:.6f}; L is then {loss:.6f}")

    x, y = clouds(CENTRES, options.rows, options.spread, lab.seed)
    lines, losses = train(lab, x, y)
    own = own_line(lab, x, y)
    lab.say()
    lab.say(f"two clouds of {options.rows // 2} points: the boundary w1 x1 + w2 x2 + b = 0 as it is learnt")
    table = [(str(moment), *_cells(line)) for moment, line in lines.items()]
    lab.table(("step", "w1", "w2", "b", "loss", "accuracy"), [*table, ("the clouds' own", *_cells(own))])
    lab.draw("logistic", CAPTION, partial(_draw, x, y, lines, own, losses))
    errors = [max(abs(by_hand[name] - found[name]) for name in found) for found in (library, differences)]
    return Results((errors[0], errors[1]), by_hand["L"], loss, lines, own)


def _cells(line: Line) -> list[str]:
    return [f"{value:.4f}" for value in (*line.weights, line.loss, line.accuracy)]


def _draw(x: HostArray, y: HostArray, lines: dict[int, Line], own: Line, losses: list[float]) -> Any:
    """Draw the boundary at each moment over the points, and the loss with the moments marked."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 2, width=5.6, height=4.6)
    points, curve = grid[0]
    draw_points(points, x, y, size=4.5)
    low, high = x.min(axis=0) - 0.3, x.max(axis=0) + 0.3
    first = np.linspace(low[0], high[0], 2)
    curve.plot(losses, color="black", linewidth=1.2)
    colors = (PALETTE[6], PALETTE[3], PALETTE[4], PALETTE[5], PALETTE[2])
    for (moment, line), color, style, marker in zip(lines.items(), colors, STYLES, "osD^v", strict=False):
        points.plot(first, line.at(first), linestyle=style, color=color, linewidth=2.4, label=f"after {moment} steps")
        curve.plot(moment, line.loss, marker, color=color, markersize=9, label=f"after {moment} steps")
    points.plot(first, own.at(first), color="black", linewidth=0.8, label="the clouds' own")
    curve.axhline(own.loss, color="black", linewidth=0.8, linestyle=":", label="of the clouds' own line")
    points.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="x1", ylabel="x2", title="boundary")
    curve.set(
        xlabel="step", ylabel="loss", title="binary cross entropy", xscale="symlog", xlim=(-0.2, 1.4 * max(lines))
    )
    points.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=8)
    curve.legend()
    return figure


CAPTION = Words(
    "Logistic regression: its boundary and its loss as it trains",
    "로지스틱 회귀: 학습하는 동안의 경계선과 손실",
)


def _judge_backward(results: Results) -> Verdict:
    """Whether the products along the graph are the derivatives, and a step against them lowers the loss."""
    library, differences = results.errors
    holds = library < 1e-6 and differences < 1e-6
    lower = results.after < results.before
    numbers = f"|Δ| = {library:.0e}, {differences:.0e}; L: {results.before:.4f} → {results.after:.4f}"
    if holds and lower:
        return Verdict(
            "right",
            numbers,
            Words(
                "The products along the graph are the library's derivatives and those of central differences, and a"
                " step against them lowers the loss.",
                "계산 그래프를 따라 곱한 값은 라이브러리의 역전파, 중앙 차분과 일치하고, 그 반대 방향으로 한 번"
                " 갱신하면 손실이 줄어든다.",
            ),
        )
    return Verdict(
        "conditional" if holds else "wrong",
        numbers,
        Words(
            "The derivatives agree, but the step is too long: the loss rises." if holds else "The derivatives differ.",
            "미분값은 일치하지만, 갱신 폭이 너무 커서 손실이 늘어난다." if holds else "미분값이 서로 다르다.",
        ),
    )


EXPERIMENT = Experiment(
    name="logistic",
    title=Words("Logistic regression, the smallest network", "가장 작은 신경망, 로지스틱 회귀"),
    text=Words(
        "Logistic regression is a network of one neuron: a weighted sum z, a sigmoid a of it, and cross entropy L. The"
        " derivative of L by each weight is a product along the graph, from back to front: dL/da, times da/dz, times"
        " dz/dw. The first two make a - y, so short that a library computes it at once. Here every factor is worked out"
        " for one sample, and held against the library's backward and against central differences. The same steps on"
        " two clouds of points turn a bad line into a good one. As the clouds overlap, mistakes are left, and the loss"
        " does not come down to 0.",
        "로지스틱 회귀는 뉴런이 하나인 신경망이다. 가중합 z, 그 시그모이드 a, 교차 엔트로피 손실 L로 이루어진다."
        " 가중치에 대한 L의 미분은 그래프를 뒤에서 앞으로 따라가며 곱한 값으로, dL/da에 da/dz를, 다시 dz/dw를"
        " 곱한다. 앞의 둘을 곱하면 a - y로 간단해지므로 라이브러리는 이를 한 번에 계산한다. 여기서는 데이터"
        " 하나에 대해 각 인수를 계산하고, 라이브러리의 역전파 및 중앙 차분과 비교한다. 같은 과정을 두 무리의"
        " 점에 되풀이하면 나쁜 직선이 좋은 직선으로 바뀐다. 두 무리가 겹치므로 잘못 분류되는 점이 남고, 손실도"
        " 0까지 내려가지 않는다.",
    ),
    run=run,
    add_options=add_options,
    formula=(
        "z = w₁ x₁ + w₂ x₂ + b,  a = 1 / (1 + e⁻ᶻ),  L = -(y log a + (1 - y) log(1 - a))",
        "∂L/∂w₁ = ∂L/∂a · ∂a/∂z · ∂z/∂w₁ = (a - y) x₁",
        "w ← w - η ∂L/∂w",
    ),
    claims=(
        Claim(
            "004",
            Words(
                "Partial derivatives node by node, from back to front, times the learning rate and taken off the weight"
                " give the new weight.",
                "뒤에서 앞으로 한 노드씩 편미분을 되풀이하고, 그 값에 학습률을 곱해 가중치에서 빼면 새 가중치가 된다.",
            ),
            _judge_backward,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
