"""Base of all experiments: a title, a paragraph, a function that prints numbers and draws pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..commands import cli
from ..commands.options import folder, named_folder
from ..core.device import Device, limit_threads
from ..core.errors import did_you_mean
from ..core.files import try_writing, write_atomically
from ..core.rng import check_seed
from ..data import Dataset, load_named
from ..nn.initializers import INITIALIZERS
from ..training.progress import hidden


@dataclass(frozen=True)
class Words:
    """A text in English and in Korean."""

    english: str
    korean: str

    def of(self, language: str) -> list[str]:
        """Lines of the text in a language of LANGUAGES: one, or both."""
        return {"en": [self.english], "ko": [self.korean]}.get(language, [self.english, self.korean])


LANGUAGES = ("en", "ko", "both")
ANSWERS = {
    "right": Words("right", "맞음"),
    "conditional": Words("right under conditions", "조건에 따라 맞음"),
    "wrong": Words("wrong", "틀림"),
}
"""Answers of a verdict, and their names."""


@dataclass(frozen=True)
class Verdict:
    """Judgement of a claim, computed from the results of a run.

    Attributes:
        answer: one of ANSWERS.
        number: the number that decides, as text that both languages share.
        reason: why, in a sentence that holds for these results.
    """

    answer: str
    number: str
    reason: Words


@dataclass(frozen=True)
class Claim:
    """A claim of a post.

    Attributes:
        post: the post's number, such as "002".
        text: the claim.
        judge: the verdict on what the experiment's `run` returned; None where its options do not test the claim.
    """

    post: str
    text: Words
    judge: Callable[[Any], Verdict | None]


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
        out: folder of pictures; None writes none.
        seed: seed of all random numbers.
        options: options of the command.
        language: of captions, one of LANGUAGES.
        echo: whether to print lines as they come.
        keep: whether to keep figures, also without a folder.
        captions: whether figures have their captions over them.
        heading: lines that are printed before the first of the results.
        lines: lines of results.
        pictures: pictures that were written.
        figures: matplotlib figures that were drawn, by name, where they are kept.
        results: what the experiment's `run` returned.
        verdicts: each claim of the experiment with the verdict on it.
    """

    device: Device
    out: Path | None
    seed: int
    options: argparse.Namespace
    language: str = "both"
    echo: bool = True
    keep: bool = False
    captions: bool = True
    heading: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    results: Any = None
    verdicts: list[tuple[Claim, Verdict | None]] = field(default_factory=list)

    def say(self, line: str = "") -> None:
        """Print a line of results, the first one below the heading."""
        above = [] if self.lines else self.heading
        self.lines.append(line)
        if self.echo:
            print(*above, line, sep="\n", flush=True)

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
        """Write the figure that `draw` returns as NAME.png, with its caption over it, where they are wanted."""
        if self.out is None and not self.keep:
            return
        from ..plots import add_heading, png

        figure = draw()
        if self.captions:
            add_heading(figure, caption.english, caption.korean, self.language)
        if self.keep:
            self.figures[name] = figure
        if self.out is None:
            return
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
        text: a paragraph about it, true of its default options.
        run: the function that runs it, and returns the results that its claims are judged by.
        add_options: adds its own options to a parser; None for none.
        formula: its formulas, a line each, in Unicode: "x ← x - η ∇f(x)".
        claims: claims of the posts that it tests.
    """

    name: str
    title: Words
    text: Words
    run: Callable[[Lab], Any]
    add_options: Callable[[cli.Parser], None] | None = None
    formula: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


def main(experiment: Experiment, arguments: Sequence[str] | None = None) -> int:
    """Run an experiment as a command; return its exit code."""
    return cli.run(lambda words: _main(experiment, words), arguments)


def _main(experiment: Experiment, arguments: Sequence[str] | None) -> int:
    lab = open_lab(parser(experiment).parse_args(arguments))
    lab.heading = heading(experiment, lab)
    conduct(experiment, lab)
    for line in judgement(lab):
        print(line)
    for picture in lab.pictures:
        for caption in picture.caption.of(lab.language):
            lab.progress(f"{picture.path}: {caption}")
    return 0


def conduct(experiment: Experiment, lab: Lab) -> None:
    """Run an experiment on its device, and judge its claims.

    It has one BLAS thread: its networks are small, and a second would gain nothing. Numbers that overflow are a result.
    """
    with limit_threads(1), lab.device.activate(), hidden(), np.errstate(all="ignore"):
        lab.results = experiment.run(lab)
    lab.verdicts = [(claim, claim.judge(lab.results)) for claim in experiment.claims]


def changed(experiment: Experiment, options: argparse.Namespace) -> bool:
    """Whether an option that results depend on differs from its default."""
    own = cli.Parser(experiment.name)
    if experiment.add_options is not None:
        experiment.add_options(own)
    defaults = vars(own.parse_args([])) | {"seed": 0}
    return any(getattr(options, name) != value for name, value in defaults.items())


def heading(experiment: Experiment, lab: Lab) -> list[str]:
    """Lines above an experiment's numbers: title, formulas and, where it describes this run, the paragraph."""
    titles = experiment.title.of(lab.language)
    lines = [*titles, "=" * max(map(cli.cells, titles)), ""]
    if not changed(experiment, lab.options):
        for paragraph in experiment.text.of(lab.language):
            lines += [*wrap(paragraph), ""]
    if experiment.formula:
        lines += [*(f"    {formula}" for formula in experiment.formula), ""]
    return lines


CLAIMS = Words("Claims of the posts", "글의 주장")
UNTESTED = Words("not tested by these options", "이 옵션으로는 확인할 수 없음")


def judgement(lab: Lab) -> list[str]:
    """Lines below an experiment's numbers: each claim, and the verdict on it."""
    if not lab.verdicts:
        return []
    titles = CLAIMS.of(lab.language)
    lines = ["", *titles, "-" * max(map(cli.cells, titles))]
    for claim, verdict in lab.verdicts:
        for i, text in enumerate(claim.text.of(lab.language)):
            lines += wrap(text, f"{claim.post}  " if i == 0 else "     ")
        if verdict is None:
            lines += [line for text in UNTESTED.of(lab.language) for line in wrap(text, "     ")]
            continue
        answers = " · ".join(ANSWERS[verdict.answer].of(lab.language))
        lines += wrap(f"→ {answers}: {verdict.number}", "     ")
        for text in verdict.reason.of(lab.language):
            lines += wrap(text, "     ")
    return lines


WIDTH = 80  # cells of a line of words


def wrap(text: str, indent: str = "") -> list[str]:
    """Text in lines of at most WIDTH cells, the first behind `indent`, the others behind as much space."""
    lines: list[list[str]] = [[]]
    for word in text.split():
        if lines[-1] and cli.cells(" ".join([indent + lines[-1][0], *lines[-1][1:], word])) > WIDTH:
            lines.append([])
        lines[-1].append(word)
    return [(" " * cli.cells(indent) if i else indent) + " ".join(line) for i, line in enumerate(lines)]


def parser(experiment: Experiment, kind: type[cli.Parser] = cli.Parser) -> cli.Parser:
    """Return the parser of an experiment's options."""
    made = kind(f"lab.{experiment.name}", description=experiment.text.english)
    if experiment.add_options is not None:
        experiment.add_options(made)
    add_common_options(made)
    return made


def add_common_options(made: cli.Parser, language: str = "en") -> None:
    """Add the options that every experiment has; `language` is the default of --lang."""
    add = made.add_argument
    add("--out", type=folder, default=None, metavar="DIR", help="draw pictures into DIR (default: numbers alone)")
    add("--data-dir", metavar="DIR", help="look for MNIST in DIR alone (default: $XPNET_DATA_DIR, cache, download)")
    add("--offline", action="store_true", help="do not download")
    add("--seed", type=_seed, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add("--lang", choices=LANGUAGES, default=language, help=f"language of texts and captions (default: {language})")
    cli.add_device_options(add)
    add("--quiet", action="store_true", help="no progress on stderr")


def count(text: str) -> int:
    """Type of an option: a whole number of at least 1."""
    value = cli.whole_number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def up_to(most: int) -> Callable[[str], int]:
    """Type of an option: a whole number from 1 to `most`."""

    def count_up_to(text: str) -> int:
        value = count(text)
        if value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, not {value}")
        return value

    return count_up_to


def positive(text: str) -> float:
    """Type of an option: a finite number above 0."""
    value = cli.number(text)
    if value <= 0.0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {value:g}")
    return value


def one_of(names: Iterable[str], kind: str) -> Callable[[str], str]:
    """Type of an option: one of these names, in any case, or an error that suggests one."""
    known = {name.lower(): name for name in names}

    def name(text: str) -> str:
        if text.lower() not in known:
            raise argparse.ArgumentTypeError(f"unknown {kind} {text!r}: {did_you_mean(text, known.values())}")
        return known[text.lower()]

    return name


def initial_weights(text: str) -> str | float:
    """Type of an option: the deviation of initial weights, or the name of an initializer."""
    try:
        return positive(text)
    except argparse.ArgumentTypeError:
        return one_of([name for name in INITIALIZERS if name != "zeros"], "initializer")(text)


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
    return Lab(device, options.out, options.seed, options, options.lang)


def make_folder(path: Path) -> None:
    """Make the folder of pictures; where it cannot be written, end the command before any work is done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        try_writing(path)
    except OSError as error:
        raise cli.UsageError(f"{path} cannot be written: {error.strerror or error}") from error
