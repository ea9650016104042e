"""python -m xpnet.lab guessing: the number of combinations of parameters, and weights drawn at random against SGD."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import HostArray
from ..data import load_digits
from ..model import MLP
from ..optim import SGD
from ..training import Trainer, evaluate
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to

VALUES = (2, 3, 10)  # values that each parameter may take
PARAMETERS = range(1, 9)
COUNTED = 10**5  # up to so many combinations are counted one by one
HIDDEN = 32
GUESSES, TOGETHER = 2000, 100  # networks drawn at random, and how many at once
RATE, BATCH, EPOCHS = 0.1, 32, 20  # of SGD


@dataclass(frozen=True)
class Search:
    """Networks in the order in which they were tried.

    Attributes:
        cost: rows that went through a network up to each, (N,): forward counts once, forward and backward three times.
        losses: on the training rows, (N,).
        accuracy: of the best of them on the test rows.
    """

    cost: HostArray
    losses: HostArray
    accuracy: float


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        counts: number of combinations by (values, parameters).
        guesses, descent: both searches.
    """

    counts: dict[tuple[int, int], int]
    guesses: Search
    descent: Search


def combinations(values: int, parameters: int) -> int:
    """Return the number of combinations: counted one by one where there are few, and else by the formula."""
    count = values**parameters
    return sum(1 for _ in product(range(values), repeat=parameters)) if count <= COUNTED else count


def add_options(parser: cli.Parser) -> None:
    """Add the number of guesses, the hidden units, and the rate, batch size and epochs of SGD."""
    add = parser.add_argument
    add(
        "--guesses",
        type=up_to(100_000),
        default=GUESSES,
        metavar="N",
        help=f"random networks (default: {GUESSES})",
    )
    add("--hidden", type=up_to(10_000), default=HIDDEN, metavar="UNITS", help=f"(default: {HIDDEN})")
    add("--batch-size", type=up_to(10_000), default=BATCH, metavar="ROWS", help=f"of SGD (default: {BATCH})")
    add("--rate", type=positive, default=RATE, metavar="RATE", help=f"of SGD (default: {RATE:g})")
    add("--epochs", type=up_to(10_000), default=EPOCHS, metavar="N", help=f"of SGD (default: {EPOCHS})")


def guess(lab: Lab) -> Search:
    """Draw networks at random; the loss of each takes one pass forward over all training rows."""
    data, guesses = load_digits(), lab.options.guesses
    losses: list[float] = []
    best = 0.0
    for first in range(0, guesses, TOGETHER):
        seeds = [lab.seed + 1 + i for i in range(first, min(first + TOGETHER, guesses))]
        sizes = [data.x_train[0].size, lab.options.hidden, len(data.class_names)]
        model = MLP(sizes, input_scale=data.input_scale, replicas=len(seeds), seed=seeds, device=lab.device)
        found = evaluate(model, data.x_train, data.y_train)[0]
        if min(found) < min(losses, default=np.inf):
            best = evaluate(model, data.x_test, data.y_test)[1][int(np.argmin(found))]
        losses += found
    return Search(np.arange(1, guesses + 1) * len(data.x_train), np.array(losses), best)


def descend(lab: Lab) -> Search:
    """Train one network by SGD, and measure it after each epoch."""
    data = load_digits()
    sizes = [data.x_train[0].size, lab.options.hidden, len(data.class_names)]
    model = MLP(sizes, input_scale=data.input_scale, seed=lab.seed, device=lab.device)
    trainer = Trainer(model, SGD(lab.options.rate), batch_size=lab.options.batch_size, seed=lab.seed)
    losses = []
    for _ in range(lab.options.epochs):
        trainer.fit(data.x_train, data.y_train, epochs=1)
        losses.append(evaluate(model, data.x_train, data.y_train)[0])
    cost = 3 * len(data.x_train) * np.arange(1, lab.options.epochs + 1)
    return Search(cost, np.array(losses), evaluate(model, data.x_test, data.y_test)[1])


def run(lab: Lab) -> Results:
    """Count combinations, then search by guesses and by descent."""
    counts = {(values, n): combinations(values, n) for values in VALUES for n in PARAMETERS}
    lab.say("combinations of n parameters, each with so many values, and n x n")
    rows = [(str(n), *(str(counts[values, n]) for values in VALUES), str(n * n)) for n in PARAMETERS]
    lab.table(("n", *(f"{values} values" for values in VALUES), "n x n"), rows)

    guesses, descent = guess(lab), descend(lab)
    weights = MLP([64, lab.options.hidden, 10], device=lab.device).network.values.size
    lab.say()
    lab.say(
        f"bundled digits, a network of {weights} parameters: {lab.options.guesses} drawn at random, one trained by SGD"
    )
    rows = []
    for name, search in (("random", guesses), ("SGD", descent)):
        cost = f"{search.cost[-1]:.2e}"
        rows.append((name, str(len(search.losses)), cost, f"{search.losses.min():.4f}", f"{search.accuracy:.4f}"))
    lab.table(("search", "networks", "rows seen", "least loss", "test accuracy"), rows)
    results = Results(counts, guesses, descent)
    lab.draw("guessing-count", COUNT_CAPTION, partial(_draw_counts, counts))
    lab.draw("guessing", CAPTION, partial(_draw, guesses, descent))
    return results


def _judge_count(results: Results) -> Verdict:
    """Whether the combinations are n x n."""
    wrong = {key: count for key, count in results.counts.items() if count != key[1] ** 2}
    values, n = max(wrong, default=(2, 2))
    count = results.counts[values, n]
    return Verdict(
        "wrong" if wrong else "right",
        f"n = {n}: {count:,}; n x n: {n * n}",
        Words(
            f"With k values each there are k to the power of n: {count:,} for {n} parameters of {values} values.",
            f"값이 k가지씩이면 조합은 k의 n제곱이다. 값이 {values}가지인 매개변수 {n}개의 조합은 {count:,}가지이다.",
        ),
    )


def _judge_guessing(results: Results) -> Verdict:
    """Whether SGD finds a lower loss at no more cost than the guesses."""
    random, sgd = results.guesses, results.descent
    better = sgd.losses.min() < random.losses.min() and sgd.cost[-1] <= random.cost[-1]
    share = sgd.cost[-1] / random.cost[-1]
    return Verdict(
        "right" if better else "wrong",
        f"SGD {sgd.accuracy:.1%} {'>' if sgd.accuracy > random.accuracy else '≤'} {random.accuracy:.1%}",
        Words(
            f"The best of {len(random.losses)} random networks reaches {random.accuracy:.1%} on the test rows; SGD"
            f" reaches {sgd.accuracy:.1%} with {share:.0%} of the rows.",
            f"무작위로 고른 신경망 {len(random.losses)}개 가운데 가장 좋은 것의 테스트 정확도는"
            f" {random.accuracy:.1%}이고, SGD는 계산량의 {share:.0%}만으로 {sgd.accuracy:.1%}에 이른다.",
        ),
    )


def _draw_counts(counts: dict[tuple[int, int], int]) -> Any:
    """Draw the number of combinations against the number of parameters."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 1, width=6.5)
    axes = grid[0, 0]
    for values, color, marker in zip(VALUES, PALETTE, "os^", strict=False):
        numbers = [counts[values, n] for n in PARAMETERS]
        axes.semilogy(PARAMETERS, numbers, f"{marker}-", color=color, label=f"{values} values each: {values}ⁿ")
    axes.semilogy(PARAMETERS, [n * n for n in PARAMETERS], "k--", label="n x n")
    axes.set(xlabel="parameters, n", ylabel="combinations")
    axes.legend()
    return figure


def _draw(guesses: Search, descent: Search) -> Any:
    """Draw the loss of every guess, the least so far, and that of SGD, against the rows seen."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 1, width=8.0, height=4.2)
    axes = grid[0, 0]
    axes.loglog(guesses.cost, guesses.losses, ".", color="0.75", markersize=3, label="a network drawn at random")
    best = np.minimum.accumulate(guesses.losses)
    axes.loglog(guesses.cost, best, color=PALETTE[1], linewidth=2.0, label="the best of these so far")
    axes.loglog(descent.cost, descent.losses, "o-", color=PALETTE[0], markersize=4, label="SGD, by epoch")
    axes.set(xlabel="rows that went through a network (a step of SGD counts three times)", ylabel="loss")
    axes.legend(loc="lower left")
    return figure


COUNT_CAPTION = Words(
    "Combinations of n parameters: a power, and not n x n",
    "매개변수 n개의 조합의 수: n x n이 아니라 거듭제곱",
)
CAPTION = Words(
    "Weights drawn at random against SGD, at equal cost",
    "같은 계산량에서 비교한 무작위 탐색과 SGD",
)

EXPERIMENT = Experiment(
    name="guessing",
    title=Words("Guessing against descent", "무작위 탐색과 경사 하강법"),
    text=Words(
        "A network of n parameters, each of which may take k values, has k to the power of n combinations: not n x n,"
        " but far too many to try. Here two thousand networks are drawn at random for the bundled digits, and one is"
        " trained by SGD. The guesses get better ever more slowly: each new best takes about as many draws as all"
        " before it. SGD passes the best of them within its first epoch, since a gradient tells all weights at once"
        " which way is down.",
        "매개변수 n개가 저마다 k가지 값을 가질 수 있다면 조합은 n x n가지가 아니라 k의 n제곱 가지이므로, 모두 시험해 볼"
        " 수 없다. 여기서는 내장된 손글씨 숫자 데이터로 두 방법을 비교한다. 한쪽에서는 가중치를 무작위로 정한 신경망"
        " 2,000개를 시험하고, 다른 쪽에서는 신경망 하나를 SGD로 학습시킨다. 무작위 탐색은 갈수록 나아지기 어렵다. 더"
        " 좋은 것을 찾으려면 지금까지 시험한 만큼을 더 시험해야 한다. 기울기는 손실을 줄이려면 가중치마다 어느 쪽으로"
        " 바꾸어야 하는지를 한꺼번에 알려 주므로, SGD는 첫 에폭에서 이미 앞선다.",
    ),
    run=run,
    add_options=add_options,
    formula=("k · k · … · k = kⁿ",),
    claims=(
        Claim(
            "002",
            Words(
                "With n parameters there are n x n combinations.",
                "매개변수의 수가 n이면 가능한 조합은 n x n만큼 늘어난다.",
            ),
            _judge_count,
        ),
        Claim(
            "002",
            Words(
                "SGD is far smarter than drawing weights at random.",
                "SGD는 가중치를 무작위로 찍어서 찾는 방식보다 훨씬 낫다.",
            ),
            _judge_guessing,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
