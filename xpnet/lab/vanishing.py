"""python -m xpnet.lab vanishing: a deep network by activation and initialization, with and without batch norm."""

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
from ..model import MLP
from ..nn import ACTIVATIONS, Linear
from ..optim import SGD
from ..training import Trainer, evaluate
from . import experiment
from .activations import Data, outputs_of
from .experiment import Claim, Experiment, Lab, Verdict, Words, initial_weights, one_of, positive, up_to

HIDDEN = (100,) * 10
ACTIVATION_NAMES = ("sigmoid", "tanh", "relu")
INITS = (1.0, 0.01, "xavier", "he")  # deviations of the weights, and names
RATES = (0.03, 0.3)  # of plain descent; Adam would scale small gradients up
STEPS = 160
EVERY = 20  # steps between two measurements
BATCH = 64
TRAIN_ROWS, TEST_ROWS = 10000, 2000  # at the most
SAMPLE = 300  # rows, for the histograms
SHOWN = (1, 3, 5, 7, 10)  # hidden layers in the histograms


@dataclass(frozen=True)
class Deep:
    """Deep networks of one activation, one for each init, each at the rate with the lowest training loss.

    Attributes:
        rates: which that was, (inits,).
        steps: after which was measured, (measurements,).
        accuracy: on the training rows since the last measurement, (measurements, inits).
        gradients: norms of the gradient of each Linear layer's weights, (measurements, inits, layers).
        test: the accuracy on the test rows, (inits,); NaN where the network diverged at every rate.
    """

    rates: HostArray
    steps: list[int]
    accuracy: HostArray
    gradients: HostArray
    test: HostArray


def inits_of(lab: Lab) -> dict[str, str | float]:
    """Chosen initial weights by the names they have in tables: a deviation, Xavier or He."""
    names = {"xavier": "Xavier", "he": "He"}
    return {
        f"{init:g}" if isinstance(init, float) else names.get(init, init): init
        for init in dict.fromkeys(lab.options.init)
    }


def deep_network(lab: Lab, data: Data, activation: str, batch_norm: bool) -> MLP:
    """Make a network for each init and rate, rates next to each other; networks of one init are equal."""
    inits, rates = inits_of(lab), lab.options.rate
    sizes = [data[0].shape[1], *lab.options.hidden, 10]
    options: dict[str, Any] = {"activation": activation, "batch_norm": batch_norm, "device": lab.device}
    model = MLP(sizes, replicas=len(inits) * len(rates), **options)
    with lab.device.activate():
        drawn = [MLP(sizes, init=init, seed=lab.seed, **options).network.values for init in inits.values()]
        model.network.values = lab.device.xp.stack([values for values in drawn for _ in rates])
    return model


def train(lab: Lab, data: Data, activation: str, batch_norm: bool) -> Deep:
    """Train those networks on the same batches, and keep the results of each init at its best rate."""
    x, y, *test = data
    model = deep_network(lab, data, activation, batch_norm)
    rates, inits = list(lab.options.rate), inits_of(lab)
    trainer = Trainer(model, SGD(rates * len(inits)), batch_size=lab.options.batch_size, seed=lab.seed)
    gradients = []
    every = min(EVERY, lab.options.steps)
    for steps in (1, *[every] * (lab.options.steps // every)):
        trainer.fit(x, y, steps=steps)
        gradients.append(gradient_norms(model))
    split = (len(inits), len(rates))
    loss, accuracy = evaluate(model, *test)
    test_accuracy = np.where(np.isfinite(loss), accuracy, np.nan).reshape(split)
    losses = np.array(trainer.history[-1]["train_loss"]).reshape(split)
    best = np.where(np.isfinite(losses), losses, np.inf).argmin(axis=-1)
    chosen = np.arange(len(inits)), best
    curves = np.array([row["train_accuracy"] for row in trainer.history]).reshape(-1, *split)
    norms = np.stack(gradients).reshape(len(gradients), *split, -1)
    return Deep(
        rates=np.array(rates)[best],
        steps=[row["step"] for row in trainer.history],
        accuracy=curves[:, *chosen],
        gradients=norms[:, *chosen],
        test=test_accuracy[chosen],
    )


def gradient_norms(model: MLP) -> HostArray:
    """Return the norm of the gradient of each Linear layer's weights in the last step, (R, layers)."""
    with model.device.activate(), np.errstate(all="ignore"):
        xp = model.network.xp
        grads = [layer.grads["W"] for layer in model.network.layers if isinstance(layer, Linear)]
        return model.device.to_host(xp.stack([xp.sqrt((g * g).sum(axis=(-2, -1))) for g in grads], axis=-1))


def first_activations(lab: Lab, data: Data, activation: str, batch_norm: bool) -> list[list[HostArray]]:
    """Outputs of each hidden layer before training, (rows, units), by layer for each init."""
    found = []
    for init in inits_of(lab).values():
        model = MLP(
            [data[0].shape[1], *lab.options.hidden, 10],
            activation=activation,
            batch_norm=batch_norm,
            init=init,
            seed=lab.seed,
            device=lab.device,
        )
        outputs = outputs_of(model.network, ACTIVATIONS[activation], data[0][:SAMPLE], train=batch_norm)
        found.append([lab.device.to_host(out) for out in outputs])
    return found


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        deep: trained networks, by activation and whether they have batch normalization.
        inits: names of their initial weights.
    """

    deep: dict[tuple[str, bool], Deep]
    inits: list[str]


def add_options(parser: cli.Parser) -> None:
    """Add the networks, and how they are trained."""
    add = parser.add_argument
    add("--hidden", type=up_to(1000), nargs="+", default=list(HIDDEN), metavar="UNITS", help="(default: ten times 100)")
    add(
        "--activation",
        type=one_of([name for name in ACTIVATIONS if name not in ("step", "softmax")], "activation"),
        nargs="+",
        default=list(ACTIVATION_NAMES),
        metavar="NAME",
        help=f"(default: {' '.join(ACTIVATION_NAMES)})",
    )
    add(
        "--init",
        type=initial_weights,
        nargs="+",
        default=list(INITS),
        metavar="NAME",
        help="deviations of the weights, or xavier and he (default: 1 0.01 xavier he)",
    )
    rates = " ".join(f"{rate:g}" for rate in RATES)
    add(
        "--rate",
        type=positive,
        nargs="+",
        default=list(RATES),
        metavar="RATE",
        help=f"of plain descent, of which the best is taken (default: {rates})",
    )
    add("--steps", type=up_to(100_000), default=STEPS, metavar="N", help=f"(default: {STEPS})")
    add("--batch-size", type=up_to(TRAIN_ROWS), default=BATCH, metavar="ROWS", help=f"(default: {BATCH})")


def run(lab: Lab) -> Results:
    """Look at activations and gradients before training, train, and tabulate."""
    options = lab.options
    x, y, x_test, y_test = lab.pixels(lab.mnist())
    data = (x[:TRAIN_ROWS], y[:TRAIN_ROWS], x_test[:TEST_ROWS], y_test[:TEST_ROWS])
    sizes = set(options.hidden)
    units = f"{len(options.hidden)} hidden layers of {sizes.pop()}"
    if sizes:
        units = f"hidden layers of {' '.join(map(str, options.hidden))}"
    lab.say(f"{units}, {options.steps} steps of plain descent at the best of rates")
    rates = ", ".join(f"{rate:g}" for rate in options.rate)
    lab.say(f"{rates}; gradient: of the first layer over that of the last hidden one")
    names = list(dict.fromkeys(options.activation))
    found = {}
    for batch_norm in (False, True):
        for activation in names:
            lab.progress(f"vanishing: {activation}, {'with' if batch_norm else 'without'} batch normalization")
            found[activation, batch_norm] = train(lab, data, activation, batch_norm)
    inits = list(inits_of(lab))
    rows = []
    for activation in names:
        for i, init in enumerate(inits):
            cells = [cell for batch_norm in (False, True) for cell in _cells(found[activation, batch_norm], i)]
            rows.append((activation, init, *cells))
    lab.table(("units", "init", "gradient", "rate", "accuracy", "gradient, BN", "rate", "accuracy"), rows)
    results = Results(found, inits)
    if lab.out is not None or lab.keep:
        values = {activation: first_activations(lab, data, activation, False) for activation in names}
        lab.draw("vanishing-activations", ACTIVATIONS_CAPTION, partial(_draw_activations, values, inits))
        lab.draw("vanishing-gradients", GRADIENTS_CAPTION, partial(_draw_gradients, results))
        lab.draw("vanishing-training", TRAINING_CAPTION, partial(_draw_training, results))
    return results


def _cells(deep: Deep, i: int) -> tuple[str, str, str]:
    """Return the ratio of gradients at the first step, the rate, and the accuracy, of an init."""
    first = deep.gradients[0, i]
    ratio = "-" if first[-2] == 0.0 else f"{first[0] / first[-2]:.1e}"
    accuracy = "diverged" if np.isnan(deep.test[i]) else f"{deep.test[i]:.3f}"
    return ratio, f"{deep.rates[i]:g}", accuracy


def _draw_activations(values: dict[str, list[list[HostArray]]], inits: list[str]) -> Any:
    """Draw histograms of the outputs of hidden layers, one over the other."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(len(values), len(inits), width=3.3, height=2.9)
    depth = len(next(iter(values.values()))[0])
    shown = [layer for layer in SHOWN if layer <= depth]
    bins: dict[str, HostArray] = {
        "sigmoid": np.linspace(0.0, 1.0, 51),
        "tanh": np.linspace(-1.0, 1.0, 51),
        "relu": np.geomspace(1e-14, 1e10, 49),
    }
    for (activation, layers), line in zip(values.items(), grid, strict=True):
        for i, (init, axes) in enumerate(zip(inits, line, strict=True)):
            finite = np.concatenate([[0.0], *(out[np.isfinite(out)] for out in layers[i])])
            edges = bins.get(activation, np.linspace(finite.min(), finite.max() + 1e-9, 51))
            for place, layer in enumerate(shown):
                counts, _ = np.histogram(layers[i][layer - 1], edges)
                base = len(shown) - 1 - place
                heights = base + 0.9 * counts / max(counts.max(), 1)
                axes.stairs(heights, edges, baseline=base, fill=True, color=PALETTE[place % 2], alpha=0.75)
            if activation == "relu":
                axes.set_xscale("log")
            axes.set_title(f"{activation}, {_init_name(init)}")
            axes.set_yticks(range(len(shown)), [f"layer {layer}" for layer in reversed(shown)])
            axes.tick_params(labelsize=8)
            axes.set_xlabel("output, those above 0" if activation == "relu" else "output")
    return figure


def _init_name(init: str) -> str:
    return f"deviation {init}" if init[0] in "0123456789" else init


STYLES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"))  # of each init, beside its colour


def _draw_gradients(results: Results) -> Any:
    """Draw the norm of the gradient of each layer's weights, in the first step and in the last."""
    from ..plots import PALETTE, new_figure

    names = list(dict.fromkeys(activation for activation, _ in results.deep))
    figure, grid = new_figure(2, len(names), height=3.2, sharex=True, sharey=True)
    for (activation, batch_norm), deep in results.deep.items():
        layers = np.arange(1, deep.gradients.shape[-1] + 1)
        axes = grid[int(batch_norm), names.index(activation)]
        for i, (init, color, (line, marker)) in enumerate(
            zip(results.inits, cycle(PALETTE), cycle(STYLES), strict=False)
        ):
            options = {"color": color, "linestyle": line, "marker": marker, "markersize": 5}
            axes.plot(layers, _positive(deep.gradients[0, i]), label=_init_name(init), **options)
            axes.plot(layers, _positive(deep.gradients[-1, i]), color=color, linestyle=line, linewidth=0.8)
        axes.set_yscale("log")
        axes.set_title(f"{activation}, {'with' if batch_norm else 'without'} batch normalization")
    for axes in grid[-1]:
        axes.set_xlabel("layer (the last one is the output's)")
    for axes in grid[:, 0]:
        axes.set_ylabel("norm of the gradient")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(results.inits))
    return figure


def _positive(values: HostArray) -> HostArray:
    """Replace values that a logarithmic axis cannot show by gaps."""
    return np.where(np.isfinite(values) & (values > 0.0), values, np.nan)


def _draw_training(results: Results) -> Any:
    """Draw the training accuracy against the step."""
    from ..plots import PALETTE, new_figure

    names = list(dict.fromkeys(activation for activation, _ in results.deep))
    figure, grid = new_figure(2, len(names), height=3.0, sharex=True, sharey=True)
    for (activation, batch_norm), deep in results.deep.items():
        axes = grid[int(batch_norm), names.index(activation)]
        for i, (init, color, (line, marker)) in enumerate(
            zip(results.inits, cycle(PALETTE), cycle(STYLES), strict=False)
        ):
            options = {"color": color, "linestyle": line, "marker": marker, "markersize": 5}
            axes.plot(deep.steps[1:], deep.accuracy[1:, i], label=_init_name(init), **options)
        axes.set_ylim(0.0, 1.0)
        axes.set_title(f"{activation}, {'with' if batch_norm else 'without'} batch normalization")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    for axes in grid[:, 0]:
        axes.set_ylabel("training accuracy")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(results.inits))
    return figure


ACTIVATIONS_CAPTION = Words(
    "What hidden layers put out before training, without batch normalization",
    "학습 전 은닉층의 출력 분포, 배치 정규화 없음",
)
GRADIENTS_CAPTION = Words(
    "Gradient by layer, in the first step (marks) and in the last (thin lines)",
    "층별 기울기의 크기: 첫 갱신(표식)과 마지막 갱신(가는 선)",
)
TRAINING_CAPTION = Words(
    "Training a deep network, each at its best rate",
    "깊은 신경망의 학습, 각각 가장 좋은 학습률에서",
)


LEARNT = 0.5  # accuracy from which a network has learnt something


def _accuracies(results: Results, activation: str, batch_norm: bool) -> dict[str, float]:
    """Test accuracy by init, 0 where the network diverged; empty where the activation is not tried."""
    if (activation, batch_norm) not in results.deep:
        return {}
    return dict(zip(results.inits, np.nan_to_num(results.deep[activation, batch_norm].test).tolist(), strict=True))


def _listed(accuracies: dict[str, float]) -> str:
    return ", ".join(f"{init}: {accuracy:.3f}" if accuracy else f"{init}: -" for init, accuracy in accuracies.items())


def _judge_sigmoid(results: Results) -> Verdict | None:
    """Whether deep networks of sigmoids learn nothing because their gradients shrink from layer to layer."""
    found = _accuracies(results, "sigmoid", False)
    if not found:
        return None
    best = max(found, key=lambda init: found[init])
    first = results.deep["sigmoid", False].gradients[0]  # (inits, layers)
    ratios = {init: float(norms[0] / norms[-2]) for init, norms in zip(results.inits, first, strict=True) if norms[-2]}
    numbers = f"{_listed(found)}; |∇W₁|/|∇Wₙ| = {min(ratios.values()):.0e} .. {max(ratios.values()):.0e}"
    fails = found[best] < LEARNT
    return Verdict(
        "right" if fails else "conditional",
        numbers,
        Words(
            f"None of these inits reaches {LEARNT:.0%} with sigmoids: the best is {best}, {found[best]:.1%}."
            if fails
            else f"It depends on the initial weights: {best} reaches {found[best]:.1%}.",
            f"시그모이드를 쓰면 어떤 초깃값으로도 정확도가 {LEARNT:.0%}에 이르지 못한다. 가장 높은 것이"
            f" {found[best]:.1%}(초깃값 {best})이다."
            if fails
            else f"가중치 초깃값에 달려 있다. {best}의 정확도는 {found[best]:.1%}이다.",
        ),
    )


def _judge_relu(results: Results) -> Verdict | None:
    """Whether ReLU alone cures it, with every init."""
    found = _accuracies(results, "relu", False)
    if not found:
        return None
    learnt = [init for init, accuracy in found.items() if accuracy >= LEARNT]
    answer = "right" if len(learnt) == len(found) else "conditional" if learnt else "wrong"
    return Verdict(
        answer,
        _listed(found),
        Words(
            f"Inits with which ReLU learns: {', '.join(learnt) or 'none'}, of {', '.join(found)}.",
            f"ReLU로 학습되는 초깃값: {', '.join(learnt) or '없음'} (시험한 초깃값: {', '.join(found)}).",
        ),
    )


def _judge_batch_norm(results: Results) -> Verdict:
    """Whether all networks learn with batch normalization."""
    names = list(dict.fromkeys(activation for activation, _ in results.deep))
    found = {(name, init): value for name in names for init, value in _accuracies(results, name, True).items()}
    least = min(found, key=lambda key: found[key])
    learnt = sum(accuracy >= LEARNT for accuracy in found.values())
    return Verdict(
        "right" if learnt == len(found) else "conditional" if learnt else "wrong",
        f"{learnt}/{len(found)}, ≥ {found[least]:.3f}",
        Words(
            f"With it {learnt} of {len(found)} networks learn; the lowest accuracy is that of {' with '.join(least)},"
            f" {found[least]:.1%}.",
            f"배치 정규화를 쓰면 신경망 {len(found)}개 가운데 {learnt}개가 학습된다. 정확도가 가장 낮은 것은"
            f" {least[0]}(초깃값 {least[1]})의 {found[least]:.1%}이다.",
        ),
    )


CLAIMS = (
    Claim(
        "003",
        Words(
            "With sigmoids the gradient goes to 0 in deep networks, which then do not learn.",
            "시그모이드를 쓰면 층이 깊어질수록 미분이 0이 되면서 학습이 잘 되지 않는다.",
        ),
        _judge_sigmoid,
    ),
    Claim(
        "003",
        Words(
            "ReLU solves the vanishing of gradients, and so serves deep learning.",
            "렐루 함수를 쓰면 기울기 소실 문제가 해결된다.",
        ),
        _judge_relu,
    ),
    Claim(
        "004",
        Words(
            "Batch normalization keeps gradients from vanishing.",
            "배치 정규화는 기울기가 잘 나오는 구간에서 역전파를 진행시킨다.",
        ),
        _judge_batch_norm,
    ),
)

EXPERIMENT = Experiment(
    name="vanishing",
    title=Words("Vanishing gradients", "기울기 소실"),
    text=Words(
        "On its way back a gradient is multiplied by each layer's weights and slopes. With sigmoids, whose slope is"
        " at most a quarter, it shrinks from layer to layer, and ten layers learn nothing, with Xavier's and He's"
        " weights neither. ReLU alone does not cure that: with weights of deviation 0.01 its gradients are tiny in"
        " all layers alike, and with deviation 1 they are so large that it diverges. tanh and ReLU with Xavier's or"
        " He's weights do train, ReLU with Xavier's slowly; He's keeps ReLU's outputs of one size from layer to"
        " layer. Sigmoids with deviation 1, saturated as they are, get gradients of an even size, and learn a little."
        " With batch normalization gradients are of much the same size everywhere, and every one of these networks"
        " learns.",
        "기울기는 뒤로 가면서 층마다 가중치와 활성화 함수의 기울기에 곱해진다. 시그모이드의 기울기는 기껏해야"
        " 4분의 1이어서 층을 지날 때마다 줄어들고, 은닉층이 열 개인 신경망은 Xavier나 He 초깃값으로도 전혀"
        " 학습되지 않는다. ReLU만으로는 해결되지 않는다. 표준편차가 0.01인 가중치로는 모든 층의 기울기가 똑같이"
        " 아주 작고, 1인 가중치로는 너무 커서 발산한다. Xavier나 He 초깃값을 쓴 tanh와 ReLU는 학습되지만, ReLU에"
        " Xavier 초깃값을 쓰면 느리다. He 초깃값은 층이 바뀌어도 ReLU 출력의 크기를 유지한다. 표준편차가 1인"
        " 시그모이드는 포화되어 있지만 층마다 기울기의 크기가 비슷해서 조금은 학습된다. 배치 정규화를 쓰면"
        " 기울기의 크기가 어느 층에서나 비슷해지고, 여기의 모든 신경망이 학습된다.",
    ),
    run=run,
    add_options=add_options,
    formula=("∂L/∂zₖ = (∂L/∂zₖ₊₁ Wₖ₊₁ᵀ) · h'(zₖ)", "Xavier: deviation √(2 / (in + out)),  He: deviation √(2 / in)"),
    claims=CLAIMS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
