"""python -m xpnet.search: many networks at once, and the best of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..core.device import Device
from ..core.errors import DataError, printable
from ..core.files import Lock, write_atomically
from ..model.metrics import TITLES
from ..search.groups import groups_of
from ..search.journal import Trial
from ..search.search import METHODS, OF_MACHINE, TRIALS, Results, configs_of, search
from ..search.space import LINEAR, LOGARITHMIC, SEARCHABLE, WHOLE, Space
from ..training.config import LONGEST, SEVERAL, Config
from ..training.run_folder import finite
from . import cli
from .options import add_options, command_line, config_of, folder, init_of, load_data, seeds_of, sentence, units_of
from .ranks import under_mpiexec

DEFAULT_SPACE = {"lr": ["1e-4..1e-2"], "hidden": ["100", "100 100", "100 100 100"], "dropout": ["0", "0.2"]}
SETTINGS_OF = ("method", "trials", "seeds", "halving", "first_rung")  # of a search, besides its space
WITHOUT = (*SEVERAL, "calibrate")  # options of a run that a search has not, or, as seeds, with another meaning
SHOWN = 20  # trials in the table for people
JOURNAL, SETTINGS, MODEL = "trials.jsonl", "search.json", "best.safetensors"
FILES = (SETTINGS, JOURNAL, MODEL, "search.png", "learning-curves.png")
EPILOG = (
    "An option that is searched over takes several values, or, of numbers, a range: --lr 1e-4..1e-2 (and 1e-4..1e-2:5"
    ' are five values of it). A value of --hidden is a network: --hidden "100" "256 128". Networks are judged by rows'
    " that are held out of the training rows; the test rows are never looked at."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code.

    Under mpiexec, the first process runs it, and the others train.
    """
    if not under_mpiexec():
        return cli.run(_main, arguments)
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor
    except ImportError:
        cli.tell("error: under mpiexec, a search needs mpi4py: pip install 'xpnet[mpi]'")
        return 2
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        chosen: Any = executor  # of mpi4py, whose types are no Executor's
        return 0 if chosen is None else cli.run(lambda words: _main(words, chosen), arguments)


def _main(arguments: Sequence[str] | None, executor: Executor | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    kept = _resumed(parser, options)
    base = config_of(parser, options, without=WITHOUT)
    words = {name: vars(options)[f"tried_{name}"] for name in SEARCHABLE if vars(options)[f"tried_{name}"] is not None}
    if kept is not None:
        words = kept["space"]
        for name in SETTINGS_OF:
            setattr(options, name, kept[name])
    settings = {name: getattr(options, name) for name in SETTINGS_OF}
    try:
        words = words or _default_space(base)
        space = Space({name: [_value(name, word) for word in tried] for name, tried in words.items()})
        seeds = None if options.seeds is None else seeds_of(options.seeds)
        choices = settings | {"seeds": seeds}
        configs_of(space, base, **choices)  # what is wrong with them is found before data are read
    except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))
    data = load_data(base, offline=options.offline, quiet=options.quiet)
    device = cli.choose_device(base.device, require=options.require_device)
    about = {"options": base.as_dict(), "search": {"space": words} | settings}
    with _folder(options, about), _executor(parser, options, executor) as chosen:
        results = _searched(parser, options, space, choices, base, data, device, chosen)
        return _report(results, options)


def _searched(
    parser: cli.Parser,
    options: argparse.Namespace,
    space: Space,
    choices: dict[str, Any],
    base: Config,
    data: Any,
    device: Device,
    executor: Executor | None,
) -> Results:
    """Search, with progress on stderr; options that cannot be end the command."""

    def begin(results: Results) -> None:
        if not options.quiet:
            groups = len(groups_of(results.configs, results.data))
            cli.tell(sentence(base, data))
            cli.tell(f"{len(results.configs)} networks in {groups} group{'s' * (groups > 1)}, on {device.name}")

    with SearchProgress(options) as progress:
        try:
            return search(
                space,
                data,
                base,
                **choices,
                executor=executor,
                workers=options.workers,
                threads=base.threads,
                device=device,
                journal=None if options.out is None else options.out / JOURNAL,
                best=None if options.out is None else options.out / MODEL,
                on_begin=begin,
                on_trial=progress.trial,
            )
        except DataError:
            raise
        except (TypeError, ValueError) as error:
            parser.error(str(error))


def _resumed(parser: cli.Parser, options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the settings of the search that is gone on with; None for a new one."""
    if options.resume is None:
        return None
    given = [name for name in SEARCHABLE if vars(options)[f"tried_{name}"] is not None]
    names = [one.name for one in fields(Config) if one.name not in (*OF_MACHINE, *WITHOUT)]
    given += [name for name in names if name in options]
    usual = parser.parse_args([])
    given += [name for name in (*SETTINGS_OF, "out", "overwrite") if getattr(options, name) != getattr(usual, name)]
    given += ["config"] * ("config" in options)
    if given:
        option = given[0].replace("_", "-")
        parser.error(f"--resume goes on with a search as it was: --{option} cannot be given")
    path = options.resume / SETTINGS
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(LONGEST))
        kept: dict[str, Any] = content["search"]
        if not all(
            isinstance(words, list) and all(isinstance(w, str) for w in words) for words in kept["space"].values()
        ):
            raise ValueError
        kept = {name: kept[name] for name in ("space", *SETTINGS_OF)}
    except OSError:
        raise DataError(f"{options.resume} holds no search to go on with: there is no {SETTINGS}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DataError(f"{path} is not the {SETTINGS} of a search") from None
    options.config, options.out = path, options.resume
    return kept


@contextlib.contextmanager
def _folder(options: argparse.Namespace, about: dict[str, Any]) -> Iterator[None]:
    """Context in which the folder of the search is there, holds its settings, and no other search writes it.

    Raises DataError where it holds a run, or a search already, or cannot be written.
    """
    if options.out is None:
        yield
        return
    with contextlib.ExitStack() as undo:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            undo.callback(Lock(options.out / ".xpnet-lock").release)
            if (options.out / "config.json").exists():
                raise DataError(f"{options.out} holds a run; choose another folder")
            old = [name for name in FILES if (options.out / name).exists()]
            if options.resume is None:
                if old and not options.overwrite:
                    raise DataError(
                        f"{options.out} already holds a search; choose another folder, --overwrite or --resume"
                    )
                for name in old:
                    (options.out / name).unlink()
                write_atomically(options.out / SETTINGS, json.dumps(about, indent=2) + "\n")
        except BlockingIOError:
            raise DataError(f"{options.out} is being written by another search") from None
        except OSError as error:
            raise DataError(f"{options.out} cannot be written: {error.strerror or error}") from error
        yield


@contextlib.contextmanager
def _executor(parser: cli.Parser, options: argparse.Namespace, given: Executor | None) -> Iterator[Executor | None]:
    """Context with the executor that is given, or that the options ask for; None for processes of this machine."""
    if options.dask is None:
        yield given
        return
    try:
        from distributed import Client
    except ImportError:
        parser.error("--dask needs dask: pip install 'xpnet[dask]'")
    try:
        client: Any = Client(options.dask, timeout=5)
    except (OSError, ValueError, TimeoutError) as error:
        parser.error(f"no Dask scheduler answers at {options.dask}: {error}")
    with client:
        executor = client.get_executor()
        options.workers = options.workers or max(1, len(client.scheduler_info()["workers"]))
        yield executor


def _report(results: Results, options: argparse.Namespace) -> int:
    """Print the trials, and write what --out asks for; return the exit code."""
    best = results.best
    importance, command = results.importance(), None
    if best is not None:
        command = printable(f"python -m xpnet.train {command_line(results.configs[best['trial']])}")
    if options.json:
        found = {"best": best, "trials": results.trials, "importance": importance, "command": command}
        print(json.dumps(finite(found)))
    else:
        print(_table(results))
        if command is not None:
            print(command)
    if options.out is not None:
        note = _draw(results, importance, options.out)
        if not options.quiet:
            cli.tell(f"the search is in {options.out}" if note is None else note)
    if results.interruption is not None:
        done = f"{len(results.trials)} of {len(results.configs)} networks were trained"
        how = "" if options.out is None else f"; go on with --resume {options.out}"
        raise type(results.interruption)(done + how)
    return 0 if best is not None else 1


def _table(results: Results) -> str:
    """Table with a line for each of the best trials."""
    ranked, varied = results.ranked, results.varied
    metric = next((name for name in TITLES if ranked and f"validation_{name}" in ranked[0]), "accuracy")
    lines = [["", "trial", f"validation {TITLES[metric]}", "validation loss", *varied, "epochs"]]
    for place, trial in enumerate(ranked[:SHOWN], 1):
        measured = [str(trial["trial"]), f"{trial['score']:.4f}", f"{trial['validation_loss']:.4f}"]
        lines.append([str(place), *measured, *(_shown(trial[name]) for name in varied), str(trial["epochs"])])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    if len(ranked) > SHOWN:
        text.append(f"and {len(ranked) - SHOWN} more")
    given_up = sum("error" in trial for trial in results.trials)
    for count, what in ((len(results.trials) - len(ranked) - given_up, "diverged"), (given_up, "were given up")):
        text += [f"{count} {what}"] * (count > 0)
    return "\n".join(text)


def _shown(value: Any) -> str:
    """An option's value, as it is typed."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _draw(results: Results, importance: dict[str, float], out: Path) -> str | None:
    """Draw the trials and their curves, or return the reason why not."""
    try:
        from ..plots import draw_search, draw_trial_curves
    except ImportError:
        return "no pictures were drawn: matplotlib is missing; pip install 'xpnet[plot]'"
    if results.ranked:
        picture = draw_search(results.trials, results.varied, importance, LOGARITHMIC)
        write_atomically(out / "search.png", picture)
        write_atomically(out / "learning-curves.png", draw_trial_curves(results.trials))
    return None


class SearchProgress:
    """Progress on stderr: a live line on a terminal, a plain line now and then elsewhere, nothing where `quiet`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._plain = not options.quiet and not sys.stderr.isatty()
        self._bar: Any = None
        self._told = 0
        if not options.quiet and not self._plain:
            from tqdm import tqdm

            self._bar = tqdm(unit=" networks", dynamic_ncols=True)

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def trial(self, trial: Trial, results: Results) -> None:
        """Show the number of trials that have ended, and the best score."""
        done, total = len(results.trials), len(results.configs)
        best = max((one["score"] for one in results.trials if math.isfinite(one["score"])), default=math.nan)
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_postfix_str(f"best score {best:.4f}", refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._plain and (done - self._told >= total / 10 or done == total):
            self._told = done
            cli.tell(f"{done}/{total} networks: best score {best:.4f}")


def _default_space(base: Config) -> dict[str, list[str]]:
    """Return the usual space, without the options that a file sets; where it sets all, its own learning rate."""
    usual = Config()
    free = {name: words for name, words in DEFAULT_SPACE.items() if getattr(base, name) == getattr(usual, name)}
    return free or {"lr": [str(base.lr)]}


def _value(name: str, word: str) -> Any:
    """Return the value of an option that a word is; ranges stay words."""
    if ".." in word:
        return word
    if name in WHOLE:
        return cli.whole_number(word)
    if name in (*LOGARITHMIC, *LINEAR):
        return cli.number(word)
    if name == "hidden":
        return tuple(units_of([word]))
    if name == "activation":
        return tuple(word.split())
    if name == "init":
        return init_of(word)
    if name == "batch_norm":
        if word not in ("yes", "no"):
            raise ValueError(f"batch_norm must be yes or no, not {word!r}")
        return word == "yes"
    return word


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "search",
        argument_default=argparse.SUPPRESS,
        description="Train many networks at once, on one machine or several, and find the best options.",
        epilog=EPILOG,
    )
    add = parser.add_argument_group("search").add_argument
    add("--method", choices=METHODS, default="random", help="(default: random)")
    add("--trials", type=cli.whole_number, default=None, metavar="N", help=f"random points (default: {TRIALS})")
    add("--seeds", nargs="+", default=None, metavar="0-4", help="try each point with these seeds (default: --seed)")
    add("--halving", type=cli.whole_number, default=None, metavar="N", help="one trial of N trains on past each rung")
    add("--first-rung", type=cli.whole_number, default=1, metavar="N", help="its fewest epochs (default: 1)")
    for name in SEARCHABLE:
        usual = " ".join(map(shlex.quote, DEFAULT_SPACE.get(name, [])))
        text = "to try" + f" (default: {usual})" * bool(usual)
        how: dict[str, Any] = {"nargs": "+", "default": None, "metavar": "VALUE"}
        add(f"--{name.replace('_', '-')}", dest=f"tried_{name}", help=text, **how)
    add = parser.add_argument_group("machines").add_argument
    add("--workers", type=cli.whole_number, default=None, metavar="N", help="processes of this machine (default: 1)")
    add("--dask", default=None, metavar="ADDRESS", help="of a Dask scheduler, whose workers train")
    add_options(parser, without=(*SEARCHABLE, *WITHOUT))
    add = parser.add_argument_group("output").add_argument
    add("--out", type=folder, default=None, metavar="DIR", help=f"write {', '.join(FILES)} into DIR")
    add("--overwrite", action="store_true", default=False, help="replace the search that is in DIR")
    add("--resume", type=folder, default=None, metavar="DIR", help="go on with the search in DIR")
    add("--json", action="store_true", default=False, help="print one JSON object on stdout: best, and trials")
    add("--quiet", action="store_true", default=False, help="no progress on stderr")
    return parser


if __name__ == "__main__":
    sys.exit(main())
