"""Hold xpnet's test scores against scikit-learn's on regression, two classes and several labels. Needs scikit-learn.

    python scripts/compare_sklearn.py [--golden tests/golden/sklearn.json]
    python scripts/compare_sklearn.py --estimators [--data-dir FOLDER]

With --estimators, `xpnet.sklearn` is held against `sklearn.neural_network`, at scikit-learn's defaults, from ten seeds
each (MNIST, which is in FOLDER, for 10 epochs). They are to be the same: it is also told in how many of the ten all
predictions are.

Without, `MLP` and `Trainer` are. Both train the same network (one hidden layer of 100, ReLU) in the same way (Adam at
0.001, batches of 200, 100 epochs, no decay) from ten seeds, on standardized inputs and, for regression, standardized
targets; xpnet's ten are replicas. What differs is how weights are drawn, and the order of rows. With --golden,
scikit-learn's scores on the problems that are made by formula are written for the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    import sklearn
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: pip install 'xpnet[sklearn]'") from None
from sklearn import neural_network
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

import xpnet
import xpnet.sklearn

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


def compare_estimators(folder: str | None) -> None:
    """Print a line a problem: the scores of both libraries' estimators, and how often all predictions are the same."""
    loads: dict[str, Any] = REAL | {
        "wine": lambda: load_wine(return_X_y=True),
        "digits": lambda: load_digits(return_X_y=True),
    }
    problems: dict[str, Any] = {}
    for name, load in loads.items():
        x, y = load()
        y = (y - y.mean()) / y.std() if name == "diabetes" else y
        x, x_test, y, y_test = train_test_split(x, y, random_state=0)
        scaler = StandardScaler().fit(x)
        problems[name] = scaler.transform(x), y, scaler.transform(x_test), y_test, {}
    if folder is not None:
        data = xpnet.load_mnist(folder)
        x, x_test = (rows.reshape(len(rows), -1) / 255.0 for rows in (data.x_train, data.x_test))
        problems["MNIST"] = x, data.y_train, x_test, data.y_test, {"max_iter": 10}
    for name, (x, y, x_test, y_test, options) in problems.items():
        kind = "MLPRegressor" if name == "diabetes" else "MLPClassifier"
        scores: list[tuple[float, float]] = []
        same = 0
        for seed in SEEDS:
            models = [getattr(one, kind)(random_state=seed, **options) for one in (neural_network, xpnet.sklearn)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that they have not converged
                theirs, ours = (model.fit(x, y) for model in models)
            scores.append((theirs.score(x_test, y_test), ours.score(x_test, y_test)))
            same += np.allclose(theirs.predict(x_test), ours.predict(x_test), rtol=1e-6)
        (mean, our_mean), (deviation, our_deviation) = np.mean(scores, axis=0), np.std(scores, axis=0)
        print(
            f"{name:<14} scikit-learn {mean:.4f} +- {deviation:.4f}   xpnet {our_mean:.4f} +- {our_deviation:.4f}"
            f"   the same predictions from {same} of {len(SEEDS)} seeds"
        )


def main() -> None:
    """Print a line a problem, and write the golden file where asked."""
    from problems import PROBLEMS, divided  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path)
    parser.add_argument("--estimators", action="store_true")
    parser.add_argument("--data-dir", default=os.environ.get("XPNET_DATA_DIR"))
    options = parser.parse_args()
    golden_file = options.golden
    if options.estimators:
        compare_estimators(options.data_dir)
        return
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
