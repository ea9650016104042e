"""python -m xpnet.lab all: every experiment, and a page of their results, in English and Korean."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence

from ..commands import cli
from ..core.files import write_atomically
from . import experiment
from .__main__ import EXPERIMENTS
from .experiment import Experiment, Lab
from .page import make_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every experiment with `arguments` (by default those of the process); return the exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = cli.Parser("lab.all", description="Run every experiment, and write a page that shows them: index.html.")
    experiment.add_common_options(parser, language="both")
    options = parser.parse_args(arguments)
    if options.out is None:
        parser.error("--out DIR must say where the page is to go")
    parts, started = [], time.perf_counter()
    for number, name in enumerate(EXPERIMENTS, 1):
        one: Experiment = importlib.import_module(f"xpnet.lab.{name}").EXPERIMENT
        begun = time.perf_counter()
        lab = run(one, options)
        parts.append((one, lab))
        seconds, total = time.perf_counter() - begun, time.perf_counter() - started
        lab.progress(f"{number}/{len(EXPERIMENTS)} {name}: {seconds:.0f} s, {total:.0f} s in all")
    path = options.out / "index.html"
    write_atomically(path, make_page(parts, options.seed))
    cli.tell(f"the page is {path}")
    return 0


def run(one: Experiment, options: argparse.Namespace) -> Lab:
    """Run an experiment with its own default options, and those that all have in common."""
    own = experiment.parser(one).parse_args([])
    lab = experiment.open_lab(argparse.Namespace(**(vars(own) | vars(options))))
    lab.captions = False  # the page has them below its pictures, in the reader's language
    lab.say(f"--- {one.name}: {one.title.english}")
    experiment.conduct(one, lab)
    lab.say()
    return lab


if __name__ == "__main__":
    sys.exit(main())
