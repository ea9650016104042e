"""Whole training steps, xpnet against its peers, interleaved in one run.

    python bench/peers/race.py [--device cpu|cuda] [--networks NAME ...] [--optimizers adam sgd]
                               [--contenders NAME ...] [--rounds 7] [--seconds 0.7] [--json FILE] [--picture FILE]

Each contender is a process of its own, with its own defaults, and only one of them is timed at a time. In each round
all have a turn; a comparison is the median over rounds of two times of the same round, which what else the machine does
disturbs least. All start from the same weights, and train in float32, unless their names say otherwise, on the same
batches in the same order; the loss after the first steps is held against that of `reference.py`. Where it is another,
a contender fails, or none trains on the device, the exit code is 1.

On a GPU, a turn is calls of `--piece` steps each, and the device is waited for at the end of each call.

Peers that are not installed are left out, and named. Variables that hold a BLAS back are cleared, and named.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from contest import LEARNING_RATES, Problem, epoch_order, made_problem
from host import (
    CONTENDERS,
    CUDA_CONTENDERS,
    FLOORS,
    PATIENCE,
    Entry,
    FailedError,
    LeftOutError,
    Remote,
    check_modules,
    markdown,
    mean_loss,
    missing,
    none_trained,
    scratch,
)
from networks import NETWORKS
from reference import reference
from surroundings import in_words, noted, surroundings, write_results

ENTRIES = {"cpu": CONTENDERS + FLOORS, "cuda": CUDA_CONTENDERS}
FLOOR = "the floor"
ORDER = list(dict.fromkeys([*(entry.name for entries in ENTRIES.values() for entry in entries), FLOOR]))
CHECKED_STEPS = 20  # after which all must have the reference's loss
EVALUATION_ROWS = 1024
PAUSE = 0.2  # seconds behind a turn on the CPU: threads spin a while before they sleep
CUDA_PIECE = 256  # steps in a call on a GPU, as many as fit into the data

Result = dict[str, Any]


class Heat:
    """One network, one optimizer, all contenders.

    Args:
        network, optimizer: their names.
        entries: the contenders.
        checked: the number of steps after which losses are compared.
        piece: steps in a call on a GPU.
        patience: seconds for an answer.
    """

    def __init__(
        self, network: str, optimizer: str, entries: list[Entry], checked: int, piece: int, patience: float
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.entries = {entry.name: entry for entry in entries}
        self.checked, self.piece, self.patience = checked, piece, patience
        self.troubles: dict[str, dict[str, str]] = {"left_out": {}, "failed": {}, "wrong": {}}
        self.libraries: dict[str, list[str]] = {}
        self.losses: dict[str, float] = {}
        self.right: dict[bool, float] = {}  # the reference's loss, by where Adam's epsilon is
        self.memory: dict[str, float] = {}
        self.rounds: list[dict[str, float]] = []  # microseconds per step by contender

    def run(self, rounds: int, seconds: float) -> Result:
        """Start the contenders, compare their losses, and go round."""
        with scratch() as folder, ExitStack() as stack:
            workers = self._start(folder, stack)
            for number in range(rounds + 1):
                times: dict[str, float] = {}
                names = list(workers)
                first = number % max(1, len(names))  # each is the first in turn
                for name in names[first:] + names[:first]:
                    on_cpu = self.entries[name].device == "cpu"
                    with self._noted(name):
                        turn = workers[name].ask("turn", seconds=seconds, piece=0 if on_cpu else self.piece)
                        times[name] = turn["microseconds"]
                    if name not in times:
                        del workers[name]
                    if on_cpu:
                        time.sleep(PAUSE)
                if number:  # the first round is to warm up
                    self.rounds.append(times)
            for name, worker in workers.items():
                with self._noted(name):
                    self.memory[name] = worker.ask("memory")["peak_mib"]
        return self._result()

    @contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        """Put down what trouble a contender has, and go on without it."""
        try:
            yield
        except LeftOutError as reason:
            self.troubles["left_out"][name] = str(reason)
        except FailedError as reason:
            self.troubles["failed"][name] = str(reason)

    def _start(self, folder: Path, stack: ExitStack) -> dict[str, Remote]:
        """Start the contenders, and let all take the first steps at once: many compile in them."""
        problem = made_problem(*NETWORKS[self.network], self.optimizer)
        file = folder / "problem.npz"
        problem.save(file)
        x, t = problem.x[:EVALUATION_ROWS], problem.t[:EVALUATION_ROWS]
        self.loss_before = mean_loss(problem.weights, x, t)
        started: dict[str, Remote] = {}
        for name, entry in self.entries.items():
            with self._noted(name):
                started[name] = remote = Remote(entry, folder, self.patience)
                stack.callback(remote.close)
                remote.tell("start", problem=str(file), device=entry.device)
                remote.tell("steps", count=self.checked)
                remote.tell_weights()
                if entry.device != "cpu":
                    remote.tell("steps", count=self.piece)  # JAX compiles for each number of steps
        workers: dict[str, Remote] = {}
        for name, remote in started.items():
            with self._noted(name):
                remote.hear()
                self.libraries[name] = remote.hear()["libraries"]
                weights = remote.hear_weights()
                if self.entries[name].device != "cpu":
                    remote.hear()
                if weights is not None:
                    self.losses[name] = mean_loss(weights, x, t)
                    self._compare(self.entries[name], problem)
                workers[name] = remote
        return workers

    def _compare(self, entry: Entry, problem: Problem) -> None:
        """Hold a loss against the reference's."""
        first = entry.epsilon_first and self.optimizer == "adam"
        if first not in self.right:
            batches = epoch_order(len(problem.x), problem.batch_size, 0)[: self.checked]
            x, t = problem.x[:EVALUATION_ROWS], problem.t[:EVALUATION_ROWS]
            self.right[first] = mean_loss(reference(problem, batches, first), x, t)
        loss, right = self.losses[entry.name], self.right[first]
        if not abs(loss - right) <= entry.tolerance * right:  # NaN is wrong
            self.troubles["wrong"][entry.name] = f"loss {loss:.5f} after {self.checked} steps, and not {right:.5f}"

    def _result(self) -> Result:
        floors = [entry.name for entry in FLOORS]
        for times in self.rounds:
            if any(name in times for name in floors):
                times[FLOOR] = min(times[name] for name in floors if name in times)
        return {
            "network": self.network,
            "optimizer": self.optimizer,
            **compared(self.rounds),
            "peak_mib": self.memory,
            "checked_steps": self.checked,
            "loss_before": self.loss_before,
            "loss": self.losses,
            "loss_of_reference": self.right.get(False),
            "loss_of_reference_epsilon_first": self.right.get(True),
            "libraries": self.libraries,
        } | self.troubles


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of contenders, each once, in the order of the tables."""
    return sorted(set(names), key=ORDER.index)


def compared(rounds: list[dict[str, float]]) -> Result:
    """Return the times of those who took part in every round, and their ratios to the base, of the same round.

    The base is the first of the table, which xpnet's compiled step is where there is one.
    """
    names = in_order(name for name in rounds[-1] if all(name in times for times in rounds))
    times_of = {name: [times[name] for times in rounds] for name in names}
    ratios_of = {
        name: [own / base for own, base in zip(times, times_of[names[0]], strict=True)]
        for name, times in times_of.items()
    }
    return {
        "base": names[0] if names else None,
        "step_us": {name: statistics.median(times) for name, times in times_of.items()},
        "ratio": {name: statistics.median(ratios) for name, ratios in ratios_of.items()},
        "ratio_range": {name: (min(ratios), max(ratios)) for name, ratios in ratios_of.items()},
        "rounds_us": times_of,
    }


def table(results: list[Result], optimizer: str) -> str:
    """Return microseconds per step, and in brackets the ratio to the base."""
    heats = [result for result in results if result["optimizer"] == optimizer]

    def cell(result: Result, name: str) -> str:
        if name not in result["step_us"]:
            return "-"
        ratio = f" ({result['ratio'][name]:.2f})" if name in result["ratio"] else ""
        wrong = " **wrong**" if name in result["wrong"] else ""
        return f"{result['step_us'][name]:,.0f}{ratio}{wrong}"

    rows = [
        [name, *[cell(result, name) for result in heats]] for name in in_order(n for r in heats for n in r["step_us"])
    ]
    return markdown([f"{optimizer}: µs per step", *[result["network"] for result in heats]], rows)


def other_table(results: list[Result], title: str, key: str, form: str) -> str:
    """Return another number of each contender, a column a network and optimizer."""
    names = in_order(name for result in results for name in result[key])
    rows = [[name, *[format(r[key][name], form) if name in r[key] else "-" for r in results]] for name in names]
    return markdown([title, *[f"{result['network']}, {result['optimizer']}" for result in results]], rows)


def tables(content: Result) -> str:
    """Return the tables of step times, a paragraph of explanation, and those who are missing, from a race's JSON."""
    results = content["results"]
    words = (
        f"Microseconds a step, median of {content['rounds']} rounds; in brackets, the ratio to the first row of the"
        " column, median of the rounds' ratios."
    )
    return "\n\n".join(
        [words, *[table(results, o) for o in dict.fromkeys(r["optimizer"] for r in results)], missing(*results)]
    )


def draw(results: list[Result], words: str) -> bytes:
    """Return a picture: a panel for each network and optimizer, a bar a contender."""
    import io
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    from xpnet.plots import PALETTE, new_figure

    optimizers = list(dict.fromkeys(result["optimizer"] for result in results))
    networks = list(dict.fromkeys(result["network"] for result in results))
    figure, axes = new_figure(len(optimizers), len(networks), width=5.0, height=3.0)
    colors = {"xpnet": PALETTE[0], "PyTorch": PALETTE[1], "JAX": PALETTE[2], "scikit-learn": PALETTE[3]}
    for result in results:
        one = axes[optimizers.index(result["optimizer"]), networks.index(result["network"])]
        step = result["step_us"]
        floors = [FLOOR, *(entry.name for entry in FLOORS)]
        names = [name for name in in_order(step) if name not in floors][::-1]
        one.barh(names, [step[name] for name in names], color=[colors[name.partition(",")[0]] for name in names])
        for row, name in enumerate(names):
            ratio = f", {result['ratio'][name]:.2f} times" if name in result["ratio"] else ""
            wrong = ", wrong" if name in result["wrong"] else ""
            one.annotate(
                f"{step[name]:,.0f} µs{ratio}{wrong}",
                (step[name], row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        if FLOOR in step:
            one.axvline(step[FLOOR], color="black", linestyle="--", linewidth=1)
            one.annotate(
                f"products alone {step[FLOOR]:,.0f} µs",
                (step[FLOOR], 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -9),
                textcoords="offset points",
                fontsize=7,
            )
        one.set_xscale("log")
        one.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        one.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        one.xaxis.set_minor_formatter(NullFormatter())
        one.tick_params(labelsize=8)
        low, high = 0.5 * min(step.values()), max(step[name] for name in names)
        one.set_xlim(low, high * (high / low) ** 0.7)  # room for the last bar's text
        one.set_ylim(-0.6, len(names) + 0.2)
        one.grid(visible=False, axis="y")
        one.set_title(f"{result['network']}, {result['optimizer']}", fontsize=10)
        one.set_xlabel("µs per training step (log)", fontsize=8)
    figure.supxlabel(textwrap.fill(words, 60 * len(networks)), fontsize=7)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def main() -> int:
    """Run the heats, print the tables, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name in ORDER if name != FLOOR]
    parser.add_argument("--device", choices=ENTRIES, default="cpu")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--optimizers", nargs="+", choices=LEARNING_RATES, default=list(LEARNING_RATES))
    parser.add_argument("--contenders", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.7, help="of a turn")
    parser.add_argument("--checked", type=int, default=CHECKED_STEPS, help="steps after which losses are compared")
    parser.add_argument("--piece", type=int, default=CUDA_PIECE, help="steps in a call on a GPU")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for an answer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a picture (needs matplotlib)")
    options = parser.parse_args()
    for name in ("rounds", "checked", "piece"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.picture:
        check_modules(parser, "matplotlib")
    entries = [entry for entry in ENTRIES[options.device] if entry.name in options.contenders]
    found = surroundings(options.device)
    results: list[Result] = []
    content: Result = {"rounds": options.rounds, "seconds": options.seconds, "results": results}
    for optimizer in options.optimizers:
        for network in options.networks:
            print(f"{network}, {optimizer} ...", file=sys.stderr, flush=True)
            heat = Heat(network, optimizer, entries, options.checked, options.piece, options.patience)
            results.append(heat.run(options.rounds, options.seconds))
            if options.json:  # what is there already is kept, whatever comes
                write_results(options.json, found, content)
    words = in_words(noted(found))
    print(words, tables(content), sep="\n\n", end="\n\n")
    print(other_table(results, f"loss after {options.checked} steps", "loss", ".5f"), end="\n\n")
    print(other_table(results, "peak memory, MiB", "peak_mib", ",.0f"), end="\n\n")
    for name, value in found["cleared_variables"].items():
        print(f"cleared: {name}={value}")
    if options.picture:
        options.picture.write_bytes(draw(results, words))
    bad = in_order(name for result in results for trouble in ("failed", "wrong") for name in result[trouble])
    if bad:
        print(f"failed or wrong: {'; '.join(bad)}", file=sys.stderr)
    timed = {name for result in results for name in result["step_us"]}
    return int(bool(bad) or none_trained(entries, timed, options.device))


if __name__ == "__main__":
    sys.exit(main())
