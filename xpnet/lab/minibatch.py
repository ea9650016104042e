"""python -m xpnet.lab minibatch: the four steps of stochastic gradient descent, number by number."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..core.device import Array, HostArray
from ..core.rng import permutation
from ..model import MLP
from ..optim import SGD
from ..training import Trainer, evaluate
from . import experiment
from .experiment import Experiment, Lab, Words
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


def small_model(lab: Lab) -> MLP:
    """Return the small network: Linear, sigmoid, Linear, and softmax in the loss."""
    return MLP(SIZES, activation="sigmoid", init=1.0, dtype="float64", seed=lab.seed, device=lab.device)


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


def update(model: MLP) -> None:
    """Move every parameter against its gradient: p <- p - rate dp."""
    model.network.values[...] = model.network.values - RATE * model.network.gradients


def order_of_rows(lab: Lab) -> list[HostArray]:
    """Rows of each mini-batch of the first STEPS: each epoch is a shuffle of all rows, cut in pieces."""
    batches = ROWS // BATCH
    epochs = -(-STEPS // batches)
    order = np.concatenate([permutation(lab.seed, epoch + 1, ROWS) for epoch in range(epochs)])
    return [order[BATCH * step : BATCH * (step + 1)] for step in range(STEPS)]


def say_matrix(lab: Lab, name: str, matrix: Array) -> None:
    """Print a matrix, (rows, columns), behind its name."""
    for i, row in enumerate(lab.device.to_host(matrix)):
        # + 0.0 makes 0 of -0
        lab.say(f"  {name if i == 0 else '':<34}" + "".join(f"{round(float(value), 4) + 0.0:>9.4f}" for value in row))


def say_step(lab: Lab, model: MLP, x: HostArray, y: HostArray, rows: HostArray) -> None:
    """Take one step on these rows, and print every number of it."""
    lab.say(f"1. mini-batch: rows {_listed(rows)}, labels {_listed(y[rows])}")
    found = there_and_back(lab, model, x[rows], y[rows])
    lab.say("2. gradient: forward,")
    for name, matrix in found.forward.items():
        say_matrix(lab, name, matrix)
    lab.say(f"  loss = mean of -log p at the label = {found.loss:.6f}")
    lab.say("   and backward")
    for name, matrix in found.backward.items():
        say_matrix(lab, name, matrix)
    lab.say(f"3. update: p <- p - {RATE:g} dp")
    before = {name: lab.device.to_host(value).copy() for name, value in model.network.parameters().items()}
    update(model)
    names = {"0.W": "W1", "0.b": "b1", "2.W": "W2", "2.b": "b2"}
    for name, value in model.network.parameters().items():
        say_matrix(lab, f"{names[name]} was", before[name])
        say_matrix(lab, f"{names[name]} is", value)
    lab.say(f"  loss on the same rows: {there_and_back(lab, model, x[rows], y[rows]).loss:.6f}")


def _listed(numbers: HostArray) -> str:
    return " ".join(map(str, numbers.tolist()))


def run(lab: Lab) -> None:
    """Take the steps by hand, hold them against the trainer's, and compare batch sizes."""
    x, y = clouds(((-1.0, 0.0), (1.0, 0.0)), ROWS, 1.0, lab.seed)
    x = x.round(1)  # so that the rows can be read
    lab.say(f"{ROWS} rows of two numbers and a label; a network {'-'.join(map(str, SIZES))}, batches of {BATCH}")
    model, batches = small_model(lab), order_of_rows(lab)
    say_step(lab, model, x, y, batches[0])
    lab.say(f"4. repeat: each of {ROWS} rows is seen once an epoch, of {ROWS // BATCH} steps")
    table = []
    model = small_model(lab)
    for step, rows in enumerate(batches, 1):
        before = there_and_back(lab, model, x[rows], y[rows]).loss
        update(model)
        after = there_and_back(lab, model, x[rows], y[rows]).loss
        everywhere = evaluate(model, x, y)[0]
        table.append((str(step), _listed(rows), *(f"{loss:.6f}" for loss in (before, after, everywhere))))
    lab.table(("step", "rows", "their loss before", "and after", "loss of all rows"), table)
    distance = distance_from_trainer(lab, model, x, y)
    lab.say(f"the trainer's weights after the same {STEPS} steps differ by at most {distance:g}")
    lab.say()
    compare(lab)


def distance_from_trainer(lab: Lab, model: MLP, x: HostArray, y: HostArray) -> float:
    """Distance of a model's parameters from those that `Trainer` reaches in STEPS."""
    twin = small_model(lab)
    Trainer(twin, SGD(RATE), batch_size=BATCH, seed=lab.seed).fit(x, y, steps=STEPS)
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


def train(lab: Lab, batch: int) -> Curves:
    """Train with one batch size from the same weights at each of RATES, and measure the loss on all rows."""
    x, y = moons(MOONS, 0.2, lab.seed)
    count = len(RATES)
    model = MLP(COMPARED, activation="tanh", replicas=count, seed=[lab.seed] * count, device=lab.device)
    trainer = Trainer(model, SGD(RATES), batch_size=batch, seed=lab.seed)
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


def compare(lab: Lab) -> None:
    """Compare batch sizes, after as many steps and after as many rows."""
    found = []
    for batch in BATCHES:
        lab.progress(f"batches of {batch}")
        found.append(train(lab, batch))
    lab.say(f"{MOONS} rows, a network {'-'.join(map(str, COMPARED))}: the loss on all rows by batch size")
    lab.say(f"at rate {SAME_RATE:g}, and at the best of {', '.join(f'{rate:g}' for rate in RATES)}")
    place = RATES.index(SAME_RATE)
    rows = []
    for curves in found:
        cells = []
        for step in (LEAST_STEPS, LEAST_ROWS // curves.batch):
            losses = curves.at(step)
            best = int(np.nanargmin(losses))
            cells += [f"{losses[place]:.4f}", f"{losses[best]:.4f} at {RATES[best]:g}"]
        rows.append((str(curves.batch), *cells))
    lab.table(("batch", f"{LEAST_STEPS} steps", "best", f"{LEAST_ROWS} rows", "best"), rows)
    lab.draw("minibatch", CAPTION, partial(_draw, found))


def _draw(found: list[Curves]) -> Any:
    """Draw the loss at SAME_RATE against steps and against rows."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 2, width=5.2, height=4.0, sharey=True)
    place = RATES.index(SAME_RATE)
    for curves, color, style, marker in zip(found, PALETTE, ("-", "--", "-."), "os^", strict=False):
        seen = curves.steps * curves.batch
        for axes, x in zip(grid[0], (curves.steps, seen), strict=True):
            label = f"batches of {curves.batch}" + " (all rows)" * (curves.batch == MOONS)
            axes.plot(x[1:], curves.losses[1:, place], style, marker=marker, markersize=4, color=color, label=label)
    for axes, name in zip(grid[0], ("steps", "rows seen"), strict=True):
        axes.set(xlabel=name, xscale="log")
    grid[0, 0].set_ylabel(f"loss on all rows, at rate {SAME_RATE:g}")
    grid[0, 1].legend()
    return figure


CAPTION = Words(
    "Batch sizes compared: by steps, and by rows seen",
    "배치 크기 비교: 갱신 횟수 기준과 사용한 데이터 수 기준",
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
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
