"""Options of all experiments: each changes the numbers, unusual ones are drawn, wrong ones are one sentence."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from labs import give_digits

from xpnet.commands import cli
from xpnet.lab import __main__ as command
from xpnet.lab import descent, gradients, growth, minibatch, result, run
from xpnet.lab.experiment import WIDTH, parser

# By experiment: options that make it short, and another value of each of its options.
SHORT = {
    "descent": (
        {},
        {"function": "x^4 - x^2", "start": -1, "rate": 0.2, "steps": 7, "numerical": True},
    ),
    "line": (
        {"steps": 20},
        {"points": 9, "slope": 1, "intercept": -2, "noise": 0.1, "start": [0, 0], "rate": 0.01, "steps": 9},
    ),
    "zigzag": (
        {"steps": 60},
        {"function": "bowl", "start": [1, 1], "rule": ["Adam", "sgd"], "rate": 0.3, "steps": 50},
    ),
    "minima": (
        {"starts": 200, "steps": 300, "kick": 50},
        {"rate": 0.1, "peak": 1, "kick": 20, "starts": 190, "steps": 29, "depth": 0.4},
    ),
    "gradients": (
        {"hidden": [6], "sample": 4, "batch_size": 3},
        {"hidden": [5, 4], "activation": "tanh", "batch_size": 2, "sample": 3, "h": 0.01},
    ),
    "neuron": (
        {"steps": 5, "networks": 2, "deep_steps": 200, "hidden": [2], "activation": ["tanh"]},
        {
            "weights": [1, 2],
            "bias": -1,
            "rate": 2,
            "steps": 6,
            "hidden": [3, 1],
            "activation": ["relu"],
            "networks": 3,
            "deep_rate": 1e-6,
            "deep_steps": 1,
        },
    ),
    "activations": (
        {"hidden": [8], "steps": 11, "rate": [0.1], "activation": ["relu"]},
        {"activation": ["elu"], "hidden": [5, 4], "rate": [1, 3], "steps": 12, "batch_size": 7},
    ),
    "vanishing": (
        {"hidden": [6, 6], "steps": 5, "init": ["he"], "rate": [0.1], "activation": ["tanh"]},
        {
            "hidden": [6, 5, 4],
            "activation": ["gelu"],
            "init": [0.5, "lecun"],
            "rate": 1,
            "steps": 9,
            "batch_size": 5,
        },
    ),
    "batchnorm": (
        {"hidden": [6], "deviation": [1], "rate": [0.1], "steps": 3},
        {"hidden": [4, 6], "deviation": [0.5, 2], "rate": 3, "steps": 4, "batch_size": 9},
    ),
    "depth": (
        {"depth": [1], "width": [4], "seeds": 1, "steps": 9},
        {"depth": [1, 3], "width": [3, 5], "seeds": 2, "rate": 0.1, "steps": 8, "batch_size": 9},
    ),
    "logistic": (
        {"steps": 5},
        {
            "x": [1, -1],
            "y": 0,
            "w": [0, 0],
            "b": 1,
            "step": 2,
            "spread": 0.2,
            "rows": 9,
            "rate": 0.1,
            "steps": 6,
        },
    ),
    "race": (
        {"iterations": 12, "hidden": [6], "seeds": 2, "optimizers": ["Adam", "SGD"]},
        {
            "optimizers": ["nesterov", "adamw"],
            "rate": 0.02,
            "seeds": 3,
            "iterations": 13,
            "batch_size": 7,
            "hidden": [5, 4],
            "activation": "elu",
            "init": 0.5,
            "schedule": "cosine",
            "dataset": "digits",
            "dtype": "float64",
            "book_rates_only": True,
        },
    ),
    "minibatch": (
        {"batches": [50], "rates": [0.1], "at": 0.1},
        {
            "rows": 4,
            "hidden": 2,
            "batch_size": 2,
            "rate": 0.2,
            "steps": 3,
            "batches": [25, 100],
            "rates": [0.3],
            "at": 0.2,
        },
    ),
    "outputs": (
        {"steps": 9, "rows": 40},
        {"hidden": [5], "rate": 0.1, "steps": 8, "batch_size": 9, "rows": 30, "noise": 0.5, "spread": 2},
    ),
    "surface": ({}, {"start": -1.5}),
    "guessing": (
        {"guesses": 20, "epochs": 1, "hidden": 6},
        {"guesses": 30, "hidden": 5, "rate": 0.02, "batch_size": 50, "epochs": 2},
    ),
    "growth": ({}, {"first": 0.2, "rate": 2}),
    "drift": (
        {"hidden": [6, 6], "steps": 40},
        {"hidden": [7, 6, 5, 5, 5, 5], "rate": 0.01, "steps": 30, "batch_size": 9},
    ),
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    give_digits(monkeypatch)
    monkeypatch.setattr(descent, "STEPS", 50)
    monkeypatch.setattr(gradients, "SWEPT", 2)
    monkeypatch.setattr(growth, "ROUNDS", 1)
    monkeypatch.setattr(growth, "REPEATS", 1)
    monkeypatch.setattr(minibatch, "LEAST_STEPS", 20)
    monkeypatch.setattr(minibatch, "LEAST_ROWS", 400)


def own_options(name):
    own = cli.Parser(name)
    importlib.import_module(f"xpnet.lab.{name}").EXPERIMENT.add_options(own)
    return {action.dest for action in own._actions} - {"help", "version"}


def test_the_page_on_experiments_lists_every_option_and_its_commands_parse():
    page = (Path(__file__).parents[1] / "docs" / "experiments.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(.+)` \|$", page, re.MULTILINE)
    listed = {name: {option.removeprefix("--").replace("-", "_") for option in row.split()} for name, row in rows}
    assert listed == {name: own_options(name) for name in SHORT}
    commands = re.findall(r"^python -m xpnet.lab (.+)$", page, re.MULTILINE)
    for name, *words in map(shlex.split, commands):
        parser(importlib.import_module(f"xpnet.lab.{name}").EXPERIMENT).parse_args(words)


@pytest.mark.parametrize("name", SHORT)
def test_every_option_changes_the_numbers(name, monkeypatch):
    """Compared by the lines that are the same whenever it runs, which those with times are not."""
    monkeypatch.setattr(result, "_can_draw", lambda: False)
    base, others = SHORT[name]
    assert {*others} == own_options(name)
    first, second = (run(name, **base).lines for _ in range(2))
    stable = [i for i, (one, other) in enumerate(zip(first, second, strict=True)) if one == other]
    assert len(stable) > len(first) / 3
    for option, value in others.items():
        if option == "dataset":  # the digits stand in for MNIST anyway
            continue
        lines = run(name, **base | {option: value}).lines
        same = len(lines) == len(first) and all(lines[i] == first[i] for i in stable)
        assert not same, option


@pytest.mark.parametrize("name", SHORT)
def test_unusual_options_are_drawn_and_judged(name, capsys, monkeypatch):
    """All of them at once: nothing is printed but what the result holds, and its HTML has every figure."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(result, "_png", lambda figure: figure.draw_without_rendering() or "")
    others = {k: v for k, v in SHORT[name][1].items() if k != "book_rates_only"}
    found = run(name, **SHORT[name][0] | others, lang="both")
    assert capsys.readouterr() == ("", "")
    one = found.experiment
    assert found.figures and found._repr_html_().count('src="data:image/png;base64,') == len(found.figures)
    assert found.text.startswith(f"{one.title.english}\n{one.title.korean}\n")
    assert all(f"\n    {formula}\n" in found.text for formula in one.formula)
    assert " ".join(one.text.english.split()[:8]) not in found.text, "the paragraph is about the default options"
    assert [claim for claim, _ in found.verdicts] == list(one.claims)
    for claim, verdict in found.verdicts:
        assert claim.post in found.text
        if verdict is not None:
            english, korean = (re.search("[가-힣]", text) for text in (verdict.reason.english, verdict.reason.korean))
            assert (english, bool(korean)) == (None, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("descent --function x+", "argument --function: 'x+' is not an expression in x"),
        ("descent --start nan", "argument --start: 'nan' is not a finite number"),
        ("descent --steps 100001", "argument --steps: must be at most 100000, not 100001"),
        ("descent --rate 1 2 --steps 1 2 3", "give one number of steps for each of 2 rates, or one for all"),
        ("descent --function 1/x --start 0", "1/x from 0: f is inf at the start: there is no way down from there"),
        ("zigzag --function log(x) --start -1 0", "f is nan at the start"),
        ("logistic --w 1e300 1 --x 1e300 1", "the weighted sum of the sample is inf"),
        ("line --points 1", "a line needs at least 2 points (--points)"),
        ("line --noise -1", "argument --noise: must be above 0, not -1"),
        ("zigzag --rule adan", "argument --rule: unknown rule 'adan': did you mean 'Adam'"),
        ("zigzag --rule sgd adam --rate 1 2 3", "give one rate for all rules, or one for each of 2, not 3"),
        ("minima --depth 0.9", "argument --depth: must be from 0.25 to 0.43, not 0.9"),
        ("logistic --rows 1", "two clouds have at least 2 points (--rows)"),
        ("neuron --weights 1", "argument --weights: expected 2 arguments"),
        ("activations --activation step", "argument --activation: unknown activation 'step'"),
        ("vanishing --init hee", "argument --init: unknown initializer 'hee': did you mean 'he'"),
        ("batchnorm --batch-size 1", "--batch-size must be at least 2: one row has no deviation"),
        ("depth --depth 21", "argument --depth: must be at most 20, not 21"),
        ("gradients --h 0", "argument --h: must be above 0, not 0"),
        ("minibatch --rows 10 --batch-size 3", "--batch-size 3 does not divide 10 rows (--rows)"),
        ("outputs --rows 5", "five classes need at least 10 rows (--rows)"),
        ("surface --start 5", "argument --start: must be from -4.5 to 4.4, not 5"),
        ("growth --first 1", "argument --first: must be below 1, not 1"),
        ("guessing --guesses 0", "argument --guesses: must be at least 1, not 0"),
        ("race --lang fr", "argument --lang: invalid choice: 'fr'"),
    ],
)
def test_a_wrong_option_is_one_sentence(words, message, run, capsys):
    code, out, err = run(command, *words.split(), "--quiet")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_list_fits_a_terminal(capsys):
    assert command.main([]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= WIDTH
