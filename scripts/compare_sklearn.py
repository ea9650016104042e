"""Hold xpnet's test scores against scikit-learn's on regression, two classes and several labels. Needs scikit-learn.

    python scripts/compare_sklearn.py [--golden tests/golden/sklearn.json]

Both train the same network (one hidden layer of 100, ReLU) in the same way (Adam at 0.001, batches of 200, 100 epochs,
no decay) from ten seeds, on standardized inputs and, for regression, standardized targets; xpnet's ten are replicas.
What differs is how weights are drawn, and the order of rows. With --golden, scikit-learn's scores on the problems that
are made by formula are written for the tests.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

import xpnet

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SEEDS = range(10)
EPOCHS = 100
REAL: dict[str, Callable[[], Any]] = {
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
}


def sklearn_scores(x: Any, y: Any, x_test: Any, y_test: Any, task: str) -> list[float]:
    """Return scikit-learn's test score from each seed: accuracy, or R2."""
    kind = MLPRegressor if task == "regression" else MLPClassifier
    scores = []
    for seed in SEEDS:
        options = {"max_iter": EPOCHS, "alpha": 0.0, "batch_size": 200, "tol": 0.0, "n_iter_no_change": EPOCHS}
        model: Any = kind(random_state=seed, **options)
        if task == "regression":
            model = TransformedTargetRegressor(model, transformer=StandardScaler())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            scores.append(float(model.fit(x, y).score(x_test, y_test)))
    return scores


def xpnet_scores(x: Any, y: Any, x_test: Any, y_test: Any, task: str) -> list[float]:
    """Return xpnet's test score from each seed."""
    outputs = y.shape[1] if y.ndim == 2 else 1
    options: dict[str, Any] = {}
    if task == "regression":
        options["target_shift"], options["target_scale"] = xpnet.standard_scaling(y)
    model = xpnet.MLP([x.shape[1], 100, outputs], task=task, replicas=len(SEEDS), **options)
    xpnet.Trainer(model, xpnet.Adam(0.001), batch_size=200).fit(x, y, epochs=EPOCHS)
    scores: list[float] = xpnet.evaluate(model, x_test, y_test)[1]
    return scores


def main() -> None:
    """Print a line a problem, and write the golden file where asked."""
    from problems import PROBLEMS, divided  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path)
    golden_file = parser.parse_args().golden
    golden: dict[str, Any] = {"versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__}}
    print(
        f"scikit-learn {sklearn.__version__}, xpnet {xpnet.__version__}: test scores, mean and deviation of ten seeds"
    )
    for name, problem in (REAL | PROBLEMS).items():
        x, y, x_test, y_test = divided(*problem())
        task = {"diabetes": "regression", "housing": "regression", "tags": "multilabel"}.get(name, "classification")
        theirs, ours = sklearn_scores(x, y, x_test, y_test, task), xpnet_scores(x, y, x_test, y_test, task)
        metric = "R2" if task == "regression" else "accuracy"
        print(
            f"{name:<14} {task:<15} {metric:<9} scikit-learn {np.mean(theirs):.4f} +- {np.std(theirs):.4f}"
            f"   xpnet {np.mean(ours):.4f} +- {np.std(ours):.4f}"
        )
        if name in PROBLEMS:
            golden[name] = {"task": task, "scores": theirs}
    if golden_file is not None:
        golden_file.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
