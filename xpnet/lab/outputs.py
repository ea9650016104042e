"""python -m xpnet.lab outputs: each kind of output layer, on data that it suits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..core.device import HostArray
from ..model import MLP
from ..model.metrics import accuracy, most_probable, r2, yes_or_no
from ..nn import Linear, MeanSquaredError, Sequential, Step, Tanh
from ..optim import Adam
from ..training import Trainer
from . import experiment
from .experiment import Experiment, Lab, Words
from .plane import clouds, draw_points, draw_values, mesh, moons

HIDDEN = (16, 16)  # of tanh, in every network
RATE = 0.01  # of Adam
STEPS = 1500
BATCH = 50
ROWS = 400  # to train on, and as many to test on
NOISE = 0.2  # of the moons, and of the curve

CENTRES = ((0.0, 2.0), (1.9, 0.6), (1.2, -1.6), (-1.2, -1.6), (-1.9, 0.6))  # of five classes, on a circle
SPREAD = 0.6
ASKED = {"amid all clouds": (0.0, 0.0), "far from all": (8.0, -1.0)}

MOONS_LOW, MOONS_HIGH = (-1.8, -1.3), (2.8, 1.8)
CLOUDS_LOW, CLOUDS_HIGH = (-4.5, -4.5), (4.5, 4.5)
ENDS = (-3.0, 3.0)  # of the curve


@dataclass(frozen=True)
class Split:
    """Training and test rows with their targets."""

    x: HostArray
    y: HostArray
    x_test: HostArray
    y_test: HostArray


def halves(x: HostArray, y: HostArray) -> Split:
    """Split rows and targets: the first half for training, the rest for testing."""
    return Split(x[: len(x) // 2], y[: len(x) // 2], x[len(x) // 2 :], y[len(x) // 2 :])


def curve(x: HostArray) -> HostArray:
    """A curve, (N, 1), of one variable, (N, 1), that exceeds 0..1 and -1..1 on both sides."""
    return 2.0 * np.sin(2.0 * x) + 0.5 * x


def points_on_curve(lab: Lab) -> Split:
    """Return points on the curve, with noise: x (N, 1) and y (N, 1)."""
    generator = np.random.default_rng(lab.seed)
    x = generator.uniform(*ENDS, (2 * ROWS, 1))
    return halves(x, curve(x) + NOISE * generator.normal(size=x.shape))


def train(lab: Lab, rows: Split, outputs: int, y: HostArray | None = None, **options: Any) -> MLP:
    """Train a network with HIDDEN and these outputs, on other targets than those of the rows where y is given."""
    sizes = [rows.x.shape[1], *HIDDEN, outputs]
    model = MLP(sizes, activation="tanh", seed=lab.seed, device=lab.device, **options)
    trainer = Trainer(model, Adam(RATE), batch_size=BATCH, seed=lab.seed)
    trainer.fit(rows.x, rows.y if y is None else y, steps=STEPS)
    return model


@dataclass(frozen=True)
class Output:
    """A network with one kind of output.

    Attributes:
        name: of the activation behind the last layer.
        model: the network.
        says: its predictions for rows, (N, I): (N,) for two classes, (N, C) or (N, 1) else.
        score: its accuracy, or R2, on the test rows.
    """

    name: str
    model: MLP
    says: Any
    score: float


def two_classes(lab: Lab, rows: Split) -> list[Output]:
    """Return the networks for two classes: step, sigmoid and tanh.

    step and sigmoid are trained alike, on labels 0 and 1; tanh on -1 and 1, by the mean squared error.
    """
    found = []
    for name in ("step", "sigmoid"):
        model = train(lab, rows, 1, output=name)

        def probability(x: HostArray, model: MLP = model) -> HostArray:
            return np.asarray(model.predict(x)[:, 1])

        found.append(Output(name, model, probability, accuracy(rows.y_test, yes_or_no(np, probability(rows.x_test)))))
    model = train(lab, rows, 1, 2.0 * rows.y - 1.0, task="regression", output="tanh")
    signed = model.predict(rows.x_test)[:, 0]
    score = accuracy(rows.y_test, yes_or_no(np, signed, 0.0))
    found.append(Output("tanh", model, lambda x: model.predict(x)[:, 0], score))
    return found


def gradient_through_step(lab: Lab, rows: Split) -> float:
    """Largest gradient of any weight where the step is a layer below the loss."""
    layers = [Linear(2, HIDDEN[0]), Tanh(), Linear(HIDDEN[0], 1), Step()]
    network = Sequential(layers, seed=lab.seed, device=lab.device)
    z = network.forward(lab.device.asarray(rows.x), train=True)
    network.backward(MeanSquaredError()(network.xp, z, lab.device.asarray(rows.y))[2])
    return float(lab.device.to_host(abs(network.gradients).max()))


def many_classes(lab: Lab, rows: Split) -> list[Output]:
    """Return the networks for several classes: a sigmoid for each, and softmax over all."""
    found = []
    for name in ("sigmoid", "softmax"):
        model = train(lab, rows, len(CENTRES), output=name)
        score = accuracy(rows.y_test, most_probable(np, model.predict(rows.x_test)))
        found.append(Output(name, model, model.predict, score))
    return found


def numbers(lab: Lab, rows: Split) -> list[Output]:
    """Train the networks for a number: y = x, and two whose outputs are confined to 0..1 and -1..1."""
    found = []
    for name in ("identity", "sigmoid", "tanh"):
        model = train(lab, rows, 1, task="regression", output=name)
        found.append(Output(name, model, model.predict, r2(rows.y_test, model.predict(rows.x_test))))
    return found


def run(lab: Lab) -> None:
    """Train a network with each kind of output, and tabulate scores and answers."""
    lab.say(f"hidden layers of {' and '.join(map(str, HIDDEN))} tanh units, {STEPS} steps of Adam; {ROWS} test rows")
    lab.say()
    moon_rows = halves(*moons(2 * ROWS, NOISE, lab.seed))
    two = say_two(lab, moon_rows)
    lab.say()
    cloud_rows = halves(*clouds(CENTRES, 2 * ROWS, SPREAD, lab.seed))
    many = say_many(lab, cloud_rows)
    lab.say()
    curve_rows = points_on_curve(lab)
    fits = say_numbers(lab, curve_rows)
    lab.draw("outputs", CAPTION, partial(_draw, moon_rows, two, cloud_rows, many, curve_rows, fits))


def say_two(lab: Lab, rows: Split) -> list[Output]:
    """Train for two classes, and print the results."""
    found = two_classes(lab, rows)
    lab.say("two classes: accuracy, and the answers to five test rows")
    table = [("(label)", "", *map(str, rows.y_test[:5]))]
    table += [(one.name, f"{one.score:.4f}", *(f"{a:.4f}" for a in one.says(rows.x_test[:5]))) for one in found]
    lab.table(("output", "accuracy", *(f"row {i}" for i in range(5))), table)
    by_step, by_sigmoid = (lab.device.to_host(one.model.network.values) for one in found[:2])
    lab.say(f"largest difference between the weights behind step and sigmoid: {np.abs(by_step - by_sigmoid).max():g}")
    lab.say(f"largest gradient of any weight, were the loss that of the step: {gradient_through_step(lab, rows):g}")
    return found


def say_many(lab: Lab, rows: Split) -> list[Output]:
    """Train for several classes, and print the results."""
    found = many_classes(lab, rows)
    lab.say(f"{len(CENTRES)} classes: accuracy, the sum of a row's outputs, and rows by how many outputs are above 1/2")
    table = []
    for one in found:
        p = one.says(rows.x_test)
        sums, yes = p.sum(axis=1), (p > 0.5).sum(axis=1)
        counts = [str(int(chosen.sum())) for chosen in (yes == 0, yes == 1, yes > 1)]
        table.append((one.name, f"{one.score:.4f}", f"{sums.min():.4f}", f"{sums.max():.4f}", *counts))
    lab.table(("output", "accuracy", "least sum", "largest sum", "none", "one", "several"), table)
    table = []
    for place, point in ASKED.items():
        for one in found:
            p = one.says([point])[0]
            table.append((f"{place}, {one.name}", *(f"{value:.4f}" for value in (*p, p.sum()))))
    lab.table(("outputs at a point", *(f"class {label}" for label in range(len(CENTRES))), "sum"), table)
    return found


def say_numbers(lab: Lab, rows: Split) -> list[Output]:
    """Train for a number, and print the results."""
    found = numbers(lab, rows)
    lab.say(f"a number, from {rows.y_test.min():.2f} to {rows.y_test.max():.2f}: R2, and the range of the answers")
    table = []
    for one in found:
        answers = one.says(rows.x_test)
        table.append((one.name, *(f"{value:.4f}" for value in (one.score, answers.min(), answers.max()))))
    lab.table(("output", "R2", "least answer", "largest"), table)
    return found


def _draw(
    moon_rows: Split, two: list[Output], cloud_rows: Split, many: list[Output], curve_rows: Split, fits: list[Output]
) -> Any:
    """Draw two classes by each output, several by both, and the curve."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(2, 3, width=4.4, height=3.9)
    for axes, one in zip(grid[0], two, strict=True):
        least = -1.0 if one.name == "tanh" else 0.0
        values = one.says(mesh(MOONS_LOW, MOONS_HIGH)[2])
        surface = draw_values(axes, MOONS_LOW, MOONS_HIGH, values, np.linspace(least, 1.0, 11))
        figure.colorbar(surface, ax=axes, ticks=[least, (least + 1.0) / 2.0, 1.0])
        draw_points(axes, moon_rows.x_test, moon_rows.y_test, size=4.5)
        axes.set(title=f"two classes: {one.name}, accuracy {one.score:.3f}", xlabel="x1", ylabel="x2")
    for axes, one, title in zip(grid[1], many, ("a sigmoid each", "softmax"), strict=False):
        _draw_classes(axes, one)
        draw_points(axes, cloud_rows.x_test, cloud_rows.y_test, size=4.0)
        axes.set(title=f"{len(CENTRES)} classes: {title}, accuracy {one.score:.3f}", xlabel="x1", ylabel="x2")
    axes = grid[1, 2]
    axes.plot(curve_rows.x_test, curve_rows.y_test, ".", color="grey", markersize=3, label="test rows")
    x = np.linspace(*ENDS, 300)[:, None]
    for one, style, color in zip(fits, ("-", "--", "-."), PALETTE, strict=False):
        name = "y = x" if one.name == "identity" else one.name
        axes.plot(x, one.says(x), style, color=color, linewidth=2.0, label=f"{name}, R2 {one.score:.3f}")
    axes.set(title="a number", xlabel="x", ylabel="y", ylim=(-4.6, None))  # room for the legend
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _draw_classes(axes: Any, one: Output) -> None:
    """Colour each point by the class with the largest output, and hatch where none, or several, are above 1/2."""
    from matplotlib.colors import ListedColormap

    from ..plots import PALETTE

    first, second, points = mesh(CLOUDS_LOW, CLOUDS_HIGH)
    p = one.says(points)  # (SIDE * SIDE, C)
    classes = len(CENTRES)
    winner, yes = p.argmax(axis=1).reshape(first.shape), (p > 0.5).sum(axis=1).reshape(first.shape)
    axes.grid(False)
    axes.pcolormesh(first, second, winner, cmap=ListedColormap(PALETTE[:classes]), vmin=0, vmax=classes - 1, alpha=0.35)
    axes.contourf(first, second, yes, levels=[-0.5, 0.5, 1.5, classes], hatches=["///", None, "xxx"], colors="none")


CAPTION = Words(
    "Output layers on data they suit (hatched: none above 1/2; crossed: several)",
    "출력층과 그에 맞는 데이터 (빗금: 0.5를 넘는 출력이 없음, 격자: 둘 이상)",
)

EXPERIMENT = Experiment(
    name="outputs",
    title=Words("Output layers", "출력층"),
    text=Words(
        "What a network is for decides its last layer. For two classes that is one output: a step answers 0 or 1, a"
        " sigmoid a probability, tanh a number from -1 to 1. A step has no slope to learn by, so here it stands before"
        " predictions alone, and the sigmoid in its place was trained: the same weights, and the same decisions,"
        " without their probabilities. For several classes there can be a sigmoid for each, which answer"
        " separately, so that none or several may say yes, or softmax, which shares 1 among the classes. On clouds of"
        " points both decide about equally well; they differ in what their numbers mean. A real number needs y = x:"
        " sigmoid and tanh cannot leave their ranges.",
        "신경망을 무엇에 쓰는지에 따라 마지막 층이 정해진다. 두 클래스라면 출력은 하나이다. 계단 함수는 0 또는"
        " 1을, 시그모이드는 확률을, tanh는 -1과 1 사이의 수를 출력한다. 계단 함수에는 학습에 쓸 기울기가"
        " 없으므로 여기서는 예측할 때만 쓰고, 학습할 때는 그 자리에 시그모이드를 쓴다. 그래서 가중치도 판정도"
        " 시그모이드와 같지만, 얼마나 확실한지는 알 수 없다. 클래스가 여럿이면 클래스마다 시그모이드를 하나씩"
        " 두거나 소프트맥스를 쓴다. 시그모이드의 출력은 서로 독립이므로 어느 출력도 0.5를 넘지 않거나 여러"
        " 출력이 넘을 수 있고, 소프트맥스의 출력은 합이 1이다. 무리 지은 점들에서는 둘의 정확도가 비슷하며, 다른"
        " 것은 출력값의 의미이다. 실수를 예측하려면 항등 함수를 쓴다. 시그모이드와 tanh의 출력은 정해진 범위를"
        " 벗어나지 못한다.",
    ),
    run=run,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
