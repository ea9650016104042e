"""python -m xpnet.lab gradients: the numerical gradient against backpropagation, by layer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import Array, HostArray
from ..model.mlp import MLP
from ..nn import ACTIVATIONS, numerical_gradient
from ..nn.layout import ParameterSlot
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, one_of, positive, up_to

HIDDEN = (100, 100, 100, 100)
BATCH = 32
SAMPLE = 200  # elements of each weight matrix, and the most of a bias: all of them would take minutes
REPEATS = 20  # of backpropagation, of which the median is taken
H = 1e-5  # about where the error in float64 is least: the second picture shows why
BOOK_H = 1e-4  # the book's step
STEPS = tuple(10.0**-power for power in range(1, 13))
SWEPT = 10  # elements of each parameter array for each of these steps
# Activations and precisions of the networks whose error is shown against the step.
NETWORKS = (("tanh", "float64"), ("relu", "float64"), ("tanh", "float32"))


@dataclass(frozen=True)
class Check:
    """Gradients of one parameter array by both ways.

    Attributes:
        slot: where it lies.
        numerical, exact: the gradient of the sampled elements by either way, (S,).
        seconds: the time the numerical one took.
    """

    slot: ParameterSlot
    numerical: HostArray
    exact: HostArray
    seconds: float

    @property
    def error(self) -> float:
        """The relative error."""
        return relative_error(self.numerical, self.exact)

    @property
    def seconds_for_all(self) -> float:
        """Estimated seconds for all elements of the array."""
        return self.seconds * self.slot.size / len(self.exact)


def relative_error(a: HostArray, b: HostArray) -> float:
    """Return |a - b| / (|a| + |b|), of vectors; 0 where both are zero."""
    size = float(np.linalg.norm(a) + np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / size if size else 0.0


def mean_loss(model: MLP, x: Array, t: Array) -> Array:
    """Return the mean loss of a batch, ()."""
    loss, weight, _ = model.loss(model.network.xp, model.forward(x), t)
    return loss / weight


def backpropagate(model: MLP, x: Array, t: Array) -> HostArray:
    """Return the gradient of the mean loss of a batch with respect to all parameters, (P,), by one pass each way."""
    with model.device.activate():
        _, _, dz = model.loss(model.network.xp, model.forward(x, train=True), t)
        model.network.backward(dz)
    return model.device.to_host(model.network.gradients)


def sampled_gradient(model: MLP, x: Array, t: Array, places: HostArray, h: float) -> HostArray:
    """Return the numerical gradient with respect to the parameters at `places`, (S,), of the flat vector.

    Each element costs two forward passes. The elements are moved in a small array of their own, which the loss copies
    to where they belong.
    """
    device, values = model.device, model.network.values
    index = device.asarray(places)
    part = values[index].copy()

    def loss() -> Array:
        values[index] = part
        return mean_loss(model, x, t)

    with device.activate():
        found = device.to_host(numerical_gradient(loss, part, h))
        values[index] = part
    return found


def sample(slot: ParameterSlot, count: int, seed: int) -> HostArray:
    """Draw the places of up to `count` elements of a parameter in the flat vector, without replacement, sorted."""
    generator = np.random.default_rng([seed, slot.layer, int(slot.parameter.matrix)])
    drawn = generator.choice(slot.size, size=min(count, slot.size), replace=False)
    return slot.offset + np.sort(drawn)


def check(lab: Lab, model: MLP, x: Array, t: Array) -> list[Check]:
    """Return a comparison of both gradients for each parameter array of a model."""
    exact = backpropagate(model, x, t)
    found = []
    for slot in model.network.layout.slots:
        places = sample(slot, lab.options.sample, lab.seed)
        begun = time.perf_counter()
        numerical = sampled_gradient(model, x, t, places, lab.options.h)
        found.append(Check(slot, numerical, exact[places], time.perf_counter() - begun))
        lab.progress(f"{slot.name}: done")
    return found


def errors(lab: Lab, model: MLP, x: Array, t: Array) -> list[float]:
    """Return the relative error of the numerical gradient for each of STEPS."""
    exact = backpropagate(model, x, t)
    places = np.concatenate([sample(slot, SWEPT, lab.seed) for slot in model.network.layout.slots])
    return [relative_error(sampled_gradient(model, x, t, places, h), exact[places]) for h in STEPS]


def median_seconds(work: Callable[[], object]) -> float:
    """Return the median time of REPEATS calls."""
    taken = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        checks: comparison of both gradients for each parameter array.
        seconds: of one backpropagation.
        ratio: estimated time of the numerical gradient of all parameters over that of backpropagation.
        errors: relative error at each of STEPS, by activation and precision.
    """

    checks: list[Check]
    seconds: float
    ratio: float
    errors: dict[tuple[str, str], list[float]]

    def error_at(self, h: float, activation: str, dtype: str) -> float:
        """Relative error at the one of STEPS next to h."""
        return self.errors[activation, dtype][int(np.argmin(np.abs(np.log(np.array(STEPS) / h))))]


def add_options(parser: cli.Parser) -> None:
    """Add the network, the batch, the sample of parameters, and the step."""
    add = parser.add_argument
    add(
        "--hidden",
        type=up_to(10_000),
        nargs="*",
        default=list(HIDDEN),
        metavar="UNITS",
        help="(default: four times 100)",
    )
    add(
        "--activation",
        type=one_of(ACTIVATIONS, "activation"),
        default="relu",
        metavar="NAME",
        help="of the network that is compared by layer (default: relu)",
    )
    add("--batch-size", type=up_to(10_000), default=BATCH, metavar="ROWS", help=f"(default: {BATCH})")
    add(
        "--sample",
        type=up_to(1_000_000),
        default=SAMPLE,
        metavar="N",
        help=f"elements of each array (default: {SAMPLE})",
    )
    add("--h", type=positive, default=H, metavar="H", help=f"step of the comparison by layer (default: {H:g})")


def run(lab: Lab) -> Results:
    """Compare the two gradients by layer, then against the step."""
    options = lab.options
    data = lab.mnist()
    batch = options.batch_size
    rows = np.random.default_rng(lab.seed).choice(len(data.x_train), size=min(batch, len(data.x_train)), replace=False)
    x = lab.device.asarray(data.x_train[rows].reshape(len(rows), -1) / data.input_scale)
    t = lab.device.asarray(data.y_train[rows].astype(np.int64))
    sizes = (x.shape[1], *options.hidden, len(data.class_names))

    model = MLP(sizes, activation=options.activation, dtype="float64", seed=lab.seed, device=lab.device)
    found = check(lab, model, x, t)
    seconds = median_seconds(lambda: backpropagate(model, x, t))
    name = {"relu": "ReLU"}.get(options.activation, options.activation)
    layout = f"{'-'.join(map(str, sizes))}, {name}, float64, {len(rows)} rows"
    lab.say(f"{layout}: the numerical gradient, h = {options.h:g}, of up to")
    lab.say(f"{options.sample} elements of each parameter array, against backpropagation's")
    layers = []
    for one in found:
        difference = np.abs(one.numerical - one.exact).max()
        numbers = (f"{one.error:.1e}", f"{difference:.1e}", f"{one.seconds:.2f}", f"{one.seconds_for_all:.1f}")
        layers.append((one.slot.name, f"{len(one.exact)} of {one.slot.size}", *numbers))
    lab.table(("parameter", "elements", "relative error", "largest error", "seconds", "s for all"), layers)
    numerical, parameters = sum(one.seconds_for_all for one in found), sum(one.slot.size for one in found)
    lab.say(f"all {parameters} parameters: {numerical:.0f} s numerically (reckoned from the sample), and")
    lab.say(f"{1e3 * seconds:.2f} ms by backpropagation: {numerical / seconds:,.0f} times as long")
    lab.say()

    networks = [
        MLP(sizes, activation=activation, dtype=dtype, seed=lab.seed, device=lab.device)
        for activation, dtype in NETWORKS
    ]
    curves = [errors(lab, network, x, t) for network in networks]
    lab.say(f"relative error by the step h, over {SWEPT} elements of each parameter array")
    head = ("h", *(f"{activation}, {dtype}" for activation, dtype in NETWORKS))
    cells = [(f"{h:.0e}", *(f"{curve[i]:.1e}" for curve in curves)) for i, h in enumerate(STEPS)]
    lab.table(head, cells)
    lab.draw("gradients-layers", _layers(options.h, found), partial(_draw_layers, found, seconds))
    lab.draw("gradients-step", STEP, partial(_draw_step, curves))
    return Results(found, seconds, numerical / seconds, dict(zip(NETWORKS, curves, strict=True)))


def _draw_layers(found: list[Check], seconds: float) -> Any:
    """Draw the relative error and the time of each parameter array."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 2, width=5.2)
    error, duration = grid[0]
    for matrix, marker, color, name in ((True, "o", 0, "weights"), (False, "s", 1, "biases")):
        chosen = [i for i, one in enumerate(found) if one.slot.parameter.matrix is matrix]
        look = {"color": PALETTE[color], "markersize": 8, "label": name}
        error.semilogy(chosen, [found[i].error for i in chosen], marker, **look)
        duration.semilogy(chosen, [found[i].seconds_for_all for i in chosen], marker, **look)
    duration.axhline(seconds, color=PALETTE[2], linestyle="--", label="backpropagation, all at once")
    error.set(
        ylabel="relative error",
        ylim=(1e-12, 10.0 * max(1e-7, *(one.error for one in found))),
        title="numerical against backpropagation",
    )
    duration.set(ylabel="seconds", title="time for all elements, reckoned from a sample")
    for axes in grid[0]:
        axes.set_xticks(range(len(found)), [one.slot.name for one in found])
        axes.set_xlabel("parameter: layer.name")
    error.legend(loc="lower right")
    low, high = duration.get_ylim()
    duration.set_ylim(low, high * 3000.0)  # room for the legend
    duration.legend(loc="upper right")
    return figure


def _draw_step(curves: list[list[float]]) -> Any:
    """Draw the error against the step, with lines that fall as the formula's error does, and as rounding's does."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 1, width=7.5, height=4.6)
    axes = grid[0, 0]
    for curve, (activation, dtype), style, color in zip(curves, NETWORKS, ("o-", "s--", "^:"), (0, 1, 2), strict=True):
        axes.loglog(STEPS, curve, style, color=PALETTE[color], label=f"{activation}, {dtype}")
    h = np.array(STEPS)
    smooth = np.array(curves[0])
    formula, rounding = smooth[1] * (h / h[1]) ** 2, smooth[-3] * (h[-3] / h)
    axes.loglog(h[:6], formula[:6], color="0.6", linewidth=1.0)
    axes.text(h[4], formula[4] / 3.0, "as h²", color="0.4", ha="left", va="top")
    axes.loglog(h[3:], rounding[3:], color="0.6", linewidth=1.0)
    axes.text(h[8], rounding[8] / 3.0, "as 1/h", color="0.4", ha="right", va="top")
    axes.axvline(BOOK_H, color="black", linestyle="-.", linewidth=1.0, label=f"the book's h, {BOOK_H:g}")
    axes.set(xlabel="h", ylabel="relative error")
    axes.legend(loc="lower left")
    return figure


AGREE = 1e-4  # relative error up to which two gradients agree


def _layers(h: float, found: list[Check]) -> Words:
    """Caption of the comparison by layer, by its outcome."""
    if max(one.error for one in found) < AGREE:
        return Words(
            "The two gradients agree in every layer; their prices do not",
            "두 기울기는 모든 층에서 일치하지만, 드는 시간은 크게 다르다",
        )
    return Words(
        f"At h = {h:g} the two gradients differ in some layers, and so do their prices",
        f"h = {h:g}이면 두 기울기가 일부 층에서 어긋나고, 드는 시간도 다르다",
    )


STEP = Words(
    "The error of the numerical gradient: the formula's at large h, rounding's at small h",
    "수치 미분의 오차: h가 크면 공식의 오차, 작으면 반올림 오차",
)


def _judge_numerical(results: Results) -> Verdict:
    """Whether the book's h gives the gradient, in double and in single precision."""
    double, kinked, single = (results.error_at(BOOK_H, *network) for network in NETWORKS)
    numbers = f"tanh: {double:.0e}, ReLU: {kinked:.0e}, float32: {single:.0e}"
    answer = "wrong" if double > AGREE else "right" if max(kinked, single) <= AGREE else "conditional"
    return Verdict(
        answer,
        numbers,
        Words(
            f"At h = {BOOK_H:g} the relative error is {double:.0e} in float64 with tanh; with ReLU's kinks it is"
            f" {kinked:.0e}, and in float32 {single:.0e}.",
            f"h = {BOOK_H:g}일 때 상대 오차는 float64와 tanh에서 {double:.0e}이고, 꺾인 곳이 있는 ReLU에서"
            f" {kinked:.0e}, float32에서 {single:.0e}이다.",
        ),
    )


def _judge_backward(results: Results) -> Verdict:
    """Whether backpropagation gives the gradient of all layers."""
    worst = max(one.error for one in results.checks)
    return Verdict(
        "right" if worst < AGREE else "conditional",
        f"|Δ|/|∇| ≤ {worst:.0e}; {results.ratio:,.0f}",
        Words(
            f"By layer the two differ by {worst:.0e} at most, and the numerical gradient takes {results.ratio:,.0f}"
            " times as long.",
            f"층별 차이는 {worst:.0e} 이하이고, 수치 미분에 드는 시간은 역전파의 {results.ratio:,.0f}배이다.",
        ),
    )


EXPERIMENT = Experiment(
    name="gradients",
    title=Words("Two ways to a gradient", "기울기를 구하는 두 가지 방법"),
    text=Words(
        "The numerical gradient moves one parameter up and down by a step h, and measures the change of the loss: two"
        " forward passes for each parameter. Backpropagation gets all of them from one forward and one backward pass."
        " Both are compared here on a network that has learnt nothing yet, layer by layer, on a sample of parameters."
        " How well they can agree depends on h. The formula's error falls with h², the error of rounding grows as 1/h,"
        " and between the two lies a best h. In float32 rounding is so much coarser that even at its best h the"
        " numerical gradient is a rough one. ReLU has a kink, and where a step crosses one the numerical gradient is"
        " off by far more.",
        "수치 미분은 매개변수 하나를 h만큼 늘리고 줄이며 손실의 변화를 잰다. 매개변수마다 순전파가 두 번"
        " 필요하다. 역전파는 순전파 한 번과 역전파 한 번으로 모든 기울기를 구한다. 아직 학습하지 않은 신경망에서"
        " 매개변수 일부를 뽑아 층마다 두 기울기를 비교한다. 얼마나 잘 일치하는지는 h에 달려 있다. 공식의 오차는"
        " h²에 비례해 줄고, 반올림 오차는 1/h에 비례해 커지므로, 그 사이에 가장 좋은 h가 있다. float32는 반올림"
        " 오차가 훨씬 커서, 가장 좋은 h에서도 수치 미분은 대강만 맞는다. ReLU에는 꺾인 곳이 있어서, h만큼"
        " 움직이다 꺾인 곳을 지나면 수치 미분이 훨씬 크게 벗어난다.",
    ),
    run=run,
    add_options=add_options,
    formula=("∂L/∂w ≈ (L(w + h) - L(w - h)) / 2h,  with an error of order h²",),
    claims=(
        Claim(
            "000",
            Words(
                "Central differences with h = 1e-4 give the gradient.",
                "h = 1e-4인 중앙 차분(수치 미분)으로 기울기를 구한다.",
            ),
            _judge_numerical,
        ),
        Claim(
            "004",
            Words(
                "Backpropagation gives the partial derivative by each parameter.",
                "역전파로 각 파라미터에 대한 편미분 값을 구한다.",
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
