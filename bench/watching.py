"""What watching a training costs: the same training with `watch=True` and without it, in pairs.

    python bench/watching.py [--networks NAME ...] [--threads 2] [--pairs 21] [--rows 60000] [--json FILE]

A ratio is that of one pair, whose two trainings follow each other, in changing order: of the time of `fit`, and of the
processor time of all its threads, which busy processes beside it change less. Both trainings must end with the same
bytes, and their steps must be compiled.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from networks import NETWORKS
from surroundings import in_words, noted, surroundings, write_results

from xpnet import MLP, Adam, Trainer
from xpnet.core.device import limit_threads

EPOCHS = {"784-100x4-10 batch 128": 10, "30-100-2 batch 200": 100}  # about a second on two idle cores


def train(name: str, x: np.ndarray, y: np.ndarray, epochs: int, *, watch: bool) -> tuple[list[float], bytes, int]:
    """Return seconds and processor seconds, the weights, and the number of epochs that were watched."""
    sizes, batch_size = NETWORKS[name]
    trainer = Trainer(MLP(list(sizes)), Adam(1e-4), batch_size=batch_size)
    start, processor = time.perf_counter(), time.process_time()
    history = trainer.fit(x, y, epochs=epochs, watch=watch)
    seconds = [time.perf_counter() - start, time.process_time() - processor]
    assert trainer.compiled is True, trainer.compiled
    watched = sum("watch" in row for row in history)
    return seconds, np.asarray(trainer.model.network.values).tobytes(), watched


def spread(ratios: list[float]) -> str:
    """Median of ratios, with the middle half in brackets."""
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{median:.4f} ({low:.4f} to {high:.4f})"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine, found = surroundings(), []
    for name in options.networks:
        rng = np.random.default_rng(0)
        sizes, epochs = NETWORKS[name][0], EPOCHS[name]
        x = rng.random((options.rows, sizes[0]), dtype=np.float32)
        y = np.arange(len(x)) % sizes[-1]
        pairs = []
        with limit_threads(options.threads):
            train(name, x, y, 1, watch=True)  # compiles
            for number in range(options.pairs):
                both = {
                    watch: train(name, x, y, epochs, watch=watch)
                    for watch in ((True, False) if number % 2 else (False, True))
                }
                assert both[True][1] == both[False][1], "other bytes"
                pairs.append((both[True], both[False]))
        ratios = [[on[0][k] / off[0][k] for on, off in pairs] for k in (0, 1)]
        row = {
            "network": name,
            "epochs": epochs,
            "seconds": statistics.median(off[0][0] for _, off in pairs),
            "epochs watched": statistics.median(on[2] for on, _ in pairs),
            "ratio": statistics.median(ratios[0]),
            "processor ratio": statistics.median(ratios[1]),
            "ratios": [round(ratio, 4) for ratio in ratios[0]],
            "processor ratios": [round(ratio, 4) for ratio in ratios[1]],
        }
        found.append(row)
        print(
            f"{name}: {row['seconds']:.2f} s, {row['epochs watched']:.0f} of {epochs} epochs watched:"
            f" {spread(ratios[0])} of the time, {spread(ratios[1])} of the processor time",
            flush=True,
        )
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        write_results(options.json, machine, {**settings, "found": found})
    print(in_words(noted(machine)))


if __name__ == "__main__":
    main()
