"""The surroundings of a measurement: what the system tells, when a time is not to be relied on, and who says so."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import surroundings
from surroundings import (
    NAMED,
    between,
    frequency,
    in_words,
    noted,
    own_seconds,
    processor_times,
    sample,
    throttling,
    warning_of,
    write_results,
)

ROOT = Path(__file__).parents[1]
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
STAT = """\
cpu  300 0 60 9000 40 2 8 30 0 0
cpu0 200 10 40 4000 40 2 8 10 150 0
cpu1 100 0 20 5000 0 0 0 20 0 0
cpu10 7 7 7 7 7 7 7 7 0 0
intr 51079984 0 0
"""
QUIET = {"others": 0.01, "stolen": 0.0, "throttled": [0, 0.0], "mhz": 3000.0}
BEFORE = {"load": (0.1, 0.1, 0.1), "mhz": 3000.0}


def test_processor_times_are_those_of_the_processors_that_may_be_used():
    # user + nice + system + irq + softirq; neither idle nor waiting, and guests are users already
    assert processor_times(STAT, [0]) == ((200 + 10 + 40 + 2 + 8) / TICK, 10 / TICK)
    assert processor_times(STAT, [0, 1]) == ((260 + 120) / TICK, 30 / TICK)
    assert processor_times(STAT, [1, 2]) is None  # one that is not told of
    assert processor_times(None, [0]) is None
    assert processor_times("cpu0 1 2 3 4\n", [0]) is None  # a system before steal was counted


def test_own_time_is_that_of_all_descendants_and_of_those_they_waited_for():
    def line(pid, parent, *ticks, name="python"):
        return f"{pid} ({name}) S {parent} 1 1 0 -1 4194560 100 0 0 0 {' '.join(map(str, ticks))} 20 0 1"

    lines = [
        line(1, 0, 1000, 1000, 5000, 5000, name="init"),
        line(10, 1, 1, 2, 30, 40),
        line(11, 10, 100, 200, 0, 0, name="a) R 1 (b"),
        line(12, 11, 1000, 0, 0, 0),
        line(20, 1, 7000, 0, 0, 0),
    ]
    assert own_seconds(lines, 10) == (1 + 2 + 30 + 40 + 100 + 200 + 1000) / TICK
    assert own_seconds(lines, 20) == 7000 / TICK
    assert own_seconds([], 10) == 0.0


def test_frequency_is_that_of_cpufreq_then_of_cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr(surroundings, "processors", lambda: frozenset({0, 3}))
    cpuinfo = tmp_path / "cpuinfo"
    assert frequency(tmp_path, cpuinfo) is None
    cpuinfo.write_text("model name\t: One\ncpu MHz\t\t: 2000.5\ncpu MHz\t\t: 3000.5\n")
    assert frequency(tmp_path, cpuinfo) == 2500.5
    for number, khz in ((0, 3_100_000), (3, 3_300_000)):
        folder = tmp_path / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
    assert frequency(tmp_path, cpuinfo) == 3200.0


def test_throttling_is_read_from_control_groups_of_both_versions(tmp_path):
    process = tmp_path / "cgroup"
    assert throttling(tmp_path, process) is None
    process.write_text("0::/job/one\n")
    (tmp_path / "job" / "one").mkdir(parents=True)
    assert throttling(tmp_path, process) is None
    (tmp_path / "job" / "cpu.stat").write_text("usage_usec 9\nnr_periods 50\nnr_throttled 12\nthrottled_usec 2500000\n")
    (tmp_path / "job" / "one" / "cpu.stat").write_text("nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
    assert throttling(tmp_path, process) == [12, 2.5]  # of the group that held it back
    process.write_text("4:memory:/x\n2:cpu,cpuacct:/job\n")
    (tmp_path / "cpu,cpuacct" / "job").mkdir(parents=True)
    (tmp_path / "cpu,cpuacct" / "job" / "cpu.stat").write_text(
        "nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n"
    )
    assert throttling(tmp_path, process) == [3, 1.5]


def test_shares_are_of_all_processors_time(monkeypatch):
    monkeypatch.setattr(surroundings, "processors", lambda: frozenset({0, 1}))
    start = {"clock": 10.0, "busy": 100.0, "own": 5.0, "stolen": 1.0, "load": None, "mhz": None, "throttled": [1, 0.5]}
    end = start | {"clock": 20.0, "busy": 112.0, "own": 13.0, "stolen": 1.5, "throttled": [4, 0.75]}
    found = between(start, end)
    assert (found["seconds"], found["others"], found["stolen"]) == pytest.approx((10.0, 0.2, 0.025))
    assert found["throttled"] == [3, 0.25]
    assert between(start, end | {"own": 18.0})["others"] == 0.0  # ticks: a hair more than was busy
    silent = dict.fromkeys(("busy", "own", "stolen", "throttled"))
    found = between(start | silent, end | silent)
    assert (found["others"], found["stolen"], found["throttled"]) == (None, None, None)


@pytest.mark.parametrize(
    ("before", "during", "words"),
    [
        ({}, {}, None),
        ({"load": (2.0, 2.0, 2.0)}, {}, None),  # may be our own; the share of others says more
        ({}, {"others": 0.231}, "other processes took 23% of the time of 2 processors"),
        ({}, {"stolen": 0.02}, "other virtual machines took 2%"),
        ({}, {"throttled": [7, 1.25]}, "a quota of 1.5 processors' time was used up 7 times, for 1.2 s"),
        ({}, {"mhz": 2000.0}, "the frequency fell from 3,000 to 2,000 MHz"),
        ({}, {"mhz": None}, None),
        ({"load": (1.8, 0.1, 0.1)}, {"others": None, "stolen": None}, "the load was 1.8 on 2 processors before"),
        ({"load": None}, {"others": None, "stolen": None, "throttled": None}, None),
        ({}, {"others": 0.5, "stolen": 0.1}, "took 50% of the time of 2 processors, other virtual machines took 10%"),
    ],
)
def test_a_warning_is_one_sentence_with_the_figures(before, during, words, monkeypatch):
    monkeypatch.setattr(surroundings, "processors", lambda: frozenset({0, 1}))
    found = warning_of(BEFORE | before, QUIET | during, 1.5)
    if words is None:
        assert found is None
    else:
        assert found.startswith("Do not rely on these times: ")
        assert found.endswith(f"{words}.")


@pytest.mark.skipif(sample()["busy"] is None, reason="the system does not tell")
def test_the_time_of_a_child_is_ours_while_it_runs_and_after_it():
    spin = "import sys, time\nwhile time.process_time() < 0.4: pass\nprint(flush=True); sys.stdin.read()"
    before = sample()["own"]
    with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        while_it_runs = sample()["own"]
        child.stdin.close()
    assert 0.35 < while_it_runs - before < 5.0
    assert sample()["own"] >= while_it_runs


def test_results_name_all_that_they_were_measured_on(tmp_path, monkeypatch):
    found = surroundings.surroundings()
    monkeypatch.setattr(surroundings, "sample", lambda: found["conditions"]["before"] | {"clock": time.monotonic()})
    file = tmp_path / "results.json"
    write_results(file, found, {"rounds": 3})
    read = json.loads(file.read_text(encoding="utf-8"))
    assert not [name for name in NAMED if not read[name]]
    assert read["rounds"] == 3
    assert read["conditions"]["warning"] is None
    assert set(read["conditions"]) == {"before", "quota", "during", "warning"}


def test_words_begin_with_the_warning():
    found = noted(surroundings.surroundings())
    found["conditions"]["warning"] = "Do not rely on these times: a reason."
    assert in_words(found).startswith("Do not rely on these times: a reason. ")
    kernel = next(iter(found["blas"].values()))
    assert f"({kernel})" in in_words(found)
    found["conditions"] = None
    assert in_words(found).startswith(found["processor"])


@pytest.mark.parametrize("file", sorted((ROOT / "bench" / "results").glob("*.json")), ids=lambda file: file.name)
def test_a_file_of_results_names_machine_kernel_versions_and_commit(file):
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["processor"]
    assert all(found["blas"].values())
    assert found["versions"]["numpy"]
    assert len(found["commit"]) == 40
    # Files from before conditions were measured say that theirs are not known.
    assert found["conditions"] is None or found["conditions"]["during"]["seconds"] > 0


@pytest.mark.parametrize(
    "file",
    [path for path in sorted((ROOT / "bench").rglob("*.py")) if 'add_argument("--json"' in path.read_text()],
    ids=lambda path: path.name,
)
def test_a_benchmark_writes_its_json_with_surroundings(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [one.id for one in called if isinstance(one, ast.Name)]
    assert "write_results" in names
    assert "surroundings" in names
    assert "in_words" in names  # which has the warning
    assert "write_text" not in [one.attr for one in called if isinstance(one, ast.Attribute)]
