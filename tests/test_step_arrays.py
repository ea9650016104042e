"""The arrays of a step by name, and a network over vectors that are given."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import MLP, Adam
from xpnet.nn import Dropout, Linear, ReLU, Sequential
from xpnet.training.compiled_step import StepArrays
from xpnet.training.step import EpochSums

X, Y = np.ones((5, 3), np.float32), np.arange(5) % 2


def arrays(w=None, index=None, **others):
    model = MLP([3, 4, 2], replicas=2)
    return StepArrays.of(model, index, model.rows(X, Y, w), EpochSums.zeros(model), **others)


@pytest.mark.parametrize(("w", "gathered"), [(None, "x t"), (np.ones(5), "x t w"), (np.ones((2, 5)), "x t")])
def test_arrays_of_a_training_step(w, gathered):
    state, scalars = {"m": np.zeros((2, 26)), "x": np.ones(1)}, {"learning_rate": np.ones(()), "m": np.ones(())}
    step = arrays(w, index=np.arange(4), state=state, scalars=scalars)
    names = ["values", "gradients", "buffers", "index", "x", "t", "w", "loss", "weight", "metric_sum"]
    if w is None:
        names.remove("w")
    assert [*step.flatten()] == [*names, "state m", "state x", "scalars learning_rate", "scalars m"]
    assert step.per_step == {"index", "scalars learning_rate", "scalars m"}
    assert step.gathered == set(gathered.split())


def test_arrays_of_an_evaluation_step():
    step = arrays(np.ones(5))
    assert step.per_step == {"x", "t", "w"}
    assert step.gathered == set()
    assert "index" not in step.flatten()


def test_fields_come_back():
    step = arrays(np.ones(5), index=np.arange(4), state={"m": np.zeros(3)}, scalars={"m": np.ones(())})
    others = {name: object() for name in step.flatten()}
    again = step.unflatten(others)
    assert again.flatten() == others
    assert again.rows.dtype == step.rows.dtype
    assert (again.state["m"], again.scalars["m"]) == (others["state m"], others["scalars m"])


def test_a_network_over_other_vectors():
    network = Sequential([Linear(3, 4), ReLU(), Dropout(0.5), Linear(4, 2)], seed=1)
    network.layers[2].rate = 0.25  # since it was bound
    z = network.forward(X, train=True)
    values, gradients = network.values.copy(), network.gradients.copy()
    over = network.over(np, values, gradients, network.buffers.copy())
    assert (over.forward(X) == network.forward(X)).all()
    assert over.layers[2].rate == 0.25
    assert "x" not in vars(over.layers[0]), "the last batch of the other network"
    over.forward(X, train=True)
    over.backward(np.ones_like(z))
    assert gradients.any()
    assert not network.gradients.any(), "they share an array"
    values[...] = 0.0
    assert not over.forward(X).any()
    Adam().bind(over)
