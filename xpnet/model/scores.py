"""Scores of predictions, by name: what a report says of a model on rows with known targets.

scikit-learn computes log loss, AUC, F1 and balanced accuracy; without it, they are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.device import HostArray
from ..data.arrays import check_targets
from .metrics import accuracy, most_probable, r2, yes_or_no
from .mlp import MLP

BINS = 15  # of confidence, as in Guo et al., 2017
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of residuals
NEEDS_SKLEARN = "log loss, AUC, F1 and balanced accuracy need scikit-learn: pip install 'xpnet[sklearn]'"
SCORE_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "auc": "AUC",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "r2": "R2",
    "rmse": "RMSE",
    "mae": "MAE",
}
"""Scores, with their names in messages."""


def scores(model: MLP, x: Any, y: Any, *, threshold: float | None = None) -> dict[str, Any]:
    """Score a model, or an ensemble, on rows with known targets.

    Args:
        model: the model.
        x: unscaled rows, (N, ...), or a data frame for a model of tables.
        y: labels or names of classes, (N,); 0 and 1, (N, O); or numbers, (N, O).
        threshold: probability above which the second of two classes, or a label, is predicted.

    Returns:
        As `scores_of`.
    """
    p = model.device.to_host(model.predict(x))
    return scores_of(model.task.name, targets_of(model, y, p.shape[-2]), p, threshold)


def targets_of(model: MLP, y: Any, rows: int) -> HostArray:
    """Check the targets of rows: labels, (N,), 0 and 1, (N, O), or numbers in their own units, (N, O)."""
    if model.replicas is not None and not model.ensemble:
        raise ValueError(f"scores are those of one model, and not of {model.replicas} replicas")
    if model.task.name == "regression":
        return check_targets(y, model.device, rows, model.out_features, "float64")
    return model.task.targets(y, model.device, rows, "float64")


def scores_of(task: str, y: HostArray, p: HostArray, threshold: float | None = None) -> dict[str, Any]:
    """Score predictions.

    Args:
        task: "classification", "multilabel" or "regression".
        y: targets: labels, (N,); 0 and 1, (N, O); or numbers, (N, O).
        p: predictions, as `MLP.predict` returns them, (N, C) or (N, O).
        threshold: as for `decisions`.

    Returns:
        Of classes: `accuracy`; `balanced_accuracy`, the mean recall of the classes that occur; `f1`, the mean over
        classes; `auc`, of each class against all others, the mean over those that occur; `log_loss`; and
        `calibration_error`, the mean distance of confidence from accuracy over 15 bins. Of labels, `accuracy` is the
        share of rows with all labels right, and the others are means over labels. A score that outputs do not have is
        NaN: log loss and AUC of NaN, and log loss where outputs are no probabilities.

        Of numbers: `r2`, `rmse` and `mae`, means over outputs in the targets' units, and `residual_quantiles` of
        target - prediction: by the share of rows below, a list with one number per output.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if task == "regression":
            return _scores_of_numbers(y, p)
        answers = decisions(task, p, threshold)
        found = {"accuracy": accuracy(y, answers), "calibration_error": calibration_error(task, y, p)}
        learn = _sklearn()
        if learn is not None:
            score = _scores_of_classes if task == "classification" else _scores_of_labels
            found |= score(learn, y, np.asarray(p, np.float64), answers)
    return {name: found[name] for name in SCORE_TITLES if name in found}


def decisions(task: str, p: HostArray, threshold: float | None = None) -> HostArray:
    """Classes, (N,), or labels as 0 and 1, (N, O), that probabilities stand for; -1 where one is NaN.

    Args:
        task: "classification" or "multilabel".
        p: probabilities of classes, (N, C), or labels, (N, O).
        threshold: probability above which the second of two classes, or a label, is predicted; by default the most
            probable class, or labels above 0.5.

    >>> decisions("classification", np.array([[0.6, 0.4], [0.2, 0.8]]), threshold=0.3).tolist()
    [1, 1]
    """
    if task == "multilabel":
        return np.asarray(yes_or_no(np, p, 0.5 if threshold is None else threshold))
    if threshold is None:
        return np.asarray(most_probable(np, p))
    check_two_classes(p.shape[-1])
    return np.asarray(yes_or_no(np, p[:, 1], threshold))


def check_two_classes(classes: int) -> None:
    """Raise ValueError where a threshold has no meaning: for more than two classes."""
    if classes != 2:
        raise ValueError(
            f"a threshold tells two classes apart, or yes from no of labels, and there are {classes} classes"
        )


def has_threshold(task: str, p: HostArray, found: Mapping[str, Any]) -> bool:
    """Whether rows with these predictions and scores have a best threshold."""
    return (task == "multilabel" or p.shape[-1] == 2) and bool(np.isfinite(found.get("auc", np.nan)))


def best_threshold(task: str, y: HostArray, p: HostArray) -> tuple[float, float]:
    """Threshold of the highest F1 on these rows, and that F1; needs scikit-learn.

    F1 is that of the second of two classes, or of all labels together. The threshold is in the middle between two
    probabilities. On the rows that it is chosen by, F1 is too high: choose it by rows that are held out.
    """
    from sklearn.metrics import precision_recall_curve

    truth, score = _positives(task, y, p)
    precision, recall, limits = precision_recall_curve(truth, score)
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2.0 * precision * recall / (precision + recall))[:-1]
    best = int(np.argmax(f1))
    below = score[score < limits[best]].max(initial=0.0)
    return float((limits[best] + below) / 2.0), float(f1[best])


def f1_above(task: str, y: HostArray, p: HostArray, threshold: float) -> float:
    """F1, as `best_threshold` has it, of a threshold; needs scikit-learn."""
    from sklearn.metrics import f1_score

    truth, score = _positives(task, y, p)
    return float(f1_score(truth, score > threshold, zero_division=0.0))


def calibration_bins(task: str, y: HostArray, p: HostArray, bins: int = BINS) -> tuple[HostArray, HostArray, HostArray]:
    """Mean confidence, share of rows that are right, and number of rows, (K,), of each bin of confidence with rows.

    Confidence is the probability of the most probable class; a row is right where that is the true one. Of labels,
    each probability counts, and is right where the label is 1. Rows without a prediction are left out.
    """
    if task == "multilabel":
        confidence, right = p.reshape(-1), y.reshape(-1) == 1
    else:
        confidence, right = p.max(axis=-1, initial=0.0), most_probable(np, p) == y
    there = np.isfinite(confidence)
    confidence, right = confidence[there].astype(np.float64), right[there]
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    filled = counts > 0
    sums = (np.bincount(bin_of, weights=values, minlength=bins)[filled] for values in (confidence, right))
    means = [total / counts[filled] for total in sums]
    return means[0], means[1], counts[filled]


def calibration_error(task: str, y: HostArray, p: HostArray) -> float:
    """Expected calibration error: the mean over rows of their bin's distance of confidence from accuracy."""
    confidence, right, counts = calibration_bins(task, y, p)
    return float(np.average(np.abs(confidence - right), weights=counts)) if len(counts) else np.nan


def score_sentence(found: Mapping[str, Any]) -> str:
    """Scores, as numbers or as text, on one line; residuals are left out."""
    words = {name: one if isinstance(one, str) else f"{one:.4g}" for name, one in found.items() if name in SCORE_TITLES}
    return ", ".join(f"{SCORE_TITLES[name]} {one}" for name, one in words.items())


def _sklearn() -> Any:
    """scikit-learn's metrics, or None where it is missing."""
    try:
        from sklearn import metrics
    except ImportError:
        return None
    return metrics


def _scores_of_classes(learn: Any, y: HostArray, p: HostArray, answers: HostArray) -> dict[str, float]:
    occurring = np.unique(y)
    known = np.union1d(occurring, answers[answers >= 0])
    columns = [1] if p.shape[1] == 2 else occurring.tolist()
    sums = p.sum(axis=-1, keepdims=True)
    probabilities = (p >= 0.0).all() and np.allclose(sums, 1.0, atol=1e-3)  # False where p is NaN
    every = np.arange(p.shape[1])
    return {
        "balanced_accuracy": learn.recall_score(y, answers, labels=occurring, average="macro", zero_division=0.0),
        "f1": learn.f1_score(y, answers, labels=known, average="macro", zero_division=0.0),
        "auc": _mean([_auc(learn, y == column, p[:, column]) for column in columns]),
        "log_loss": learn.log_loss(y, p / sums, labels=every) if probabilities else np.nan,
    }


def _scores_of_labels(learn: Any, y: HostArray, p: HostArray, answers: HostArray) -> dict[str, float]:
    pairs = list(zip(y.T, answers.T, strict=True))
    probabilities = ((p >= 0.0) & (p <= 1.0)).all()
    how: dict[str, Any] = {"average": "macro", "zero_division": 0.0}
    return {
        "balanced_accuracy": _mean([learn.recall_score(t, a, labels=np.unique(t), **how) for t, a in pairs]),
        "f1": _mean([learn.f1_score(t == 1, a == 1, zero_division=0.0) for t, a in pairs]),
        "auc": _mean([_auc(learn, t == 1, score) for t, score in zip(y.T, p.T, strict=True)]),
        "log_loss": learn.log_loss(y.reshape(-1), p.reshape(-1), labels=[0, 1]) if probabilities else np.nan,
    }


def _auc(learn: Any, truth: HostArray, p: HostArray) -> float | None:
    """Area under the ROC curve; None where all rows are alike, and NaN of NaN."""
    if truth.all() or not truth.any():
        return None
    return float(learn.roc_auc_score(truth, p)) if np.isfinite(p).all() else np.nan


def _mean(values: list[float | None]) -> float:
    """Mean of the values that are there; NaN of none."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else np.nan


def _scores_of_numbers(y: HostArray, p: HostArray) -> dict[str, Any]:
    residuals = y - p  # (N, O)
    return {
        "r2": r2(y, p),
        "rmse": float(np.sqrt((residuals**2).mean(axis=0)).mean()),
        "mae": float(np.abs(residuals).mean()),
        "residual_quantiles": {str(share): np.quantile(residuals, share, axis=0).tolist() for share in QUANTILES},
    }


def _positives(task: str, y: HostArray, p: HostArray) -> tuple[HostArray, HostArray]:
    """Truth and probability of the second of two classes, (N,), or of all labels, (N O,)."""
    if task == "classification":
        check_two_classes(p.shape[-1])
        return y == 1, p[:, 1].astype(np.float64)
    return y.reshape(-1) == 1, p.reshape(-1).astype(np.float64)
