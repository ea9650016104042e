"""Base of all experiments: a title, a paragraph, a function that prints numbers and draws pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..commands import cli
from ..commands.options import folder, named_folder
from ..core.device import Device, limit_threads
from ..core.files import try_writing, write_atomically
from ..core.rng import check_seed
from ..data import Dataset, load_named


@dataclass(frozen=True)
class Words:
    """A text in English and in Korean."""

    english: str
    korean: str


@dataclass(frozen=True)
class Picture:
    """A picture: its file, and a caption."""

    path: Path
    caption: Words


@dataclass
class Lab:
    """Environment of an experiment.

    Attributes:
        device: where to compute.
        out: folder of pictures; None draws none.
        seed: seed of all random numbers.
        options: options of the command.
        lines: lines that were printed.
        pictures: pictures that were drawn.
    """

    device: Device
    out: Path | None
    seed: int
    options: argparse.Namespace
    lines: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def say(self, line: str = "") -> None:
        """Print a line of results."""
        self.lines.append(line)
        print(line, flush=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table, its columns aligned to the right, but for the first."""
        widths = [max(len(str(cell)) for cell in column) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            cells = [str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)]
            self.say("  ".join([str(row[0]).ljust(widths[0]), *cells[1:]]).rstrip())

    def progress(self, line: str) -> None:
        """Print a line of progress on stderr."""
        if not self.options.quiet:
            cli.tell(line)

    def draw(self, name: str, caption: Words, draw: Callable[[], Any]) -> None:
        """Write the figure that `draw` returns as NAME.png, with its caption over it, where pictures are wanted."""
        if self.out is None:
            return
        from ..plots import add_heading, png

        figure = draw()
        add_heading(figure, caption.english, caption.korean)
        path = self.out / f"{name}.png"
        write_atomically(path, png(figure))
        self.pictures.append(Picture(path, caption))

    def mnist(self) -> Dataset:
        """Load MNIST, or, with a note, the bundled digits where it is not available."""
        quiet = self.options.quiet
        place = named_folder(self.options.data_dir)
        name = getattr(self.options, "dataset", None)
        data, note = load_named(name, place, offline=self.options.offline, progress=not quiet)
        if note:
            cli.tell(note)
        return data

    def pixels(self, data: Dataset, dtype: str = "float32") -> tuple[Any, Any, Any, Any]:
        """Return the rows and labels of a data set of pictures, flat and from 0 to 1, as arrays on the device."""
        parts = []
        for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
            flat = (x.reshape(len(x), -1) / data.input_scale).astype(dtype)
            parts += [self.device.asarray(flat), self.device.asarray(y.astype(np.int64))]
        return tuple(parts)


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        name: its name on the command line.
        title: title of its part of the page.
        text: a paragraph about it.
        run: the function that runs it.
        add_options: adds its own options to a parser; None for none.
    """

    name: str
    title: Words
    text: Words
    run: Callable[[Lab], None]
    add_options: Callable[[cli.Parser], None] | None = None


def main(experiment: Experiment, arguments: Sequence[str] | None = None) -> int:
    """Run an experiment as a command; return its exit code."""
    return cli.run(lambda words: _main(experiment, words), arguments)


def _main(experiment: Experiment, arguments: Sequence[str] | None) -> int:
    lab = open_lab(parser(experiment).parse_args(arguments))
    conduct(experiment, lab)
    for picture in lab.pictures:
        lab.progress(f"{picture.path}: {picture.caption.english}")
    return 0


def conduct(experiment: Experiment, lab: Lab) -> None:
    """Run an experiment on its device, on one BLAS thread: its networks are small, a second would gain nothing."""
    with limit_threads(1), lab.device.activate():
        experiment.run(lab)


def parser(experiment: Experiment) -> cli.Parser:
    """Return the parser of an experiment's options."""
    made = cli.Parser(f"lab.{experiment.name}", description=experiment.text.english)
    if experiment.add_options is not None:
        experiment.add_options(made)
    add_common_options(made)
    return made


def add_common_options(made: cli.Parser) -> None:
    """Add the options that every experiment has."""
    add = made.add_argument
    add("--out", type=folder, default=None, metavar="DIR", help="draw pictures into DIR (default: numbers alone)")
    add("--data-dir", metavar="DIR", help="look for MNIST in DIR alone (default: $XPNET_DATA_DIR, cache, download)")
    add("--offline", action="store_true", help="do not download")
    add("--seed", type=_seed, default=0, metavar="N", help="of all that is drawn (default: 0)")
    cli.add_device_options(add)
    add("--quiet", action="store_true", help="no progress on stderr")


def _seed(text: str) -> int:
    try:
        return check_seed(cli.whole_number(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def open_lab(options: argparse.Namespace) -> Lab:
    """Open the environment of an experiment; raises where the folder of pictures cannot be made."""
    device = cli.choose_device(options.device, require=options.require_device)
    if options.out is not None:
        try:
            import matplotlib  # noqa: F401 (checked before any work is done)
        except ImportError as error:
            reason = f"pictures need matplotlib ({error}): pip install 'xpnet[plot]', or leave out --out"
            raise cli.UsageError(reason) from None
        make_folder(options.out)
    return Lab(device, options.out, options.seed, options)


def make_folder(path: Path) -> None:
    """Make the folder of pictures; where it cannot be written, end the command before any work is done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        try_writing(path)
    except OSError as error:
        raise cli.UsageError(f"{path} cannot be written: {error.strerror or error}") from error
