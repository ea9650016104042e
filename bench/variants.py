"""Compiled steps next to eager ones, for more than the plain network: a markdown table.

    python bench/variants.py [--rounds N] [--json FILE]

Each variant is the network 784-100x4-10 at batch 128, with Adam unless it says otherwise. Both take the same steps, in
turns; a time is the median over the rounds, and the ratio the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import in_words, noted, surroundings, write_results
from threadpoolctl import threadpool_limits

from xpnet import MLP, Trainer
from xpnet.nn import ACTIVATIONS, LayerNorm, Linear, ReLU, Sequential
from xpnet.optim import OPTIMIZERS
from xpnet.training.config import default_threads

SIZES, BATCH, STEPS = [784, 100, 100, 100, 100, 10], 128, 100


def mlp(**options: Any) -> Callable[[], MLP]:
    """Return a function that makes a model with these options."""
    return lambda: MLP(SIZES, input_scale=255.0, **options)


def layer_norm() -> MLP:
    """Return a model with layer normalization before each activation."""
    layers: list[Any] = []
    for inputs, outputs in pairwise(SIZES[:-1]):
        layers += [Linear(inputs, outputs), LayerNorm(outputs), ReLU()]
    return MLP.of(Sequential([*layers, Linear(SIZES[-2], SIZES[-1])]), input_scale=255.0)


VARIANTS: dict[str, tuple[Callable[[], MLP], str, dict[str, Any]]] = {
    "plain": (mlp(), "adam", {}),
    "batch normalization": (mlp(batch_norm=True), "adam", {}),
    "layer normalization": (layer_norm, "adam", {}),
    "dropout 0.2": (mlp(dropout=0.2), "adam", {}),
    "batch normalization and dropout": (mlp(batch_norm=True, dropout=0.2), "adam", {}),
    "float64": (mlp(dtype="float64"), "adam", {}),
    "8 replicas": (mlp(replicas=8), "adam", {}),
    "8 replicas, batch normalization, dropout": (mlp(replicas=8, batch_norm=True, dropout=0.2), "adam", {}),
    "weight decay, L1, clipping by norm": (mlp(), "adam", {"weight_decay": 0.01, "l1": 1e-5, "clip_norm": 1.0}),
    **{name: (mlp(activation=name), "adam", {}) for name in ACTIVATIONS if name not in ("relu", "step", "softmax")},
    **{name: (mlp(), name, {}) for name in OPTIMIZERS if name != "adam"},
}


class Contender:
    """A trainer on pixels and labels by chance."""

    def __init__(self, variant: str, *, compiled: bool) -> None:
        make, optimizer, options = VARIANTS[variant]
        rng = np.random.default_rng(0)
        self.x = rng.integers(0, 256, (STEPS * BATCH, SIZES[0]), dtype=np.uint8)
        self.t = rng.integers(0, SIZES[-1], len(self.x))
        self.threads = default_threads(SIZES, BATCH, compiled=compiled)
        self.trainer = Trainer(make(), OPTIMIZERS[optimizer](0.001, **options), batch_size=BATCH, compile=compiled)

    def seconds(self) -> float:
        """Return the time of a step, in an epoch that is not the first: that one has what compiling takes."""
        with threadpool_limits(self.threads, user_api="blas"):
            history = self.trainer.fit(self.x, self.t, epochs=2)
        if self.trainer.compile and self.trainer.compiled is not True:
            raise SystemExit(f"the step is not compiled: {self.trainer.compiled}")
        return float(history[-1]["seconds"]) / STEPS


def main() -> None:
    """Time all variants, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = surroundings()
    found: dict[str, dict[str, Any]] = {}
    print("| variant | eager, us | compiled, us | ratio |\n|---|---:|---:|---:|")
    for variant in VARIANTS:
        pair = [Contender(variant, compiled=compiled) for compiled in (False, True)]
        times = [[contender.seconds() * 1e6 for contender in pair] for _ in range(options.rounds)]
        eager, compiled = (statistics.median(column) for column in zip(*times, strict=True))
        ratios = [slow / fast for slow, fast in times]
        ratio, low, high = statistics.median(ratios), min(ratios), max(ratios)
        found[variant] = {"eager_us": eager, "compiled_us": compiled, "ratio": ratio, "ratio_range": (low, high)}
        print(f"| {variant} | {eager:,.0f} | {compiled:,.0f} | {ratio:.1f} ({low:.1f} to {high:.1f}) |", flush=True)
    if options.json is not None:
        write_results(options.json, machine, {"rounds": options.rounds, "variants": found})
    print(f"\n{in_words(noted(machine))}")


if __name__ == "__main__":
    main()
