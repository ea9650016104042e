"""What classifier and regressor share: scikit-learn's contract, on a model and a `Fitting`."""

from __future__ import annotations

import copy
import functools
import operator
import warnings
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import scipy.optimize
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from ..checks import elements, one_at_a_time, path_of
from ..data.arrays import check_features, check_pair, check_rows
from ..data.batches import spans
from ..device import Array, Device, get_device
from ..interrupts import DeferredInterrupt
from ..nn import ACTIVATIONS, Linear, Loss, MeanSquaredError
from ..nn.activations import Sigmoid
from ..optim import OPTIMIZERS, SCHEDULES, Optimizer
from ..optim.schedules import constant
from ..training.early_stopping import asks_to_stop
from ..training.model import MLP, PREDICT_ROWS
from . import exchange
from .fitting import Examples, Fitting, HostArray, dense_rows, few_threads
from .rules import SGD, Adam, Gather, Summed
from .validation import warn_if_elsewhere

DTYPES = (np.float64, np.float32)  # those that stay as they are; all others become float64
OUT_ACTIVATIONS = {"softmax": "softmax", "sigmoid": "logistic", "identity": "identity", "exp": "exp"}
LEAST_RATE = 1e-6  # at which the adaptive learning rate stops

Data = tuple[Any, Any]
Estimator = TypeVar("Estimator")


ARGUMENTS = """
        hidden_layer_sizes: units in each hidden layer: a number, or several.
        activation: behind the hidden layers: "relu", "tanh", "logistic", "identity", or any other name in
            `xpnet.nn.ACTIVATIONS`; a list has one for each layer.
        solver: "adam", "sgd", or "lbfgs", which takes all rows at once, and no dropout, batch_norm, schedule,
            restore_best, callback or validation data.
        alpha: of the L2 penalty alpha / 2 |W|^2, divided by the number of a batch's rows.
        batch_size: rows in a step; "auto" is 200, or all rows where there are fewer.
        learning_rate: of sgd: "constant"; "invscaling", learning_rate_init / (rows seen)^power_t; or "adaptive", a
            fifth whenever training would stop, down to 1e-6.
        learning_rate_init, power_t: see `learning_rate`.
        max_iter: epochs at most; iterations of lbfgs.
        shuffle: whether each epoch takes the rows in another order.
        random_state: a seed, a `numpy.random.RandomState`, or None for another fit each time.
        tol, n_iter_no_change: stop once the training loss (with `early_stopping`, the score) has not improved by `tol`
            for more than so many epochs.
        verbose: print the loss of each epoch.
        warm_start: `fit` goes on from the weights that there are, by the arguments that there are now; units and device
            stay as they are, and batch_norm must.
        momentum, nesterovs_momentum: of sgd.
        early_stopping, validation_fraction: hold out so many of the rows, stop by the score on them, and go back to the
            best epoch.
        beta_1, beta_2, epsilon: of adam.
        max_fun: calls of the loss by lbfgs at most.
        device: "cpu", "cuda", "cuda:N" or "auto": where the network lives. With a GPU's, arrays of CuPy stay there, and
            predictions for them are such arrays.
        dropout: the rate of dropout behind each activation.
        batch_norm: whether batch normalization stands before each activation.
        optimizer: a name in `xpnet.optim.OPTIMIZERS`, or a rule of its own settings, in place of `solver`.
        schedule: a factor of the learning rate by the number of steps taken, or a name in `xpnet.optim.SCHEDULES`, made
            for `max_iter` epochs.
        restore_best: go back to the epoch with the lowest loss, on validation data where there are some.
        callback: called with the estimator after each epoch; training stops where it returns True.
"""
"""What the two estimators' arguments do, for their docstrings."""

ATTRIBUTES = """
    Attributes:
        coefs_, intercepts_: weights, (I, O), and biases, (O,), of each layer; assigning to them sets the network's.
        loss_, best_loss_, loss_curve_: of the last epoch, the best one, and each; with the penalty.
        validation_scores_, best_validation_score_, validation_loss_curve_: on held-out rows; None without any.
        n_iter_, t_: epochs of the last fit, and rows seen by all.
        n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_: of the network, and what it is for.
"""
"""What a fit leaves, for their docstrings."""


def documented(estimator: type[Estimator]) -> type[Estimator]:
    """Put the arguments and attributes that the estimators share into a docstring."""
    doc = estimator.__doc__ or ""
    estimator.__doc__ = doc.replace("        {arguments}", ARGUMENTS.strip("\n")).replace(
        "    {attributes}", ATTRIBUTES.strip("\n")
    )
    return estimator


class Arrays(list[Any]):
    """A list of a network's arrays, of which each stays what it is: assigning to one writes into the network."""

    def __setitem__(self, place: Any, value: Any) -> None:
        for array, one in zip(self[place], value, strict=True) if isinstance(place, slice) else [(self[place], value)]:
            shape = one.shape if hasattr(one, "shape") else np.shape(one)
            if shape != array.shape:
                raise ValueError(f"an array of the shape {array.shape} cannot be given one of {shape}")
            array[...] = one


def _no_intercept(layer: Linear) -> Array:
    """Return zeros, which cannot be assigned to, for a layer without a bias."""
    zeros = layer.xp.zeros(layer.out_features, dtype=layer.dtype)
    if isinstance(zeros, np.ndarray):
        zeros.flags.writeable = False
    return zeros


def has_partial_fit(estimator: BaseMLP) -> bool:
    """Return True; raise AttributeError for a solver of all rows at once."""
    if estimator._whole_batch:
        raise AttributeError(
            f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
        )
    return True


class BaseMLP(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({*ACTIVATIONS, "logistic"}), list, tuple],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "device": [str, Device],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean"],
        "optimizer": [None, StrOptions(set(OPTIMIZERS)), Optimizer],
        "schedule": [None, StrOptions(set(SCHEDULES)), callable],
        "restore_best": ["boolean"],
        "callback": [None, callable],
    }

    # What the two subclasses say

    def _task(self) -> tuple[str, Loss]:
        """Return the name of the task, and its loss."""
        raise NotImplementedError

    def _targets(self, y: Any, *, reset: bool, held_out: bool = False) -> HostArray:
        """Return checked targets as the loss takes them, (N,) or (N, O); with `reset`, learn the classes from them.

        Those of held-out rows may lack some classes.
        """
        raise NotImplementedError

    def _weights(self, sample_weight: Any, y: Any, x: Any, *, incremental: bool) -> HostArray | None:
        """Return the weights of rows, (N,), or None where all count alike."""
        if sample_weight is None:
            return None
        w: HostArray = _check_sample_weight(sample_weight, np.empty((x.shape[0], 1)), ensure_non_negative=True)
        if not w.any():  # before 1.8, scikit-learn did not look
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return w

    def _reported(self, loss: float, penalty: float) -> float:
        """Return what scikit-learn reports for the sum over outputs of the losses, and the penalty."""
        return np.float64(loss + penalty)

    def _decoded(self, p: Array) -> Array:
        """Return predictions for outputs p, (N, O)."""
        raise NotImplementedError

    def _scored(self, t: HostArray, p: HostArray, w: HostArray | None) -> float:
        """Return the score of outputs p, (N, O), for targets t."""
        raise NotImplementedError

    # Checks

    def _checked_x(self, x: Any, device: Device, *, reset: bool) -> Any:
        """Return rows: a NumPy array, a CSR matrix, or, of the device's own arrays, one of those.

        Those to predict for must be finite in the network's type.
        """
        refuse_strangers(device, x)
        dtype = "float64" if reset else self._model.network.dtype
        if lives_on(device, x):
            if x.ndim != 2:
                raise ValueError(f"Expected 2D array, got {x.ndim}D array instead: the shape of X is {x.shape}")
            check_rows(x, "X")
            validate_data(self, x, skip_check_array=True, reset=reset)
            return check_features(x, device, features=x.shape[-1], dtype=dtype, name="X")
        kept = "numeric" if dtype == "float64" else dtype
        return validate_data(self, x, accept_sparse="csr", dtype=kept, reset=reset)

    def _checked(self, x: Any, y: Any, device: Device, *, reset: bool) -> tuple[Any, HostArray]:
        """Return rows, and targets, on the host, that go with them."""
        refuse_strangers(device, x)
        y = on_host(device, y)
        if lives_on(device, x):
            if y is None:
                raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
            x = self._checked_x(x, device, reset=reset)
            x = x if x.dtype in DTYPES else x.astype(np.float64)
            y = _check_y(y, multi_output=True, y_numeric=self._y_numeric, estimator=self)
            check_consistent_length(x, y)
        else:
            options = {"accept_sparse": "csr", "dtype": DTYPES, "multi_output": True, "y_numeric": self._y_numeric}
            x, y = validate_data(self, x, y, reset=reset, **options)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return x, y

    def _check_outputs(self, t: HostArray) -> None:
        """Raise ValueError for targets that are not as many in a row as the network has outputs."""
        if t.ndim == 2 and t.shape[1] != self.n_outputs_:
            raise ValueError(f"y is for a network of {t.shape[1]} outputs, and this one has {self.n_outputs_}")

    def _hidden(self) -> list[int]:
        several = elements(self.hidden_layer_sizes)
        hidden = [operator.index(one) for one in ([self.hidden_layer_sizes] if several is None else several)]
        if any(one <= 0 for one in hidden):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        return hidden

    def _width(self, t: HostArray) -> int:
        """Return how many outputs targets take: one a column; for classes one each, and for two of them one in all."""
        if t.ndim == 2:
            return int(t.shape[1])
        return len(self.classes_) if len(self.classes_) > 2 else 1

    @property
    def _whole_batch(self) -> bool:
        return self.solver == "lbfgs" and self.optimizer is None

    # The model

    def _new_model(self, sizes: list[int], dtype: str, device: Device) -> MLP:
        """Return a model whose weights are zero."""
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
            dtype=dtype,
            device=device,
            class_names=[str(one) for one in classes] if len(classes) > 1 else None,
        )

    def _summed(self, loss: Loss | None = None, *, by_rows: bool = True) -> Summed:
        """Return the loss, by default the one that was asked for, as scikit-learn adds it up."""
        loss = loss or self._task()[1]
        return Summed(loss, 0.5 if isinstance(loss, MeanSquaredError) else 1.0, by_rows)

    def _take(self, model: MLP) -> None:
        """Make a model this estimator's, and set what is known of it."""
        self._model = model
        self._made_of = self._asked_for()
        self._fitting: Fitting | None = None
        self.n_outputs_ = model.out_features
        self.n_layers_ = len(self._linear) + 1
        self.out_activation_ = OUT_ACTIVATIONS[model.loss.output_activation]

    def _asked_for(self) -> tuple[Any, ...]:
        """Return the arguments, besides the units, that network and loss are made of."""
        return self.batch_norm, self.activation, self.dropout, getattr(self, "loss", None)

    def _make_anew(self, *, keep: bool) -> None:
        """Go on, after a change of arguments, with other layers and another loss, but the same values.

        With `keep`, the state of the update rule stays, too.
        """
        old, fitting = self._model, self._fitting
        if self.batch_norm != self._made_of[0]:
            raise ValueError("batch_norm cannot change from fit to fit with warm_start: the network has other values")
        sizes = [old.in_features, *(layer.out_features for layer in self._linear)]
        new = self._new_model(sizes, old.network.dtype, old.device)
        biases = [layer.bias for layer in self._linear]  # earlier versions had them in front of batch normalization
        new = exchange.with_biases(new, biases)
        new.network.seeds = old.network.seeds
        exchange.copy_values(old, new)
        self._take(new)
        if keep and fitting is not None:
            fitting.use(new)
            self._fitting = fitting

    def _draw(self) -> None:
        """Draw weights and biases as scikit-learn does: uniformly, by Glorot and Bengio's rule."""
        network, uniform = self._model.network, self._random_state.uniform
        factors = [2.0 if isinstance(layer, Sigmoid) else 6.0 for layer in network.layers if _is_activation(layer)]
        alone = 2.0 if self.activation in ("logistic", "sigmoid") else 6.0  # without hidden layers, as there
        for layer, factor in zip(self._linear, [*factors, (factors or [alone])[-1]], strict=True):
            bound = np.sqrt(factor / (layer.in_features + layer.out_features))
            layer.W = uniform(-bound, bound, (layer.in_features, layer.out_features))
            if layer.bias:
                layer.b = uniform(-bound, bound, layer.out_features)[None]
        if network.random:
            network.seeds = [int(self._random_state.randint(2**31))]

    def _begin(self) -> None:
        """Set what the epochs of a first fit, and of those that go on from it, add to; lbfgs has none."""
        self.n_iter_ = self.t_ = 0
        if self._whole_batch:
            return
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] | None = [] if self.early_stopping else None
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: Any = -np.inf if self.early_stopping else None
        self.best_loss_: Any = None if self.early_stopping else np.inf
        self._no_improvement_count = 0
        self._best: tuple[Array, ...] | None = None  # what was best in this fit
        self._best_watched = np.inf

    @property
    def _linear(self) -> list[Linear]:
        return [layer for layer in self._model.network.layers if isinstance(layer, Linear)]

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each layer, (I, O): views of the network, through which they can be assigned."""
        return Arrays(layer.W for layer in self._fitted_layers("coefs_"))

    @coefs_.setter
    def coefs_(self, arrays: Any) -> None:
        for layer, w in zip(self._fitted_layers("coefs_"), arrays, strict=True):
            layer.W = w

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of each layer, (O,): views of the network, through which they can be assigned.

        A layer in front of batch normalization has none: it shows zeros, and takes nothing else.
        """
        layers = self._fitted_layers("intercepts_")
        return Arrays(layer.b[0] if layer.bias else _no_intercept(layer) for layer in layers)

    @intercepts_.setter
    def intercepts_(self, arrays: Any) -> None:
        for place, (layer, given) in enumerate(zip(self._fitted_layers("intercepts_"), arrays, strict=True)):
            b = (given if lives_on(self._model.device, given) else np.asarray(given)).reshape(1, -1)
            if layer.bias:
                layer.b = b
            elif b.any():
                raise ValueError(f"intercepts_[{place}] must be zero: batch normalization behind it takes any bias off")

    def _fitted_layers(self, name: str) -> list[Linear]:
        if not hasattr(self, "_model"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}: it is not fitted yet")
        return self._linear

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_model")

    # Fitting

    def _fit(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        validation_data: Data | None = None,
        x_val: Any = None,
        y_val: Any = None,
        *,
        incremental: bool = False,
    ) -> Self:
        if x_val is not None or y_val is not None:
            if validation_data is not None:
                raise ValueError("validation_data and X_val, y_val cannot both be given: they are the same thing")
            if x_val is None or y_val is None:
                raise ValueError(f"X_val and y_val go together: {'X_val' if x_val is None else 'y_val'} is missing")
            validation_data = x_val, y_val
        running = self.__dict__.setdefault("_running", {})
        with DeferredInterrupt() as interrupt, one_at_a_time(running, "the estimator"):
            return self._fit_alone(x, y, sample_weight, validation_data, interrupt, incremental=incremental)

    def _fit_alone(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        validation_data: Data | None,
        interrupt: DeferredInterrupt,
        *,
        incremental: bool,
    ) -> Self:
        hidden = self._hidden()
        first = not hasattr(self, "_model") or not (self.warm_start or incremental)
        device = get_device(self.device) if first else self._model.device
        with device.activate(), np.errstate(all="ignore"):
            checked = functools.partial(self._checked, reset=first)
            x, y = interrupt.call(checked, x, y, device)  # nothing is half done yet, and it may take long
            t = self._targets(y, reset=not hasattr(self, "classes_") or not (self.warm_start or incremental))
            w = self._weights(on_host(device, sample_weight), y, x, incremental=incremental)
            self._random_state = check_random_state(self.random_state)
            if first:
                self._take(self._new_model([x.shape[1], *hidden, self._width(t)], np.dtype(x.dtype).name, device))
                self._draw()
                self._begin()
            elif self._asked_for() != self._made_of:
                self._make_anew(keep=incremental)
            self._check_outputs(t)
            if self._whole_batch:
                self._fit_whole(x, t, w, validation_data, interrupt)
            else:
                self._fit_batches(x, t, w, validation_data, interrupt, incremental=incremental)
            network = self._model.network
            if not device.to_host(network.xp.isfinite(network.values).all()):
                raise ValueError(
                    "Solver produced non-finite parameter weights. The input data may contain large values and need"
                    " to be preprocessed."
                )
        return self

    def _fit_whole(
        self,
        x: Any,
        t: HostArray,
        w: HostArray | None,
        validation_data: Data | None,
        interrupt: DeferredInterrupt,
    ) -> None:
        """Minimize the loss of all rows by SciPy's L-BFGS-B, in float64 whatever the type of the rows."""
        names = ("batch_norm", "dropout", "schedule", "restore_best", "callback")
        refused = [name for name in names if getattr(self, name)] + ["validation_data"] * (validation_data is not None)
        if refused:
            raise ValueError(f"the solver lbfgs has no {', '.join(refused)}: take sgd or adam")
        model = exchange.in_dtype(self._model, "float64", self._summed(by_rows=False))
        fitting = Fitting(model, Gather(), self.alpha, constant())
        examples = Examples(model, x, t, w)

        def loss_and_gradient(values: HostArray) -> tuple[float, HostArray]:
            model.network.values = values
            loss, penalty, gradient = fitting.loss_and_gradient(examples, interrupt)
            self.loss_ = self._reported(loss, penalty)
            return loss + penalty, gradient

        def tell(values: HostArray) -> None:
            self.n_iter_ += 1
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")

        self.n_iter_ = 0
        result = scipy.optimize.minimize(
            loss_and_gradient,
            model.device.to_host(model.network.values).copy(),
            method="L-BFGS-B",
            jac=True,
            callback=tell if self.verbose else None,
            options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol},
        )
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)
        loss_and_gradient(result.x)
        exchange.copy_values(model, self._model)

    def _fit_batches(
        self,
        x: Any,
        t: HostArray,
        w: HostArray | None,
        validation_data: Data | None,
        interrupt: DeferredInterrupt,
        *,
        incremental: bool,
    ) -> None:
        """Train epoch by epoch, until the loss, or the score on held-out rows, no longer gets better."""
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if incremental and isinstance(self.schedule, str) and self.schedule != "constant":
            raise ValueError(
                f"schedule={self.schedule!r} is made for the length of a fit, and partial_fit does not know how many"
                " calls there will be: give a function of the number of steps, such as those in xpnet.optim.schedules"
            )
        if not hasattr(self, "loss_curve_"):  # until now, the solver was lbfgs
            self._begin()
        train, held_out = self._held_out(x, t, w, validation_data)
        n = len(train)
        batch_size = 200 if self.batch_size == "auto" else self.batch_size
        if batch_size > n and self.batch_size != "auto":
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
            )
        batch_size = min(batch_size, n)
        if self._fitting is None or not incremental:
            self._fitting = self._new_fitting(-(-n // batch_size), incremental)
        self._fitting.optimizer.alpha = float(self.alpha)  # which may have changed since the last partial_fit
        if self.restore_best and not incremental:  # of this fit: losses on other rows would be no measure
            self._best, self._best_watched = self._model.network.snapshot(), np.inf
        examples = Examples(self._model, x, t, w)
        order = train
        self.n_iter_ = 0
        diverged = False
        interrupt.check()  # before a step there is nothing to go on with
        try:
            for _ in range(self.max_iter):
                if self.shuffle:  # as `sklearn.utils.shuffle` does
                    places = np.arange(n)
                    self._random_state.shuffle(places)
                    order = order[places]
                loss, penalty = self._fitting.epoch(examples, order, batch_size, interrupt)
                self.n_iter_ += 1
                self.t_ += n
                self.loss_ = self._reported(loss, penalty)
                self.loss_curve_.append(self.loss_)
                if self.verbose:
                    print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
                if w is None or w.any():  # a chunk without weight has no loss to compare
                    self._look(held_out)
                diverged = diverged or self._told_of_losses(held_out)
                if self._is_over(interrupt) or incremental:
                    break
                if self.n_iter_ == self.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization"
                        " hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=6,
                    )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=6)
        finally:
            if self._fitting is not None:
                self._fitting.release()
            if self._best is not None:
                self._model.network.restore(self._best)
                self._best = None
        if not diverged and self._fitting is not None and not self._fitting.is_finite():
            self._tell_divergence("gradients overflowed, and the update rule has stopped", stacklevel=7)

    def _told_of_losses(self, held_out: Examples | None) -> bool:
        """Warn where the last epoch's loss, or that of held-out rows, is not finite; return whether it was so."""
        losses = {"training": self.loss_}
        if held_out is not None and self.validation_loss_curve_:
            losses["validation"] = self.validation_loss_curve_[-1]
        for name, loss in losses.items():
            if not np.isfinite(loss):
                self._tell_divergence(f"the {name} loss is {loss} after epoch {self.n_iter_}", stacklevel=8)
                return True
        return False

    def _tell_divergence(self, how: str, stacklevel: int) -> None:
        message = f"Training diverged: {how}. Try a lower learning_rate_init, or scale the data."
        warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)

    def _new_fitting(self, steps_in_epoch: int, incremental: bool) -> Fitting:
        steps = self.max_iter * steps_in_epoch
        schedule = self.schedule or constant()
        if isinstance(schedule, str):
            schedule = SCHEDULES[schedule](steps)
        return Fitting(self._model, self._rule(), self.alpha, schedule, expected=0 if incremental else steps)

    def _rule(self) -> Optimizer:
        """Return the update rule: scikit-learn's, or one of xpnet's with the arguments that it takes."""
        if isinstance(self.optimizer, Optimizer):
            return copy.deepcopy(self.optimizer)
        if self.optimizer is None and self.solver == "sgd":
            return SGD(self.learning_rate_init, self.momentum, self.nesterovs_momentum)
        if self.optimizer is None:
            return Adam(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)
        given = {"momentum": self.momentum} if self.optimizer in ("momentum", "nesterov") else {}
        if self.optimizer in ("adam", "adamw"):
            given = {"beta1": self.beta_1, "beta2": self.beta_2, "epsilon": self.epsilon}
        return OPTIMIZERS[self.optimizer](self.learning_rate_init, **given)

    def _held_out(
        self, x: Any, t: HostArray, w: HostArray | None, validation_data: Data | None
    ) -> tuple[HostArray, Examples | None]:
        """Return which rows to train on, and the rows to look at after each epoch, or None."""
        everything = np.arange(x.shape[0])
        if validation_data is not None:
            x_held, y_held = self._checked(
                *check_pair("validation_data", validation_data), self._model.device, reset=False
            )
            t_held = self._targets(y_held, reset=False, held_out=True)
            self._check_outputs(t_held)
            self._compare(x, t, x_held, t_held)
            return everything, Examples(self._model, x_held, t_held, None)
        if not self.early_stopping:
            return everything, None
        # As in scikit-learn, two classes are cut evenly, and more of them as chance has it. There they are a
        # column, for which the same rows take twelve times as long; it says what is wrong with a class of one.
        even = t.astype(bool) if t.ndim == 1 and self.n_outputs_ == 1 else None
        if even is not None and min(even.sum(), (~even).sum()) == 1:
            even = even[:, None]
        train, held = train_test_split(
            everything, random_state=self._random_state, test_size=self.validation_fraction, stratify=even
        )
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        if w is not None and not w[held].any():
            raise ValueError("Sample weights must contain at least one non-zero number, also among held-out rows.")
        device = self._model.device
        x_held = x[device.asarray(held)] if lives_on(device, x) else x[held]
        return train, Examples(self._model, x_held, t[held], None if w is None else w[held])

    def _compare(self, x: Any, t: HostArray, x_held: Any, t_held: HostArray) -> None:
        """Warn of validation rows that are on another scale than the training rows."""
        device = self._model.device
        why = "A Pipeline transforms X alone, unless X_val and y_val are given, and transform_input=['X_val'] to it."
        warn_if_elsewhere(x, x_held, device, "X in validation_data", "X", why, stacklevel=8)
        if self._y_numeric:
            why = "A TransformedTargetRegressor transforms y alone."
            warn_if_elsewhere(t, t_held, device, "y in validation_data", "y", why, stacklevel=8)

    def _look(self, held_out: Examples | None) -> None:
        """See how good the model is after an epoch, and count the epochs in which it got no better."""
        watched = self.loss_
        if held_out is not None:
            watched, score = self._validated(held_out)
            best_score = -np.inf if self.best_validation_score_ is None else self.best_validation_score_
            self.best_validation_score_ = max(best_score, score)
            if self.validation_scores_ is None or self.validation_loss_curve_ is None:
                self.validation_scores_, self.validation_loss_curve_ = [], []
            self.validation_scores_.append(score)
            self.validation_loss_curve_.append(watched)
            if self.verbose:
                print(f"Validation score: {score:f}")
        if self.restore_best and watched < self._best_watched:
            self._best_watched, self._best = watched, self._model.network.snapshot()
        if self.early_stopping:
            worse = score < best_score + self.tol
            if score > best_score and not self.restore_best:
                self._best = self._model.network.snapshot()
        else:
            best_loss = np.inf if self.best_loss_ is None else self.best_loss_
            worse = self.loss_ > best_loss - self.tol
            self.best_loss_ = min(best_loss, self.loss_)
        self._no_improvement_count = self._no_improvement_count + 1 if worse else 0

    def _validated(self, held_out: Examples) -> tuple[float, float]:
        """Return loss, without penalty, and score on held-out rows."""
        model = self._model
        loss = weight = 0.0
        outputs = []
        with few_threads(model, PREDICT_ROWS):
            for span in spans(len(held_out), held_out.at_once(PREDICT_ROWS)):
                rows = held_out.part(span)
                z = model.network.forward(rows.x)
                total, n, _ = model.loss(model.network.xp, z, rows.t, rows.w)
                loss += float(model.device.to_host(total))
                weight += float(model.device.to_host(n))
                outputs.append(model.device.to_host(model.loss.output(model.network.xp, z)))
        score = self._scored(held_out.t, np.concatenate(outputs), held_out.w)
        return self._reported(loss / weight, 0.0), score

    def _is_over(self, interrupt: DeferredInterrupt) -> bool:
        """Change the learning rate as it was asked for, and say whether training is over."""
        assert self._fitting is not None
        rule, ruled = self._fitting.optimizer, self.optimizer is None and self.solver == "sgd"
        if ruled and self.learning_rate == "invscaling":
            rule.learning_rate = float(self.learning_rate_init) / (self.t_ + 1) ** self.power_t
        told = self.callback is not None and asks_to_stop(interrupt.call(self.callback, self))
        if self._no_improvement_count <= self.n_iter_no_change:
            return told
        watched = "Validation score" if self.early_stopping else "Training loss"
        message = (
            f"{watched} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."
        )
        adaptive = ruled and self.learning_rate == "adaptive"
        if not adaptive or rule.learning_rate <= LEAST_RATE:
            message += " Learning rate too small. Stopping." if adaptive else " Stopping."
        else:
            rule.learning_rate /= 5.0
            message += f" Setting learning rate to {rule.learning_rate:f}"
        if self.verbose:
            print(message)
        if message.endswith("Stopping."):
            return True
        self._no_improvement_count = 0
        return told

    @property
    def _optimizer(self) -> Optimizer:
        if self._fitting is None:
            raise AttributeError(f"{type(self).__name__} has no update rule at work: lbfgs has none")
        return self._fitting.optimizer

    # Predicting

    def _pieces(self, x: Any) -> Iterator[Array]:
        """Yield checked rows piece by piece, in the network's type, (B, I): sparse ones as they are, others as arrays.

        For the device, sparse ones are made dense.
        """
        network = self._model.network
        if not hasattr(x, "tocsr"):
            for span in spans(x.shape[0], PREDICT_ROWS):
                yield network.device.asarray(x[span], dtype=network.dtype)
        elif network.device.index is None:  # x @ W is SciPy's
            for span in spans(x.shape[0], PREDICT_ROWS):
                yield x[span].astype(network.dtype, copy=False)
        else:
            for span in spans(x.shape[0], dense_rows(x, PREDICT_ROWS)):
                yield network.device.asarray(x[span].toarray(), dtype=network.dtype)

    def _joined(self, pieces: list[Array], stays: bool) -> Array:
        """Return pieces as one array, of the device if it stays there, and of the host if not."""
        if stays:
            return self._model.network.xp.concatenate(pieces)
        return np.concatenate([*map(self._model.device.to_host, pieces)])

    def _outputs(self, x: Any) -> Array:
        """Return the outputs, probabilities or numbers, (N, O), for rows as they come: of the device, if they are."""
        check_is_fitted(self)
        model = self._model
        with model.device.activate(), np.errstate(all="ignore"), few_threads(model, PREDICT_ROWS):
            x = self._checked_x(x, model.device, reset=False)
            stays = lives_on(model.device, x)
            found = [model.loss.output(model.network.xp, model.network.forward(part)) for part in self._pieces(x)]
            return self._joined(found, stays)

    def predict(self, X: Any) -> Array:
        """Return predictions for rows X, (N, I): classes (N,), labels (N, O), or numbers (N,) or (N, O).

        What is not finite, after a fit that diverged, or for rows that are far too large, is no class: a ValueError.
        Numbers, and probabilities, come with a RuntimeWarning.
        """
        p = self._outputs(X)
        wrong = None if self._y_numeric else self._not_finite(p)
        if wrong is not None:
            raise ValueError(f"{wrong}, and stand for no class")
        return self._decoded(self._told(p) if self._y_numeric else p)

    def _not_finite(self, p: Array) -> str | None:
        """Say how many rows of outputs p, (N, O), are not finite; None for none."""
        xp = np if isinstance(p, np.ndarray) else self._model.device.xp
        finite = xp.isfinite(p).astype("int64").sum(axis=1) == p.shape[1]
        count = len(p) - int(finite.astype("int64").sum())
        where = "the fit diverged, or these rows are far too large"
        return f"the outputs of {count} of {len(p)} rows are not finite ({where})" if count else None

    def _told(self, p: Array) -> Array:
        """Return outputs p as they are, and warn where they are not finite."""
        wrong = self._not_finite(p)
        if wrong is not None:
            warnings.warn(wrong, RuntimeWarning, stacklevel=3)
        return p

    def activations(self, X: Any) -> list[Array]:
        """Return what each hidden layer makes of rows X, (N, I): what the next layer gets, a list of (N, units)."""
        check_is_fitted(self)
        network = self._model.network
        with network.device.activate(), np.errstate(all="ignore"):
            x = self._checked_x(X, network.device, reset=False)
            stays = lives_on(network.device, x)
            found: list[list[Array]] = [[] for _ in self._linear[1:]]
            for y in self._pieces(x):
                behind = iter(found)
                for index, layer in enumerate(network.layers):
                    if index and isinstance(layer, Linear):
                        next(behind).append(y)
                    y = layer.forward(y, False)
            return [self._joined(pieces, stays) for pieces in found]

    def _on_host(self, array: Any) -> Any:
        return on_host(self._model.device if hasattr(self, "_model") else get_device(self.device), array)

    # In and out

    def save(self, path: Path | str) -> None:
        """Write the fitted estimator to a file without pickle: a model file, which `xpnet.MLP.load` reads as well.

        Arguments that are objects (a random state, a rule, a schedule or a callback of your own) are left out; so is
        the state of the update rule.
        """
        check_is_fitted(self)
        exchange.save(self, path_of(path))

    @classmethod
    def load(cls, path: Path | str, *, device: str | Device = "cpu") -> Any:
        """Return the estimator in a file that `save` wrote; raise `ModelFileError`, naming it, if it is damaged."""
        return exchange.load(cls, path_of(path), device)

    @classmethod
    def from_sklearn(cls, estimator: Any, *, device: str | Device = "cpu") -> Any:
        """Return a fitted estimator with the arguments and weights of scikit-learn's."""
        return exchange.from_sklearn(cls, estimator, device)

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator with the same weights; raise ValueError for what it cannot hold."""
        check_is_fitted(self)
        return exchange.to_sklearn(self)

    # A pickle holds no arrays of a device, and no device, which may not be there where it is opened.
    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {name: value for name, value in super().__getstate__().items() if name != "_running"}
        if state.get("_best") is not None:  # it is pickled in a callback
            state = state | {"_best": tuple(map(self._on_host, state["_best"]))}
        return state | ({"device": self.device.name} if isinstance(self.device, Device) else {})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def store(estimator: BaseMLP, arguments: Mapping[str, Any]) -> None:
    """Keep a constructor's arguments as they are."""
    estimator.__dict__.update({name: value for name, value in arguments.items() if name != "self"})


def lives_on(device: Device, x: Any) -> bool:
    """Whether x is an array of a GPU that the device is."""
    return device.index is not None and isinstance(x, device.xp.ndarray)


def refuse_strangers(device: Device, x: Any) -> None:
    """Raise TypeError for an array of a GPU where the device is none."""
    if hasattr(x, "__cuda_array_interface__") and not lives_on(device, x):
        raise TypeError(f"X is an array of a GPU, and the estimator lives on {device.name}: give it device='cuda'")


def on_host(device: Device, array: Any) -> Any:
    """Return what is an array of the device as one of the host, and anything else as it is."""
    return device.to_host(array) if lives_on(device, array) else array


def _is_activation(layer: Any) -> bool:
    return type(layer) in ACTIVATIONS.values()
