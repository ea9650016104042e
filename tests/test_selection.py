"""Tests that need a GPU, on a machine without one: deselected, and an error where they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_CUPY = "import sys; sys.modules['cupy'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def run_without_gpu(*arguments):
    """Run pytest on the two tests named below, where CuPy cannot be imported; exit code and all output."""
    arguments = ["tests/test_device.py", "-p", "no:cacheprovider", "-k", "test_cpu or test_the_real_gpu", *arguments]
    command = [sys.executable, "-c", WITHOUT_CUPY, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("expression", [None, "not parametrize"])
def test_they_are_deselected(expression):
    code, output = run_without_gpu(*(["-m", expression] if expression else []))
    assert code == 0, output
    assert "deselected 1 that need a GPU: CuPy" in output
    assert "1 passed" in output
    assert "skipped" not in output


def test_not_cuda_asks_for_no_device():
    code, output = run_without_gpu("-m", "not cuda")
    assert code == 0, output
    assert "need a GPU" not in output


def test_asked_for_they_are_an_error():
    code, output = run_without_gpu("-m", "cuda")
    assert code == 4, output
    assert "ERROR: -m 'cuda' needs a usable GPU: CuPy" in output
    assert "passed" not in output
