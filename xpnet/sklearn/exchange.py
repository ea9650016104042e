"""Conversion of estimators: model files, and scikit-learn's own estimators."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from ..core.checks import check_float, check_int, flag, path_of
from ..core.device import Device, get_device
from ..core.errors import ModelFileError
from ..core.files import write_atomically
from ..core.rng import check_seed
from ..model.mlp import MLP, build_model
from ..model.model_file import STATE, building, read_model_file, write_model_file
from ..model.onnx_file import onnx_model
from ..nn import ACTIVATIONS, BatchNorm
from ..training.state_file import alike
from .base import BaseMLP
from .models import in_dtype, like_model
from .rules import PoissonDeviance

THEIR_ACTIVATIONS = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}  # by our names
FITTED = (  # fitted attributes besides the network: numbers or lists of them
    "n_iter_",
    "t_",
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
    "validation_loss_curve_",
)
NUMBERS = ("taken", "learning_rate", "no_improvement", "seeds")  # of an update rule's state
LOSSES = ("loss_", "best_loss_", "loss_curve_", "validation_loss_curve_")  # NumPy scalars


class ExchangeMixin(BaseMLP):
    """Model files, and conversion from and to scikit-learn's estimators."""

    def save(self, path: Path | str, *, optimizer_state: bool = False) -> None:
        """Write the fitted estimator to a model file, without pickle; `xpnet.MLP.load` reads it, too.

        Arguments that are objects (a random state, a rule, a schedule or a callback of your own) are left out. So is
        the state of the update rule, with which `partial_fit` goes on: without it, the rule begins anew in the next
        call. (`fit` begins anew in any case.)

        Args:
            path: the file; it is replaced as a whole, or not at all.
            optimizer_state: keep the state of the update rule. PyTorch then needs `load_state_dict(..., strict=False)`.

        Raises:
            ValueError: there is no such state, as with the solver lbfgs, or the rule is an object of your own.
        """
        check_is_fitted(self)
        path = path_of(path)
        state = self._optimizer_state() if flag("optimizer_state", optimizer_state) else None
        plain = self._plain_model()
        about: dict[str, Any] = {
            "class": type(self).__name__,
            "parameters": _plain_items(self.get_params(deep=False) | {"device": object()}),
            "fitted": _plain_items({name: getattr(self, name) for name in FITTED if hasattr(self, name)}),
        }
        if self._members is None:  # as in files of earlier versions
            del about["parameters"]["n_ensembles"]
        if hasattr(self.hidden_layer_sizes, "__iter__"):  # an array, maybe
            about["parameters"]["hidden_layer_sizes"] = self._hidden()
        if hasattr(self, "feature_names_in_"):
            about["feature_names"] = self.feature_names_in_.tolist()
        if hasattr(self, "classes_"):
            about["classes"] = self.classes_.tolist()
            if not all(isinstance(one, bool | int | float | str) for one in about["classes"]):
                raise ValueError(f"a model file holds classes that are numbers or strings, not {self.classes_!r}")
            about["classes_dtype"] = self.classes_.dtype.str
        if state is not None:
            about["optimizer"] = {name: state.pop(name) for name in NUMBERS}
        use = plain.settings() | {"estimator": about}
        write_model_file(path, plain.network, plain.loss, use, optimizer_state=state)

    def to_onnx(self, path: Path | str) -> None:
        """Write the fitted estimator to an ONNX file, as `xpnet.MLP.to_onnx` does; it needs no skl2onnx.

        The input `input` is (N, I), of the type that the network computes in: float32 after a fit on float32 rows, else
        float64. After a fit on a data frame with words, dates or holes, each column is an input of its name, (N, 1),
        as in `xpnet.MLP.to_onnx`. A classifier's outputs are `label`, (N,), what `predict` returns (0 and 1 for
        booleans), and `probabilities`, (N, C), what `predict_proba` returns; of several labels at once, `probabilities`
        alone. A regressor's is `predictions`, (N, O), float64. Where outputs are not finite, `label` is the empty
        string, NaN, or -1 (one below the least class, where that is less).

        Args:
            path: the file; it is replaced as a whole, or not at all.

        Raises:
            ValueError: classes are neither numbers nor strings, or there are 2 GiB of weights.
        """
        check_is_fitted(self)
        path = path_of(path)
        made = onnx_model(self._plain_model(), classes=getattr(self, "classes_", None))
        write_atomically(path, made.SerializeToString())

    def _plain_model(self) -> MLP:
        """The model with a loss of xpnet's own, over the same network."""
        model = self._model
        loss = model.loss.settings()["loss"]  # without the factor
        return like_model(model, model.network, "poisson" if isinstance(loss, PoissonDeviance) else loss)

    def _optimizer_state(self) -> dict[str, Any]:
        """Arrays of the update rule, and its numbers."""
        if self._fitting is None:
            raise ValueError(
                f"there is no state of an optimizer to save: the solver was {self.solver}, or none has run"
            )
        for name in ("optimizer", "schedule"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name}={getattr(self, name)!r} is an object, which a file does not hold")
        rule = self._fitting.optimizer
        values = (self._fitting.taken, rule.learning_rate, self._no_improvement_count, self._model.network.seeds)
        return dict(rule.state) | dict(zip(NUMBERS, values, strict=True))

    def _take_optimizer_state(self, arrays: dict[str, Any], numbers: dict[str, Any]) -> None:
        """Invert `_optimizer_state`."""
        self._fitting = fitting = self._new_fitting(1, incremental=True)
        rule, device = fitting.optimizer, self._model.device
        unlike = [name for name, array in rule.state.items() if not alike(arrays.get(f"{STATE}{name}"), array)]
        if unlike:
            raise ValueError(f"{', '.join(unlike)} of the optimizer missing or of another shape")
        with device.activate():
            for name, array in rule.state.items():
                array[...] = device.asarray(arrays[f"{STATE}{name}"])
        fitting.taken = check_int("taken", numbers["taken"], least=0)
        rule.learning_rate = check_float("learning_rate", numbers["learning_rate"], above=0.0)
        self._no_improvement_count = check_int("no_improvement", numbers["no_improvement"], least=0)
        self._model.network.seeds = [check_seed(seed) for seed in numbers["seeds"]]

    @classmethod
    def load(cls, path: Path | str, *, device: str | Device = "cpu") -> Any:
        """Load an estimator that `save` wrote; raise `ModelFileError`, naming the file, if it is damaged."""
        path = path_of(path)
        metadata, tensors = read_model_file(path)
        about = metadata.get("estimator")
        if not isinstance(about, dict) or about.get("class") != cls.__name__:
            found = about.get("class") if isinstance(about, dict) else "a model"
            raise ModelFileError(f"{path} holds no {cls.__name__}: it holds {found!s:.80}")
        model = build_model(path, metadata, tensors, device, {}, {})
        with building(path, "an estimator"):
            arguments = {name: _from_plain(value) for name, value in about["parameters"].items()}
            if isinstance(arguments["hidden_layer_sizes"], list):
                arguments["hidden_layer_sizes"] = tuple(arguments["hidden_layer_sizes"])
            estimator = cls(**arguments, device=get_device(device).name)
            if (model.replicas, model.ensemble) != (estimator._members, estimator._members is not None):
                raise ValueError(f"its network is not an ensemble of {estimator.n_ensembles}")
            classes = _classes(about, len(model.class_names)) if "classes" in about else None
            _restore(estimator, model, classes)
            fitted = {name: about["fitted"][name] for name in FITTED if name in about["fitted"]}
            fitted |= {name: _float64(fitted[name]) for name in LOSSES if name in fitted}
            estimator.__dict__.update(fitted)
            if "optimizer" in about:
                estimator._take_optimizer_state(tensors, about["optimizer"])
            if "feature_names" in about:
                estimator.feature_names_in_ = np.array(about["feature_names"], dtype=object)
                if model.preparation is not None:
                    estimator.n_features_in_ = len(about["feature_names"])  # columns, and not the network's features
        return estimator

    @classmethod
    def from_sklearn(cls, estimator: Any, *, device: str | Device = "cpu") -> Any:
        """Convert a fitted estimator of scikit-learn: the same arguments and weights."""
        kind = _their_class(cls)
        if not isinstance(estimator, kind) or not hasattr(estimator, "coefs_"):
            raise TypeError(f"from_sklearn takes a fitted sklearn.neural_network.{kind.__name__}, not {estimator!r}")
        ours = cls(**estimator.get_params(), device=get_device(device).name)
        classes = estimator.classes_ if hasattr(estimator, "classes_") else None
        sizes = [estimator.coefs_[0].shape[0], *(w.shape[1] for w in estimator.coefs_)]
        _set_classes(ours, classes, multilabel=estimator.out_activation_ == "logistic" and estimator.n_outputs_ > 1)
        ours._adopt(ours._new_model(sizes, estimator.coefs_[0].dtype.name, get_device(device)))
        ours.coefs_, ours.intercepts_ = estimator.coefs_, estimator.intercepts_
        ours._reset_history()
        ours.n_features_in_ = sizes[0]
        for name in (*FITTED, "feature_names_in_"):
            if hasattr(estimator, name):
                setattr(ours, name, copy.copy(getattr(estimator, name)))
        return ours

    def to_sklearn(self) -> Any:
        """Convert to scikit-learn's estimator with the same weights; raise ValueError where it has no equivalent."""
        check_is_fitted(self)
        model, kind = self._model, _their_class(type(self))
        kinds = {type(layer) for layer in model.network.layers}
        used = sorted(name for name, layer in ACTIVATIONS.items() if layer in kinds)
        unknown = [name for name in used if name not in THEIR_ACTIVATIONS]
        if unknown:
            raise ValueError(f"scikit-learn has no activation {unknown[0]!r}")
        if len(used) > 1:
            raise ValueError(f"scikit-learn has one activation for all layers, and here are {' and '.join(used)}")
        if model.ensemble:
            raise ValueError("scikit-learn has no ensemble of networks")
        if model.preparation is not None:
            raise ValueError("scikit-learn's estimator takes features, and this one data frames with words or holes")
        if BatchNorm in kinds:
            raise ValueError("scikit-learn has no batch normalization")
        arguments = self.get_params(deep=False)
        arguments["activation"] = THEIR_ACTIVATIONS[used[0]] if used else "relu"
        if "loss" in arguments:
            arguments["loss"] = "poisson" if model.loss.output_activation == "exp" else "squared_error"
        known = kind().get_params()
        if model.loss.output_activation == "exp" and "loss" not in known:
            raise ValueError("this version of scikit-learn has no loss 'poisson'")
        theirs = kind(**{name: arguments[name] for name in known if name in arguments})
        theirs.coefs_ = [model.device.to_host(w).copy() for w in self.coefs_]
        theirs.intercepts_ = [model.device.to_host(b).copy() for b in self.intercepts_]
        names = ("n_features_in_", "feature_names_in_", "n_layers_", "n_outputs_", "out_activation_", "classes_")
        for name in (*names, *FITTED, "_label_binarizer", "_no_improvement_count"):
            if hasattr(self, name) and name != "validation_loss_curve_":
                setattr(theirs, name, copy.copy(getattr(self, name)))
        theirs._best_coefs, theirs._best_intercepts = list(theirs.coefs_), list(theirs.intercepts_)
        return theirs


def _float64(value: Any) -> Any:
    """Convert a number, or a list of them, to NumPy scalars."""
    if isinstance(value, list):
        return [np.float64(one) for one in value]
    return None if value is None else np.float64(value)


def _classes(about: dict[str, Any], count: int) -> Any:
    """Classes of a file, at most `count`; strings are as wide as they need to be, whatever the file says."""
    classes, kind = about["classes"], np.dtype(about["classes_dtype"])
    if len(classes) > count or kind.kind not in "biufUO":
        raise ValueError(f"it has {len(classes)} classes of type {kind}, and its model has {count}")
    return np.array(classes, dtype="U" if kind.kind == "U" else kind)


def _restore(estimator: BaseMLP, model: MLP, classes: Any) -> None:
    """Set the model of an estimator to one that was loaded."""
    _set_classes(estimator, classes, multilabel=model.task.name == "multilabel")
    loss = PoissonDeviance() if model.loss.output_activation == "exp" else model.loss
    estimator._adopt(in_dtype(model, model.network.dtype, estimator._summed(loss)))
    estimator._reset_history()
    estimator.n_features_in_ = model.in_features


def _set_classes(estimator: BaseMLP, classes: Any, *, multilabel: bool) -> None:
    """Set the classes of an estimator, where it has some."""
    if classes is None:
        return
    shown = np.eye(2, len(classes), dtype=int) if multilabel else classes  # two rows of 0 and 1 are several labels
    estimator._label_binarizer = LabelBinarizer().fit(shown)
    estimator.classes_ = np.asarray(classes) if not multilabel else estimator._label_binarizer.classes_


def _their_class(cls: type) -> Any:
    """Find scikit-learn's class of the same name, also for a subclass of ours."""
    return next(getattr(neural_network, one.__name__) for one in cls.__mro__ if hasattr(neural_network, one.__name__))


def _plain_items(values: dict[str, Any]) -> dict[str, Any]:
    """Values that JSON can hold, as Python's own types."""
    items = {}
    for name, value in values.items():
        with contextlib.suppress(TypeError):
            items[name] = _plain(value)
    return items


def _plain(value: Any) -> Any:
    """Convert a value for JSON, a dict to its pairs; raise TypeError for a type that JSON lacks."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {"pairs": [[_plain(name), _plain(one)] for name, one in value.items()]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"JSON has no {type(value).__name__}")


def _from_plain(value: Any) -> Any:
    """Invert `_plain`, with lists for tuples."""
    if isinstance(value, list):
        return [_from_plain(one) for one in value]
    return dict(value["pairs"]) if isinstance(value, dict) else value
