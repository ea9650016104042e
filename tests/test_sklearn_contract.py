"""scikit-learn's contract: its checks of estimators, and its own tests of its multilayer perceptrons, run against ours.

The checks of the Array API need `SCIPY_ARRAY_API=1` in the environment before SciPy is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("sklearn")

from sklearn import neural_network
from sklearn.utils.estimator_checks import parametrize_with_checks

from xpnet.sklearn import MLPClassifier, MLPRegressor

PRIVATE = {
    "test_fit": "sets weights and private attributes of an estimator that was never fitted",
    "test_gradient": "calls the private method _loss_grad_lbfgs",
}
ignored = pytest.mark.filterwarnings("ignore")


@ignored
@parametrize_with_checks([MLPClassifier(), MLPRegressor()])
def test_checks_of_estimators(estimator, check):
    check(estimator)


@ignored
def test_their_own_tests(tmp_path):
    report = tmp_path / "report.xml"
    module = Path(neural_network.__file__).parent / "tests" / "test_mlp.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", module, "-p", "in_place_of_sklearn", "-q", f"--junitxml={report}"]
        + ["-p", "no:cacheprovider", "-c", os.devnull],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    cases = list(ElementTree.parse(report).iter("testcase"))
    wrong = {case.get("name").partition("[")[0] for case in cases if len(case)}  # failed, or skipped
    assert wrong == set(PRIVATE), done.stdout
    assert len(cases) >= 55
