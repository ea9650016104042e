"""From options and data to a trainer of a new model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from ..compile import why_not_compiled
from ..core.device import CPU, Device, HostArray
from ..data import Dataset, standard_scaling
from ..data.arrays import check_features
from ..data.augmentation import Augmentation, picture_shape
from ..data.batches import Rows
from ..data.handwriting import pictures_in
from ..data.scaling import Scaling
from ..model.mlp import MLP
from ..nn import LOSSES, BinaryCrossEntropy, Loss, SoftmaxCrossEntropy
from ..optim import OPTIMIZERS, SCHEDULES, Mixed, Optimizer
from ..optim.schedules import warmup
from .calibration import check_can_be_calibrated
from .config import Config, default_threads
from .ranks import Ranks
from .trainer import Trainer, rows_with_targets

OF_RULE = ("optimizer", "momentum", "clip_norm", "clip_value")
PER_REPLICA = (*OF_RULE, "lr", "weight_decay", "l1", "dropout", "seed")
"""The options in which networks that train together, as replicas, may differ."""


def prepare(config: Config, data: Dataset) -> Dataset:
    """Hold out validation rows, standardize, and check; raise TypeError or ValueError where that cannot be done."""
    if config.held_out is not None:
        data = data.hold_out(config.held_out, config.seed)
    data = data.prepared(config.seed)
    if config.standardize and data.preparation is None:
        data = data.standardize()
    dtype = "float64" if config.standardize else config.dtype
    for name in ("x_train", "x_validation", "x_test"):
        x = getattr(data, name)
        if x is not None:
            checked = check_features(x, CPU, features=data.x_train[0].size, dtype=dtype, name=name)
            data = replace(data, **{name: checked.reshape(x.shape).view(type(x))})  # those of a table stay `Features`
    return data


def network_sizes(config: Config, data: Dataset) -> list[int]:
    """Return the number of inputs, of units in each hidden layer, and of outputs, of a network for this data."""
    outputs = data.y_train.shape[1] if data.y_train.ndim == 2 else len(data.class_names)
    own = config.loss in (None, "binary-cross-entropy") and config.output in (None, "sigmoid", "step")
    if data.task == "classification" and outputs == 2 and own and not config.label_smoothing:
        outputs = 1  # two classes are one sigmoid
    return [data.x_train[0].size, *config.hidden, outputs]


def build(
    configs: Sequence[Config], data: Dataset, device: Device, ranks: Ranks | None = None
) -> tuple[Trainer, dict[str, Any]]:
    """Return a trainer of a new model, or ensemble, for data that was prepared, and the arguments of its `fit`.

    Several configs, which differ in nothing but `PER_REPLICA`, are as many replicas; rows come in the order of the
    first one's seed. With ranks, each trains on its part of the rows. Raises TypeError or ValueError for options that
    do not go together, or not with the data.
    """
    config = configs[0]
    sizes = network_sizes(config, data)
    loss = _loss(config, data)
    targets: dict[str, Any] = {"class_names": data.class_names}
    if data.task == "regression":
        shift, scale = _target_scaling(data.y_train, loss, config.output)
        targets = {"target_shift": shift, "target_scale": scale}
    model = MLP(
        sizes,
        task=data.task,
        loss=loss,
        output=config.output,
        activation=config.activation * (len(config.hidden) if len(config.activation) == 1 else 1),
        batch_norm=config.batch_norm,
        dropout=_each(configs, "dropout"),
        init=config.init,
        replicas=config.networks if len(configs) == 1 else len(configs),
        seed=config.seeds or _each(configs, "seed"),
        dtype=config.dtype,
        device=device,
        input_shape=data.input_shape,
        input_shift=data.input_shift,
        input_scale=data.input_scale,
        preparation=data.preparation,
        pictures=pictures_in(data.x_train),
        ensemble=config.ensemble is not None,
        **targets,
    )
    if config.calibrate:
        check_can_be_calibrated(model)
    rounded = device.index is not None and config.dtype == "float32"
    trainer = Trainer(
        model,
        _rule_of_all(configs),
        batch_size=config.batch_size,
        seed=config.seed,
        compile=config.compile,
        precision=config.precision if rounded else "fp32",
        communicator=ranks,
        augment=_augmentation(config, model),
    )
    total = config.total_steps(trainer.steps_in_epoch(len(data.x_train)))
    if config.warmup >= total:
        raise ValueError(f"warmup ({config.warmup}) must be shorter than the run, which has {total} steps")
    schedule = SCHEDULES[config.schedule](total - config.warmup)
    trainer.schedule = warmup(config.warmup, schedule) if config.warmup else schedule
    return trainer, _fit_arguments(config, data, model, total, ranks)


def rule_key(config: Config) -> tuple[Any, ...]:
    """Options that must be equal for one update rule to serve several networks."""
    return tuple(getattr(config, name) for name in OF_RULE)


def _rule_of_all(configs: Sequence[Config]) -> Optimizer:
    """Return the update rule of the configs: one, or a rule for each run of configs that can share it."""
    runs = [list(run) for _, run in groupby(configs, key=rule_key)]
    rules = [(_rule(run, alone=len(configs) == 1), len(run)) for run in runs]
    return rules[0][0] if len(rules) == 1 else Mixed(rules)


def _rule(configs: Sequence[Config], *, alone: bool) -> Optimizer:
    """Return one update rule, with the rates and decays of each config, or of the only one."""
    first = configs[0]
    kind: Any = OPTIMIZERS[first.optimizer]
    usual = kind()
    options: dict[str, Any] = {name: getattr(first, name) for name in ("momentum", "clip_norm", "clip_value")}
    for name, argument in (("lr", "learning_rate"), ("weight_decay", "weight_decay"), ("l1", "l1")):
        values = [getattr(config, name) for config in configs]
        values = [getattr(usual, argument) if value is None else value for value in values]
        options[argument] = values[0] if alone else values
    rule: Optimizer = kind(**{name: value for name, value in options.items() if value is not None})
    return rule


def _fit_arguments(config: Config, data: Dataset, model: MLP, steps: int, ranks: Ranks | None) -> dict[str, Any]:
    """Return the arguments of `Trainer.fit`, with rows that are checked and on the device."""

    def rows(name: str, w: Any = None, class_weight: Any = None) -> Rows:
        x, y = getattr(data, f"x_{name}"), getattr(data, f"y_{name}")
        found = rows_with_targets(model, x.reshape(len(x), -1), y, w, class_weight, f"y_{name}")
        return found if ranks is None else found.part(ranks.part(slice(0, len(x)))).copied()

    with model.device.activate(), np.errstate(all="ignore"):
        return {
            "x": rows("train", data.w_train, config.class_weight if data.task == "classification" else None),
            "y": None,
            "steps": steps,
            "validation": None if data.x_validation is None else (rows("validation"), None),
            "test": (rows("test"), None),
            "early_stop": config.early_stop,
            "on_divergence": config.on_divergence,
        }


def _augmentation(config: Config, model: MLP) -> Augmentation | None:
    """Return the distortions of pictures that the options ask for; those of digits grow with the pictures."""
    return Augmentation.of(config.augment, min(picture_shape(model.input_shape)[:2])) if config.augment else None


def threads_for(config: Config, data: Dataset, device: Device) -> int:
    """Return the number of threads that a run may use on the CPU."""
    compiled = config.compile and device.index is None and why_not_compiled() is None
    return config.threads or default_threads(network_sizes(config, data), config.batch_size, compiled=compiled)


def _each(configs: Sequence[Config], name: str) -> Any:
    """Return an option: of one config its value, of several a list."""
    values = [getattr(config, name) for config in configs]
    return values[0] if len(values) == 1 else values


def _loss(config: Config, data: Dataset) -> str | Loss | None:
    """Return the loss that the options ask for: a name, a loss with settings, or None for the task's own."""
    if config.label_smoothing:
        return SoftmaxCrossEntropy(config.label_smoothing)
    if config.class_weight is None or data.task == "classification":  # there, rows have the weight of their class
        return config.loss
    if data.task == "regression":
        raise ValueError("class_weight goes with classes, and the task is regression")
    if config.loss not in (None, "binary-cross-entropy"):
        raise ValueError(f"class_weight of several labels goes with binary cross entropy, and not with {config.loss}")
    yes = data.y_train.sum(axis=0)
    no = len(data.y_train) - yes
    return BinaryCrossEntropy(np.where((yes > 0) & (no > 0), no / np.maximum(yes, 1), 1.0).tolist())


def _target_scaling(y: HostArray, loss: str | Loss | None, output: str | None) -> tuple[Scaling, Scaling]:
    """Return the shift and scale of a regression's targets, (N, O).

    They get mean 0 and deviation 1; behind a sigmoid or tanh, the range that it can reach. What a loss or an output
    takes as it is, such as counts or shares, is left alone.
    """
    built_in = (
        LOSSES[loss].output_activation if isinstance(loss, str) else getattr(loss, "output_activation", "identity")
    )
    if built_in != "identity" or output == "softmax":
        return 0.0, 1.0
    if output not in ("sigmoid", "tanh"):
        return standard_scaling(y)
    low, high = y.min(axis=0), y.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    shift, scale = (low, span) if output == "sigmoid" else ((low + high) / 2.0, span / 2.0)
    return tuple(shift.tolist()), tuple(scale.tolist())
