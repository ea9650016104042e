"""Random networks, trained by graphs on a GPU and eagerly by NumPy."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import code_folder  # noqa: F401
from random_programs import quick

from xpnet import MLP, Trainer
from xpnet.optim import OPTIMIZERS

CASES = int(os.environ.get("XPNET_CASES", "40"))  # 300 now and then: they take minutes

networks = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 300), min_size=2, max_size=5),
        "activation": st.sampled_from(["relu", "tanh", "gelu", "leaky-relu", "sigmoid"]),
        "batch_norm": st.booleans(),
        "dropout": st.sampled_from([0.0, 0.0, 0.3]),
        "replicas": st.sampled_from([None, None, 1, 3]),
        "task": st.sampled_from(["classification", "regression", "multilabel"]),
        "seed": st.integers(0, 9),
    }
)
rules = st.tuples(st.sampled_from(list(OPTIMIZERS)), st.sampled_from([{}, {"weight_decay": 0.01}, {"clip_norm": 0.5}]))


def targets(rng, task, rows, outputs):
    if task == "regression":
        return rng.normal(size=(rows, outputs))
    if task == "multilabel":
        return rng.integers(0, 2, (rows, outputs))
    return rng.integers(0, max(outputs, 2), rows)


@pytest.mark.cuda
def test_random_networks():
    @quick(CASES)
    @given(network=networks, rule=rules, batch=st.integers(1, 257), weighted=st.booleans())
    def run(network, rule, batch, weighted):
        options = dict(network)
        sizes, (name, settings) = options.pop("sizes"), rule
        # The variance of a few rows may be nearly zero: what is divided by its root is rounding.
        batch = max(batch, 16) if options["batch_norm"] else batch
        rows = min(2 * batch + batch // 2, 400)
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(rows, sizes[0])), targets(rng, options["task"], rows, sizes[-1])
        weights = rng.uniform(0.5, 1.5, rows) if weighted else None
        found = []
        for device in ("cpu", "cuda"):
            model = MLP(sizes, dtype="float64", device=device, **options)
            trainer = Trainer(model, OPTIMIZERS[name](0.001, **settings), batch_size=batch, compile=device == "cuda")
            history = trainer.fit(x, y, epochs=2, sample_weight=weights, test=(x[:50], y[:50]))
            assert (trainer.compiled is True) == (device == "cuda"), trainer.compiled
            found.append((model.device.to_host(model.network.values), [row["train_loss"] for row in history]))
        (values, losses), (others, found_losses) = found
        np.testing.assert_allclose(found_losses, losses, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(others, values, rtol=1e-6, atol=1e-7)

    run()
