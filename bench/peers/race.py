"""Whole training steps, xpnet against its peers, interleaved in one run.

    python bench/peers/race.py [--device cpu|cuda] [--networks NAME ...] [--optimizers adam sgd]
                               [--data mnist random] [--variants plain standardized batch-norm]
                               [--dtype float32|float64] [--contenders NAME ...] [--rounds 7] [--seconds 0.7]
                               [--data-dir FOLDER] [--json FILE] [--picture FILE]

Each contender is a process of its own, with its own defaults, and only one of them is timed at a time. In each round
all have a turn; a comparison is the median over rounds of two times of the same round, which what else the machine does
disturbs least. All start from the same weights, and train in `--dtype`, unless their names say otherwise, on the same
batches in the same order. The loss after the first steps is held against that of `reference.py`, and after the last it
must be finite. Where it is not, a contender fails, or none trains on the device, the exit code is 1.

`--data mnist` is MNIST, and rows of normal numbers for a network that has other inputs: a table. FOLDER is
XPNET_DATA_DIR by default, else MNIST comes from the cache or is downloaded, as for `xpnet train`. `--data random` is
pixels of random bytes. Variants:

    plain           the network sees pixels divided by 255
    standardized    it sees them with mean 0 and deviation 1 of all pixels, as in PyTorch's examples: none is 0. Adam's
                    rate is 0.0001, since at 0.001 many units of a wide network fall silent
    batch-norm      plain, with batch normalization before each ReLU

Pixels are bytes, which a step gathers and scales; scikit-learn scales them beforehand, and has no batch normalization.
The numbers of a table are standardized in all variants.

The share of zeros in the input and behind each ReLU is that of weights which the contender returns, after the first
steps and after the last. What leaving out zeros gains xpnet is the ratio of a contender that multiplies them as well.

On a GPU, a turn is calls of `--piece` steps each, and the device is waited for at the end of each call.

Peers that are not installed are left out, and named. Variables that hold a BLAS back are cleared, and named.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from contest import (
    DTYPES,
    LEARNING_RATES,
    PIXELS,
    VARIANTS,
    Problem,
    Weights,
    data_for,
    epoch_order,
    made_problem,
    zero_shares,
)
from host import (
    BASE,
    CONTENDERS,
    CUDA_CONTENDERS,
    FLOORS,
    PATIENCE,
    WITH_ZEROS,
    Entry,
    FailedError,
    LeftOutError,
    Remote,
    check_folder,
    check_modules,
    markdown,
    mean_loss,
    missing,
    mnist_rows,
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
CHECKED_WORK = 2**37  # multiplications in these steps: more would be minutes of a wide network's heat
LEAST_CHECKED = 4
FLOAT64_TOLERANCE = 1e-9  # of losses, relative
EVALUATION_ROWS = 1024
GAIN = 1.03  # in all rounds, from which on leaving out zeros is said to pay
PAUSE = 0.2  # seconds behind a turn on the CPU: threads spin a while before they sleep
CUDA_PIECE = 256  # steps in a call on a GPU, as many as fit into the data

Result = dict[str, Any]


class Heat:
    """One problem, all contenders.

    Args:
        problem: what they train.
        entries: the contenders.
        checked: the number of steps after which losses are compared.
        piece: steps in a call on a GPU.
        patience: seconds for an answer.
    """

    def __init__(self, problem: Problem, entries: list[Entry], checked: int, piece: int, patience: float) -> None:
        self.problem = problem
        self.entries = {entry.name: entry for entry in entries}
        self.checked, self.piece, self.patience = checked, piece, patience
        self.troubles: dict[str, dict[str, str]] = {"left_out": {}, "failed": {}, "wrong": {}}
        self.libraries: dict[str, list[str]] = {}
        self.losses: dict[str, float] = {}
        self.right: dict[bool, float] = {}  # the reference's loss, by where Adam's epsilon is
        self.zeros: dict[str, dict[str, list[float]]] = {"start": {}, "end": {}}  # shares, by contender
        self.steps: dict[str, int] = {}
        self.memory: dict[str, float] = {}
        self.rounds: list[dict[str, float]] = []  # microseconds per step by contender
        rows = slice(EVALUATION_ROWS)
        self.x, self.t = problem.inputs(rows), problem.t[rows]
        self.loss_before = mean_loss(problem.weights, self.x, self.t)

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
                        times[name], self.steps[name] = turn["microseconds"], turn["steps"]
                    if name not in times:
                        del workers[name]
                    if on_cpu:
                        time.sleep(PAUSE)
                if number:  # the first round is to warm up
                    self.rounds.append(times)
            for name, worker in workers.items():
                with self._noted(name):
                    self.memory[name] = worker.ask("memory")["peak_mib"]
                    worker.tell_weights()
                    weights = worker.hear_weights()
                    if weights is not None:
                        self._check_end(name, weights)
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
        file = folder / "problem.npz"
        self.problem.save(file)
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
                    self._compare(self.entries[name], weights)
                workers[name] = remote
        return workers

    def _compare(self, entry: Entry, weights: Weights) -> None:
        """Hold the loss after the first steps against the reference's."""
        problem = self.problem
        first = entry.epsilon_first and problem.optimizer == "adam"
        if first not in self.right:
            batches = epoch_order(len(problem.x), problem.batch_size, 0)[: self.checked]
            self.right[first] = mean_loss(reference(problem, batches, first), self.x, self.t)
        tolerance = entry.tolerance if problem.dtype == "float32" else FLOAT64_TOLERANCE
        loss, right = mean_loss(weights, self.x, self.t), self.right[first]
        self.losses[entry.name], self.zeros["start"][entry.name] = loss, zero_shares(weights, self.x)
        if not abs(loss - right) <= tolerance * right:  # NaN is wrong
            self.troubles["wrong"][entry.name] = f"loss {loss:.7g} after {self.checked} steps, and not {right:.7g}"

    def _check_end(self, name: str, weights: Weights) -> None:
        """Put down the zeros at the end; none can be counted in what is not finite."""
        self.zeros["end"][name] = zero_shares(weights, self.x)
        loss = mean_loss(weights, self.x, self.t)
        if not math.isfinite(loss):
            self.troubles["wrong"].setdefault(name, f"loss {loss} after the last step")

    def _result(self) -> Result:
        floors = [entry.name for entry in FLOORS]
        for times in self.rounds:
            if any(name in times for name in floors):
                times[FLOOR] = min(times[name] for name in floors if name in times)
        return {
            **compared(self.rounds),
            "learning_rate": self.problem.learning_rate,
            "peak_mib": self.memory,
            "zeros": self.zeros,
            "steps": self.steps,
            "checked_steps": self.checked,
            "loss_before": self.loss_before,
            "loss": self.losses,
            "loss_of_reference": self.right.get(False),
            "loss_of_reference_epsilon_first": self.right.get(True),
            "libraries": self.libraries,
        } | self.troubles


def checked_steps(problem: Problem) -> int:
    """Return the number of steps after which losses are compared: fewer where a step takes long."""
    work = 3 * problem.batch_size * sum(inputs * outputs for inputs, outputs in pairwise(problem.sizes))
    return min(CHECKED_STEPS, max(LEAST_CHECKED, CHECKED_WORK // work))


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


def column_title(result: Result) -> str:
    """Return the network of a heat, and its data where they are not those of the table's title."""
    return f"{result['network']}{', a table' if result['data'] == 'table' else ''}"


def group(result: Result) -> str:
    """Return what the heats of one table have in common; a network on a table is beside those on MNIST."""
    pixels = {"plain": "pixels / 255", "standardized": "standardized pixels", "batch-norm": "batch normalization"}
    data = "random pixels" if result["data"] == "random" else "MNIST"
    return f"{result['optimizer']}, {result['dtype']}, {data}, {pixels[result['variant']]}"


def grouped(results: list[Result]) -> dict[str, list[Result]]:
    """Return the heats of each table."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(group(result), []).append(result)
    return groups


def gain(result: Result) -> str:
    """Return how many times as fast xpnet is because it leaves out zeros, or "not shown", with the range of rounds."""
    if result["base"] != BASE or WITH_ZEROS not in result["ratio"]:
        return "-"
    low, high = result["ratio_range"][WITH_ZEROS]
    words = f"{result['ratio'][WITH_ZEROS]:.2f}" if low >= GAIN else "not shown"
    return f"{words} ({low:.2f} to {high:.2f})"


def percents(shares: list[float] | None) -> str:
    """Return shares as percentages."""
    return " ".join(f"{100 * share:.0f}" for share in shares) if shares else "-"


def table(title: str, heats: list[Result]) -> str:
    """Return microseconds per step, in brackets the ratio to the base; and the base's zeros, and what they gain."""

    def cell(result: Result, name: str) -> str:
        if name not in result["step_us"]:
            return "-"
        ratio = f" ({result['ratio'][name]:.2f})" if name in result["ratio"] else ""
        wrong = " **wrong**" if name in result["wrong"] else ""
        return f"{result['step_us'][name]:,.0f}{ratio}{wrong}"

    def zeros(result: Result, when: str) -> list[float] | None:
        found: list[float] | None = result["zeros"][when].get(result["base"])
        return found

    rows = [
        [name, *[cell(result, name) for result in heats]] for name in in_order(n for r in heats for n in r["step_us"])
    ]
    rows += [
        ["gain by leaving out zeros", *map(gain, heats)],
        ["zeros in the input, %", *[percents((zeros(result, "end") or [])[:1]) for result in heats]],
        ["behind each ReLU, at the start", *[percents((zeros(result, "start") or [])[1:]) for result in heats]],
        ["behind each ReLU, at the end", *[percents((zeros(result, "end") or [])[1:]) for result in heats]],
    ]
    return markdown([f"{title}: µs per step", *map(column_title, heats)], rows)


def other_table(title: str, results: list[Result], found: list[dict[str, str]]) -> str:
    """Return something else of each contender, from its words by name in each heat."""
    names = in_order(name for one in found for name in one)
    rows = [[name, *[one.get(name, "-") for one in found]] for name in names]
    return markdown([title, *[f"{column_title(result)}, {group(result)}" for result in results]], rows)


def formatted(numbers: dict[str, float], form: str) -> dict[str, str]:
    """Return numbers as text."""
    return {name: format(number, form) for name, number in numbers.items()}


def zeros_in_words(result: Result) -> dict[str, str]:
    """Return each contender's share of zeros in the input and behind each ReLU, at the start and at the end."""
    start, end = result["zeros"]["start"], result["zeros"]["end"]
    return {name: f"{percents(shares)}, then {percents(end.get(name))}" for name, shares in start.items()}


def tables(content: Result) -> str:
    """Return the tables of step times, a paragraph of explanation, and those who are missing, from a race's JSON."""
    results = content["results"]
    words = (
        f"Microseconds a step, median of {content['rounds']} rounds; in brackets, the ratio to the first row of the"
        " column, median of the rounds' ratios. Zeros are of 1,024 rows, with the first row's weights."
    )
    return "\n\n".join([words, *[table(title, heats) for title, heats in grouped(results).items()], missing(*results)])


def draw(results: list[Result], words: str) -> bytes:
    """Return a picture: a panel for each heat, a bar a contender."""
    import io
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    from xpnet.plots import PALETTE, new_figure

    groups, networks = list(grouped(results)), list(dict.fromkeys(result["network"] for result in results))
    figure, axes = new_figure(len(groups), len(networks), width=5.0, height=3.0)
    colors = {"xpnet": PALETTE[0], "PyTorch": PALETTE[1], "JAX": PALETTE[2], "scikit-learn": PALETTE[3]}
    for result in results:
        one = axes[groups.index(group(result)), networks.index(result["network"])]
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
        one.set_title(f"{column_title(result)}\n{group(result)}", fontsize=9)
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
    parser.add_argument("--data", nargs="+", choices=("mnist", "random"), default=["mnist"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["standardized"])
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--contenders", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.7, help="of a turn")
    parser.add_argument("--checked", type=int, metavar="STEPS", help="after which losses are compared")
    parser.add_argument("--piece", type=int, default=CUDA_PIECE, help="steps in a call on a GPU")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for an answer")
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER", default=os.environ.get("XPNET_DATA_DIR"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a picture (needs matplotlib)")
    options = parser.parse_args()
    for name in ("rounds", "checked", "piece"):
        given = getattr(options, name)
        if given is not None and given < 1:
            parser.error(f"--{name} must be at least 1, got {given}")
    if options.seconds <= 0.0:
        parser.error(f"--seconds must be above 0, got {options.seconds:g}")
    check_folder(parser, options.json, options.picture)
    if options.picture:
        check_modules(parser, "matplotlib")
    entries = [entry for entry in ENTRIES[options.device] if entry.name in options.contenders]
    found = surroundings(options.device)
    results: list[Result] = []
    content: Result = {"rounds": options.rounds, "seconds": options.seconds, "results": results}
    mnist = None
    if "mnist" in options.data and any(NETWORKS[network][0][0] == PIXELS for network in options.networks):
        try:
            mnist = mnist_rows(options.data_dir)
        except (ImportError, OSError, ValueError) as error:
            parser.error(f"{error} (or take --data random)")
    heats = product(options.data, options.variants, options.optimizers, options.networks)
    for data, variant, optimizer, network in heats:
        sizes, batch_size = NETWORKS[network]
        data = data_for(sizes, data)
        about = {"network": network, "optimizer": optimizer, "data": data, "variant": variant, "dtype": options.dtype}
        print(f"{', '.join(about.values())} ...", file=sys.stderr, flush=True)
        problem = made_problem(sizes, batch_size, optimizer, data, variant, options.dtype, mnist)
        checked = options.checked or checked_steps(problem)
        heat = Heat(problem, entries, checked, options.piece, options.patience)
        results.append(about | heat.run(options.rounds, options.seconds))
        if options.json:  # what is there already is kept, whatever comes
            write_results(options.json, found, content)
    words = in_words(noted(found))
    print(words, tables(content), sep="\n\n", end="\n\n")
    for title, found_in in (
        ("loss after the first steps", [formatted(result["loss"], ".5f") for result in results]),
        ("peak memory, MiB", [formatted(result["peak_mib"], ",.0f") for result in results]),
        ("zeros in the input and behind each ReLU, %", [zeros_in_words(result) for result in results]),
    ):
        print(other_table(title, results, found_in), end="\n\n")
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
