"""Classifier and regressor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels

from ..core.device import Array, Device, HostArray
from ..model.metrics import most_probable, yes_or_no
from ..nn import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from ..optim import Optimizer, Schedule
from .arguments import CONSTRAINTS, documented, store
from .exchange import ExchangeMixin
from .prediction import PredictionMixin
from .rules import PoissonDeviance
from .training import Data, TrainingMixin


def has_partial_fit(estimator: TrainingMixin) -> bool:
    """Return True; raise AttributeError for the solver lbfgs, which takes all rows at once."""
    if estimator._whole_batch:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


@documented
class MLPClassifier(ClassifierMixin, TrainingMixin, PredictionMixin, ExchangeMixin):  # type: ignore[misc]
    """A classifier: cross entropy, of softmax, or of a sigmoid for two classes and for several labels at once.

    The arguments are those of `sklearn.neural_network.MLPClassifier`; those from `device` on are new.

    >>> x, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], ["no", "yes", "yes", "no"]
    >>> model = MLPClassifier(8, "tanh", solver="lbfgs", random_state=1).fit(x, y)
    >>> model.predict(x).tolist()
    ['no', 'yes', 'yes', 'no']

    Args:
        {arguments}
        class_weight: a dict from classes to weights, or "balanced" for equal total weights of all classes; for several
            labels, a list of dicts.

    {attributes}
        classes_: classes, in the order of the columns of probabilities.
    """

    loss = "log_loss"
    _y_numeric = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS | {
        "class_weight": [None, StrOptions({"balanced"}), dict, list],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: str | Device = "cpu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        optimizer: str | Optimizer | None = None,
        schedule: str | Schedule | None = None,
        restore_best: bool = False,
        callback: Callable[[Any], Any] | None = None,
        n_ensembles: int | None = None,
        class_weight: Any = None,
    ) -> None:
        store(self, locals())

    def _task(self) -> tuple[str, Loss]:
        if self._label_binarizer.y_type_ == "multiclass":
            return "classification", SoftmaxCrossEntropy()
        return "multilabel" if self._multilabel else "classification", BinaryCrossEntropy()

    @property
    def _multilabel(self) -> bool:
        return bool(self._label_binarizer.y_type_.startswith("multilabel"))

    def _targets(self, y: Any, *, reset: bool, held_out: bool = False) -> HostArray:
        if reset:
            self._learn_classes(y)
        if self._multilabel and y.ndim == 1:
            raise ValueError("y has one label in a row, and the estimator was fitted with several")
        if not reset:
            classes = unique_labels(y)
            if self.warm_start and not held_out and set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit."
                    f" Previously got {self.classes_}, `y` has {classes}"
                )
            if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
                )
        t: HostArray = self._label_binarizer.transform(y)
        if self._multilabel:
            return t.astype(bool).astype(np.int64)  # any number but 0 is a label, as in scikit-learn
        return t.argmax(axis=1) if t.shape[1] > 1 else t[:, 0]

    def _learn_classes(self, y: Any) -> None:
        self._label_binarizer = LabelBinarizer().fit(y)
        self.classes_ = self._label_binarizer.classes_

    def _weights(self, sample_weight: Any, y: Any, *, incremental: bool) -> HostArray | None:
        w = super()._weights(sample_weight, y, incremental=incremental)
        if self.class_weight is None:
            return w
        of_classes = self._weights_of_classes(y)
        if not (of_classes >= 0.0).all():
            raise ValueError(f"class_weight must not be negative, and is {self.class_weight!r}")
        w = of_classes if w is None else w * of_classes
        if not incremental and not w.any():  # in a stream, the next rows may be of other classes
            raise ValueError("class_weight is zero for the class of every row: nothing would be learnt")
        return w

    def _weights_of_classes(self, y: Any) -> HostArray:
        """Weight of each row's class, (N,); some classes may have no rows."""
        weights: HostArray
        if self._multilabel or not isinstance(self.class_weight, dict):
            weights = compute_sample_weight(self.class_weight, y)
        else:
            each = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_)
            weights = each[np.searchsorted(self.classes_, y)]
        return weights

    def _decoded(self, p: Array) -> Array:
        if isinstance(p, np.ndarray):
            return self._label_binarizer.inverse_transform(p if self.n_outputs_ > 1 else p.ravel())
        xp = self._model.device.xp
        if self._multilabel:
            return (p > 0.5).astype("int64")
        places = p.argmax(axis=1) if self.n_outputs_ > 1 else (p[:, 0] > 0.5).astype("int64")
        places = xp.minimum(places, len(self.classes_) - 1)  # with one class, every answer is that
        if self.classes_.dtype.kind not in "buif":
            return self.classes_[self._model.device.to_host(places)]
        return xp.asarray(self.classes_)[places]

    def _scored(self, t: HostArray, p: HostArray, w: HostArray | None) -> float:
        if t.ndim == 2:
            right = (yes_or_no(np, p) == t).all(axis=1)
        elif len(self.classes_) == 1:  # it is every answer
            right = np.isfinite(p[:, 0])
        else:
            right = (most_probable(np, p) if p.shape[1] > 1 else yes_or_no(np, p[:, 0])) == t
        return float(np.average(right, weights=w))

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation_data: Data | None = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train from new weights (with `warm_start`: from the current ones), and return the estimator.

        Args:
            X: rows, (N, I): an array, a SciPy sparse matrix, an array of the estimator's GPU, or a data frame, also one
                with words, dates or holes.
            y: classes, (N,), of any kind; of several labels at once, 0 and 1, (N, O).
            sample_weight: a weight per row, (N,).
            validation_data: deprecated; a pair of X_val and y_val, which no Pipeline transforms.
            X_val, y_val: rows and their classes, evaluated after each epoch; `early_stopping` uses them in place of a
                part of X. A Pipeline transforms X_val with transform_input=["X_val"].
            sample_weight_val: a weight per row of X_val, for loss and score.
        """
        return self._fit(X, y, sample_weight, validation_data, X_val, y_val, sample_weight_val)

    @available_if(has_partial_fit)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch on these rows, with the state of the update rule, and return the estimator.

        Args:
            X, y, sample_weight: as for `fit`.
            classes: all classes of all calls, (C,); required in the first call.
        """
        if self.class_weight == "balanced":
            raise ValueError("class_weight='balanced' needs all rows at once, and partial_fit gets some: give weights")
        y, classes = self._on_host(y), self._on_host(classes)
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer().fit(y if type_of_target(y).startswith("multilabel") else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class, (N, C), or of each label by itself, (N, O)."""
        p = self._warn_if_not_finite(self._outputs(X))
        if self.n_outputs_ > 1:
            return p
        xp = np if isinstance(p, np.ndarray) else self._model.device.xp
        with self._model.device.activate():
            return xp.concatenate([1.0 - p, p], axis=1)

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithm of `predict_proba`."""
        p = self.predict_proba(X)
        with self._model.device.activate():
            return (np if isinstance(p, np.ndarray) else self._model.device.xp).log(p)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on rows X with the classes y; for several labels, the share of rows with all labels right."""
        y, p, w = map(self._on_host, (y, self.predict(X), sample_weight))
        return float(accuracy_score(y, p, sample_weight=w))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@documented
class MLPRegressor(RegressorMixin, TrainingMixin, PredictionMixin, ExchangeMixin):  # type: ignore[misc]
    """A regressor: squared error, or Poisson's deviance.

    The arguments are those of `sklearn.neural_network.MLPRegressor`; those from `device` on are new.

    >>> x = [[0.0], [1.0], [2.0], [3.0]]
    >>> model = MLPRegressor(hidden_layer_sizes=10, solver="lbfgs", random_state=0).fit(x, [1.0, 3.0, 5.0, 7.0])
    >>> model.predict([[4.0]]).round(1).tolist()
    [9.0]

    Args:
        loss: "squared_error", half of it; or "poisson", half the deviance of counts whose rate is exp of the output.
        {arguments}

    {attributes}
    """

    _y_numeric = True
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS | {
        "loss": [StrOptions({"squared_error", "poisson"})]
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: str | Device = "cpu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        optimizer: str | Optimizer | None = None,
        schedule: str | Schedule | None = None,
        restore_best: bool = False,
        callback: Callable[[Any], Any] | None = None,
        n_ensembles: int | None = None,
    ) -> None:
        store(self, locals())

    def _task(self) -> tuple[str, Loss]:
        return "regression", PoissonDeviance() if self.loss == "poisson" else MeanSquaredError()

    def _targets(self, y: Any, *, reset: bool, held_out: bool = False) -> HostArray:
        if self.loss == "poisson" and (y < 0).any():
            raise ValueError(f"y must be at least 0 for the loss 'poisson': it holds {y.min():g}")
        t: HostArray = y.reshape(len(y), -1)
        return t

    def _reported(self, loss: float, penalty: float) -> float:
        return super()._reported(loss / (self.n_outputs_ if self.loss == "squared_error" else 1), penalty)

    def _decoded(self, p: Array) -> Array:
        return p.ravel() if p.shape[1] == 1 else p

    def _scored(self, t: HostArray, p: HostArray, w: HostArray | None) -> float:
        return float(r2_score(t, p, sample_weight=w)) if np.isfinite(p).all() else float("nan")

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation_data: Data | None = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train from new weights (with `warm_start`: from the current ones), and return the estimator.

        Args:
            X: rows, (N, I): an array, a SciPy sparse matrix, an array of the estimator's GPU, or a data frame, also one
                with words, dates or holes.
            y: numbers, (N,) or (N, O).
            sample_weight: a weight per row, (N,).
            validation_data: deprecated; a pair of X_val and y_val, which no Pipeline transforms.
            X_val, y_val: rows and their targets, evaluated after each epoch; `early_stopping` uses them in place of a
                part of X. A Pipeline transforms X_val with transform_input=["X_val"].
            sample_weight_val: a weight per row of X_val, for loss and score.
        """
        return self._fit(X, y, sample_weight, validation_data, X_val, y_val, sample_weight_val)

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on these rows, with the state of the update rule, and return the estimator.

        As in scikit-learn, the solver lbfgs minimizes the loss of these rows, from the current weights.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2 on rows X with the targets y, the mean over outputs."""
        y, p, w = map(self._on_host, (y, self.predict(X), sample_weight))
        return float(r2_score(y, p, sample_weight=w))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
