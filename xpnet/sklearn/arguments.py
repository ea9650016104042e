"""Arguments and attributes that the two estimators share: their docstrings and their constraints."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from ..core.device import Device
from ..nn import ACTIVATIONS
from ..optim import OPTIMIZERS, SCHEDULES, Optimizer

Estimator = TypeVar("Estimator")

ARGUMENTS = """
        hidden_layer_sizes: units of each hidden layer: a number, or several.
        activation: activation of the hidden layers: "relu", "tanh", "logistic", "identity", or any other name in
            `xpnet.nn.ACTIVATIONS`; a list has one per layer.
        solver: "adam", "sgd", or "lbfgs", which takes all rows at once, and no dropout, batch_norm, schedule,
            restore_best, callback or X_val.
        alpha: factor of the L2 penalty alpha / 2 |W|^2, divided by the number of a batch's rows.
        batch_size: rows per step; "auto" is 200, or all rows where there are fewer.
        learning_rate: for sgd: "constant"; "invscaling", learning_rate_init / (rows seen)^power_t; or "adaptive", a
            fifth each time training would stop, down to 1e-6.
        learning_rate_init, power_t: see `learning_rate`.
        max_iter: maximum number of epochs; of iterations for lbfgs.
        shuffle: whether to shuffle the rows in each epoch.
        random_state: a seed, a `numpy.random.RandomState`, or None for another fit each time.
        tol, n_iter_no_change: stop once the training loss (with `early_stopping`, the score) has not improved by `tol`
            for more than `n_iter_no_change` epochs.
        verbose: whether to print the loss of each epoch.
        warm_start: whether `fit` continues from the current weights, with the current arguments; units and device stay,
            and batch_norm must not change.
        momentum, nesterovs_momentum: for sgd.
        early_stopping, validation_fraction: hold out this share of the rows, stop by the score on them, and restore the
            best epoch.
        beta_1, beta_2, epsilon: for adam.
        max_fun: maximum number of calls of the loss by lbfgs.
        device: device of the network: "cpu", "cuda", "cuda:N" or "auto". On a GPU, CuPy arrays stay there, and
            predictions for them are CuPy arrays.
        dropout: rate of dropout after each activation.
        batch_norm: whether to normalize before each activation.
        optimizer: a name in `xpnet.optim.OPTIMIZERS`, or an update rule, in place of `solver`.
        schedule: a factor of the learning rate by the number of steps taken, or a name in `xpnet.optim.SCHEDULES`, made
            for `max_iter` epochs.
        restore_best: whether to restore the epoch with the lowest loss, on validation data if there are any.
        callback: called with the estimator after each epoch; training stops where it returns True.
        n_ensembles: number of networks to train at once, on the same batches, which predict by the mean of their
            probabilities or numbers; None or 1 for a single one. The first takes the steps of the single one. The loss
            is the mean of theirs, the score that of the joint prediction, and they stop together. Weights have one more
            axis, in front. Not for lbfgs.
"""
"""Arguments of both estimators, for their docstrings."""

ATTRIBUTES = """
    Attributes:
        coefs_, intercepts_: weights, (I, O), and biases, (O,), of each layer; assigning to them sets the network's.
        loss_, best_loss_, loss_curve_: loss with the penalty, of the last epoch, the best one, and each.
        validation_scores_, best_validation_score_, validation_loss_curve_: on held-out rows; None without any.
        n_iter_, t_: epochs of the last fit, and rows seen by all fits.
        n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_: of the network and its inputs; of
            a data frame, the number of its columns and their names.
        preparation_: how a data frame with words, dates or holes becomes features, whose names are
            `preparation_.names`; None for numbers alone, which are features.
"""
"""Attributes of both fitted estimators, for their docstrings."""

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
    "n_ensembles": [None, Interval(Integral, 1, None, closed="left")],
}
"""Types and ranges of the arguments, as scikit-learn checks them."""


def documented(estimator: type[Estimator]) -> type[Estimator]:
    """Insert the shared arguments and attributes into a docstring."""
    doc = estimator.__doc__ or ""
    estimator.__doc__ = doc.replace("        {arguments}", ARGUMENTS.strip("\n")).replace(
        "    {attributes}", ATTRIBUTES.strip("\n")
    )
    return estimator


def store(estimator: object, arguments: Mapping[str, Any]) -> None:
    """Store a constructor's arguments unchanged."""
    estimator.__dict__.update({name: value for name, value in arguments.items() if name != "self"})
