"""Compiled steps beside other processes: is a second thread ever a loss?

    python bench/busy.py [--loads 0 1 2 4] [--networks NAME ...] [--threads 2] [--rounds 7] [--seconds 0.3]
        [--processors 0 ...] [--load-processors 0 ...] [--json FILE]

For each number of processes that do nothing but spin, one thread and several take turns; a ratio is the median over
rounds of the time of a step on several threads over that on one, of the same round. This process and those that spin
may be kept to some processors, as `taskset` would.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from networks import NETWORKS
from surroundings import in_words, noted, surroundings, write_results

from xpnet import MLP, Adam, Trainer
from xpnet.core.device import limit_threads

ROWS = 60 * 128  # of an epoch, about


class Turns:
    """One network, trained on a number of threads, turn by turn."""

    def __init__(self, name: str, threads: int, seconds: float) -> None:
        sizes, batch_size = NETWORKS[name]
        self.threads = threads
        rng = np.random.default_rng(0)
        self.steps = ROWS // batch_size
        self.x = rng.random((self.steps * batch_size, sizes[0]), dtype=np.float32)
        self.y = np.arange(len(self.x)) % sizes[-1]
        self.trainer = Trainer(MLP(list(sizes)), Adam(1e-4), batch_size=batch_size)
        self.epochs = 1
        self.epochs = max(1, round(seconds / (self.turn() * self.steps)))

    def turn(self) -> float:
        """Seconds of a step."""
        with limit_threads(self.threads):
            history = self.trainer.fit(self.x, self.y, epochs=self.epochs)
        return statistics.mean(float(row["seconds"]) for row in history[-self.epochs :]) / self.steps


@contextmanager
def load(processes: int, processors: list[int] | None) -> Iterator[None]:
    """Context in which `processes` processes spin, on some processors or on all."""
    command = [sys.executable, "-c", "while True: pass"]
    spinning = [subprocess.Popen(command) for _ in range(processes)]
    try:
        if processors:
            for process in spinning:
                os.sched_setaffinity(process.pid, processors)
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn, about")
    parser.add_argument("--processors", type=int, nargs="+", help="that this process may use")
    parser.add_argument("--load-processors", type=int, nargs="+", help="that the spinning processes may use")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    everywhere = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    if options.processors:
        os.sched_setaffinity(0, options.processors)
    machine, found = surroundings(), []
    for name in options.networks:
        one, several = (Turns(name, threads, options.seconds) for threads in (1, options.threads))
        for processes in options.loads:
            with load(processes, options.load_processors or everywhere):
                times = [(one.turn(), several.turn()) for _ in range(options.rounds)]
            ratios = [b / a for a, b in times]
            ratio, low, high = statistics.median(ratios), min(ratios), max(ratios)
            alone, shared = (1e6 * statistics.median(column) for column in zip(*times, strict=True))
            row = {"network": name, "load": processes, "one": alone, "several": shared, "ratio": ratio}
            found.append(row | {"ratio_range": (low, high)})
            on_threads = f"{alone:.0f} us on one thread, {shared:.0f} on {options.threads}"
            print(f"{name} beside {processes}: {on_threads}: {ratio:.2f} ({low:.2f} to {high:.2f})", flush=True)
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        write_results(options.json, machine, {**settings, "ratios": found})
    print(in_words(noted(machine)))


if __name__ == "__main__":
    main()
