"""Compiled steps beside other processes: is a second thread ever a loss?

    python bench/busy.py [--loads 0 1 2 4] [--networks NAME ...] [--threads 2] [--rounds 7] [--json FILE]

For each number of processes that do nothing but spin, one thread and several take turns; a ratio is the median over
rounds of the time of a step on several threads over that on one, of the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from networks import NETWORKS

from xpnet import MLP, Adam, Trainer
from xpnet.core.device import limit_threads

STEPS = 60  # of a turn at least
SECONDS = 0.3  # of a turn about


class Turns:
    """One network, trained on a number of threads, turn by turn."""

    def __init__(self, name: str, threads: int) -> None:
        sizes, batch_size = NETWORKS[name]
        self.threads = threads
        rng = np.random.default_rng(0)
        self.x = rng.random((STEPS * batch_size, sizes[0]), dtype=np.float32)
        self.y = np.arange(len(self.x)) % sizes[-1]
        self.trainer = Trainer(MLP(list(sizes)), Adam(1e-4), batch_size=batch_size)
        self.epochs = 1
        seconds = self.turn() * STEPS
        self.epochs = max(1, round(SECONDS / seconds))

    def turn(self) -> float:
        """Seconds of a step."""
        with limit_threads(self.threads):
            history = self.trainer.fit(self.x, self.y, epochs=self.epochs)
        return statistics.mean(float(row["seconds"]) for row in history[-self.epochs :]) / STEPS


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Context in which `processes` processes spin."""
    command = [sys.executable, "-c", "while True: pass"]
    spinning = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS][:2], choices=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for name in options.networks:
        one, several = Turns(name, 1), Turns(name, options.threads)
        for processes in options.loads:
            with load(processes):
                times = [(one.turn(), several.turn()) for _ in range(options.rounds)]
            ratio = statistics.median(b / a for a, b in times)
            alone, shared = (1e6 * statistics.median(column) for column in zip(*times, strict=True))
            found.append({"network": name, "load": processes, "one": alone, "several": shared, "ratio": ratio})
            on_threads = f"{alone:.0f} us on one thread, {shared:.0f} on {options.threads}"
            print(f"{name} beside {processes}: {on_threads}: {ratio:.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
