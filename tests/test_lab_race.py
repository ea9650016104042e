"""The race: against the same race in PyTorch, and what its command prints."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labs import give_digits, lab_on

from xpnet import load_digits, load_mnist
from xpnet.core.device import CPU, limit_threads
from xpnet.lab import race

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("race.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def one_thread():
    """As the command runs it: a second BLAS thread gains nothing, and on a busy machine waits."""
    with limit_threads(1):
        yield


def track(data, dtype, iterations=race.ITERATIONS, device=CPU):
    parts = []
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        flat = (x.reshape(len(x), -1) / data.input_scale).astype(dtype)
        parts += [device.asarray(flat), device.asarray(y.astype(np.int64))]
    batches = race.draw_batches(0, race.ITERATIONS, len(data.x_train), race.BATCH)[:iterations]
    sizes = (parts[0].shape[1], *race.HIDDEN, 10)
    return race.Track(sizes, tuple(parts), batches, device, dtype=dtype)


def test_the_first_losses_are_pytorchs(mnist_dir):
    """In float64, for each rule, the first 20 to 1e-8."""
    start = track(load_mnist(mnist_dir), "float64", iterations=20)
    for name, expected in GOLDEN["first"].items():
        losses = race.run_race(start, race.RACERS[name].make(race.RACERS[name].rate)).after
        np.testing.assert_allclose(losses, expected, rtol=1e-8, err_msg=name)


@pytest.mark.slow
def test_the_end_is_pytorchs(mnist_dir):
    """In float32, the mean loss of the last 100 of 2,000 iterations within a quarter; and who is clearly ahead."""
    start = track(load_mnist(mnist_dir), "float32")
    ends = {}
    for name, expected in GOLDEN["last"].items():
        found = race.run_race(start, race.RACERS[name].make(race.RACERS[name].rate))
        ends[name] = found.after[-race.LAST :].mean()
        assert ends[name] == pytest.approx(expected, rel=0.25), name
        assert found.accuracy > 0.92
    for one, other in itertools.permutations(GOLDEN["last"], 2):
        if GOLDEN["last"][one] > 1.4 * GOLDEN["last"][other]:
            assert ends[one] > ends[other], (one, other)


def test_rates_race_side_by_side_as_alone(stand_in):
    """Replicas with rates of their own, from the same weights; and the same on the stand-in device, bit for bit."""
    digits = load_digits()
    start = track(digits, "float64", iterations=30)
    rates = (0.001, 0.01)
    together = race.run_race(start, race.Adam(rates))
    for i, rate in enumerate(rates):
        alone = race.run_race(start, race.Adam(rate))
        np.testing.assert_allclose(together.before[:, i], alone.before, rtol=1e-10)
        np.testing.assert_allclose(together.after[:, i], alone.after, rtol=1e-10)
        assert together.accuracy[i] == alone.accuracy
    there = race.run_race(track(digits, "float64", iterations=30, device=stand_in), race.Adam(rates))
    assert (there.after == together.after).all()


def test_losses_before_and_after_an_update():
    """Of one batch again and again, the loss before an update is that after the one before it."""
    start = track(load_digits(), "float64", iterations=1)
    start = replace(start, batches=np.repeat(start.batches, 5, axis=0))
    found = race.run_race(start, race.SGD(0.01))
    np.testing.assert_allclose(found.before[1:], found.after[:-1], rtol=1e-12)
    assert (found.after < found.before).all()


def test_smoothing():
    np.testing.assert_allclose(race.smooth(np.full(30, 2.0)), 2.0)
    assert len(race.smooth(np.arange(50.0))) == 50


def test_the_command(run_lab, monkeypatch):
    give_digits(monkeypatch)
    short = (
        "--iterations",
        "120",
        "--hidden",
        "20",
        "--batch-size",
        "50",
        "--optimizers",
        "sgd",
        "adam",
        "--seeds",
        "3",
    )
    out, pictures = run_lab("race", *short)
    assert pictures == ["race-best.png", "race-seeds.png", "race.png"]
    lines = out.splitlines()
    assert lines[0] == "64-20-10, relu, batches of 50, 120 iterations, float32"
    assert [line.split()[0] for line in lines[3:6]] == ["0", "100", "119"]
    for line in lines[-7:-5]:
        _, rate, *rest = line.replace(" (at an end of those tried)", "").split()
        before, tried = float(rest[0]), [float(loss) for loss in rest[3:]]
        name = line.split()[0]
        assert tried[race.RACERS[name].rates.index(float(rate))] == min(tried) == pytest.approx(before, rel=0.01)
    assert lines[-4].startswith("the same rates with 3 seeds")
    for line in lines[-2:]:
        _, _, loss, spread, accuracy, _ = line.split()
        assert float(loss) > 0.0 and spread.startswith("±0.") and float(accuracy) > 0.5
    out, pictures = run_lab("race", *short, "--book-rates-only", "--dtype", "float64", "--activation", "tanh")
    assert "several rates" not in out


def score(losses, accuracies):
    return race.Score(tuple(losses), tuple(accuracies))


@pytest.mark.parametrize(
    ("adam", "expected"),
    [
        (score((0.010, 0.011, 0.012), (0.990, 0.991, 0.992)), ("right", "clearly the best", "clearly the best")),
        (
            score((0.010, 0.011, 0.012), (0.969, 0.970, 0.972)),
            ("conditional", "clearly the best", "indistinguishable from Momentum"),
        ),
        (
            score((0.020, 0.031, 0.040), (0.970, 0.971, 0.972)),
            ("wrong", "indistinguishable from Momentum", "indistinguishable from Momentum"),
        ),
        (
            score((0.040, 0.041, 0.042), (0.900, 0.901, 0.902)),
            ("wrong", "clearly behind Momentum", "clearly behind Momentum, SGD"),
        ),
        (
            score((0.0272, 0.0282, 0.0292), (0.900, 0.901, 0.902)),  # by loss 2.2 standard errors ahead
            ("wrong", "indistinguishable from Momentum", "clearly behind Momentum, SGD"),
        ),
        (score((0.010, np.nan, 0.012), (0.990, np.nan, 0.992)), None),
    ],
)
def test_the_verdict_on_adam(adam, expected):
    """Right where it leads by both measures, beyond chance; a rule that diverged, or is alone, is not judged."""
    others = {
        "SGD": score((0.050, 0.051, 0.052), (0.960, 0.961, 0.962)),
        "Momentum": score((0.029, 0.030, 0.031), (0.970, 0.971, 0.972)),
    }
    verdict = race._judge_adam(race.Results({}, {}, others | {"Adam": adam}))
    if expected is None:
        assert verdict is None
    else:
        answer, by_loss, by_accuracy = expected
        assert verdict.answer == answer
        words = f"Adam is {by_loss} by training loss, and {by_accuracy} by test accuracy."
        assert verdict.reason.english.endswith(words)
    assert race._judge_adam(race.Results({}, {}, {"Adam": adam})) is None


def test_a_rule_that_diverges_has_no_score():
    lab, of_digits = lab_on(CPU, race, seeds=2), track(load_digits(), "float32", iterations=30)
    found = race.say_seeds(lab, of_digits, {"SGD": 1e30})["SGD"]
    assert lab.lines[-1].split() == ["SGD", "1e+30", "diverged", "diverged"]
    assert np.isnan(found.losses).all() and np.isnan(found.accuracies).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--optimizers", "adamm"), "unknown optimizer 'adamm': did you mean 'Adam'"),
        (("--activation", "rellu"), "unknown activation 'rellu'"),
        (("--iterations", "0"), "argument --iterations: must be at least 1, not 0"),
        (("--init", "hee"), "unknown initializer 'hee'"),
        (("--schedule", "cosin"), "unknown schedule 'cosin'"),
        (("--hidden", "0"), "argument --hidden: must be at least 1, not 0"),
        (("--seeds", "101"), "argument --seeds: must be at most 100, not 101"),
    ],
)
def test_bad_options(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        race.main(list(words))
    out, err = capsys.readouterr()
    assert message in err
    assert (out, len(err.splitlines())) == ("", 1)
