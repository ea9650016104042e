"""The boundary of the compiler holds: a target in under 150 lines trains a network."""

from __future__ import annotations

import numpy as np
import pytest
from toy_target import ToyExecutable

from xpnet import MLP, Adam, Trainer
from xpnet.compile import record


@pytest.mark.parametrize("options", [{}, {"batch_norm": True, "dropout": 0.5}, {"replicas": 2}])
def test_a_third_target_trains_a_network(options, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), np.arange(20) % 3

    def trained(compile):
        model = MLP([4, 5, 3], dtype="float64", seed=1, **options)
        trainer = Trainer(model, Adam(0.01), batch_size=8, compile=compile)
        trainer.fit(x, y, epochs=2)
        return trainer

    eager = trained(False)
    monkeypatch.setattr(
        "xpnet.model.compiled.compile_step",
        lambda step, arrays, *, gathered=(), per_step=(), **_: ToyExecutable(record(step, arrays, gathered, per_step)),
    )
    toy = trained(True)
    np.testing.assert_allclose(toy.model.network.values, eager.model.network.values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        [row["train_loss"] for row in toy.history], [row["train_loss"] for row in eager.history], rtol=1e-10
    )
