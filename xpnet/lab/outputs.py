"""python -m xpnet.lab outputs: each kind of output layer, on data that it suits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import HostArray
from ..model import MLP
from ..model.metrics import accuracy, most_probable, r2, yes_or_no
from ..nn import Linear, MeanSquaredError, Sequential, Step, Tanh
from ..optim import Adam
from ..training import Trainer
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to
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
    x = generator.uniform(*ENDS, (2 * lab.options.rows, 1))
    return halves(x, curve(x) + lab.options.noise * generator.normal(size=x.shape))


def train(lab: Lab, rows: Split, outputs: int, y: HostArray | None = None, **options: Any) -> MLP:
    """Train a network with the hidden layers and these outputs, on the targets of the rows, or on y."""
    sizes = [rows.x.shape[1], *lab.options.hidden, outputs]
    model = MLP(sizes, activation="tanh", seed=lab.seed, device=lab.device, **options)
    trainer = Trainer(model, Adam(lab.options.rate), batch_size=lab.options.batch_size, seed=lab.seed)
    trainer.fit(rows.x, rows.y if y is None else y, steps=lab.options.steps)
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
    units = lab.options.hidden[0]
    layers = [Linear(2, units), Tanh(), Linear(units, 1), Step()]
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


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        two: accuracy on two classes by output.
        gradient: largest gradient of any weight through a step.
        many: accuracy on several classes by output.
        sums: least and largest sum of a row's outputs by output, on several classes.
        numbers: R2 by output, of a number.
    """

    two: dict[str, float]
    gradient: float
    many: dict[str, float]
    sums: dict[str, tuple[float, float]]
    numbers: dict[str, float]


def add_options(parser: cli.Parser) -> None:
    """Add the hidden layers, how they are trained, and the data."""
    add = parser.add_argument
    add("--hidden", type=up_to(1000), nargs="+", default=list(HIDDEN), metavar="UNITS", help="of tanh (default: 16 16)")
    add("--rate", type=positive, default=RATE, metavar="RATE", help=f"of Adam (default: {RATE:g})")
    add("--steps", type=up_to(1_000_000), default=STEPS, metavar="N", help=f"(default: {STEPS})")
    add("--batch-size", type=up_to(10_000), default=BATCH, metavar="ROWS", help=f"(default: {BATCH})")
    add(
        "--rows",
        type=up_to(100_000),
        default=ROWS,
        metavar="N",
        help=f"to train on, and as many to test (default: {ROWS})",
    )
    add(
        "--noise",
        type=positive,
        default=NOISE,
        metavar="S",
        help=f"of two classes, and of a number (default: {NOISE:g})",
    )
    add("--spread", type=positive, default=SPREAD, metavar="S", help=f"of several classes (default: {SPREAD:g})")


def run(lab: Lab) -> Results:
    """Train a network with each kind of output, and tabulate scores and answers."""
    options = lab.options
    if options.rows < 10:
        raise cli.UsageError("five classes need at least 10 rows (--rows)")
    hidden = " and ".join(map(str, options.hidden))
    lab.say(f"hidden layers of {hidden} tanh units, {options.steps} steps of Adam; {options.rows} test rows")
    lab.say()
    moon_rows = halves(*moons(2 * options.rows, options.noise, lab.seed))
    two, gradient = say_two(lab, moon_rows)
    lab.say()
    cloud_rows = halves(*clouds(CENTRES, 2 * options.rows, options.spread, lab.seed))
    many, sums = say_many(lab, cloud_rows)
    lab.say()
    curve_rows = points_on_curve(lab)
    fits = say_numbers(lab, curve_rows)
    lab.draw("outputs", CAPTION, partial(_draw, moon_rows, two, cloud_rows, many, curve_rows, fits))
    scores = [{one.name: one.score for one in found} for found in (two, many, fits)]
    return Results(scores[0], gradient, scores[1], sums, scores[2])


def say_two(lab: Lab, rows: Split) -> tuple[list[Output], float]:
    """Train for two classes, and print the results; return them, and the largest gradient through a step."""
    found = two_classes(lab, rows)
    lab.say("two classes: accuracy, and the answers to five test rows")
    table = [("(label)", "", *map(str, rows.y_test[:5]))]
    table += [(one.name, f"{one.score:.4f}", *(f"{a:.4f}" for a in one.says(rows.x_test[:5]))) for one in found]
    lab.table(("output", "accuracy", *(f"row {i}" for i in range(5))), table)
    by_step, by_sigmoid = (lab.device.to_host(one.model.network.values) for one in found[:2])
    lab.say(f"largest difference between the weights behind step and sigmoid: {np.abs(by_step - by_sigmoid).max():g}")
    gradient = gradient_through_step(lab, rows)
    lab.say(f"largest gradient of any weight, were the loss that of the step: {gradient:g}")
    return found, gradient


def say_many(lab: Lab, rows: Split) -> tuple[list[Output], dict[str, tuple[float, float]]]:
    """Train for several classes, and print the results; return them, and the range of the sums of outputs."""
    found = many_classes(lab, rows)
    lab.say(f"{len(CENTRES)} classes: accuracy, the sum of a row's outputs, and rows by how many outputs are above 1/2")
    table, ranges = [], {}
    for one in found:
        p = one.says(rows.x_test)
        sums, yes = p.sum(axis=1), (p > 0.5).sum(axis=1)
        counts = [str(int(chosen.sum())) for chosen in (yes == 0, yes == 1, yes > 1)]
        ranges[one.name] = float(sums.min()), float(sums.max())
        table.append((one.name, f"{one.score:.4f}", *(f"{end:.4f}" for end in ranges[one.name]), *counts))
    lab.table(("output", "accuracy", "least sum", "largest sum", "none", "one", "several"), table)
    table = []
    for place, point in ASKED.items():
        for one in found:
            p = one.says([point])[0]
            table.append((f"{place}, {one.name}", *(f"{value:.4f}" for value in (*p, p.sum()))))
    lab.table(("outputs at a point", *(f"class {label}" for label in range(len(CENTRES))), "sum"), table)
    return found, ranges


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


GOOD = 0.8  # accuracy from which a kind of output does for two classes


def _judge_two(results: Results) -> Verdict:
    """Whether step, sigmoid and tanh all decide between two classes, and whether a step can be trained."""
    numbers = ", ".join(f"{name}: {score:.3f}" for name, score in results.two.items())
    if min(results.two.values()) < GOOD:
        return Verdict("wrong", numbers, Words("Not all do here.", "여기서는 그렇지 않은 것이 있다."))
    return Verdict(
        "conditional" if results.gradient == 0.0 else "right",
        f"{numbers}; ∇ = {results.gradient:g}",
        Words(
            f"All three decide well, but the gradient through a step is {results.gradient:g}: it has to be trained as a"
            " sigmoid.",
            f"셋 모두 잘 판정하지만, 계단 함수를 지나온 기울기는 {results.gradient:g}이므로 학습할 때는 시그모이드를"
            " 써야 한다.",
        ),
    )


def _judge_many(results: Results) -> Verdict:
    """Whether a sigmoid for each class gives probabilities that add up to 1."""
    least, most = results.sums["sigmoid"]
    accuracies = ", ".join(f"{name}: {score:.3f}" for name, score in results.many.items())
    shares = max(abs(least - 1.0), abs(most - 1.0)) < 0.01
    return Verdict(
        "right" if shares else "conditional",
        f"{accuracies}; Σ = {least:.2f} .. {most:.2f}",
        Words(
            f"Its classes are about as good as softmax's, but each output is a probability of its own: they add up to"
            f" {least:.2f} to {most:.2f}, softmax's to 1.",
            f"정확도는 소프트맥스와 비슷하지만 출력은 저마다 따로 계산한 확률이어서, 합이 {least:.2f}에서 {most:.2f}"
            " 사이이다. 소프트맥스의 합은 1이다.",
        ),
    )


def _judge_number(results: Results) -> Verdict:
    """Whether the identity predicts a number better than outputs that are confined."""
    best = max(results.numbers, key=lambda name: results.numbers[name])
    return Verdict(
        "right" if best == "identity" else "wrong",
        "R²: " + ", ".join(f"{'y = x' if name == 'identity' else name} {r:.3f}" for name, r in results.numbers.items()),
        Words(
            "The targets leave the ranges of sigmoid and tanh.",
            "정답이 시그모이드와 tanh의 출력 범위를 벗어난다.",
        )
        if best == "identity"
        else Words(f"Here {best} was better.", f"여기서는 {best}의 결과가 더 좋다."),
    )


CLAIMS = (
    Claim(
        "003",
        Words(
            "Two classes take a step, a sigmoid or tanh.",
            "이진 분류 문제이면 계단 함수, 시그모이드 함수, 하이퍼볼릭 탄젠트 함수를 사용한다.",
        ),
        _judge_two,
    ),
    Claim(
        "003",
        Words(
            "Several classes take a sigmoid for each, which gives probabilities.",
            "다중 분류 문제이면 노드를 여러 개로 늘리고 시그모이드로 확률을 표현한다.",
        ),
        _judge_many,
    ),
    Claim(
        "003",
        Words(
            "A real number takes y = x, which passes on what comes in.",
            "실수이면 y = x처럼 입력한 값을 그대로 내보내는 활성화 함수를 쓴다.",
        ),
        _judge_number,
    ),
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
    add_options=add_options,
    formula=(
        "step: y = 1 where z > 0, else 0",
        "sigmoid: y = 1 / (1 + e⁻ᶻ)",
        "tanh: y = (eᶻ - e⁻ᶻ) / (eᶻ + e⁻ᶻ)",
        "softmax: yᵢ = exp(zᵢ) / Σ exp(zⱼ)",
        "identity: y = z",
    ),
    claims=CLAIMS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
