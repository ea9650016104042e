"""Arguments and attributes that the two estimators share: their docstrings and their constraints."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from ..device import Device
from ..nn import ACTIVATIONS
from ..optim import OPTIMIZERS, SCHEDULES, Optimizer

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

CONSTRAINTS: dict[str, list[Any]] = {
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
"""Types and ranges of the arguments, as scikit-learn checks them."""


def documented(estimator: type[Estimator]) -> type[Estimator]:
    """Put the arguments and attributes that the estimators share into a docstring."""
    doc = estimator.__doc__ or ""
    estimator.__doc__ = doc.replace("        {arguments}", ARGUMENTS.strip("\n")).replace(
        "    {attributes}", ATTRIBUTES.strip("\n")
    )
    return estimator


def store(estimator: object, arguments: Mapping[str, Any]) -> None:
    """Keep a constructor's arguments as they are."""
    estimator.__dict__.update({name: value for name, value in arguments.items() if name != "self"})
