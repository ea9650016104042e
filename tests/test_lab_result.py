"""Experiments in Python and in notebooks: results, HTML that is escaped, and errors."""

from __future__ import annotations

from dataclasses import replace

import pytest

import xpnet.lab
from xpnet.lab import Result, experiment, line, result, run


@pytest.fixture(scope="module")
def fitted():
    pytest.importorskip("matplotlib")
    return run("line", steps=10, lang="ko")


def test_the_package_has_what_it_promises():
    assert all(callable(getattr(xpnet.lab, name)) for name in xpnet.lab.__all__)


def test_the_text_is_that_of_the_command(fitted, capsys):
    assert line.main(["--steps", "10", "--lang", "ko", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{fitted}\n" == f"{fitted.text}\n"
    assert fitted.results.found.steps == 10
    assert "\n".join(fitted.lines) in fitted.text


def test_the_default_options_have_their_paragraph(monkeypatch):
    monkeypatch.setattr(result, "_can_draw", lambda: False)
    found = run("line")
    paragraph = "\n".join(experiment.wrap(found.experiment.text.english))
    assert paragraph in found.text
    assert paragraph not in run("line", steps=20).text


def test_the_html_of_a_notebook(fitted):
    """One language, the figure as a PNG, and no text of another's as markup."""
    shown = fitted._repr_html_()
    assert '<img style="max-width: 100%" alt="line" src="data:image/png;base64,iVBORw0KGgo' in shown
    assert fitted.figures["line"]._repr_png_().startswith(b"\x89PNG")
    assert fitted.experiment.title.korean in shown
    assert fitted.experiment.title.english not in shown
    evil = "<script>alert(1)</script>"
    claim = replace(fitted.verdicts[0][0], text=experiment.Words(evil, evil))
    verdict = replace(fitted.verdicts[0][1], number=evil, reason=experiment.Words(evil, evil))
    found = replace(
        fitted,
        lines=[evil],
        verdicts=[(claim, verdict), (claim, None)],
        figures={f'"{evil}': next(iter(fitted.figures.values()))},
    )
    shown = found._repr_html_()
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 6
    assert experiment.UNTESTED.korean in shown


def test_without_matplotlib_there_is_no_figure(monkeypatch):
    monkeypatch.setattr(result, "_can_draw", lambda: False)
    found = run("line", steps=3)
    assert isinstance(found, Result) and found.figures == {}
    assert "<img" not in found._repr_html_()


def test_pictures_are_written_where_wanted(tmp_path):
    pytest.importorskip("matplotlib")
    found = run("line", steps=3, out=tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(found.figures)


def test_small_numbers_are_no_options():
    assert run("line", start=[-1e-3, 1e-20], rate=1e-7, steps=2).results.rate == 1e-7


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lines", {}, "unknown experiment 'lines': did you mean 'line'"),
        ("line", {"stpes": 3}, "unknown option 'stpes' of line: did you mean 'steps'"),
        ("line", {"steps": 0}, "argument --steps: must be at least 1, not 0"),
        ("line", {"points": 1}, "a line needs at least 2 points (--points)"),
        ("line", {"start": [1]}, "argument --start: expected 2 arguments"),
        ("line", {"help": True}, "unknown option 'help' of line"),
        ("line", {"version": True}, "unknown option 'version' of line"),
        ("descent", {"function": "x +"}, "'x +' is not an expression in x"),
    ],
)
def test_errors_are_value_errors(name, options, message, capsys):
    with pytest.raises(ValueError) as caught:
        run(name, **options)
    assert message in str(caught.value)
    assert capsys.readouterr() == ("", "")
