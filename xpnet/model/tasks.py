"""Tasks, the meaning of a network's outputs: one class of several, several labels at once, or numbers.

A task checks targets and encodes them for the loss, sums up its metric on the device, and decodes outputs for the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.checks import check_text, elements, shown
from ..core.device import Array, Device, HostArray, count_true
from ..core.errors import did_you_mean
from ..data.arrays import check_labels, check_targets
from ..data.class_weights import class_weights
from ..data.scaling import check_scaling
from ..data.targets import TASKS, labels_of_names
from ..nn import LOSSES
from ..nn.losses import Loss, loss_name
from .metrics import Gather, distances, most_probable, of_one, r2_of_sums, yes_or_no

OUTPUTS = ("identity", "sigmoid", "tanh", "softmax", "step")
"""Activations that may follow the last layer."""


class Task:
    """Base class of the three tasks."""

    name: str
    metric: str
    by_output = False  # whether the metric's sum has one number per output
    decoded: str | None = None  # result type of `decode`; None for the network's type

    def targets(self, y: Any, device: Device, rows: int, dtype: str, name: str = "y") -> HostArray:
        """Encode a user's targets for the loss, on the host: labels (N,), or numbers (N, O), finite in `dtype`.

        Raises TypeError or ValueError, calling them `name`, where they do not fit the task.
        """
        raise NotImplementedError

    def row_weights(self, class_weight: Any, t: HostArray) -> HostArray:
        """Weight of each row, (N,), from the weights of classes."""
        raise ValueError(f"class_weight goes with classification, and the task is {self.name}")

    def metric_sum(self, xp: Any, loss: Loss, z: Array, t: Array) -> Array:
        """Contribution of a batch to the metric's sum, (...) or (..., O), from outputs z and targets t."""
        raise NotImplementedError

    def score(self, device: Device, metric_sum: Array, t: Array, gather: Gather = of_one) -> Any:
        """Metric, a float or a list of R floats, from the sum over batches with the targets t, of all ranks."""
        raise NotImplementedError

    def decode(self, xp: Any, p: Array) -> Array:
        """Decode outputs, (..., B, O), for the user."""
        return p

    def settings(self) -> dict[str, Any]:
        """Arguments of `MLP.of` that make this task, as JSON values."""
        raise NotImplementedError


@dataclass(frozen=True)
class LabelTask(Task):
    """Base of the tasks whose outputs are named classes or labels; the metric is the share of right rows.

    Attributes:
        class_names: names of the classes or labels.
    """

    class_names: tuple[str, ...]
    metric = "accuracy"

    def score(self, device: Device, metric_sum: Array, t: Array, gather: Gather = of_one) -> Any:
        """Share of rows that are right."""
        return (device.to_host(metric_sum) / sum(gather(len(t)))).tolist()

    def settings(self) -> dict[str, Any]:
        """Arguments task and class_names."""
        return {"task": self.name, "class_names": list(self.class_names)}


@dataclass(frozen=True)
class Classification(LabelTask):
    """One class of several for each row; two classes may be one output, the logit of the second.

    Attributes:
        class_names: C names.
        single: whether the two classes are one output.
    """

    single: bool = False
    name = "classification"

    def targets(self, y: Any, device: Device, rows: int, dtype: str, name: str = "y") -> HostArray:
        """Convert labels, names of classes, or one-hot rows, (N, C), to labels, int64, (N,)."""
        y = labels_of_names(y, self.class_names, name)
        return check_labels(y, device, rows, len(self.class_names), name)

    def row_weights(self, class_weight: Any, t: HostArray) -> HostArray:
        """Weight of each row's class."""
        return class_weights(class_weight, t, self.class_names)[t]

    def metric_sum(self, xp: Any, loss: Loss, z: Array, t: Array) -> Array:
        """Number of rows that are right, (...); rows with NaN are not."""
        predicted = yes_or_no(xp, z[..., 0], loss.threshold) if self.single else most_probable(xp, z)  # (..., B)
        return count_true(predicted == t)

    def decode(self, xp: Any, p: Array) -> Array:
        """Probability of each class, (..., B, C)."""
        return xp.where(xp.arange(2) == 1, p, 1.0 - p) if self.single else p


@dataclass(frozen=True)
class Multilabel(LabelTask):
    """Any number of labels at once for each row, each a yes or a no.

    Attributes:
        class_names: O names.
    """

    name = "multilabel"

    def targets(self, y: Any, device: Device, rows: int, dtype: str, name: str = "y") -> HostArray:
        """Check that targets are 0 and 1, (N, O)."""
        t = check_targets(y, device, rows, len(self.class_names), dtype, name)
        wrong = (t != 0) & (t != 1)
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(f"{name} must hold 0 and 1: row {row}, column {column} is {t[row, column]:g}")
        return t

    def metric_sum(self, xp: Any, loss: Loss, z: Array, t: Array) -> Array:
        """Number of rows with all labels right, (...); NaN is never right."""
        return count_true(count_true(yes_or_no(xp, z, loss.threshold) == t) == z.shape[-1])


@dataclass(frozen=True)
class Regression(Task):
    """Numbers. The loss sees (t - shift) / scale; predictions are in the user's units.

    Attributes:
        shift, scale: O numbers, one per output.
        min_target: smallest valid target of the loss, in the user's units, or None.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    min_target: float | None = None
    name = "regression"
    metric = "r2"
    by_output = True
    decoded = "float64"

    def targets(self, y: Any, device: Device, rows: int, dtype: str, name: str = "y") -> HostArray:
        """Scale targets, float64, (N, O)."""
        t = check_targets(y, device, rows, len(self.shift), "float64", name)
        if self.min_target is not None and (t < self.min_target).any():
            raise ValueError(f"{name} must be at least {self.min_target:g} for this loss: it holds {t.min():g}")
        return check_targets((t - self.shift) / self.scale, device, rows, len(self.shift), dtype, name)

    def metric_sum(self, xp: Any, loss: Loss, z: Array, t: Array) -> Array:
        """Sum of squared errors of each output, (..., O)."""
        d = loss.output(xp, z) - t
        return (d * d).sum(axis=-2)

    def score(self, device: Device, metric_sum: Array, t: Array, gather: Gather = of_one) -> Any:
        """R2, the mean over outputs."""
        t_host = device.to_host(t).astype(np.float64)
        return r2_of_sums(device.to_host(metric_sum), distances(t_host, gather)).mean(axis=-1).tolist()

    def decode(self, xp: Any, p: Array) -> Array:
        """Predictions in the user's units, float64: a shift may be far larger than the scale, or beyond float32."""
        shift, scale = (xp.asarray(value, dtype="float64") for value in (self.shift, self.scale))
        return p.astype("float64") * scale + shift

    def settings(self) -> dict[str, Any]:
        """Arguments task, target_shift and target_scale."""
        return {"task": self.name, "target_shift": list(self.shift), "target_scale": list(self.scale)}


def make_task(name: str, outputs: int, loss: Loss, class_names: Sequence[str] | None, shift: Any, scale: Any) -> Task:
    """Make the task `name` of a model with a number of outputs; raise where an argument does not go with it."""
    if name == "regression":
        if class_names is not None:
            raise ValueError("class_names goes with classification and multilabel, and the task is regression")
        shift = check_scaling("target_shift", shift, outputs, "outputs")
        scale = check_scaling("target_scale", scale, outputs, "outputs", above=0.0)
        every = [value if isinstance(value, tuple) else (value,) * outputs for value in (shift, scale)]
        return Regression(every[0], every[1], loss.min_target)
    if np.any(np.asarray(shift) != 0.0) or np.any(np.asarray(scale) != 1.0):
        raise ValueError(f"target_shift and target_scale go with regression, and the task is {name}")
    single = name == "classification" and outputs == 1
    classes = 2 if single else outputs
    given = elements(range(classes) if class_names is None else class_names)
    if given is None:
        raise TypeError(f"class_names must be a sequence of names, not {shown(class_names)}")
    names = tuple(check_text("class_names", one.decode() if isinstance(one, bytes) else str(one)) for one in given)
    if len(names) != classes:
        raise ValueError(f"class_names has {len(names)} names, and there are {classes} classes")
    return Classification(names, single) if name == "classification" else Multilabel(names)


def choose_loss(task: str, loss: str | Loss | None, output: str | None, *, single: bool) -> tuple[Loss, str | None]:
    """Choose the loss, and the activation that follows the last Linear layer, or None.

    There is none where the loss has the activation built in, as softmax and sigmoid are, or where it is `step`, which
    only predictions use. Raises ValueError for arguments that do not go together.

    Args:
        task: a name in `xpnet.data.TASKS`.
        loss: a name in `LOSSES`, or a loss; None for the one that suits task and output.
        output: a name in `OUTPUTS`, or None for the task's own.
        single: whether a classification's two classes are one output.
    """
    for name, value, known in (("task", task, TASKS), ("loss", loss, LOSSES), ("output", output, OUTPUTS)):
        free = isinstance(value, Loss) or (value is None and name != "task")
        if not free and not (isinstance(value, str) and value in known):
            raise ValueError(f"unknown {name} {value!r}: {did_you_mean(str(value), known)}")
    if loss is None:
        loss = _suitable(task, output, single)
    chosen = LOSSES[loss]() if isinstance(loss, str) else loss
    called = loss_name(chosen)
    kinds = {"softmax": ("classification",), "sigmoid": ("classification", "multilabel"), "exp": ("regression",)}
    if task not in kinds.get(chosen.output_activation, TASKS):
        raise ValueError(f"the loss {called} does not go with the task {task}")
    if single and task == "classification" and chosen.output_activation != "sigmoid":
        raise ValueError(f"one output tells two classes apart by binary cross entropy, not by {called}")
    if output == "step" and chosen.output_activation != "sigmoid":
        raise ValueError(f"the output step goes with binary cross entropy, and the loss is {called}")
    if output == "step" and task == "classification" and not single:
        raise ValueError("the output step tells two classes apart, as one output; more take softmax, or sigmoid")
    if output in (None, "step", chosen.output_activation):
        return chosen, None
    if chosen.output_activation != "identity":
        raise ValueError(
            f"the output {output} does not go with the loss {called}, which has {chosen.output_activation} built in"
        )
    return chosen, output


def _suitable(task: str, output: str | None, single: bool) -> str:
    """Name of the loss for a task and its output."""
    if task == "regression":
        return "mean-squared-error"
    if output in ("sigmoid", "step") or (output is None and (single or task == "multilabel")):
        return "binary-cross-entropy"
    if task == "classification" and output in (None, "softmax"):
        return "softmax-cross-entropy"
    return "mean-squared-error"
