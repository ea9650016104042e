"""Trials of a search: training them with progress, and reporting the results."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..commands import cli
from ..commands.options import build_trainer, command_line, folder, load_data, prepare_data, sentence
from ..core.errors import printable
from ..core.files import write_atomically
from ..core.interrupts import DeferredInterrupt
from ..model.metrics import TITLES
from ..search.groups import Trial, groups_of, train_all
from ..training import Config
from ..training.run_folder import finite
from .experiment import make_folder

VALIDATION = 0.1  # default share of the training rows


@dataclass(frozen=True)
class Trials:
    """Results of a search.

    Attributes:
        configs: the options of each trial.
        trials: the trials that were trained, in their order: `number`, the varied options, and the results.
        varied: names of the options that had more than one value.
        interruption: the interruption that ended the search early, or None.
    """

    configs: list[Config]
    trials: list[Trial]
    varied: list[str]
    interruption: KeyboardInterrupt | None = None

    def ranked(self) -> list[Trial]:
        """Trials that did not diverge, by their validation loss, the lowest first."""
        finite = [trial for trial in self.trials if math.isfinite(trial["validation_loss"])]
        return sorted(finite, key=lambda trial: trial["validation_loss"])

    def report(self, options: argparse.Namespace, name: str, table: Callable[[Trials, list[Trial]], str]) -> int:
        """Print the trials, write NAME.json and NAME.png where --out asks for them, and return the exit code.

        Raises the interruption, if there was one. `table` makes the text for people, of all trials and the ranked ones.
        """
        ranked = self.ranked()
        if options.json:
            print(json.dumps(finite({"best": ranked[0] if ranked else None, "trials": self.trials})))
        else:
            print(table(self, ranked))
        if options.out is not None:
            content = {"options": self.configs[0].as_dict(), "trials": self.trials}
            write_atomically(options.out / f"{name}.json", json.dumps(finite(content), indent=2) + "\n")
            note = self._draw(options.out / f"{name}.png")
            if not options.quiet:
                cli.tell(
                    f"{options.out / name}.json" + (f" and {name}.png" if note is None else f"; {name}.png {note}")
                )
        if self.interruption is not None:
            raise self.interruption
        return 0 if ranked else 1

    def train_command(self, trial: Trial, **changes: Any) -> str:
        """Command that trains the network of a trial, with other values of some options."""
        config = replace(self.configs[trial["number"]], **changes)
        return printable(f"python -m xpnet.train {command_line(config)}")

    def _draw(self, path: Path) -> str | None:
        """Draw the trials, or return the reason why not."""
        if not self.varied:
            return "was not drawn: nothing was varied"
        try:
            from ..plots import draw_trials
        except ImportError:
            return "was not drawn: matplotlib is missing; pip install 'xpnet[plot]'"
        write_atomically(path, draw_trials(self.trials, self.varied, metric_of(self.trials)))
        return None


def metric_of(trials: list[Trial]) -> str:
    """Name of the metric in trials."""
    return next(name for name in TITLES if f"validation_{name}" in trials[0])


def run_trials(configs: Sequence[Config], points: Sequence[Trial], options: argparse.Namespace, name: str) -> Trials:
    """Train a network for each config, with progress on stderr.

    Args:
        configs: the options of each network.
        points: the varied options of each network.
        options: the command's options.
        name: name of the files in --out, which are overwritten only with --overwrite.

    After Ctrl-C, the trials of the finished groups are returned; the interruption is raised where there are none.
    """
    if options.out is not None:
        make_folder(options.out)
        if (options.out / f"{name}.json").exists() and not options.overwrite:
            raise cli.UsageError(
                f"{options.out / name}.json is there already: choose another folder, or give --overwrite"
            )
    if configs[0].held_out is None:
        configs = [replace(config, validation=VALIDATION) for config in configs]
    base, groups = configs[0], groups_of(configs)
    device = cli.choose_device(base.device, require=options.require_device)
    data = prepare_data(base, load_data(base, offline=options.offline, quiet=options.quiet))
    for members in groups:  # all that can be wrong with the options is found before hours of training
        build_trainer([configs[members[0]]], data, device)
    if not options.quiet:
        cli.tell(sentence(base, data))
        cli.tell(f"{len(configs)} networks, of which {max(map(len, groups))} at most train together, on {device.name}")
    trials: dict[int, Trial] = {}
    interruption = None
    try:
        with SearchProgress(len(configs), quiet=options.quiet) as progress, DeferredInterrupt() as interrupt:
            for group in train_all(
                configs, data, device, on_epoch=progress.epoch, on_progress=lambda step: interrupt.check()
            ):
                trials |= {number: {"number": number} | points[number] | trial for number, trial in group.items()}
                progress.group(len(trials), [trial["validation_loss"] for trial in trials.values()])
    except KeyboardInterrupt as error:
        if not trials:
            raise
        interruption = type(error)(f"{len(trials)} of {len(configs)} networks were trained")
    varied = [key for key in points[0] if len({point[key] for point in points}) > 1]
    return Trials(list(configs), [trials[number] for number in sorted(trials)], varied, interruption)


class SearchProgress:
    """Progress on stderr: a live line on a terminal, one plain line a group elsewhere, nothing where `quiet`."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.total = total
        self.plain = not quiet and not sys.stderr.isatty()
        self.bar: Any = None
        if not quiet and not self.plain:
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit=" networks", dynamic_ncols=True)

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def epoch(self, row: dict[str, Any]) -> None:
        """Show the epoch that a group has reached."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {row['epoch']}, {row['seconds']:.2f} s each")

    def group(self, done: int, losses: list[float]) -> None:
        """Show the number of trained networks, and the lowest validation loss so far."""
        lowest = min((loss for loss in losses if math.isfinite(loss)), default=math.nan)
        if self.bar is not None:
            self.bar.update(done - self.bar.n)
        elif self.plain:
            cli.tell(f"{done}/{self.total} networks: lowest validation loss {lowest:.4f}")


def add_output_options(parser: cli.Parser, files: str) -> None:
    """Add --out, --json and --quiet."""
    add = parser.add_argument_group("output").add_argument
    add("--out", type=folder, default=None, metavar="DIR", help=f"write {files} into DIR")
    add("--overwrite", action="store_true", default=False, help="replace the files of an earlier search in DIR")
    add("--json", action="store_true", default=False, help="print one JSON object on stdout: best, and trials")
    add("--quiet", action="store_true", default=False, help="no progress on stderr")
