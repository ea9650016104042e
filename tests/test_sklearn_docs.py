"""What docs/sklearn.md says, done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

PAGE = (Path(__file__).parents[1] / "docs" / "sklearn.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def run(*languages):
    namespace = {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if language in languages and "onnxruntime" not in block:  # tests/test_onnx.py runs those
            exec(compile(block, "docs/sklearn.md", "exec"), namespace)
    return namespace


def test_its_python_runs(capsys):
    found = run("python")
    assert [one.shape for one in found["hidden"]] == [(300, 64), (300, 32)]
    assert found["search"].best_score_ > 0.9
    assert float(capsys.readouterr().out.splitlines()[0]) > 0.95


@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_its_dask_runs():
    pytest.importorskip("distributed")
    found = run("python", "py")
    assert set(found["search"].best_params_) == {"alpha", "dropout"}
