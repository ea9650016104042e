"""Replicas with update rules of their own: each is a single run of its rule."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import MLP, SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop, Trainer
from xpnet.compile import why_not_compiled
from xpnet.optim import Mixed

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(500, 20)), RNG.integers(0, 4, 500)
SIZES, BATCH, EPOCHS = [20, 100, 4], 50, 20  # 200 steps, which compiling pays for


def groups():
    return [
        (Adam([0.01, 0.003]), 2),
        (SGD(0.1, weight_decay=[0.1, 0.0, 0.01]), 3),
        (Momentum(0.05, clip_norm=1.0), 1),
        (AdamW(0.01, weight_decay=0.1), 1),
        (RMSprop(0.01, l1=1e-3), 1),
        (Nesterov(0.01, clip_value=0.01), 1),
        (AdaGrad(0.1), 1),
    ]


def alone():
    return [
        Adam(0.01),
        Adam(0.003),
        SGD(0.1, weight_decay=0.1),
        SGD(0.1),
        SGD(0.1, weight_decay=0.01),
        Momentum(0.05, clip_norm=1.0),
        AdamW(0.01, weight_decay=0.1),
        RMSprop(0.01, l1=1e-3),
        Nesterov(0.01, clip_value=0.01),
        AdaGrad(0.1),
    ]


def fitted(rule, compiled, **options):
    trainer = Trainer(MLP(SIZES, dtype="float64", **options), rule, batch_size=BATCH, compile=compiled)
    trainer.fit(X, Y, epochs=EPOCHS)
    return trainer


@pytest.mark.compiles
@pytest.mark.parametrize("compiled", [True, False])
def test_replicas_of_several_rules_are_single_runs(compiled):
    together = fitted(Mixed(groups()), compiled, replicas=10, seed=3)
    assert together.compiled is True or not compiled or why_not_compiled() is not None
    for r, rule in enumerate(alone()):
        values = fitted(rule, compiled, seed=3 + r).model.network.values
        np.testing.assert_allclose(together.model.network.values[r], values, rtol=0.0, atol=2e-12)
    assert together.learning_rate(0) == [0.01, 0.003, 0.1, 0.1, 0.1, 0.05, 0.01, 0.01, 0.01, 0.1]


def test_early_stopping_keeps_each_rule_s_state():
    validation = (X[:100], (Y[:100] + 1) % 4)
    trainer = Trainer(MLP(SIZES, replicas=10, dtype="float64"), Mixed(groups()), batch_size=BATCH)
    trainer.fit(X, Y, epochs=9, validation=validation, early_stop=2)
    for r, rule in enumerate(alone()):
        one = Trainer(MLP(SIZES, seed=r, dtype="float64"), rule, batch_size=BATCH)
        one.fit(X, Y, epochs=9, validation=validation, early_stop=2)
        assert one.best_epoch == trainer.best_epoch[r]
        np.testing.assert_allclose(trainer.model.network.values[r], one.model.network.values, rtol=0.0, atol=2e-12)


def test_mixed_rules_that_do_not_fit():
    with pytest.raises(ValueError, match="the rules have 3 replicas, and the network 2"):
        Trainer(MLP([2, 2], replicas=2), Mixed([(SGD(), 1), (Adam(), 2)]))
    with pytest.raises(ValueError, match="a rule has 3 numbers, and 2 replicas"):
        Mixed([(SGD([0.1, 0.2, 0.3]), 2)]).learning_rate  # noqa: B018
    rule = SGD()
    rule.bound = True
    twice = SGD()
    for bad in ([(rule, 1)], [("sgd", 1)], [(Mixed([(SGD(), 2)]), 2)], [(twice, 1), (twice, 1)]):
        with pytest.raises(TypeError, match="rules must be new Optimizers"):
            Mixed(bad)
    for bad in (3, [], [SGD()]):
        with pytest.raises(TypeError, match="rules must be pairs of an Optimizer and a number of replicas"):
            Mixed(bad)


def test_mixed_rules_come_back_from_files(tmp_path):
    first = Trainer(MLP(SIZES, replicas=10), Mixed(groups()), batch_size=BATCH)
    first.fit(X, Y, epochs=2)
    first.save(tmp_path / "t.safetensors")
    again = Trainer.load(tmp_path / "t.safetensors")
    assert repr(again.optimizer) == repr(first.optimizer)
    first.fit(X, Y, epochs=2)
    again.fit(X, Y, epochs=2)
    assert again.model.network.values.tobytes() == first.model.network.values.tobytes()
