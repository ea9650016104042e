"""The model of an estimator: how arguments make it, and the attributes that show it."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight

from ..core.checks import elements
from ..core.device import Array, Device, HostArray, get_device
from ..data.preparation import Preparation
from ..model.mlp import MLP
from ..nn import ACTIVATIONS, Linear, Loss, MeanSquaredError
from ..nn.activations import Sigmoid
from .arguments import CONSTRAINTS
from .fitting import Fitting
from .inputs import on_host
from .models import copy_values, with_biases
from .rules import Summed

OUT_ACTIVATIONS = {"softmax": "softmax", "sigmoid": "logistic", "identity": "identity", "exp": "exp"}


class Arrays(list[Any]):
    """List of views of a network on a device; assigning an array of host or device to an element writes into it."""

    def __init__(self, device: Device, arrays: Iterable[Array]) -> None:
        super().__init__(arrays)
        self._device = device

    def __setitem__(self, place: Any, value: Any) -> None:
        for array, one in zip(self[place], value, strict=True) if isinstance(place, slice) else [(self[place], value)]:
            shape = one.shape if hasattr(one, "shape") else np.shape(one)
            if shape != array.shape:
                raise ValueError(f"an array of the shape {array.shape} cannot be given one of {shape}")
            with self._device.activate():
                array[...] = self._device.asarray(one)


def _no_intercept(layer: Linear, device: Device) -> Array:
    """Read-only zeros, for a layer without a bias."""
    zeros = device.zeros((*layer.W.shape[:-2], layer.out_features), layer.dtype)
    if isinstance(zeros, np.ndarray):
        zeros.flags.writeable = False
    return zeros


class BaseMLP(BaseEstimator):  # type: ignore[misc]
    """Base of classifier and regressor: the model, its weights, and the history of a fit."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS
    n_ensembles: int | None = None  # in pickles of earlier versions

    # Overridden by the two subclasses

    def _task(self) -> tuple[str, Loss]:
        """Name of the task, and its loss."""
        raise NotImplementedError

    def _targets(self, y: Any, *, reset: bool, held_out: bool = False) -> HostArray:
        """Check and encode targets for the loss, (N,) or (N, O); with `reset`, learn the classes from them.

        Held-out rows may lack some classes.
        """
        raise NotImplementedError

    def _weights(self, sample_weight: Any, y: Any, *, incremental: bool) -> HostArray | None:
        """Weights of rows, (N,), or None where all are equal."""
        if sample_weight is None:
            return None
        w: HostArray = _check_sample_weight(sample_weight, np.empty((y.shape[0], 1)), ensure_non_negative=True)
        if not w.any():  # before 1.8, scikit-learn did not look
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return w

    def _reported(self, loss: float, penalty: float) -> float:
        """Loss as scikit-learn reports it, from the sum of losses over outputs, and the penalty."""
        return np.float64(loss + penalty)

    def _decoded(self, p: Array) -> Array:
        """Predictions for outputs p, (N, O)."""
        raise NotImplementedError

    def _scored(self, t: HostArray, p: HostArray, w: HostArray | None) -> float:
        """Score of outputs p, (N, O), for targets t."""
        raise NotImplementedError

    # The model

    def _hidden(self) -> list[int]:
        several = elements(self.hidden_layer_sizes)
        hidden = [operator.index(one) for one in ([self.hidden_layer_sizes] if several is None else several)]
        if any(one <= 0 for one in hidden):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        return hidden

    def _width(self, t: HostArray) -> int:
        """Number of outputs for targets: one per column or class; two classes share one."""
        if t.ndim == 2:
            return int(t.shape[1])
        return len(self.classes_) if len(self.classes_) > 2 else 1

    @property
    def _whole_batch(self) -> bool:
        return self.solver == "lbfgs" and self.optimizer is None

    @property
    def _members(self) -> int | None:
        """Number of members of an ensemble; None for a single network."""
        return None if self.n_ensembles in (None, 1) else self.n_ensembles

    def _new_model(self, sizes: list[int], dtype: str, device: Device, preparation: Preparation | None = None) -> MLP:
        """Make a model whose weights are zero."""
        task, _ = self._task()
        several = isinstance(self.activation, list | tuple)
        names = [
            "sigmoid" if name == "logistic" else name for name in (self.activation if several else [self.activation])
        ]
        classes = self.classes_ if task == "classification" else ()
        return MLP(
            sizes,
            task=task,
            loss=self._summed(),
            activation=names if several else names[0],
            batch_norm=self.batch_norm,
            dropout=self.dropout,
            init="zeros",
            replicas=self._members,
            ensemble=self._members is not None,
            dtype=dtype,
            device=device,
            class_names=[str(one) for one in classes] if len(classes) > 1 else None,
            preparation=preparation,
        )

    def _summed(self, loss: Loss | None = None, *, by_rows: bool = True) -> Summed:
        """Wrap a loss, by default the task's, to be summed as in scikit-learn."""
        loss = loss or self._task()[1]
        return Summed(loss, 0.5 if isinstance(loss, MeanSquaredError) else 1.0, by_rows)

    def _adopt(self, model: MLP) -> None:
        """Set the model of this estimator, and the attributes that describe it."""
        self._model = model
        self._made_of = self._network_arguments()
        self._fitting: Fitting | None = None
        self.n_outputs_ = model.out_features
        self.n_layers_ = len(self._linear) + 1
        self.out_activation_ = OUT_ACTIVATIONS[model.loss.output_activation]

    def _network_arguments(self) -> tuple[Any, ...]:
        """Arguments, besides the units, that determine network and loss."""
        return self.batch_norm, self.activation, self.dropout, getattr(self, "loss", None)

    def _rebuild(self, *, keep: bool) -> None:
        """Rebuild network and loss after a change of arguments, with the same values.

        With `keep`, the state of the update rule stays, too.
        """
        old, fitting = self._model, self._fitting
        if self.batch_norm != self._made_of[0]:
            raise ValueError("batch_norm cannot change from fit to fit with warm_start: the network has other values")
        sizes = [old.in_features, *(layer.out_features for layer in self._linear)]
        new = self._new_model(sizes, old.network.dtype, old.device, old.preparation)
        biases = [layer.bias for layer in self._linear]  # earlier versions had them before batch normalization
        new = with_biases(new, biases)
        new.network.seeds = old.network.seeds
        copy_values(old, new)
        self._adopt(new)
        if keep and fitting is not None:
            fitting.use(new)
            self._fitting = fitting

    def _draw(self) -> None:
        """Draw weights and biases as scikit-learn does: uniformly, by Glorot and Bengio's rule."""
        network, states = self._model.network, [self._random_state]
        if network.replicas is not None:  # a copy's seeds, so that the first member is the single network
            seeds = copy.deepcopy(self._random_state).randint(2**31, size=network.replicas - 1)
            states += [np.random.RandomState(seed) for seed in seeds]
        for r, state in enumerate(states):
            self._draw_member(() if network.replicas is None else r, state.uniform)
        if network.random:
            network.seeds = [int(state.randint(2**31)) for state in states]

    def _draw_member(self, r: Any, uniform: Any) -> None:
        """Draw the member r, or, for (), the single network."""
        network = self._model.network
        factors = [2.0 if isinstance(layer, Sigmoid) else 6.0 for layer in network.layers if _is_activation(layer)]
        alone = 2.0 if self.activation in ("logistic", "sigmoid") else 6.0  # without hidden layers, as in scikit-learn
        for layer, factor in zip(self._linear, [*factors, (factors or [alone])[-1]], strict=True):
            bound = np.sqrt(factor / (layer.in_features + layer.out_features))
            layer.W[r] = network.device.asarray(uniform(-bound, bound, layer.W[r].shape), dtype=network.dtype)
            if layer.bias:
                layer.b[r] = network.device.asarray(uniform(-bound, bound, layer.b[r].shape), dtype=network.dtype)

    def _reset_history(self) -> None:
        """Reset the attributes that record the epochs of a fit; lbfgs has none."""
        self.n_iter_ = self.t_ = 0
        if self._whole_batch:
            return
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] | None = [] if self.early_stopping else None
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: Any = -np.inf if self.early_stopping else None
        self.best_loss_: Any = None if self.early_stopping else np.inf
        self._no_improvement_count = 0
        self._best: tuple[Array, ...] | None = None  # best values of this fit
        self._best_watched = np.inf

    @property
    def _linear(self) -> list[Linear]:
        return [layer for layer in self._model.network.layers if isinstance(layer, Linear)]

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer, (I, O), or (R, I, O): views of the network; assigning writes into them."""
        layers = self._fitted_layers("coefs_")
        return Arrays(self._model.device, (layer.W for layer in layers))

    @coefs_.setter
    def coefs_(self, arrays: Any) -> None:
        for layer, w in zip(self._fitted_layers("coefs_"), arrays, strict=True):
            layer.W = w

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, (O,), or (R, O): views of the network; assigning writes into them.

        A layer before batch normalization has no bias: it shows zeros, and accepts only zeros.
        """
        layers = self._fitted_layers("intercepts_")
        device = self._model.device
        return Arrays(device, (layer.b[..., 0, :] if layer.bias else _no_intercept(layer, device) for layer in layers))

    @intercepts_.setter
    def intercepts_(self, arrays: Any) -> None:
        for place, (layer, given) in enumerate(zip(self._fitted_layers("intercepts_"), arrays, strict=True)):
            b = np.asarray(self._on_host(given)).reshape(*layer.W.shape[:-2], 1, -1)
            if layer.bias:
                layer.b = b
            elif b.any():
                raise ValueError(f"intercepts_[{place}] must be zero: batch normalization behind it takes any bias off")

    @property
    def preparation_(self) -> Preparation | None:
        """How features are made of data frames with words, dates or holes; None where rows are features."""
        self._fitted_layers("preparation_")
        return self._model.preparation

    def _fitted_layers(self, name: str) -> list[Linear]:
        if not hasattr(self, "_model"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}: it is not fitted yet")
        return self._linear

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_model")

    def _on_host(self, array: Any) -> Any:
        return on_host(self._model.device if hasattr(self, "_model") else get_device(self.device), array)

    # A pickle holds no device and no arrays of one: the machine that loads it may lack the device.
    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {name: value for name, value in super().__getstate__().items() if name != "_running"}
        if state.get("_best") is not None:  # it is pickled in a callback
            state = state | {"_best": tuple(map(self._on_host, state["_best"]))}
        return state | ({"device": self.device.name} if isinstance(self.device, Device) else {})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _is_activation(layer: Any) -> bool:
    return type(layer) in ACTIVATIONS.values()
