"""python -m xpnet.lab batchnorm: the effect of batch normalization on inputs of activations, and on training."""

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
from ..nn import BatchNorm, Linear, Sequential
from ..optim import SGD
from ..training import Trainer, evaluate
from . import experiment
from .activations import Data, outputs_of
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to

HIDDEN = (100,) * 4
SCALES = (0.01, 0.03, 0.1, 0.3, 1.0)  # standard deviations of the weights at the start
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of plain descent
STEPS = 150
BATCH = 100
TRAIN_ROWS, TEST_ROWS = 10000, 2000  # at the most
TRAINED = (0.1, 0.3)  # the deviation and the rate at which gamma and beta are looked at
SAMPLE = 500  # rows, for the distributions
STEEP = 2.0  # so far from 0, a sigmoid's slope is down to 0.10, from 0.25 at 0


def deviations_of(lab: Lab) -> list[float]:
    """Chosen deviations of the weights, in order."""
    return sorted(set(lab.options.deviation))


def rates_of(lab: Lab) -> list[float]:
    """Chosen rates, in order."""
    return sorted(set(lab.options.rate))


def build(lab: Lab, data: Data, init: float, **options: Any) -> MLP:
    """Return a network, or several, of sigmoids, with weights of this deviation."""
    sizes = [data[0].shape[1], *lab.options.hidden, 10]
    return MLP(sizes, activation="sigmoid", init=init, device=lab.device, **options)


def before_and_after(lab: Lab, data: Data, init: float) -> tuple[list[HostArray], list[HostArray]]:
    """Initial inputs and outputs of batch normalization, each (rows, units) by layer."""
    model = build(lab, data, init, seed=lab.seed, batch_norm=True)
    sample = data[0][:SAMPLE]
    before, after = (
        [
            lab.device.to_host(out)
            for out in outputs_of(model.network, kind, sample, train=True)[: len(lab.options.hidden)]
        ]
        for kind in (Linear, BatchNorm)
    )
    return before, after


def learnt(lab: Lab, data: Data) -> list[tuple[HostArray, HostArray]]:
    """Return gamma and beta of each hidden layer after training, each (units,)."""
    scale, rate = TRAINED
    model = build(lab, data, scale, seed=lab.seed, batch_norm=True)
    trainer = Trainer(model, SGD(rate), batch_size=lab.options.batch_size, seed=lab.seed)
    trainer.fit(data[0], data[1], steps=lab.options.steps)
    norms = [layer for layer in model.network.layers if isinstance(layer, BatchNorm)]
    return [(lab.device.to_host(layer.gamma)[0], lab.device.to_host(layer.beta)[0]) for layer in norms]


def restored(lab: Lab, z: HostArray) -> tuple[float, float]:
    """Largest change of an element of z, (rows, units), by batch normalization.

    As it starts, with gamma = 1 and beta = 0; and with gamma = the batch's deviation, sqrt(variance + eps), and
    beta = its mean, where y = gamma (z - mean) / sqrt(variance + eps) + beta = z.
    """
    layer = BatchNorm(z.shape[-1])
    network = Sequential([layer], dtype="float64", device=lab.device)
    x = lab.device.asarray(z.astype(np.float64))
    changes = []
    for gamma, beta in ((1.0, 0.0), (np.sqrt(z.var(axis=0) + layer.eps), z.mean(axis=0))):
        layer.gamma, layer.beta = np.broadcast_to(gamma, (1, z.shape[-1])), np.broadcast_to(beta, (1, z.shape[-1]))
        changes.append(float(np.abs(lab.device.to_host(network.forward(x, train=True)) - z).max()))
    return changes[0], changes[1]


def accuracies(lab: Lab, data: Data, batch_norm: bool) -> HostArray:
    """Return the test accuracy for each deviation and rate, (scales, rates); NaN where the network diverged."""
    x, y, *test = data
    deviations, rates = deviations_of(lab), rates_of(lab)
    pairs = [(scale, rate) for scale in deviations for rate in rates]
    options = {"replicas": len(pairs), "seed": [lab.seed] * len(pairs), "batch_norm": batch_norm}
    model = build(lab, data, 1.0, **options)
    scales = lab.device.asarray(np.array([[[scale]] for scale, _ in pairs], dtype=np.float32))  # (R, 1, 1)
    for layer in model.network.layers:
        if isinstance(layer, Linear):
            layer.W = layer.W * scales
    trainer = Trainer(model, SGD([rate for _, rate in pairs]), batch_size=lab.options.batch_size, seed=lab.seed)
    trainer.fit(x, y, steps=lab.options.steps)
    loss, accuracy = evaluate(model, *test)
    return np.where(np.isfinite(loss), accuracy, np.nan).reshape(len(deviations), len(rates))


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        within: shares of inputs of activations within STEEP of 0, over all layers, before and after batch
            normalization, by deviation.
        spread: deviations of these inputs, before and after, by deviation.
        left: largest change of an input where gamma and beta are the batch's deviation and mean.
        accuracies: test accuracy without and with it, (deviations, rates), NaN where the network diverged.
    """

    within: dict[float, tuple[float, float]]
    spread: dict[float, tuple[float, float]]
    left: float
    accuracies: dict[bool, HostArray]


def add_options(parser: cli.Parser) -> None:
    """Add the networks, and how they are trained."""
    add = parser.add_argument
    add(
        "--hidden", type=up_to(1000), nargs="+", default=list(HIDDEN), metavar="UNITS", help="(default: four times 100)"
    )
    scales, rates = (" ".join(f"{value:g}" for value in values) for values in (SCALES, RATES))
    add(
        "--deviation",
        type=positive,
        nargs="+",
        default=list(SCALES),
        metavar="S",
        help=f"of the weights at the start (default: {scales})",
    )
    add("--rate", type=positive, nargs="+", default=list(RATES), metavar="RATE", help=f"(default: {rates})")
    add("--steps", type=up_to(100_000), default=STEPS, metavar="N", help=f"(default: {STEPS})")
    add("--batch-size", type=up_to(TRAIN_ROWS), default=BATCH, metavar="ROWS", help=f"at least 2 (default: {BATCH})")


def run(lab: Lab) -> Results:
    """Look at distributions, at gamma and beta, and at training over rates and scales."""
    options = lab.options
    if options.batch_size == 1:
        raise cli.UsageError("--batch-size must be at least 2: one row has no deviation")
    x, y, x_test, y_test = lab.pixels(lab.mnist())
    data = (x[:TRAIN_ROWS], y[:TRAIN_ROWS], x_test[:TEST_ROWS], y_test[:TEST_ROWS])
    depth, deviations, rates = len(options.hidden), deviations_of(lab), rates_of(lab)
    layers = f"{depth} hidden layers of {options.hidden[0]} sigmoids"
    if len(set(options.hidden)) > 1:
        layers = f"hidden layers of {' '.join(map(str, options.hidden))} sigmoids"
    lab.say(f"{layers}, before training: deviation of the inputs and outputs of batch")
    lab.say(f"normalization, and their share within {STEEP:g} of 0, where a sigmoid is steep")
    found = {scale: before_and_after(lab, data, scale) for scale in (deviations[0], deviations[-1])}
    rows = []
    for scale, (before, after) in found.items():
        for i in range(depth):
            cells = [f"{z[i].std():.4f}" for z in (before, after)]
            cells += [f"{(np.abs(z[i]) < STEEP).mean():.1%}" for z in (before, after)]
            rows.append((f"{scale:g}", str(i + 1), *cells))
    lab.table(("weights", "layer", "deviation in", "out", "within, in", "out"), rows)
    lab.draw("batchnorm-distributions", DISTRIBUTIONS_CAPTION, partial(_draw_distributions, found))

    lab.say()
    lab.say(
        f"gamma starts at 1 and beta at 0; after {options.steps} steps at rate {TRAINED[1]:g} (deviation"
        f" {TRAINED[0]:g}):"
    )
    rows = []
    for i, (gamma, beta) in enumerate(learnt(lab, data)):
        cells = [f"{value:.3f}" for row in (gamma, beta) for value in (row.min(), row.mean(), row.max())]
        rows.append((str(i + 1), *cells))
    lab.table(("layer", "gamma, least", "mean", "most", "beta, least", "mean", "most"), rows)
    changed, left = restored(lab, found[deviations[-1]][0][0].astype(np.float64))
    lab.say(f"it changes the inputs of layer 1's by up to {changed:.1f}; with gamma = the batch's deviation and")
    lab.say(f"beta = its mean, by up to {left:.0e}: batch normalization can be the identity")

    lab.say()
    lab.say(f"test accuracy of {layers} after {options.steps} steps, by deviation of the weights and rate")
    grids = {}
    for batch_norm in (False, True):
        grids[batch_norm] = accuracies(lab, data, batch_norm)
        name = "with" if batch_norm else "without"
        head = (name, *(f"rate {rate:g}" for rate in rates))
        lab.table(head, [(f"{s:g}", *map(_cell, row)) for s, row in zip(deviations, grids[batch_norm], strict=True)])
    lab.draw("batchnorm-training", TRAINING_CAPTION, partial(_draw_training, grids, deviations, rates))
    flat = {scale: [np.concatenate([z.ravel() for z in layers]) for layers in both] for scale, both in found.items()}
    shares = {scale: [float((np.abs(z) < STEEP).mean()) for z in both] for scale, both in flat.items()}
    spreads = {scale: [float(z.std()) for z in both] for scale, both in flat.items()}
    return Results(
        {scale: (share[0], share[1]) for scale, share in shares.items()},
        {scale: (spread[0], spread[1]) for scale, spread in spreads.items()},
        left,
        grids,
    )


def _cell(accuracy: float) -> str:
    return "diverged" if np.isnan(accuracy) else f"{accuracy:.3f}"


def _draw_distributions(found: dict[float, tuple[list[HostArray], list[HostArray]]]) -> Any:
    """Draw histograms of inputs and outputs, over the slope of the sigmoid."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(
        len(found), len(next(iter(found.values()))[0]), width=3.2, height=2.6, sharex=True, sharey=True
    )
    edges = np.arange(-60.0, 60.25, 0.25)  # wider than the picture, so that no curve ends in it
    x = np.linspace(-8.0, 8.0, 200)
    slope = 1.0 / (2.0 + np.exp(x) + np.exp(-x))
    for line, (scale, (before, after)) in zip(grid, found.items(), strict=True):
        for i, axes in enumerate(line):
            axes.plot(x, 4.0 * slope, color=PALETTE[6], linestyle=":", label="slope of the sigmoid, scaled")
            for z, color, fill, name in (
                (after[i], PALETTE[5], True, "after batch normalization"),
                (before[i], PALETTE[1], False, "before"),
            ):
                counts, _ = np.histogram(z, edges)
                options = {"alpha": 0.7} if fill else {"linewidth": 1.6}
                axes.stairs(counts / counts.max(), edges, color=color, fill=fill, label=name, **options)
            axes.set_xlim(x[0], x[-1])
            axes.set_title(f"deviation {scale:g}, layer {i + 1}")
    for axes in grid[-1]:
        axes.set_xlabel("input of the activation")
    for axes in grid[:, 0]:
        axes.set_ylabel("share of the highest")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_training(grids: dict[bool, HostArray], deviations: list[float], rates: list[float]) -> Any:
    """Draw the accuracy over rates and scales, with numbers in the cells."""
    from ..plots import SURFACE, new_figure

    figure, grid = new_figure(1, 2, width=5.4, height=4.0, sharey=True)
    for axes, (batch_norm, values) in zip(grid.flat, grids.items(), strict=True):
        image = axes.imshow(values, vmin=0.0, vmax=1.0, cmap=SURFACE, origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            text = "-" if np.isnan(value) else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", color="black" if value > 0.5 else "white")
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axes.set_yticks(range(len(deviations)), [f"{scale:g}" for scale in deviations])
        axes.grid(False)
        axes.set_xlabel("learning rate")
        axes.set_title(f"{'with' if batch_norm else 'without'} batch normalization")
    grid[0, 0].set_ylabel("deviation of the weights at the start")
    figure.colorbar(image, ax=grid, label="test accuracy")
    return figure


DISTRIBUTIONS_CAPTION = Words(
    "What enters the activations, before and after batch normalization",
    "배치 정규화 전과 후, 활성화 함수에 들어가는 값의 분포",
)
TRAINING_CAPTION = Words(
    "Test accuracy by learning rate and initial weights",
    "학습률과 가중치 초깃값에 따른 테스트 정확도",
)


def _judge_slope(results: Results) -> Verdict:
    """Whether batch normalization moves inputs to where a sigmoid is steep, for small and for large weights."""
    moved = [scale for scale, (before, after) in results.within.items() if after > before + 0.05]
    numbers = "; ".join(f"{scale:g}: {a:.0%} → {b:.0%}" for scale, (a, b) in results.within.items())
    answer = "right" if len(moved) == len(results.within) else "conditional" if moved else "wrong"
    small = min(results.spread)
    listed = ", ".join(f"{scale:g}" for scale in moved)
    before, after = results.spread[small]
    return Verdict(
        answer,
        numbers,
        Words(
            f"It brings inputs back to |z| < {STEEP:g} with weights of deviation {listed or 'none of these'}. With"
            f" {small:g} their own deviation goes from {before:.3f} to {after:.3f}.",
            f"값을 |z| < {STEEP:g} 구간으로 되돌리는 가중치의 표준편차: {listed or '없음'}. 표준편차가 {small:g}이면"
            f" 값의 표준편차가 {before:.3f}에서 {after:.3f}로 바뀐다.",
        ),
    )


def _judge_restoring(results: Results) -> Verdict:
    """Whether gamma and beta can put back mean and deviation."""
    return Verdict(
        "right" if results.left < 1e-6 else "wrong",
        f"|Δz| = {results.left:.0e}",
        Words(
            "With gamma = the batch's deviation and beta = its mean the layer changes nothing.",
            "감마를 배치의 표준편차로, 베타를 평균으로 두면 이 층은 아무것도 바꾸지 않는다.",
        ),
    )


def _judge_training(results: Results) -> Verdict:
    """Whether more pairs of rate and weights learn with it than without."""
    learnt = {with_: int((np.nan_to_num(grid) > 0.2).sum()) for with_, grid in results.accuracies.items()}
    best = {with_: float(np.nan_to_num(grid).max()) for with_, grid in results.accuracies.items()}
    pairs = results.accuracies[True].size
    return Verdict(
        "right" if learnt[True] > learnt[False] else "wrong",
        f"{learnt[False]}/{pairs} → {learnt[True]}/{pairs}",
        Words(
            f"Above 20 % get {learnt[True]} of {pairs} pairs of rate and weights with it, {learnt[False]} without; the"
            f" best reach {best[True]:.1%} and {best[False]:.1%}.",
            f"학습률과 초깃값의 조합 {pairs}개 가운데 정확도 20%를 넘는 것이 배치 정규화가 있으면 {learnt[True]}개,"
            f" 없으면 {learnt[False]}개이다. 가장 좋은 것은 각각 {best[True]:.1%}, {best[False]:.1%}이다.",
        ),
    )


CLAIMS = (
    Claim(
        "004",
        Words(
            "Batch normalization lets backpropagation work where the activation is steep.",
            "배치 정규화의 목적은 기울기가 잘 나오는 구간에 한해서만 역전파를 진행시키는 것이다.",
        ),
        _judge_slope,
    ),
    Claim(
        "004",
        Words(
            "Adding beta and multiplying by gamma adjust mean and variance again.",
            "평균의 조정값 베타를 더하고 분산의 조정값 감마를 곱해 조정을 완성한다.",
        ),
        _judge_restoring,
    ),
    Claim(
        "004",
        Words(
            "Batch normalization helps where gradients vanish.",
            "배치 정규화는 기울기 소실 문제에 도움이 된다.",
        ),
        _judge_training,
    ),
)

EXPERIMENT = Experiment(
    name="batchnorm",
    title=Words("Batch normalization", "배치 정규화"),
    text=Words(
        "Batch normalization stands before an activation, and gives each unit's input mean 0 and deviation 1 over the"
        " batch. With large weights that brings it back to where a sigmoid is steep, as the post says. With small"
        " weights it was there all along, but so narrow that the unit says nearly the same for every picture: there"
        " the gain is the spread. gamma and beta can put back a scale and a shift where these mean something: with"
        " the batch's own deviation and mean the layer does nothing at all, and training moves both away from 1 and"
        " 0. Without it, most pairs of rate and initial weights below learn next to nothing; with it, all of them"
        " learn, if not equally fast.",
        "배치 정규화는 활성화 함수 앞에서 각 뉴런에 들어가는 값을 배치 안에서 평균 0, 표준편차 1로 맞춘다."
        " 가중치가 크면 글에서 말한 대로 시그모이드의 기울기가 큰 구간으로 값을 되돌린다. 가중치가 작으면 값은"
        " 처음부터 그 구간에 있지만, 너무 좁게 모여 있어 뉴런이 모든 이미지에 거의 같은 값을 출력한다. 이때 얻는"
        " 것은 값이 퍼진다는 점이다. 값의 크기와 위치에 의미가 있으면 감마와 베타가 그것을 되돌릴 수 있다."
        " 감마를 배치의 표준편차로, 베타를 평균으로 두면 이 층은 아무것도 바꾸지 않으며, 학습하는 동안 둘은 1과"
        " 0에서 벗어난다. 배치 정규화가 없으면 아래의 학습률과 가중치 초깃값 대부분에서 거의 학습되지 않고,"
        " 있으면 속도는 달라도 모두 학습된다.",
    ),
    run=run,
    add_options=add_options,
    formula=("ẑ = (z - mean) / √(variance + ε),  over the batch", "y = gamma ẑ + beta"),
    claims=CLAIMS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
