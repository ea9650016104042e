"""python -m xpnet.lab vanishing: a deep network by activation and initialization, with and without batch norm."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..core.device import HostArray
from ..model import MLP
from ..nn import ACTIVATIONS, Linear
from ..optim import SGD
from ..training import Trainer, evaluate
from . import experiment
from .activations import Data, outputs_of
from .experiment import Experiment, Lab, Words

HIDDEN = (100,) * 10
ACTIVATION_NAMES = ("sigmoid", "tanh", "relu")
INITS: dict[str, str | float] = {"1": 1.0, "0.01": 0.01, "Xavier": "xavier", "He": "he"}
RATES = (0.03, 0.3)  # of plain descent; Adam would scale small gradients up
STEPS = 160
EVERY = 20  # steps between two measurements
BATCH = 64
TRAIN_ROWS, TEST_ROWS = 10000, 2000  # at the most
SAMPLE = 300  # rows, for the histograms
SHOWN = (1, 3, 5, 7, 10)  # hidden layers in the histograms


@dataclass(frozen=True)
class Deep:
    """Deep networks of one activation, one for each of INITS, each at that of RATES with the lowest training loss.

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


def deep_network(lab: Lab, data: Data, activation: str, batch_norm: bool) -> MLP:
    """Make a network for each of INITS and RATES, rates next to each other; networks of one init are equal."""
    sizes = [data[0].shape[1], *HIDDEN, 10]
    options: dict[str, Any] = {"activation": activation, "batch_norm": batch_norm, "device": lab.device}
    model = MLP(sizes, replicas=len(INITS) * len(RATES), **options)
    with lab.device.activate():
        drawn = [MLP(sizes, init=init, seed=lab.seed, **options).network.values for init in INITS.values()]
        model.network.values = lab.device.xp.stack([values for values in drawn for _ in RATES])
    return model


def train(lab: Lab, data: Data, activation: str, batch_norm: bool) -> Deep:
    """Train those networks on the same batches, and keep the results of each init at its best rate."""
    x, y, *test = data
    model = deep_network(lab, data, activation, batch_norm)
    trainer = Trainer(model, SGD(RATES * len(INITS)), batch_size=BATCH, seed=lab.seed)
    gradients = []
    for steps in (1, *[EVERY] * (STEPS // EVERY)):
        trainer.fit(x, y, steps=steps)
        gradients.append(gradient_norms(model))
    split = (len(INITS), len(RATES))
    loss, accuracy = evaluate(model, *test)
    test_accuracy = np.where(np.isfinite(loss), accuracy, np.nan).reshape(split)
    losses = np.array(trainer.history[-1]["train_loss"]).reshape(split)
    best = np.where(np.isfinite(losses), losses, np.inf).argmin(axis=-1)
    chosen = np.arange(len(INITS)), best
    curves = np.array([row["train_accuracy"] for row in trainer.history]).reshape(-1, *split)
    norms = np.stack(gradients).reshape(len(gradients), *split, -1)
    return Deep(
        rates=np.array(RATES)[best],
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


def first_activations(lab: Lab, data: Data, activation: str, batch_norm: bool) -> HostArray:
    """Outputs of each hidden layer before training, (inits, layers, rows, units)."""
    found = []
    for init in INITS.values():
        model = MLP(
            [data[0].shape[1], *HIDDEN, 10],
            activation=activation,
            batch_norm=batch_norm,
            init=init,
            seed=lab.seed,
            device=lab.device,
        )
        outputs = outputs_of(model.network, ACTIVATIONS[activation], data[0][:SAMPLE], train=batch_norm)
        found.append(np.stack([lab.device.to_host(out) for out in outputs]))
    return np.stack(found)


def run(lab: Lab) -> None:
    """Look at activations and gradients before training, train, and tabulate."""
    x, y, x_test, y_test = lab.pixels(lab.mnist())
    data = (x[:TRAIN_ROWS], y[:TRAIN_ROWS], x_test[:TEST_ROWS], y_test[:TEST_ROWS])
    lab.say(f"{len(HIDDEN)} hidden layers of {HIDDEN[0]}, {STEPS} steps of plain descent at the best of rates")
    lab.say(
        f"{', '.join(f'{rate:g}' for rate in RATES)}; gradient: of the first layer over that of the last hidden one"
    )
    found = {}
    for batch_norm in (False, True):
        for activation in ACTIVATION_NAMES:
            lab.progress(f"vanishing: {activation}, {'with' if batch_norm else 'without'} batch normalization")
            found[activation, batch_norm] = train(lab, data, activation, batch_norm)
    rows = []
    for activation in ACTIVATION_NAMES:
        for i, init in enumerate(INITS):
            cells = [cell for batch_norm in (False, True) for cell in _cells(found[activation, batch_norm], i)]
            rows.append((activation, init, *cells))
    lab.table(("units", "init", "gradient", "rate", "accuracy", "gradient, BN", "rate", "accuracy"), rows)
    if lab.out is not None:
        values = {activation: first_activations(lab, data, activation, False) for activation in ACTIVATION_NAMES}
        lab.draw("vanishing-activations", ACTIVATIONS_CAPTION, partial(_draw_activations, values))
        lab.draw("vanishing-gradients", GRADIENTS_CAPTION, partial(_draw_gradients, found))
        lab.draw("vanishing-training", TRAINING_CAPTION, partial(_draw_training, found))


def _cells(deep: Deep, i: int) -> tuple[str, str, str]:
    """Return the ratio of gradients at the first step, the rate, and the accuracy, of an init."""
    first = deep.gradients[0, i]
    ratio = "-" if first[-2] == 0.0 else f"{first[0] / first[-2]:.1e}"
    accuracy = "diverged" if np.isnan(deep.test[i]) else f"{deep.test[i]:.3f}"
    return ratio, f"{deep.rates[i]:g}", accuracy


def _draw_activations(values: dict[str, HostArray]) -> Any:
    """Draw histograms of the outputs of hidden layers, one over the other."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(len(values), len(INITS), width=3.3, height=2.9)
    shown = [layer for layer in SHOWN if layer <= len(HIDDEN)]
    bins = {
        "sigmoid": np.linspace(0.0, 1.0, 51),
        "tanh": np.linspace(-1.0, 1.0, 51),
        "relu": np.geomspace(1e-14, 1e10, 49),
    }
    for (activation, layers), line in zip(values.items(), grid, strict=True):
        edges = bins[activation]
        for i, (init, axes) in enumerate(zip(INITS, line, strict=True)):
            for place, layer in enumerate(shown):
                counts, _ = np.histogram(layers[i, layer - 1], edges)
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
    return init if init in ("Xavier", "He") else f"deviation {init}"


STYLES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"))  # one for each of INITS, beside its colour


def _draw_gradients(found: dict[tuple[str, bool], Deep]) -> Any:
    """Draw the norm of the gradient of each layer's weights, in the first step and in the last."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(2, len(ACTIVATION_NAMES), height=3.2, sharex=True, sharey=True)
    layers = np.arange(1, len(HIDDEN) + 2)
    for (activation, batch_norm), deep in found.items():
        axes = grid[int(batch_norm), ACTIVATION_NAMES.index(activation)]
        for i, init in enumerate(INITS):
            line, marker = STYLES[i]
            options = {"color": PALETTE[i], "linestyle": line, "marker": marker, "markersize": 5}
            axes.plot(layers, _positive(deep.gradients[0, i]), label=_init_name(init), **options)
            axes.plot(layers, _positive(deep.gradients[-1, i]), color=PALETTE[i], linestyle=line, linewidth=0.8)
        axes.set_yscale("log")
        axes.set_title(f"{activation}, {'with' if batch_norm else 'without'} batch normalization")
    for axes in grid[-1]:
        axes.set_xlabel("layer (the last one is the output's)")
    for axes in grid[:, 0]:
        axes.set_ylabel("norm of the gradient")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(INITS))
    return figure


def _positive(values: HostArray) -> HostArray:
    """Replace values that a logarithmic axis cannot show by gaps."""
    return np.where(np.isfinite(values) & (values > 0.0), values, np.nan)


def _draw_training(found: dict[tuple[str, bool], Deep]) -> Any:
    """Draw the training accuracy against the step."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(2, len(ACTIVATION_NAMES), height=3.0, sharex=True, sharey=True)
    for (activation, batch_norm), deep in found.items():
        axes = grid[int(batch_norm), ACTIVATION_NAMES.index(activation)]
        for i, init in enumerate(INITS):
            line, marker = STYLES[i]
            options = {"color": PALETTE[i], "linestyle": line, "marker": marker, "markersize": 5}
            axes.plot(deep.steps[1:], deep.accuracy[1:, i], label=_init_name(init), **options)
        axes.set_ylim(0.0, 1.0)
        axes.set_title(f"{activation}, {'with' if batch_norm else 'without'} batch normalization")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    for axes in grid[:, 0]:
        axes.set_ylabel("training accuracy")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(INITS))
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
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
