"""python -m xpnet.lab search: grid and random search on validation rows.

Networks of one shape train together, as replicas with rates, decays and dropout rates of their own. Random search draws
rates and decays evenly in their logarithm (Bergstra and Bengio, "Random search for hyper-parameter
optimization", 2012).
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..commands import cli
from ..commands.options import add_options, config_of
from ..core.checks import check_int
from ..core.rng import Purpose, stream
from ..search.groups import Trial
from ..training import Config
from .trials import Trials, add_output_options, metric_of, run_trials

SEARCHED: dict[str, tuple[Any, ...]] = {
    "lr": (3e-4, 1e-3, 3e-3, 1e-2),
    "weight_decay": (None,),  # the optimizer's own
    "dropout": (0.0, 0.2),
    "depth": (1, 2, 3),
    "width": (100,),
    "batch_size": (128,),
}
"""Options that are searched over, and the default values to try."""

TRIALS = 24
SHOWN = 20  # trials in the table for people


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    base = config_of(parser, options)
    try:
        space = space_of(base, {name: getattr(options, f"tried_{name}") for name in SEARCHED})
        if options.method == "grid":
            if options.trials is not None:
                raise ValueError("--trials goes with --method random: a grid has as many as its values make")
            points = grid(space)
        else:
            points = draw(space, TRIALS if options.trials is None else check_int("trials", options.trials), base.seed)
        configs = [configure(base, point) for point in points]
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    found = run_trials(configs, points, options, "search")
    return found.report(options, "search", _table)


def space_of(base: Config, given: dict[str, Sequence[Any] | None]) -> dict[str, Sequence[Any]]:
    """Values to try of each option: those given, else the one in `base` (from a file, say), else SEARCHED's.

    Raises TypeError or ValueError, naming the option, for a value that cannot be.
    """
    usual = Config()
    own: dict[str, Sequence[Any]] = {
        name: (getattr(base, name),)
        for name in ("lr", "weight_decay", "dropout", "batch_size")
        if getattr(base, name) != getattr(usual, name)
    }
    if base.hidden != usual.hidden and len(set(base.hidden)) == 1:
        own |= {"depth": (len(base.hidden),), "width": base.hidden[:1]}
    space = {name: given[name] or own.get(name, values) for name, values in SEARCHED.items()}
    for name, values in space.items():
        for value in values:
            configure(base, {"depth": 1, "width": 1, name: value})
    return space


def grid(space: dict[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values in `space`."""
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


def draw(space: dict[str, Sequence[Any]], trials: int, seed: int) -> list[dict[str, Any]]:
    """Draw random combinations: a pure function of the arguments.

    Rates and decays are drawn evenly in their logarithm, and dropout rates evenly, between the least and the largest in
    `space`; the others are one of the values. Where 0 is among the decays, half of them are 0.
    """
    generator = stream(seed, Purpose.SEARCH, 0)

    def between(values: Sequence[float]) -> float:
        low, high = math.log(min(values)), math.log(max(values))
        return float(f"{math.exp(generator.uniform(low, high)):.3g}")

    def one(name: str, values: Sequence[Any]) -> Any:
        if len(set(values)) == 1:
            return values[0]
        if name in ("lr", "weight_decay"):
            positive = [value for value in values if value > 0.0]
            none = len(positive) < len(values) and (not positive or generator.uniform() < 0.5)
            return 0.0 if none else between(positive)
        if name == "dropout":
            return round(float(generator.uniform(min(values), max(values))), 3)
        return values[int(generator.integers(len(values)))]

    return [{name: one(name, values) for name, values in space.items()} for _ in range(trials)]


def configure(base: Config, point: dict[str, Any]) -> Config:
    """Config of one combination: `base` with the combination's values."""
    values = dict(point)
    depth, width = (check_int(name, values.pop(name)) for name in ("depth", "width"))
    return replace(base, hidden=(width,) * depth, **values)


def _table(found: Trials, ranked: list[Trial]) -> str:
    """Table with a line for each of the best trials, and the command that trains the best one."""
    metric = metric_of(found.trials)
    varied = found.varied
    head = ["", "validation loss", f"validation {metric}", *(name.replace("_", " ") for name in varied), "epoch"]
    lines = [head]
    for place, trial in enumerate(ranked[:SHOWN], 1):
        measured = [f"{trial['validation_loss']:.4f}", f"{trial['validation_' + metric]:.4f}"]
        lines.append([str(place), *measured, *(f"{trial[name]:g}" for name in varied), str(trial["epoch"])])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    if len(ranked) > SHOWN:
        text.append(f"and {len(ranked) - SHOWN} more")
    if len(found.trials) > len(ranked):
        text.append(f"{len(found.trials) - len(ranked)} diverged")
    if ranked:
        text.append(found.train_command(ranked[0]))
    return "\n".join(text)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "lab.search",
        argument_default=argparse.SUPPRESS,
        description="Search for a good network and training. What is tried is judged by the loss on rows that are held"
        " out of the training rows; the test rows are not looked at.",
        epilog="A random search draws rates, decays and dropout rates between the least and the largest value given,"
        " and one of the values of the others; a grid search tries all combinations of the values.",
    )
    add = parser.add_argument_group("search").add_argument
    add("--method", choices=("random", "grid"), default="random", help="(default: random)")
    add("--trials", type=cli.whole_number, default=None, metavar="N", help=f"of a random search (default: {TRIALS})")
    for name, values in SEARCHED.items():
        kind = cli.whole_number if isinstance(values[0], int) else cli.number
        usual = " ".join("the optimizer's own" if value is None else f"{value:g}" for value in values)
        add(
            f"--{name.replace('_', '-')}",
            dest=f"tried_{name}",
            nargs="+",
            type=kind,
            default=None,
            metavar="VALUE",
            help=f"to try (default: {usual})",
        )
    add_options(parser, without=(*SEARCHED, "hidden"))
    add_output_options(parser, "search.json and search.png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
