"""python -m xpnet.lab race: update rules from the same weights on the same batches, as in post 002.

Batches are drawn with replacement, and losses are drawn as in the post: that of the batch after the update. A large
rate flatters that loss, so rates are chosen by the loss of the batch before the update.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import Device, HostArray, count_true
from ..core.errors import DivergedError
from ..core.rng import Purpose, stream
from ..model import MLP
from ..model.metrics import most_probable
from ..nn import ACTIVATIONS, Linear, Sequential, SoftmaxCrossEntropy
from ..optim import SCHEDULES, SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, Optimizer, RMSprop
from ..training import Trainer, evaluate
from ..training.runner import step_table, table_row
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, initial_weights, one_of, positive, up_to

ITERATIONS, BATCH, HIDDEN = 2000, 128, (100, 100, 100, 100)  # the post's
LAST = 100  # iterations at the end whose mean loss is compared
SEEDS = 5
# Standard errors from which a difference of means is clear. Of five equal rules with 5 seeds, in 24 % of runs one
# differs from Adam by more than 2, in 6 % by more than 3.
CLEAR = 3.0
EVERY = 100  # iterations from line to line, and from marker to marker


@dataclass(frozen=True)
class Racer:
    """An update rule: how it is made for a rate, the book's rate, the rates that are tried, and its marker."""

    make: Callable[[Any], Optimizer]
    rate: float
    rates: tuple[float, ...]
    marker: str


RACERS = {
    "SGD": Racer(SGD, 0.01, (0.01, 0.03, 0.1, 0.3, 1.0), "o"),
    "Momentum": Racer(Momentum, 0.01, (0.001, 0.003, 0.01, 0.03, 0.1), "x"),
    "AdaGrad": Racer(partial(AdaGrad, epsilon=1e-7), 0.01, (0.001, 0.003, 0.01, 0.03, 0.1), "s"),
    "RMSprop": Racer(partial(RMSprop, epsilon=1e-7), 0.01, (0.0001, 0.0003, 0.001, 0.003, 0.01), "^"),
    "Adam": Racer(Adam, 0.001, (0.0001, 0.0003, 0.001, 0.003, 0.01), "D"),
    "Nesterov": Racer(Nesterov, 0.01, (0.001, 0.003, 0.01, 0.03, 0.1), "v"),
    "AdamW": Racer(AdamW, 0.001, (0.0001, 0.0003, 0.001, 0.003, 0.01), "P"),
}
STARTERS = ("SGD", "Momentum", "AdaGrad", "RMSprop", "Adam")


@dataclass(frozen=True)
class Track:
    """Common setting of all racers: the network, the data on the device, and the batches.

    Attributes:
        sizes: inputs, units of the hidden layers, classes.
        data: x_train, t_train, x_test, t_test.
        batches: rows of each iteration, (iterations, B).
    """

    sizes: tuple[int, ...]
    data: tuple[Any, Any, Any, Any]
    batches: HostArray
    device: Device
    activation: str = "relu"
    init: str | float = "he"
    schedule: str = "constant"
    dtype: str = "float32"
    seed: int = 0

    def network(self, replicas: int | None) -> Sequential:
        """Make the initial network; every replica has the same weights."""
        layers: list[Any] = []
        for inputs, outputs in pairwise(self.sizes):
            layers += [Linear(inputs, outputs, self.init), ACTIVATIONS[self.activation]()]
        seeds = self.seed if replicas is None else [self.seed] * replicas
        return Sequential(layers[:-1], replicas=replicas, seed=seeds, dtype=self.dtype, device=self.device)


def draw_batches(seed: int, iterations: int, rows: int, size: int) -> HostArray:
    """Draw the rows of each batch with replacement, (iterations, size): a pure function of its arguments."""
    return stream(seed, Purpose.BATCHES, 0).integers(rows, size=(iterations, size))


@dataclass(frozen=True)
class Run:
    """A training with one rate, or with R of them as replicas.

    Attributes:
        before, after: loss of each batch before its update and after it, (iterations,) or (iterations, R).
        accuracy: on the test rows, () or (R,).
    """

    before: HostArray
    after: HostArray
    accuracy: HostArray


def run_race(track: Track, optimizer: Optimizer) -> Run:
    """Train with a rule that has one rate, or R of them, as replicas."""
    rates = optimizer.learning_rate
    network = track.network(None if isinstance(rates, float) else len(rates))
    optimizer.bind(network)
    x_train, t_train, x_test, t_test = track.data
    loss, xp = SoftmaxCrossEntropy(), network.xp
    losses: tuple[list[Any], list[Any]] = ([], [])
    schedule = SCHEDULES[track.schedule](len(track.batches))
    table = step_table(network, optimizer, schedule, 0, len(track.batches))
    with track.device.activate(), np.errstate(all="ignore"):  # a rate that is too high overflows: that is a result
        batches = track.device.asarray(track.batches)
        for i in range(len(track.batches)):
            scalars = table_row(table, i)
            x, t = x_train.take(batches[i], axis=0), t_train.take(batches[i])
            total, count, dz = loss(xp, network.forward(x, train=True), t)
            losses[0].append(total / count)
            network.backward(dz)
            optimizer.step(xp, network.values, network.gradients, optimizer.state, scalars)
            total, count, _ = loss(xp, network.forward(x), t)
            losses[1].append(total / count)
        right = most_probable(xp, network.forward(x_test)) == t_test
        accuracy = track.device.to_host(count_true(right) / len(t_test))
        before, after = (track.device.to_host(xp.stack(one)).astype(np.float64) for one in losses)
        return Run(before, after, accuracy)


@dataclass(frozen=True)
class Score:
    """Ends of trainings that differ by their seeds.

    Attributes:
        losses: mean training losses of the last iterations, NaN where a training diverged.
        accuracies: on the test rows.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


def train_by_seeds(lab: Lab, track: Track, name: str, rate: float) -> Score:
    """Train with a rule from the initial weights, and on the batches, of several seeds.

    Each is a training of `Trainer`, which is compiled: batches are drawn without replacement, and a loss is that of a
    batch before its update.
    """
    x, y, *test = track.data
    iterations, batch = track.batches.shape
    last = min(LAST, iterations)
    ends = []
    for seed in range(lab.seed, lab.seed + lab.options.seeds):
        model = MLP(
            track.sizes,
            activation=track.activation,
            init=track.init,
            dtype=track.dtype,
            seed=seed,
            device=track.device,
        )
        schedule = SCHEDULES[track.schedule](iterations)
        rule = RACERS[name].make(rate)
        trainer = Trainer(model, rule, schedule=schedule, batch_size=min(batch, len(x)), seed=seed)
        try:
            for steps in filter(None, (iterations - last, last)):
                trainer.fit(x, y, steps=steps)
            ends.append((float(trainer.history[-1]["train_loss"]), float(evaluate(model, *test)[1])))
        except DivergedError:
            ends.append((np.nan, np.nan))
    losses, accuracies = zip(*ends, strict=True)
    return Score(losses, accuracies)


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        book: mean loss at the end, after updates, and test accuracy of each rule at the book's rate.
        best: rate, mean loss at the end, before updates, and test accuracy of each rule at the best of its rates.
        seeds: ends of several trainings at this rate, by rule.
    """

    book: dict[str, tuple[float, float]]
    best: dict[str, tuple[float, float, float]]
    seeds: dict[str, Score]


def smooth(losses: HostArray, length: int = 11) -> HostArray:
    """Smooth losses by a Kaiser window of `length`, mirrored at the ends, as in the book."""
    window = np.kaiser(length, 2)
    mirrored = np.pad(losses, length // 2, mode="reflect")
    return np.convolve(window / window.sum(), mirrored, mode="valid")


def run(lab: Lab) -> Results:
    """Race at the book's rates, then each racer at the best of its own, and this with several seeds."""
    options = lab.options
    names = list(dict.fromkeys(options.optimizers))
    track = _track(lab)
    iterations = len(track.batches)
    last = min(LAST, iterations)
    sizes = "-".join(map(str, track.sizes))
    lab.say(f"{sizes}, {track.activation}, batches of {track.batches.shape[1]}, {iterations} iterations, {track.dtype}")
    lab.say("loss of the batch after the update, at the book's rates:")
    found = {}
    for name in names:
        started = time.perf_counter()
        found[name] = run_race(track, RACERS[name].make(RACERS[name].rate))
        lab.progress(f"{name}: {time.perf_counter() - started:.1f} s")
    steps = sorted({*range(0, iterations, EVERY), iterations - 1})
    lab.table(("iteration", *names), [(str(i), *(f"{found[name].after[i]:.4f}" for name in names)) for i in steps])
    lab.say()
    lab.table(
        ("rule", "rate", f"mean loss of the last {last}", "test accuracy"),
        [
            (name, f"{RACERS[name].rate:g}", f"{_end(one.after):.4f}", f"{one.accuracy:.4f}")
            for name, one in found.items()
        ],
    )
    curves = {f"{name}, rate {RACERS[name].rate:g}": (name, one.after) for name, one in found.items()}
    lab.draw("race", _caption(lab), partial(_draw, curves))
    results = Results({name: (_end(one.after), float(one.accuracy)) for name, one in found.items()}, {}, {})
    if options.book_rates_only:
        return results

    lab.say()
    lab.say(f"each rule at several rates, and the best by the mean loss before an update, over the last {last}:")
    rows, best = [], {}
    for name in results.book:
        started = time.perf_counter()
        rates = tuple(sorted(set(options.rate))) if options.rate else RACERS[name].rates
        one = run_race(track, RACERS[name].make(rates))
        ends = one.before[-LAST:].mean(axis=0)
        winner = int(np.argmin(np.where(np.isfinite(ends), ends, np.inf)))
        edge = " (at an end of those tried)" if winner in (0, len(rates) - 1) and len(rates) > 1 else ""
        numbers = ends[winner], _end(one.after[:, winner]), one.accuracy[winner]
        tried = " ".join(f"{end:.3g}" for end in ends)
        rows.append((name, f"{rates[winner]:g}{edge}", *(f"{number:.4f}" for number in numbers), tried))
        results.best[name] = rates[winner], float(ends[winner]), float(one.accuracy[winner])
        best[f"{name}, rate {rates[winner]:g}"] = (name, one.after[:, winner])
        lab.progress(f"{name} at {len(rates)} rates: {time.perf_counter() - started:.1f} s")
    head = ("rule", "best rate", "loss before", "loss after", "test accuracy", "losses before, by rate")
    lab.table(head, rows)
    lab.draw(
        "race-best",
        Words("Each rule at its own best rate", "매개변수 갱신 방법마다 가장 좋은 학습률을 쓴 결과"),
        partial(_draw, best),
    )
    if options.seeds > 1:
        results.seeds.update(say_seeds(lab, track, {name: rate for name, (rate, *_) in results.best.items()}))
        lab.draw("race-seeds", SEEDS_CAPTION, partial(_draw_seeds, results.seeds))
    return results


def say_seeds(lab: Lab, track: Track, rates: dict[str, float]) -> dict[str, Score]:
    """Train each rule with several seeds at its rate, and print means and deviations; return the scores."""
    lab.say()
    lab.say(f"the same rates with {lab.options.seeds} seeds, of weights and batches: mean and standard deviation")
    found, rows = {}, []
    for name, rate in rates.items():
        started = time.perf_counter()
        found[name] = train_by_seeds(lab, track, name, rate)
        ends = (found[name].losses, found[name].accuracies)
        cells = [f"{np.mean(v):.4f} ±{np.std(v, ddof=1):.4f}" if np.isfinite(v).all() else "diverged" for v in ends]
        rows.append((name, f"{rate:g}", *cells))
        lab.progress(f"{name} with {lab.options.seeds} seeds: {time.perf_counter() - started:.1f} s")
    lab.table(("rule", "rate", "training loss at the end", "test accuracy"), rows)
    return found


def _end(losses: HostArray) -> float:
    """Return the mean of the last losses."""
    return float(losses[-LAST:].mean())


def _track(lab: Lab) -> Track:
    options = lab.options
    data = lab.mnist()
    return Track(
        (data.x_train[0].size, *options.hidden, len(data.class_names)),
        lab.pixels(data, options.dtype),
        draw_batches(lab.seed, options.iterations, len(data.x_train), options.batch_size),
        lab.device,
        options.activation,
        options.init,
        options.schedule,
        options.dtype,
        lab.seed,
    )


def _draw(curves: dict[str, tuple[str, HostArray]]) -> Any:
    """Draw smoothed losses with the post's size, axes and markers."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 1, width=20.0, height=8.0)
    axes = grid[0, 0]
    for color, (label, (name, losses)) in zip(cycle(PALETTE), curves.items(), strict=False):
        line = smooth(losses) if len(losses) > 11 else losses
        axes.plot(line, color=color, marker=RACERS[name].marker, markevery=EVERY, markersize=8, label=label)
    axes.set_ylim(0.0, 1.0)
    axes.set_xlabel("iterations", fontsize=14)
    axes.set_ylabel("loss", fontsize=14)
    axes.tick_params(labelsize=12)
    axes.legend(fontsize=14, loc="upper right")
    return figure


def _add_options(parser: cli.Parser) -> None:
    add = parser.add_argument
    add(
        "--optimizers",
        type=one_of(RACERS, "optimizer"),
        nargs="+",
        default=list(STARTERS),
        metavar="NAME",
        help=f"of {', '.join(RACERS)} (default: the first five)",
    )
    add(
        "--rate",
        type=positive,
        nargs="+",
        metavar="RATE",
        help="rates of which each rule takes its best (default: five of its own)",
    )
    add("--seeds", type=up_to(100), default=SEEDS, metavar="N", help=f"at each rule's best rate (default: {SEEDS})")
    add("--iterations", type=up_to(1_000_000), default=ITERATIONS, metavar="N", help=f"(default: {ITERATIONS})")
    add("--batch-size", type=up_to(10_000), default=BATCH, metavar="ROWS", help=f"(default: {BATCH})")
    add(
        "--hidden",
        type=up_to(10_000),
        nargs="*",
        default=list(HIDDEN),
        metavar="UNITS",
        help="(default: four times 100)",
    )
    add("--activation", type=one_of(ACTIVATIONS, "activation"), default="relu", metavar="NAME", help="(default: relu)")
    add(
        "--init",
        type=initial_weights,
        default="he",
        metavar="NAME",
        help="a name, or a deviation (default: he, in all layers)",
    )
    add(
        "--schedule",
        type=one_of(SCHEDULES, "schedule"),
        default="constant",
        metavar="NAME",
        help="of the rates (default: constant)",
    )
    add("--dataset", metavar="NAME", help="mnist, fashion-mnist or digits (default: mnist, or digits without it)")
    add("--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)")
    add("--book-rates-only", action="store_true", help="do without the search for the best rates")


SEEDS_CAPTION = Words(
    "Each rule at its own best rate, with several seeds: training loss and test accuracy",
    "가장 좋은 학습률에서 여러 시드로 학습한 결과: 훈련 손실과 테스트 정확도",
)


def _caption(lab: Lab) -> Words:
    if not experiment.changed(EXPERIMENT, lab.options):
        return Words("The post's race: each rule at the book's rate", "글의 비교 실험: 책의 학습률을 사용")
    return Words(
        "A race like the post's: each rule at the book's rate", "글과 같은 방식의 비교 실험: 책의 학습률을 사용"
    )


def _draw_seeds(seeds: dict[str, Score]) -> Any:
    """Draw the end of every training, and mean and deviation of each rule."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 2, width=5.2)
    for place, (name, score) in enumerate(seeds.items()):
        for axes, values in zip(grid[0], (score.losses, score.accuracies), strict=True):
            color = PALETTE[place % len(PALETTE)]
            axes.plot([place] * len(values), values, RACERS[name].marker, color=color, alpha=0.5)
            axes.errorbar(place + 0.2, np.mean(values), np.std(values, ddof=1), fmt="_", color="black", capsize=4)
    for axes, title in zip(grid[0], ("training loss at the end", "test accuracy"), strict=True):
        axes.set_xticks(range(len(seeds)), list(seeds))
        axes.set_title(title)
    return figure


@dataclass(frozen=True)
class Standing:
    """Place of Adam among other rules by one measure, over several seeds.

    Attributes:
        ahead: rules that are clearly better, the best first: their means differ by more than CLEAR.
        tied: rules that differ by less.
        best: the two rules with the best means, Adam in place of the second where it is not among them.
    """

    ahead: list[str]
    tied: list[str]
    best: list[str]

    @property
    def words(self) -> Words:
        """A phrase on Adam."""
        ahead, tied = ", ".join(self.ahead), ", ".join(self.tied)
        if ahead:
            return Words(f"clearly behind {ahead}", f"{ahead} 방법보다 뚜렷하게 뒤진다")
        if tied:
            return Words(f"indistinguishable from {tied}", f"{tied} 방법과 뚜렷한 차이가 없다")
        return Words("clearly the best", "뚜렷하게 가장 좋다")


def _standing(values: dict[str, HostArray]) -> Standing:
    """Place of Adam by values of which the larger is better, (seeds,) for each rule."""
    means = {rule: float(one.mean()) for rule, one in values.items()}
    errors = {rule: float(one.var(ddof=1)) / len(one) for rule, one in values.items()}
    order = sorted(means, key=lambda rule: -means[rule])
    leads = {  # of each rule over Adam, in standard errors
        rule: (means[rule] - means["Adam"]) / max(np.sqrt(errors[rule] + errors["Adam"]), 1e-12)
        for rule in order
        if rule != "Adam"
    }
    best = order[:2] if "Adam" in order[:2] else [order[0], "Adam"]
    return Standing(
        [rule for rule, lead in leads.items() if lead > CLEAR],
        [rule for rule, lead in leads.items() if abs(lead) <= CLEAR],
        best,
    )


def _judge_adam(results: Results) -> Verdict | None:
    """Whether Adam is clearly the best of all rules by training loss and by test accuracy, by one of them, or by none.

    Means over the seeds are compared.
    """
    seeds = {
        rule: score for rule, score in results.seeds.items() if np.isfinite([score.losses, score.accuracies]).all()
    }
    if "Adam" not in seeds or len(seeds) < 2:
        return None
    losses = {rule: np.array(score.losses) for rule, score in seeds.items()}
    accuracies = {rule: np.array(score.accuracies) for rule, score in seeds.items()}
    by_loss, by_accuracy = _standing({rule: -one for rule, one in losses.items()}), _standing(accuracies)
    leads = [not one.ahead and not one.tied for one in (by_loss, by_accuracy)]
    answer = "right" if all(leads) else "conditional" if any(leads) else "wrong"
    numbers = [
        ", ".join(f"{rule} {values[rule].mean():{form}} ± {values[rule].std(ddof=1):{form}}" for rule in one.best)
        for one, values, form in ((by_loss, losses, ".4f"), (by_accuracy, accuracies, ".2%"))
    ]
    count = len(losses["Adam"])
    return Verdict(
        answer,
        "; ".join(numbers),
        Words(
            f"Over {count} seeds, each rule at its best rate, Adam is {by_loss.words.english} by training loss, and"
            f" {by_accuracy.words.english} by test accuracy.",
            f"방법마다 가장 좋은 학습률을 쓰고 시드 {count}개로 학습시키면, Adam은 훈련 손실에서"
            f" {by_loss.words.korean}. 테스트 정확도에서는 {by_accuracy.words.korean}.",
        ),
    )


EXPERIMENT = Experiment(
    name="race",
    title=Words("A race of update rules", "매개변수 갱신 방법 비교"),
    text=Words(
        "The post's race: SGD, Momentum, AdaGrad, RMSprop and Adam start from the same weights and see the same"
        " batches. At the book's rates they end far apart, which says as much about the rates as about the rules. So"
        " each then runs at several rates, and takes the best by the loss of a batch before its update: the loss after"
        " it, which the post draws, flatters large rates. At that rate it trains with several seeds, of weights and"
        " batches. Training loss and test accuracy, with their spread, test the claim that Adam is the best of all.",
        "글의 비교 실험이다. SGD, 모멘텀, AdaGrad, RMSprop, Adam이 같은 가중치에서 출발해 같은 배치로 학습한다."
        " 책의 학습률에서는 결과가 크게 벌어지는데, 이는 방법의 차이인 만큼 학습률의 차이이기도 하다. 그래서"
        " 방법마다 여러 학습률로 학습시켜 가장 좋은 것을 고른다. 고르는 기준은 갱신하기 전에 잰 배치의 손실이다."
        " 글의 그림처럼 갱신한 뒤에 재면 학습률이 클수록 손실이 작게 나온다. 그 학습률에서 가중치와 배치의 시드를"
        " 바꿔 가며 여러 번 학습시키고, 훈련 손실과 테스트 정확도를 그 흩어진 정도와 함께 비교하여 'Adam이 가장"
        " 좋다'는 주장을 확인한다.",
    ),
    run=run,
    add_options=_add_options,
    formula=(
        "SGD:       W ← W - η g",
        "Momentum:  v ← μ v + g,  W ← W - η v",
        "AdaGrad:   h ← h + g²,  W ← W - η g / √h",
        "RMSprop:   h ← β h + (1 - β) g²,  W ← W - η g / √h",
        "Adam:      m ← β₁ m + (1 - β₁) g,  h ← β₂ h + (1 - β₂) g²,  W ← W - η m̂ / √ĥ",
    ),
    claims=(
        Claim(
            "004",
            Words(
                "Adam is the best of the gradient descent methods (on the network of post 002).",
                "Adam이 경사 하강법 가운데 가장 좋은 방법이다(002 글의 신경망에서).",
            ),
            _judge_adam,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
