"""Two commits set against each other: the statistics, by hand and on recorded noise, and the whole program."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import compare
import compare_noise
import numpy as np
import pytest
from compare import (
    FASTER,
    NO_CHANGE,
    NOISY,
    SLOWER,
    Found,
    bootstrap_interval,
    checked_out,
    exit_code,
    fewest,
    is_narrow,
    judged,
    turns,
    verdict,
)
from host import FailedError
from programs import needs_llvm

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "bench" / "results" / "compare-noise.json"


def test_the_interval_is_that_of_the_medians_of_all_resamples():
    """Three values have 27 resamples: 7 with the least as median, 13 with the middle one, 7 with the largest."""
    values = [0.9, 1.0, 1.3]
    medians = sorted(np.median(one) for one in product(values, repeat=3))
    assert [medians.count(one) for one in values] == [7, 13, 7]
    assert bootstrap_interval(values, 0.4) == (1.0, 1.0)  # 7 / 27 is less than 0.3
    assert bootstrap_interval(values, 0.6) == (0.9, 1.3)  # and more than 0.2


def test_the_interval_is_the_same_each_time_and_holds_the_median():
    values = np.random.default_rng(0).lognormal(0.0, 0.01, 15)
    low, high = bootstrap_interval(values, 0.99)
    assert (low, high) == bootstrap_interval(values, 0.99)
    assert min(values) <= low < np.median(values) < high <= max(values)
    narrower = bootstrap_interval(values, 0.8)
    assert low <= narrower[0] <= narrower[1] <= high


@pytest.mark.parametrize("count", [12, 25])
def test_the_interval_covers_the_true_median_as_often_as_it_says(count):
    """500 samples with tails as those of times: at 99 %, 5 misses are expected, and 15 come once in 10,000 times."""
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(500):
        ratios = np.exp(0.01 * rng.standard_t(3, count))
        low, high = bootstrap_interval(ratios, 0.99, resamples=1000)
        missed += not low <= 1.0 <= high
    assert missed < 15


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (1.0, 0.99, 1.01, NO_CHANGE),
        (1.01, 1.005, 1.015, NO_CHANGE),  # it moved, by less than is of interest
        (1.015, 1.005, 1.03, NOISY),
        (1.0, 0.97, 1.01, NOISY),
        (1.03, 0.999, 1.06, NOISY),
        (1.03, 1.001, 1.06, SLOWER),
        (1.05, 1.04, 1.06, SLOWER),
        (0.95, 0.94, 0.96, FASTER),
        (0.97, 0.94, 0.999, FASTER),
        (0.985, 0.94, 0.999, NOISY),
    ],
)
def test_verdicts(ratio, low, high, said):
    assert verdict(ratio, low, high, 0.02) == said
    mirrored = {SLOWER: FASTER, FASTER: SLOWER}.get(said, said)
    assert verdict(1 / ratio, 1 / high, 1 / low, 0.02) == mirrored


def test_too_few_pairs_have_no_verdict():
    """All eight values are above the median, or below it, in one of 128 samples: their range is a 99 % interval."""
    assert fewest(0.99) == 8
    assert fewest(0.5) == 2
    assert judged([1.1] * 7, 0.99, 0.02)["verdict"] == NOISY
    assert judged([1.1] * 8, 0.99, 0.02)["verdict"] == SLOWER


def test_turns_cancel_what_changes_steadily_and_being_first():
    assert turns(0) == (0, 1, 1, 0)
    assert turns(1) == (1, 0, 0, 1)
    for order in (turns(0), turns(1)):
        assert sum(when for when, side in enumerate(order) if side) * 2 == sum(range(4))


def test_exit_codes():
    assert exit_code([NO_CHANGE, FASTER], {}) == 0
    assert exit_code([NO_CHANGE, NOISY], {}) == 3
    assert exit_code([NOISY, SLOWER], {}) == 1
    assert exit_code([NO_CHANGE], {"one": "it failed"}) == 1


def options_of(**changes):
    given = {"clock": "wall", "pairs": 5, "most_pairs": 40, "confidence": 0.99, "interest": 2.0, "minutes": 1.0}
    return argparse.Namespace(**given | changes)


def measure_of(noise, slowdown=0.0, seed=3):
    """A measure without processes: the logarithm of a pair's ratio has this deviation."""
    rng = np.random.default_rng(seed)

    def measure(sides, first):
        return {f"noise {noise}": {"wall": (1e-3, 1e-3 * (1 + slowdown) * float(np.exp(rng.normal(0, noise))))}}

    return measure


def test_pairs_are_added_until_the_interval_is_narrow():
    measures = {str(noise): measure_of(noise) for noise in (0.001, 0.015, 0.3)}
    found, failed = compare.compare(measures, [], options_of(pairs=8))
    counts = [len(one.first) for one in found.values()]
    assert counts[0] == 8
    assert 10 < counts[1] < 40
    assert counts[2] == 40
    assert failed == {}
    assert [one.first[:3] for one in found.values()] == [[0, 1, 0]] * 3
    narrow = found["noise 0.015"].ratios("wall")
    assert is_narrow(bootstrap_interval(narrow, 0.99), 0.02)
    assert not is_narrow(bootstrap_interval(narrow[:-1], 0.99), 0.02)


def test_a_benchmark_that_fails_leaves_the_others():
    def broken(sides, first):
        raise FailedError("ended with code 1: ValueError")

    found, failed = compare.compare({"a": broken, "b": measure_of(0.001)}, [], options_of())
    assert list(found) == ["noise 0.001"]
    assert failed == {"a": "ended with code 1: ValueError"}


def test_no_pair_is_begun_after_the_time():
    found, _ = compare.compare({"a": measure_of(0.3)}, [], options_of(minutes=0.0))
    assert [len(one.first) for one in found.values()] == [1]


def test_the_table_has_a_line_for_each_clock():
    found = Found({"wall": [(1.0, 1.1), (1.0, 1.3)] * 4, "processor": [(2e-6, 2e-6)] * 8}, [0, 1] * 4)
    results = [
        {"benchmark": "one", "pairs": found.pairs}
        | {clock: judged(found.ratios(clock), 0.99, 0.02) for clock in found.pairs}
    ]
    text = compare.table(results, 0.99)
    assert "| one | wall | 1 s | 1.2 s | 1.200 | 1.100 to 1.300 | 8 | slower |" in text
    assert "| one | processor | 2 µs | 2 µs | 1.000 | 1.000 to 1.000 | 8 | no change |" in text


def test_blocks_of_a_record_stay_together_and_go_round():
    drawn = compare_noise.drawn(range(10), 12, 4, np.random.default_rng(0))
    assert len(drawn) == 12
    for block in drawn.reshape(3, 4):
        assert np.array_equal(np.diff(block) % 10, [1, 1, 1])


def test_noise_tells_the_first_position_apart():
    logs = np.tile([-0.03, 0.03], 20) + np.random.default_rng(0).normal(0, 1e-4, 40)
    found = compare_noise.noise(np.exp(logs), [0, 1] * 20)
    assert found["first"] == pytest.approx(0.03, abs=1e-4)
    assert found["correlation"] < -0.99


@pytest.mark.parametrize("slowdown", [0.0, 0.05, -0.05])
def test_on_recorded_noise_nineteen_of_twenty_runs_say_what_is_true(slowdown):
    """The record is of runs on two equal commits, beside other processes."""
    truth = {0.0: NO_CHANGE, 0.05: SLOWER, -0.05: FASTER}[slowdown]
    options = options_of(runs=60, block=4, pairs=12, most_pairs=60)
    for result in json.loads(RECORD.read_text(encoding="utf-8"))["results"]:
        for pairs in result["pairs"].values():
            shares = compare_noise.simulated([other / base for base, other in pairs], slowdown, options)
            assert shares[truth] >= 0.95
            assert sum(shares[one] for one in (FASTER, SLOWER, NO_CHANGE) if one != truth) == 0.0


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there are no commits")
def test_a_commit_and_the_working_tree_are_copied(tmp_path):
    commit, tree = checked_out("HEAD", tmp_path / "a"), checked_out(".", tmp_path / "b")
    assert commit.commit == tree.commit
    assert not commit.changed
    assert not (tmp_path / "a" / "xpnet.tar").exists()
    for name in ("xpnet/__init__.py", "xpnet/data/digits.npz"):
        assert (tmp_path / "b" / name).read_bytes() == (ROOT / name).read_bytes()
        assert (tmp_path / "a" / name).exists()
    with pytest.raises(FailedError, match="no-such-commit"):
        checked_out("no-such-commit", tmp_path / "c")


@needs_llvm
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there are no commits")
def test_one_pair_from_end_to_end(tmp_path):
    file = tmp_path / "found.json"
    words = ["HEAD", ".", "--networks", "30-100-2 batch 200", "--optimizers", "sgd", "--minutes", "0"]
    words += ["--dtypes", "float64", "--zeros"]
    command = [sys.executable, str(ROOT / "bench" / "compare.py"), *words, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert done.returncode == 3, done.stderr  # of one pair
    name = "30-100-2 batch 200, sgd, plain, float64"
    assert [result["benchmark"] for result in found["results"]] == [name, f"{name}, zeros not left out"]
    for result in found["results"]:
        assert result["wall"]["verdict"] == NOISY
        assert f"| {result['benchmark']} | processor |" in done.stdout
        for clock in ("wall", "processor"):
            ((base, other),) = result["pairs"][clock]
            assert 1e-6 < base < 1e-2
            assert result[clock]["ratio"] == pytest.approx(other / base)
    assert [side["name"] for side in found["sides"]] == ["HEAD", "."]
    assert found["conditions"]["during"]["seconds"] > 0.1


def test_ctrl_c_ends_with_the_pairs_until_then():
    def interrupted(sides, first):
        raise KeyboardInterrupt

    pair = {"quick": {"wall": (1.0, 1.0), "processor": (1.0, 1.0)}}
    options = argparse.Namespace(minutes=1.0, pairs=8, most_pairs=8, clock="wall", confidence=0.99, interest=2.0)
    measures = {"quick": lambda sides, first: pair, "slow": interrupted, "never": interrupted}
    found, failed = compare.compare(measures, [], options)
    assert failed == {"slow": "interrupted"}
    assert found["quick"].pairs["wall"] == [(1.0, 1.0)]


@pytest.mark.parametrize(
    "words",
    [
        ["--pairs", "7"],
        ["--pairs", "70"],
        ["--confidence", "1"],
        ["--interest", "0"],
        ["no-such-commit"],
        ["--minutes", "-1"],
    ],
)
def test_arguments_that_are_wrong_are_refused(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])
    with pytest.raises(SystemExit) as ended:
        compare.main()
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err
