"""python -m xpnet.lab logistic: logistic regression, the smallest network: its boundary, and its graph by hand."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..core.device import HostArray
from ..model import MLP
from ..nn import BinaryCrossEntropy, Sequential, Sigmoid, numerical_gradient
from ..optim import SGD
from ..training import Trainer, evaluate
from . import experiment
from .experiment import Experiment, Lab, Words
from .plane import clouds, draw_points

# One sample for the graph: x, its label, weights and bias.
X, Y = (2.0, 1.0), 1.0
W, B = (0.3, -0.5), 0.2
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


def graph_by_hand() -> dict[str, float]:
    """Values and derivatives of the graph of one neuron and its loss, as computed by hand.

    z = w1 x1 + w2 x2 + b, a = sigmoid(z), L = -(y log a + (1 - y) log(1 - a)).
    """
    z = W[0] * X[0] + W[1] * X[1] + B
    a = 1.0 / (1.0 + math.exp(-z))
    return {
        "z": z,
        "a": a,
        "L": -(Y * math.log(a) + (1.0 - Y) * math.log(1.0 - a)),
        "dL/da": -Y / a + (1.0 - Y) / (1.0 - a),
        "da/dz": a * (1.0 - a),
        "dL/dz": a - Y,
        "dL/dw1": (a - Y) * X[0],
        "dL/dw2": (a - Y) * X[1],
        "dL/db": a - Y,
    }


def graph_by_library(lab: Lab) -> dict[str, float]:
    """The library's values of the same graph, but dL/da: the sigmoid is built into its loss."""
    linear, sigmoid = model_of(lab, W, B).network, Sequential([Sigmoid()], dtype="float64", device=lab.device)
    xp, target = linear.xp, lab.device.asarray([[Y]])
    z = linear.forward(lab.device.asarray([X]), train=True)  # (1, 1)
    a = sigmoid.forward(z, train=True)
    loss, _, dz = BinaryCrossEntropy()(xp, z, target)
    slope = sigmoid.backward(xp.ones((1, 1), dtype="float64"), input_gradient=True)
    linear.backward(dz)
    found = {"z": z, "a": a, "L": loss, "da/dz": slope, "dL/dz": dz}
    grads = linear.layers[0].grads
    found |= {"dL/dw1": grads["W"][0], "dL/dw2": grads["W"][1], "dL/db": grads["b"]}
    return {name: float(lab.device.to_host(value).reshape(())) for name, value in found.items()}


def graph_by_differences(lab: Lab) -> dict[str, float]:
    """Derivatives by central differences, each of a function of one variable."""
    network = model_of(lab, W, B).network
    rows, xp, target = lab.device.asarray([X]), network.xp, lab.device.asarray([[Y]])

    def loss() -> Any:
        return BinaryCrossEntropy()(xp, network.forward(rows), target)[0]

    def by(f: Any, at: float) -> float:
        point = np.array([at])
        return float(numerical_gradient(lambda: f(float(point[0])), point)[0])

    values = graph_by_hand()
    layer: Any = network.layers[0]
    dw, db = (lab.device.to_host(numerical_gradient(loss, array)).ravel() for array in (layer.W, layer.b))
    return {
        "dL/da": by(lambda a: -(Y * math.log(a) + (1.0 - Y) * math.log(1.0 - a)), values["a"]),
        "da/dz": by(lambda z: 1.0 / (1.0 + math.exp(-z)), values["z"]),
        "dL/dz": by(lambda z: math.log1p(math.exp(z)) - Y * z, values["z"]),
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
    c0, c1 = np.array(CENTRES)
    weights, bias = (c1 - c0) / SPREAD**2, float(c0 @ c0 - c1 @ c1) / 2.0 / SPREAD**2
    return line_of(lab, model_of(lab, weights.tolist(), bias), x, y)


def train(lab: Lab, x: HostArray, y: HostArray) -> tuple[dict[int, Line], list[float]]:
    """Train on all rows at once; return the line at each of MOMENTS, and the loss before each step."""
    model = model_of(lab, *START)
    trainer = Trainer(model, SGD(RATE), batch_size=len(x), seed=lab.seed)
    lines = {0: line_of(lab, model, x, y)}
    for moment in MOMENTS[1:]:
        trainer.fit(x, y, steps=moment - trainer.step)
        lines[moment] = line_of(lab, model, x, y)
    return lines, [row["train_loss"] for row in trainer.history]


def run(lab: Lab) -> None:
    """Work the graph of one sample, and train on two clouds."""
    lab.say(f"one sample: x = {X}, y = {Y:g}; w = {W}, b = {B}")
    by_hand, library, differences = graph_by_hand(), graph_by_library(lab), graph_by_differences(lab)
    rows = []
    for name, formula in FORMULAS.items():
        cells = [f"{found[name]:.8f}" if name in found else "" for found in (by_hand, library, differences)]
        rows.append((name, formula.ljust(max(map(len, FORMULAS.values()))), *cells))
    lab.table(("", "formula", "by hand", "library", "central differences"), rows)
    w1, w2, b = (old - STEP * library[name] for old, name in zip((*W, B), ("dL/dw1", "dL/dw2", "dL/db"), strict=True))
    loss = evaluate(model_of(lab, (w1, w2), b), [X], [int(Y)])[0]
    lab.say(f"a step of rate {STEP:g}: w = ({w1:.6f}, {w2:.6f}), b = {b:.6f}; L is then {loss:.6f}")

    x, y = clouds(CENTRES, ROWS, SPREAD, lab.seed)
    lines, losses = train(lab, x, y)
    own = own_line(lab, x, y)
    lab.say()
    lab.say(f"two clouds of {ROWS // 2} points: the boundary w1 x1 + w2 x2 + b = 0 as it is learnt")
    table = [(str(moment), *_cells(line)) for moment, line in lines.items()]
    lab.table(("step", "w1", "w2", "b", "loss", "accuracy"), [*table, ("the clouds' own", *_cells(own))])
    lab.draw("logistic", CAPTION, partial(_draw, x, y, lines, own, losses))


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
    for (moment, line), color, style, marker in zip(lines.items(), colors, STYLES, "osD^v", strict=True):
        points.plot(first, line.at(first), linestyle=style, color=color, linewidth=2.4, label=f"after {moment} steps")
        curve.plot(moment, line.loss, marker, color=color, markersize=9, label=f"after {moment} steps")
    points.plot(first, own.at(first), color="black", linewidth=0.8, label="the clouds' own")
    curve.axhline(own.loss, color="black", linewidth=0.8, linestyle=":", label="of the clouds' own line")
    points.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="x1", ylabel="x2", title="boundary")
    curve.set(
        xlabel="step", ylabel="loss", title="binary cross entropy", xscale="symlog", xlim=(-0.2, 1.4 * MOMENTS[-1])
    )
    points.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=8)
    curve.legend()
    return figure


CAPTION = Words(
    "Logistic regression: its boundary and its loss as it trains",
    "로지스틱 회귀: 학습하는 동안의 경계선과 손실",
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
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
