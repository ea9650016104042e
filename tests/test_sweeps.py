"""The picture of bench/test_sweeps.py, and the JSON that it is drawn from."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import CLEARED

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "draw_sweeps.py"))
ABOUT = {"processor": "A CPU", "usable_processors": 2, "memory_gib": 4.0, "python": "3", "versions": {"numpy": "2"}}
ABOUT |= {"commit": "abc", "changed_since": False, "conditions": {"warning": "Do not rely on these times: $x^2$."}}


def benchmark(sweep, value, way, median):
    stats = {"q1": 0.9 * median, "median": median, "q3": 1.2 * median}
    return {"extra_info": {"sweep": sweep, "value": value, "way": way, "device": "cpu"}, "stats": stats}


def test_points_are_by_sweep_way_and_device():
    content = {"benchmarks": [benchmark("width", 32, "eager", 2e-4), benchmark("width", 128, "eager", 3e-4)]}
    assert SCRIPT["lines_of"](content)["width"]["eager", "cpu"][128]["median"] == 3e-4


def test_the_picture_has_a_panel_for_each_sweep_and_the_warning(monkeypatch):
    figures = []
    monkeypatch.setitem(SCRIPT["draw"].__globals__, "png", lambda figure: figures.append(figure) or b"")
    found = [benchmark("width", w, way, w * 1e-5) for w in (32, 128) for way in ("compiled", "eager")]
    found += [benchmark("replicas", 1, "eager", 1e-4)]
    SCRIPT["draw"]({"benchmarks": found, "surroundings": ABOUT})
    (figure,) = figures
    width, replicas = figure.axes
    assert [line.get_label() for line in width.lines] == ["compiled, cpu", "eager, cpu"]
    assert list(width.lines[0].get_xdata()) == [32, 128]
    assert list(width.lines[0].get_ydata()) == pytest.approx([320.0, 1280.0])
    assert replicas.get_xlabel() == "replicas"
    assert figure.get_supxlabel().startswith(r"Do not rely on these times: \$x^2\$. A CPU")


def test_pytest_benchmark_writes_the_surroundings(tmp_path):
    pytest.importorskip("pytest_benchmark")
    file = tmp_path / "found.json"
    words = [sys.executable, "-m", "pytest", str(ROOT / "bench" / "test_sweeps.py"), "-q", "-p", "no:cacheprovider"]
    words += ["-m", "not cuda", "-k", "replicas-1-eager", "--benchmark-max-time=0.01", f"--benchmark-json={file}"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # of a worker
    free = {name: value for name, value in ours.items() if name not in CLEARED}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, env=free)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    about = found["surroundings"]
    assert about["conditions"]["during"]["seconds"] > 0
    assert ("Do not rely on these times" in done.stdout) == (about["conditions"]["warning"] is not None)
    (points,) = SCRIPT["lines_of"](found)["replicas"].values()
    assert list(points) == [1]
