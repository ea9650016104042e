"""python -m xpnet.runs: runs side by side, the best one first."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..core.checks import path_of
from ..core.errors import DataError, printable
from ..core.files import write_atomically
from ..model.metrics import TITLES
from ..search.journal import read_trials
from ..training import Config
from ..training.run_folder import finite
from ..training.run_record import RunRecord, read_run
from ..training.spread import DEVIATION
from . import cli
from .inputs import check_drawable

MOST_LEVELS = 4  # of folders within folders
ALWAYS = ("dataset", "hidden", "optimizer", "lr", "epochs", "device")  # options that are shown where all are equal, too
NOT_COMPARED = ("data_dir", "task")  # where data were found, and what the metric says
NAMES = (20, 12)  # cells that names of runs may be shortened to, before and after options go below


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.plot is not None:
        parser.check_writable(options.plot, "--plot")
        check_drawable(options.plot)
    seen: set[str] = set()
    runs = [run for folder in options.folder for run in _read_all(folder, seen)]
    if not runs:
        raise DataError(f"no run that has ended is in {', '.join(map(str, options.folder))}")
    metrics = [metric for metric in TITLES if any(run.metric == metric for run in runs)]
    tables = [Table.of([run for run in runs if run.metric == metric], options.folder) for metric in metrics]
    if options.json:
        for run in (run for table in tables for run in table.runs):
            print(json.dumps(finite({"run": str(run.path)} | dict(run.options) | dict(run.result))))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n\n".join(table.text(width) for table in tables))
    if options.plot is not None:
        from ..plots import draw_runs

        drawn = [(TITLES[one.metric], one.rows, one.metric, one.curves()) for one in tables]
        write_atomically(options.plot, draw_runs(drawn))
    return 0


def _read_all(folder: Path, seen: set[str]) -> Iterator[RunRecord]:
    """Yield the runs in a folder that are not `seen`, and report others; raise `DataError` where it is no folder."""
    if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises where it may not look)
        raise DataError(f"{folder} is no folder")
    for path in _folders(folder, MOST_LEVELS, seen):
        try:
            if _is_file(path / "trials.jsonl"):
                cli.tell(_search(path))
            elif _is_file(path / "config.json"):
                run = read_run(path)
                if run.note is not None:
                    cli.tell(run.note)
                yield run
            else:
                cli.tell(f"{path} holds no run")
        except DataError as error:
            cli.tell(error)


def _folders(folder: Path, levels: int, seen: set[str]) -> list[Path]:
    """Folders of runs and of searches in a folder, itself among them, and those directly in it that hold none.

    Folders whose real paths are in `seen` are left out: links may lead to one twice, or in a circle.
    """
    if (real := os.path.realpath(folder)) in seen:
        return []
    seen.add(real)
    own = [folder] if _holds_something(folder) else []
    try:
        inside = sorted(path for path in folder.iterdir() if os.path.isdir(path) and path.name[0] != ".")  # noqa: PTH112
    except OSError as error:
        cli.tell(f"{folder} cannot be read: {error.strerror or error}")
        return own
    for path in inside if levels else []:
        known = os.path.realpath(path) in seen
        own += _folders(path, levels - 1, seen) or ([path] if levels == MOST_LEVELS and not known else [])
    return own


def _holds_something(folder: Path) -> bool:
    """Whether a folder looks like one of a run or a search."""
    return _is_file(folder / "config.json") or _is_file(folder / "trials.jsonl")


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises where it may not look)


def _search(path: Path) -> str:
    """Sentence about a search."""
    trials, _ = read_trials(path / "trials.jsonl")
    scores = [trial["score"] for trial in trials.values() if math.isfinite(trial["score"])]
    best = f", the best with a score of {max(scores):.4f}" if scores else ""
    return f"{path} holds a search of {len(trials)} networks{best}: python -m xpnet.search --resume {path}"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its words, a line each.
        cells: a text for each run.
        option: whether it is an option, which a line below each run has where there is no room for a column.
    """

    title: str
    cells: list[str]
    option: bool = False

    @property
    def width(self) -> int:
        """Cells on a terminal of its widest text."""
        return max(map(cli.cells, (*self.title.split(), *self.cells)))


@dataclass(frozen=True)
class Table:
    """Runs with one metric, the best one first.

    Attributes:
        runs, names: the runs, and what they are called.
        metric: a name in `TITLES`.
        rows: "validation", where all runs have such rows, or "test": those that the order is by.
    """

    runs: list[RunRecord]
    names: list[str]
    metric: str
    rows: str

    @classmethod
    def of(cls, runs: Sequence[RunRecord], roots: Sequence[Path]) -> Table:
        """Make the table of runs that were found in the folders `roots`."""
        metric = runs[0].metric
        rows = "validation" if all(f"validation_{metric}" in run.result for run in runs) else "test"

        def place(run: RunRecord) -> tuple[bool, float]:
            score = run.figure(f"{rows}_{metric}")
            return math.isnan(score), -score

        ordered = sorted(runs, key=place)
        return cls(ordered, [_name(run.path, roots) for run in ordered], metric, rows)

    def curves(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Names and histories of the runs."""
        return [(name, run.history) for name, run in zip(self.names, self.runs, strict=True)]

    def text(self, width: int | None = None) -> str:
        """Lines of the table, at most `width` cells wide where that can be done."""
        columns, below = _fitted(self._columns(), width)
        lines = _wrapped(self._heading(), width)
        titles = [column.title.split() for column in columns]
        depth = max(map(len, titles))
        rows = zip(*([""] * (depth - len(words)) + words for words in titles), strict=True)
        lines += [_line(words, columns) for words in rows]
        for r in range(len(self.runs)):
            lines.append(_line([column.cells[r] for column in columns], columns))
            lines += _wrapped(
                ", ".join(f"{one.title} {one.cells[r]}" for one in below if one.cells[r] != "-"), width, 4
            )
        return "\n".join(lines)

    def _heading(self) -> str:
        """Sentence about all runs: their order, and the options that they share."""
        count, what = len(self.runs), f"{self.rows} {TITLES[self.metric]}"
        usual = {one.name: one.default for one in fields(Config)}
        first = self.runs[0].options
        shared = [name for name in (*ALWAYS, *usual) if name not in (*self._varied(), *NOT_COMPARED)]
        told = [name for name in dict.fromkeys(shared) if name in ALWAYS or first[name] != usual[name]]
        options = ", ".join(f"{name.replace('_', '-')} {_shown(first[name])}" for name in told)
        order = f"{count} runs, the best {what} first" if count > 1 else "1 run"
        return f"{order}: {'all with ' * (count > 1)}{options}" if options else order

    def _varied(self) -> list[str]:
        """Names of the options in which runs differ."""
        names = [one.name for one in fields(Config) if one.name not in NOT_COMPARED]
        first = self.runs[0].options
        return [name for name in names if any(run.options[name] != first[name] for run in self.runs)]

    def _columns(self) -> list[Column]:
        varied = self._varied()
        before = [name for name in ALWAYS[:4] if name in varied]
        before += [name for name in varied if name not in ALWAYS]
        after = ["device"] if "device" in varied else []
        options = {
            name: Column(name.replace("_", "-"), [_shown(run.options[name]) for run in self.runs], option=True)
            for name in (*before, *after)
        }
        results = [Column("epochs", [_shown(run.options["epochs"]) for run in self.runs])] * ("epochs" in varied)
        best = [run.result.get("best_epoch") for run in self.runs]
        if any(epoch is not None for epoch in best):
            results.append(Column("best epoch", [_from_to(epoch) for epoch in best]))
        for rows in ("validation", "test"):
            name = f"{rows}_{self.metric}"
            if any(name in run.result for run in self.runs):
                results.append(Column(f"{rows} {TITLES[self.metric]}", _figures(self.runs, name)))
        results.append(Column("seconds", _figures(self.runs, "seconds", ".1f")))
        run = Column("run", [printable(name) for name in self.names])
        return [run, *(options[name] for name in before), *results, *(options[name] for name in after)]


def _fitted(columns: list[Column], width: int | None) -> tuple[list[Column], list[Column]]:
    """Return the columns that fit into a width, names of runs shortened, and the options that do not."""
    below: list[Column] = []
    for least in NAMES if width is not None else ():
        while (over := sum(one.width + 2 for one in columns) - 2 - (width or 0)) > 0:
            run, *others = columns
            options = [one for one in others if one.option]
            if run.width > least:
                most = max(run.width - over, least)
                columns = [Column(run.title, [_end(name, most) for name in run.cells]), *others]
            elif options:
                columns = [one for one in columns if one is not options[-1]]
                below.insert(0, options[-1])
            else:
                break
    return columns, below


def _wrapped(text: str, width: int | None, indent: int = 0) -> list[str]:
    """Lines of a text, in a width where there is one."""
    margin = " " * indent
    how: dict[str, Any] = {"initial_indent": margin, "subsequent_indent": margin, "break_on_hyphens": False}
    return textwrap.wrap(text, width or sys.maxsize, **how)


def _line(cells: Sequence[str], columns: Sequence[Column]) -> str:
    """A line of a table: the first cell on the left, the others on the right of their columns."""
    first = cells[0] + " " * (columns[0].width - cli.cells(cells[0]))
    others = [cli.align_right(cell, column.width) for cell, column in zip(cells[1:], columns[1:], strict=True)]
    return "  ".join([first, *others]).rstrip()


def _end(text: str, width: int) -> str:
    """A text, or, where it has more than `width` cells, its end."""
    if cli.cells(text) <= width:
        return text
    while cli.cells(text) > width - 1:
        text = text[1:]
    return f"…{text}"


def _name(path: Path, roots: Sequence[Path]) -> str:
    """Name of a run: its path below the folder that was given, or all of it where there were several."""
    if len(roots) == 1 and path != roots[0]:
        return str(path.relative_to(roots[0]))
    return str(path)


def _figures(runs: Sequence[RunRecord], name: str, digits: str = ".4f") -> list[str]:
    """A figure of each run, - where there is none, and deviations behind, so that the figures are below each other."""
    values = ["-" if math.isnan(run.figure(name)) else f"{run.figure(name):{digits}}" for run in runs]
    deviations = [run.figure(f"{name}{DEVIATION}") for run in runs]
    behind = [f" ± {deviation:.4f}" if math.isfinite(deviation) else "" for deviation in deviations]
    most = max(map(len, behind))
    return [value + text.ljust(most) for value, text in zip(values, behind, strict=True)]


def _shown(value: Any) -> str:
    """An option's value, as people read it; - where there is none."""
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else printable(value)


def _from_to(epoch: Any) -> str:
    """An epoch, or those of several networks, from the first to the last."""
    if isinstance(epoch, list) and min(epoch) < max(epoch):
        return f"{min(epoch)}-{max(epoch)}"
    return _shown(epoch[0] if isinstance(epoch, list) else epoch)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "runs",
        description="Compare runs: one line per run, the best first, with the options in which they differ as columns."
        " Runs that have not ended or that diverged, searches, and folders of other things get a line on stderr.",
        epilog="Exit codes: 0; 1 a file cannot be written; 2 arguments, or no run that has ended; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("folder", type=path_of, nargs="+", metavar="DIR", help="a folder of runs, or the folder of one (train --out)")
    add("--plot", type=path_of, metavar="FILE.png", help="draw loss and metric of all runs by epoch")
    add("--json", action="store_true", help="print a JSON object per run: its options, and its result")
    return parser


if __name__ == "__main__":
    sys.exit(main())
