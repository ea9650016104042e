"""A step as the compiler takes it: its arrays by name, and the model over traced arrays."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from ..compile import AllReduceCall, Step, TracedArray, UntraceableError, why_not_compiled
from ..core.checks import plain_attributes
from ..core.device import Array, Device
from ..core.shard import WHOLE
from ..data.batches import Rows
from ..model.compiled import Compiled, Warn, try_compile_step, warn_of_failure
from ..model.mlp import MLP
from ..optim import Optimizer, State
from .step import EpochSums, evaluation_step, training_step

SWITCHED_OFF = "it was switched off"


@dataclass(frozen=True)
class StepArrays:
    """All arrays that a step reads or assigns.

    Attributes:
        values, gradients, buffers: of the network.
        index: numbers of the batch's rows, (B,); None in an evaluation step, which reads all of `rows`.
        rows: the rows.
        sums: the epoch's sums.
        state: of the optimizer.
        scalars: learning rate and other numbers of the step.
    """

    values: Array
    gradients: Array
    buffers: Array
    index: Array | None
    rows: Rows
    sums: EpochSums
    state: State = field(default_factory=dict)
    scalars: State = field(default_factory=dict)

    @classmethod
    def of(cls, model: MLP, index: Array | None, rows: Rows, sums: EpochSums, **others: State) -> StepArrays:
        """Arrays of a step of `model`; `others` are `state` and `scalars`."""
        network = model.network
        return cls(network.values, network.gradients, network.buffers, index, rows, sums, **others)

    @property
    def per_step(self) -> set[str]:
        """Names of the arrays that each step has its own of."""
        return set(self.rows.arrays()) if self.index is None else {"index", *(f"scalars {key}" for key in self.scalars)}

    @property
    def gathered(self) -> set[str]:
        """Names of the arrays that a step only gathers from: it reads the rows `index`, along axis 0."""
        return set() if self.index is None else gathered_names(self.rows)

    def flatten(self) -> State:
        """Return all arrays by name."""
        arrays: State = {}
        for name, value in vars(self).items():
            if isinstance(value, dict):
                arrays |= {f"{name} {key}": array for key, array in value.items()}
            elif isinstance(value, Rows | EpochSums):
                arrays |= value.arrays()
            elif value is not None:
                arrays[name] = value
        return arrays

    def unflatten(self, arrays: State) -> StepArrays:
        """Return the same fields with the arrays of the same names."""

        def of(name: str, value: Any) -> Any:
            if isinstance(value, dict):
                return {key: arrays[f"{name} {key}"] for key in value}
            if isinstance(value, Rows | EpochSums):
                return replace(value, **{key: arrays[key] for key in value.arrays()})
            return None if value is None else arrays[name]

        return StepArrays(**{name: of(name, value) for name, value in vars(self).items()})


def gathered_names(rows: Rows) -> set[str]:
    """Names of the arrays of `rows` with one row along axis 0 for each: all but weights of replicas, (R, N)."""
    return {name for name, array in rows.arrays().items() if name != "w" or array.ndim == 1}


def traceable_training_step(model: MLP, optimizer: Optimizer, arrays: StepArrays) -> Step:
    """Return `training_step` as a function of arrays by name; it refuses what changes from step to step."""

    def step(xp: Any, traced: State) -> None:
        a = arrays.unflatten(traced)
        assert a.index is not None
        copied, rule = _over(model, xp, a), copy.copy(optimizer)
        rule.state = a.state
        owners = owners_of_settings(copied, rule)
        before = [dict(vars(owner)) for owner in owners]
        known = set(vars(rule))
        training_step(copied, rule, a.rows.over(xp), a.index, a.scalars, a.sums)
        for owner, attributes in zip(owners, before, strict=True):
            for name, value in attributes.items():
                if vars(owner).get(name) is not value:
                    raise UntraceableError(f"{type(owner).__name__}.{name}, which changes from step to step")

        if made := plain_attributes(rule).keys() - known:
            raise UntraceableError(f"{type(rule).__name__}.{min(made)}, which a step makes: declare it in __init__")

    return step


def compiled_training_step(
    model: MLP,
    optimizer: Optimizer,
    arrays: StepArrays,
    steps_per_call: int,
    warn: Warn | None = None,
    precision: str = "fp32",
    all_reduce: AllReduceCall | None = None,
) -> Compiled:
    """Compile `training_step` for arrays of these shapes and types."""
    step = traceable_training_step(model, optimizer, arrays)
    options: dict[str, Any] = {"precision": precision, "all_reduce": all_reduce}
    return _compiled(step, arrays, model.device, steps_per_call, warn=warn or warn_of_failure, **options)


def compiled_evaluation_step(model: MLP, arrays: StepArrays, steps_per_call: int) -> Compiled:
    """Compile `evaluation_step` for arrays of these shapes and types."""

    def step(xp: Any, traced: State) -> None:
        a = arrays.unflatten(traced)
        evaluation_step(_over(model, xp, a), a.rows, a.sums)

    return _compiled(step, arrays, model.device, steps_per_call)


def why_eager(model: MLP, compiled: bool) -> str | None:
    """Return why steps run eagerly, as far as is known before they are traced; None where they may be compiled."""
    if not compiled:
        return SWITCHED_OFF
    if model.device.index is not None and (reason := why_not_compiled(model.device)) is not None:
        return reason
    return model.why_untraceable()


def settings_of(model: MLP, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the settings that are constants of a compiled step: numbers and strings of layers, loss and optimizer."""
    return [plain_attributes(owner) for owner in owners_of_settings(model, optimizer)]


def owners_of_settings(model: MLP, optimizer: Optimizer) -> list[Any]:
    """Return layers, loss and optimizer."""
    return [*model.network.layers, model.loss, optimizer]


def _over(model: MLP, xp: Any, a: StepArrays) -> MLP:
    """Return a copy of a model over traced arrays."""
    shard = model.network.shard
    traced = WHOLE if shard is WHOLE else replace(shard, add=TracedArray.sum_over_ranks)
    return model.over(xp, a.values, a.gradients, a.buffers, traced)


def _compiled(step: Step, arrays: StepArrays, device: Device, steps_per_call: int, **options: Any) -> Compiled:
    given: dict[str, Any] = {"gathered": arrays.gathered, "per_step": arrays.per_step, "device": device}
    return try_compile_step(step, arrays.flatten(), steps_per_call=steps_per_call, **given, **options)
