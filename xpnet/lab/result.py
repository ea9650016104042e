"""Experiments as functions: `run("descent", rate=0.1)` returns numbers, verdicts and figures."""

from __future__ import annotations

import argparse
import base64
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NoReturn

import numpy as np

from ..commands import cli
from ..core.errors import did_you_mean
from . import experiment
from .experiment import ANSWERS, Claim, Experiment, Verdict, Words

NUMBERS = Words("Numbers", "결과 수치")


@dataclass(frozen=True)
class Result:
    """A finished experiment; a notebook shows it with its figures.

    Attributes:
        name: of the experiment.
        lines: lines of its numbers, as the command prints them.
        results: what the experiment computed, an object of its own module.
        verdicts: each claim of the posts with the verdict on it, None where the options do not test it.
        figures: matplotlib figures by name; empty without matplotlib.
        text: all that the command prints: title, formulas, numbers and verdicts.
    """

    name: str
    lines: list[str]
    results: Any
    verdicts: list[tuple[Claim, Verdict | None]]
    figures: dict[str, Any]
    text: str
    experiment: Experiment
    language: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        """HTML for a notebook: title, formulas, figures, verdicts, and the numbers folded away."""
        one = self.experiment

        def all_of(words: Words) -> str:
            return "<br>".join(map(escape, words.of(self.language)))

        claims = ""
        for claim, verdict in self.verdicts:
            answer = all_of(experiment.UNTESTED)
            if verdict is not None:
                answer = (
                    f"<b>{all_of(ANSWERS[verdict.answer])}</b>: {escape(verdict.number)}<br>{all_of(verdict.reason)}"
                )
            claims += f"<tr><td>{escape(claim.post)}</td><td>{all_of(claim.text)}</td><td>{answer}</td></tr>"
        table = f"<h4>{all_of(experiment.CLAIMS)}</h4><table>{claims}</table>" if claims else ""
        pictures = "".join(
            f'<p><img style="max-width: 100%" alt="{escape(name)}" src="data:image/png;base64,{_png(figure)}"></p>'
            for name, figure in self.figures.items()
        )
        formulas = "".join(f"<p><code>{escape(formula)}</code></p>" for formula in one.formula)
        numbers = "\n".join(self.lines)
        folded = f"<summary>{all_of(NUMBERS)}</summary><pre>{escape(numbers)}</pre>"
        return f"<h3>{all_of(one.title)}</h3>{formulas}{pictures}{table}<details>{folded}</details>"


def run(name: str, **options: Any) -> Result:
    """Run an experiment, and return its result.

    Args:
        name: of an experiment, as `python -m xpnet.lab` lists them.
        options: those of its command, with underscores: `rate=0.1`, `steps=[5, 50]`, `numerical=True`, `lang="ko"`.
            With `out` it also writes its pictures.

    Raises:
        ValueError: an option is unknown, or its value is wrong.

    >>> found = run("zigzag", rule="momentum", rate=0.1, device="cpu")
    >>> list(found.results.paths)
    ['Momentum']
    """
    from .__main__ import EXPERIMENTS  # late: python -m xpnet.lab imports this package before it runs that module

    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}: {did_you_mean(name, EXPERIMENTS)}")
    one: Experiment = importlib.import_module(f"{__package__}.{name}").EXPERIMENT
    try:
        lab = experiment.open_lab(_parse(one, options))
        lab.echo, lab.keep = False, _can_draw()
        lab.heading = experiment.heading(one, lab)
        experiment.conduct(one, lab)
    except cli.UsageError as error:
        raise ValueError(str(error)) from None
    text = "\n".join([*lab.heading, *lab.lines, *experiment.judgement(lab)])
    return Result(name, lab.lines, lab.results, lab.verdicts, lab.figures, text, one, lab.language)


class _Parser(cli.Parser):
    """A parser whose errors are ValueErrors."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(cli.one_sentence(message))


def _parse(one: Experiment, options: dict[str, Any]) -> argparse.Namespace:
    """Options of an experiment, from values."""
    parser = experiment.parser(one, _Parser)
    actions = {action.dest: action for action in parser._actions if action.option_strings}
    known = {name: action for name, action in actions.items() if name not in ("help", "version")}  # these end a process
    words = ["--quiet"]
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"unknown option {name!r} of {one.name}: {did_you_mean(name, known)}")
        option = f"--{name.replace('_', '-')}"
        several = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
        if known[name].nargs == 0:
            words += [option] if value else []
        elif several or known[name].nargs is not None:
            words += [option, *map(_word, value if several else [value])]
        else:
            words.append(f"{option}={_word(value)}")
    return parser.parse_args(words)


def _word(value: Any) -> str:
    """Value as it is typed; argparse takes -1e-3 for an option, and -0.001 for a number."""
    return np.format_float_positional(value, trim="-") if isinstance(value, float | np.floating) else str(value)


def _can_draw() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def _png(figure: Any) -> str:
    from ..plots import png

    return base64.b64encode(png(figure)).decode()
