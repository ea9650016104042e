"""python -m xpnet.lab minibatch: the four steps of stochastic gradient descent, number by number."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import Array, HostArray
from ..core.rng import permutation
from ..model import MLP
from ..optim import SGD
from ..training import Trainer, evaluate
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive, up_to
from .plane import clouds, moons

# So small that every number can be printed.
SIZES = (2, 3, 2)
ROWS, BATCH = 12, 4
RATE = 1.0
STEPS = 6  # two epochs

# Larger, to compare batch sizes.
MOONS = 200
COMPARED = (2, 16, 2)
BATCHES = (1, 8, MOONS)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SAME_RATE = 0.1  # one of them, at which all sizes are also drawn
LEAST_STEPS, LEAST_ROWS = 1000, 8000  # of each training
LOOKS = 40  # measurements on the way


@dataclass(frozen=True)
class Pass:
    """Everything that one mini-batch makes in a network of two layers, as arrays of its device.

    Attributes:
        forward: the arrays of the forward pass, by name, in order.
        loss: the mean over the batch.
        backward: the gradients on the way back, by name, in order.
    """

    forward: dict[str, Array]
    loss: float
    backward: dict[str, Array]


def sizes(lab: Lab) -> tuple[int, int, int]:
    """Inputs, hidden units and classes of the small network."""
    return (SIZES[0], lab.options.hidden, SIZES[-1])


def small_model(lab: Lab) -> MLP:
    """Return the small network: Linear, sigmoid, Linear, and softmax in the loss."""
    return MLP(sizes(lab), activation="sigmoid", init=1.0, dtype="float64", seed=lab.seed, device=lab.device)


def there_and_back(lab: Lab, model: MLP, x: HostArray, y: HostArray) -> Pass:
    """Take a batch, x (B, 2) and labels y (B,), through the layers one by one, and back."""
    first, sigmoid, second = model.network.layers
    xp, rows = model.network.xp, lab.device.asarray(x)
    z1 = first.forward(rows, train=True)
    a1 = sigmoid.forward(z1, train=True)
    z2 = second.forward(a1, train=True)
    total, count, dz2 = model.loss(xp, z2, lab.device.asarray(y))
    da1 = second.backward(dz2)
    dz1 = sigmoid.backward(da1)
    first.backward(dz1)
    targets = lab.device.asarray(np.eye(SIZES[-1])[y])
    return Pass(
        forward={
            "x": rows,
            "z1 = x W1 + b1": z1,
            "a1 = sigmoid(z1)": a1,
            "z2 = a1 W2 + b2": z2,
            "p = softmax(z2)": model.loss.output(xp, z2),
            "t, the labels as rows of 0 and 1": targets,
        },
        loss=float(lab.device.to_host(total)) / count,
        backward={
            f"dz2 = (p - t) / {len(x)}": dz2,
            "dW2 = a1^T dz2": second.grads["W"],
            "db2 = sum of dz2 over the rows": second.grads["b"],
            "da1 = dz2 W2^T": da1,
            "dz1 = da1 a1 (1 - a1)": dz1,
            "dW1 = x^T dz1": first.grads["W"],
            "db1 = sum of dz1 over the rows": first.grads["b"],
        },
    )


def update(model: MLP, rate: float = RATE) -> None:
    """Move every parameter against its gradient: p <- p - rate dp."""
    model.network.values[...] = model.network.values - rate * model.network.gradients


def order_of_rows(lab: Lab) -> list[HostArray]:
    """Rows of each mini-batch of the steps: each epoch is a shuffle of all rows, cut in pieces."""
    rows, batch, steps = lab.options.rows, lab.options.batch_size, lab.options.steps
    epochs = -(-steps // (rows // batch))
    order = np.concatenate([permutation(lab.seed, epoch + 1, rows) for epoch in range(epochs)])
    return [order[batch * step : batch * (step + 1)] for step in range(steps)]


def say_matrix(lab: Lab, name: str, matrix: Array) -> None:
    """Print a matrix, (rows, columns), behind its name."""
    for i, row in enumerate(lab.device.to_host(matrix)):
        # + 0.0 makes 0 of -0
        lab.say(f"  {name if i == 0 else '':<34}" + "".join(f"{round(float(value), 4) + 0.0:>9.4f}" for value in row))


def say_step(lab: Lab, model: MLP, x: HostArray, y: HostArray, rows: HostArray) -> tuple[float, float]:
    """Take one step on these rows, and print every number of it; return the loss before and after it."""
    rate = lab.options.rate
    lab.say(f"1. mini-batch: rows {_listed(rows)}, labels {_listed(y[rows])}")
    found = there_and_back(lab, model, x[rows], y[rows])
    lab.say("2. gradient: forward,")
    for name, matrix in found.forward.items():
        say_matrix(lab, name, matrix)
    lab.say(f"  loss = mean of -log p at the label = {found.loss:.6f}")
    lab.say("   and backward")
    for name, matrix in found.backward.items():
        say_matrix(lab, name, matrix)
    lab.say(f"3. update: p <- p - {rate:g} dp")
    before = {name: lab.device.to_host(value).copy() for name, value in model.network.parameters().items()}
    update(model, rate)
    names = {"0.W": "W1", "0.b": "b1", "2.W": "W2", "2.b": "b2"}
    for name, value in model.network.parameters().items():
        say_matrix(lab, f"{names[name]} was", before[name])
        say_matrix(lab, f"{names[name]} is", value)
    after = there_and_back(lab, model, x[rows], y[rows]).loss
    lab.say(f"  loss on the same rows: {after:.6f}")
    return found.loss, after


def _listed(numbers: HostArray) -> str:
    return " ".join(map(str, numbers.tolist()))


def loss_along(lab: Lab, x: HostArray, y: HostArray, rows: HostArray) -> float:
    """Loss of a batch after a step along its gradient, in place of one against it."""
    model = small_model(lab)
    there_and_back(lab, model, x[rows], y[rows])
    update(model, -lab.options.rate)
    return there_and_back(lab, model, x[rows], y[rows]).loss


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        before, after, along: loss of the first batch before the step on it, after it, and after one along the gradient.
        distance: largest distance of a weight from the trainer's after the same steps.
        steps, rows: loss on all rows at the rate of the picture after as many steps, and after as many rows, by batch
            size.
    """

    before: float
    after: float
    along: float
    distance: float
    steps: dict[int, float]
    rows: dict[int, float]


def add_options(parser: cli.Parser) -> None:
    """Add what the printed step depends on, and what batch sizes are compared by."""
    add = parser.add_argument
    add("--rows", type=up_to(1000), default=ROWS, metavar="N", help=f"of the small data set (default: {ROWS})")
    add("--hidden", type=up_to(12), default=SIZES[1], metavar="UNITS", help=f"of its network (default: {SIZES[1]})")
    add("--batch-size", type=up_to(1000), default=BATCH, metavar="ROWS", help=f"divides --rows (default: {BATCH})")
    add("--rate", type=positive, default=RATE, metavar="RATE", help=f"of the printed steps (default: {RATE:g})")
    add("--steps", type=up_to(1000), default=STEPS, metavar="N", help=f"of the table of steps (default: {STEPS})")
    batches, rates = (" ".join(f"{value:g}" for value in values) for values in (BATCHES, RATES))
    add(
        "--batches",
        type=up_to(MOONS),
        nargs="+",
        default=list(BATCHES),
        metavar="ROWS",
        help=f"batch sizes that are compared on {MOONS} rows (default: {batches})",
    )
    add("--rates", type=positive, nargs="+", default=list(RATES), metavar="RATE", help=f"for each (default: {rates})")
    add(
        "--at",
        type=positive,
        default=SAME_RATE,
        metavar="RATE",
        help=f"which of them is drawn (default: {SAME_RATE:g})",
    )


def run(lab: Lab) -> Results:
    """Take the steps by hand, hold them against the trainer's, and compare batch sizes."""
    count, batch = lab.options.rows, lab.options.batch_size
    if count % batch:
        raise cli.UsageError(f"--batch-size {batch} does not divide {count} rows (--rows)")
    x, y = clouds(((-1.0, 0.0), (1.0, 0.0)), count, 1.0, lab.seed)
    x = x.round(1)  # so that the rows can be read
    lab.say(f"{count} rows of two numbers and a label; a network {'-'.join(map(str, sizes(lab)))}, batches of {batch}")
    model, batches = small_model(lab), order_of_rows(lab)
    first, second = say_step(lab, model, x, y, batches[0])
    lab.say(f"4. repeat: each of {count} rows is seen once an epoch, of {count // batch} steps")
    table = []
    model = small_model(lab)
    for step, rows in enumerate(batches, 1):
        before = there_and_back(lab, model, x[rows], y[rows]).loss
        update(model, lab.options.rate)
        after = there_and_back(lab, model, x[rows], y[rows]).loss
        everywhere = evaluate(model, x, y)[0]
        table.append((str(step), _listed(rows), *(f"{loss:.6f}" for loss in (before, after, everywhere))))
    lab.table(("step", "rows", "their loss before", "and after", "loss of all rows"), table)
    distance = distance_from_trainer(lab, model, x, y)
    lab.say(f"the trainer's weights after the same {len(batches)} steps differ by at most {distance:g}")
    lab.say()
    by_steps, by_rows = compare(lab)
    return Results(first, second, loss_along(lab, x, y, batches[0]), distance, by_steps, by_rows)


def distance_from_trainer(lab: Lab, model: MLP, x: HostArray, y: HostArray) -> float:
    """Distance of a model's parameters from those that `Trainer` reaches in as many steps."""
    twin, options = small_model(lab), lab.options
    trainer = Trainer(twin, SGD(options.rate), batch_size=options.batch_size, seed=lab.seed)
    trainer.fit(x, y, steps=options.steps)
    return float(lab.device.to_host(abs(twin.network.values - model.network.values).max()))


@dataclass(frozen=True)
class Curves:
    """Losses on all rows in trainings with one batch size, one for each of RATES.

    Attributes:
        batch: the batch size.
        steps: after which was measured, (looks,).
        losses: (looks, rates).
    """

    batch: int
    steps: HostArray
    losses: HostArray

    def at(self, step: int) -> HostArray:
        """Last recorded losses up to a step, (rates,)."""
        return np.asarray(self.losses[np.searchsorted(self.steps, step, side="right") - 1])


def rates_of(lab: Lab) -> list[float]:
    """Rates that each batch size is trained at, in order, that of the picture among them."""
    return sorted({*lab.options.rates, lab.options.at})


def train(lab: Lab, batch: int) -> Curves:
    """Train with one batch size from the same weights at each of the rates, and measure the loss on all rows."""
    x, y = moons(MOONS, 0.2, lab.seed)
    rates = rates_of(lab)
    model = MLP(COMPARED, activation="tanh", replicas=len(rates), seed=[lab.seed] * len(rates), device=lab.device)
    trainer = Trainer(model, SGD(rates), batch_size=batch, seed=lab.seed)
    per_epoch = trainer.steps_in_epoch(MOONS)
    total = max(LEAST_STEPS, -(-LEAST_ROWS // MOONS) * per_epoch)
    wanted = {1, per_epoch, LEAST_STEPS, total, LEAST_ROWS // batch} | set(
        np.geomspace(1, total, LOOKS).astype(int).tolist()
    )
    steps, losses = [0], [evaluate(model, x, y)[0]]

    def look(step: int) -> None:
        if step in wanted:
            steps.append(step)
            losses.append(evaluate(model, x, y)[0])

    trainer.fit(x, y, steps=total, on_step=look)
    return Curves(batch, np.array(steps), np.array(losses))


def compare(lab: Lab) -> tuple[dict[int, float], dict[int, float]]:
    """Compare batch sizes, after as many steps and after as many rows; return the losses at the picture's rate."""
    found, rates, at = [], rates_of(lab), lab.options.at
    for batch in sorted(set(lab.options.batches)):
        lab.progress(f"batches of {batch}")
        found.append(train(lab, batch))
    lab.say(f"{MOONS} rows, a network {'-'.join(map(str, COMPARED))}: the loss on all rows by batch size")
    lab.say(f"at rate {at:g}, and at the best of {', '.join(f'{rate:g}' for rate in rates)}")
    place = rates.index(at)
    rows = []
    ends: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for curves in found:
        cells = []
        for step, end in zip((LEAST_STEPS, LEAST_ROWS // curves.batch), ends, strict=True):
            losses = curves.at(step)
            best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
            end[curves.batch] = float(losses[place])
            cells += [f"{losses[place]:.4f}", f"{losses[best]:.4f} at {rates[best]:g}"]
        rows.append((str(curves.batch), *cells))
    lab.table(("batch", f"{LEAST_STEPS} steps", "best", f"{LEAST_ROWS} rows", "best"), rows)
    lab.draw("minibatch", CAPTION, partial(_draw, found, place, at))
    return ends


def _draw(found: list[Curves], place: int, rate: float) -> Any:
    """Draw the loss at one rate, and its place among all, against steps and against rows."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 2, width=5.2, height=4.0, sharey=True)
    for curves, color, style, marker in zip(
        found, cycle(PALETTE), cycle(("-", "--", "-.")), cycle("os^"), strict=False
    ):
        seen = curves.steps * curves.batch
        for axes, x in zip(grid[0], (curves.steps, seen), strict=True):
            label = f"batches of {curves.batch}" + " (all rows)" * (curves.batch == MOONS)
            axes.plot(x[1:], curves.losses[1:, place], style, marker=marker, markersize=4, color=color, label=label)
    for axes, name in zip(grid[0], ("steps", "rows seen"), strict=True):
        axes.set(xlabel=name, xscale="log")
    grid[0, 0].set_ylabel(f"loss on all rows, at rate {rate:g}")
    grid[0, 1].legend()
    return figure


CAPTION = Words(
    "Batch sizes compared: by steps, and by rows seen",
    "배치 크기 비교: 갱신 횟수 기준과 사용한 데이터 수 기준",
)


def _judge_steps(results: Results) -> Verdict:
    """Whether the four steps are all of the training: by hand they give the trainer's weights."""
    same = results.distance < 1e-6
    return Verdict(
        "right" if same else "wrong",
        f"|Δw| = {results.distance:.1g}",
        Words("By hand they give the trainer's weights.", "손으로 따라간 가중치가 라이브러리의 학습 결과와 같다.")
        if same
        else Words("The trainer's weights differ.", "라이브러리의 학습 결과와 다르다."),
    )


def _judge_direction(results: Results) -> Verdict:
    """Whether a step along the gradient lowers the loss, as the post's words say, or one against it."""
    numbers = f"L: {results.before:.4f}; -∇: {results.after:.4f}; +∇: {results.along:.4f}"
    against, along = results.after < results.before, results.along < results.before
    return Verdict(
        "conditional" if along else "wrong",
        numbers,
        Words(
            f"A step against the gradient {'lowers' if against else 'raises'} the loss here, one along it"
            f" {'lowers' if along else 'raises'} it: the direction is that of the negative gradient.",
            f"기울기의 반대 방향으로 갱신하면 손실이 {'줄고' if against else '늘고'}, 기울기 방향으로 갱신하면"
            f" {'준다' if along else '는다'}. 갱신은 기울기의 반대 방향으로 한다.",
        ),
    )


def _judge_small(results: Results) -> Verdict | None:
    """Whether a small batch gets further than the largest one on as many rows."""
    small, large = min(results.rows), max(results.rows)
    if small == large:
        return None
    ahead = results.rows[small] < results.rows[large]
    return Verdict(
        "right" if ahead else "wrong",
        f"n = {LEAST_ROWS}; B = {small}: {results.rows[small]:.4f}, B = {large}: {results.rows[large]:.4f}",
        Words(
            f"After {LEAST_ROWS} rows the loss with batches of {small} is {'lower' if ahead else 'no lower'} than with"
            f" batches of {large}.",
            f"데이터를 {LEAST_ROWS}개 사용했을 때의 손실은 배치 크기가 {small}일 때가 {large}일 때보다"
            f" {'작다' if ahead else '작지 않다'}.",
        ),
    )


CLAIMS = (
    Claim(
        "000",
        Words(
            "Training is four steps: a mini-batch, its gradient, an update, and so on.",
            "신경망 학습은 미니배치, 기울기 산출, 매개변수 갱신, 반복의 네 단계이다.",
        ),
        _judge_steps,
    ),
    Claim(
        "000",
        Words(
            "Weights are updated in the direction of the gradient.",
            "가중치 매개변수를 기울기 방향으로 갱신한다.",
        ),
        _judge_direction,
    ),
    Claim(
        "000",
        Words(
            "Some of the rows, drawn at random, serve in place of all.",
            "훈련 데이터 중 일부를 무작위로 뽑은 미니배치로 학습한다.",
        ),
        _judge_small,
    ),
)

EXPERIMENT = Experiment(
    name="minibatch",
    title=Words("A mini-batch, number by number", "미니배치 학습 한 번을 숫자로 따라가기"),
    text=Words(
        "Training repeats four steps: draw a mini-batch of rows; find the gradient of its loss, forward through the"
        " layers and back; move every parameter a little against it; repeat. For a network that is small enough, every"
        " number of one such step is printed, and the new weights are compared with the trainer's. Then"
        " batch sizes are compared. At the same rate a few rows serve a step nearly as well as all rows do: by steps,"
        " the curves lie close together, the rougher the smaller the batch. Yet a step on few rows costs few rows, so"
        " by rows seen the small batches are far ahead. What large batches have in return: they stand larger rates.",
        "학습은 네 단계를 되풀이한다. 데이터 몇 개를 미니배치로 뽑고, 순전파와 역전파로 그 손실의 기울기를"
        " 구하고, 모든 매개변수를 기울기의 반대 방향으로 조금 옮긴 다음, 이를 반복한다. 여기서는 모든 숫자를"
        " 출력할 수 있을 만큼 작은 신경망에서 갱신 한 번의 모든 숫자를 보이고, 그렇게 얻은 가중치를 라이브러리의"
        " 학습 결과와 비교한다. 이어서 배치 크기를 비교한다. 학습률이 같으면 데이터 몇 개로 한 갱신은 모든"
        " 데이터를 쓴 갱신과 거의 같은 효과를 낸다. 갱신 횟수로 보면 곡선들이 서로 가깝고, 배치가 작을수록"
        " 들쭉날쭉할 뿐이다. 그런데 작은 배치는 갱신 한 번에 쓰는 데이터가 적으므로, 사용한 데이터 수로 보면"
        " 작은 배치가 훨씬 앞선다. 그 대신 큰 배치에는 더 큰 학습률을 쓸 수 있다.",
    ),
    run=run,
    add_options=add_options,
    formula=(
        "W ← W - η ∂L/∂W",
        "∂L/∂z₂ = (p - t) / B",
        "∂L/∂W₂ = a₁ᵀ ∂L/∂z₂",
        "∂L/∂W₁ = xᵀ (∂L/∂z₂ W₂ᵀ · a₁ (1 - a₁))",
    ),
    claims=CLAIMS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
