"""Compiling the steps of a model: they are traced on a copy of it that is bound over traced arrays."""

from __future__ import annotations

import copy
import os
import warnings
from typing import Any

from ..checks import plain_attributes
from ..compile import CompileError, Executable, Step, UntraceableError, compile_step, why_not_compiled
from ..errors import one_line
from ..nn import Sequential
from ..optim import Optimizer, State
from .model import MLP
from .step import evaluation_step, training_step
from .step_arrays import StepArrays

CANNOT_TRACE = "cannot trace "
"""How every reason begins that is a refusal to trace."""


Compiled = tuple[Executable | None, bool | str]
"""A compiled step, or None where steps run eagerly; and True, or the reason why it is not compiled code."""


def compiled_training_step(model: MLP, optimizer: Optimizer, arrays: StepArrays, steps_per_call: int) -> Compiled:
    """Compile `training_step` for arrays of these shapes and types."""

    def step(xp: Any, traced: State) -> None:
        a = arrays.unflatten(traced)
        assert a.index is not None
        copied, rule = _over(model, xp, a), copy.copy(optimizer)
        rule.state = a.state
        owners = owners_of_settings(copied, rule)
        before = [dict(vars(owner)) for owner in owners]
        training_step(copied, rule, a.rows, a.index, a.scalars, a.sums)
        for owner, attributes in zip(owners, before, strict=True):
            for name, value in attributes.items():
                if vars(owner).get(name) is not value:
                    raise UntraceableError(f"{type(owner).__name__}.{name}, which changes from step to step")

    return _compiled(step, arrays, steps_per_call)


def compiled_evaluation_step(model: MLP, arrays: StepArrays, steps_per_call: int) -> Compiled:
    """Compile `evaluation_step` for arrays of these shapes and types."""

    def step(xp: Any, traced: State) -> None:
        a = arrays.unflatten(traced)
        evaluation_step(_over(model, xp, a), a.rows, a.sums)

    return _compiled(step, arrays, steps_per_call)


def why_eager(model: MLP, compiled: bool) -> str | None:
    """Return why steps run eagerly, as far as is known before they are traced; None where they may be compiled."""
    if not compiled:
        return "it was switched off"
    if model.device.index is not None:
        return "compiled steps are for the CPU"
    for owner, known in ((model, MLP), (model.network, Sequential)):
        if type(owner) is not known:
            return f"{CANNOT_TRACE}{type(owner).__name__}: only MLP and Sequential are supported"
    for layer in model.network.layers:
        for name, value in vars(layer).items():
            if callable(value) and hasattr(type(layer), name):
                return f"{CANNOT_TRACE}layer {layer.index}: its {name} was replaced, for this layer alone"
    return None


def settings_of(model: MLP, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the settings that are constants of a compiled step: numbers and strings of layers, loss and optimizer."""
    return [plain_attributes(owner) for owner in owners_of_settings(model, optimizer)]


def owners_of_settings(model: MLP, optimizer: Optimizer) -> list[Any]:
    """Return layers, loss and optimizer."""
    return [*model.network.layers, model.loss, optimizer]


def _over(model: MLP, xp: Any, a: StepArrays) -> MLP:
    """Return a copy of a model over traced arrays."""
    copied = object.__new__(MLP)
    vars(copied).update(vars(model))
    copied.network = model.network.over(xp, a.values, a.gradients, a.buffers)
    copied.loss = copy.copy(model.loss)
    copied.loss.bind(xp, model.network.dtype, model.out_features)
    return copied


def _compiled(step: Step, arrays: StepArrays, steps_per_call: int) -> Compiled:
    """Compile a step. A refusal to trace it is no error; other errors are warnings, or raised under XPNET_STRICT=1."""
    try:
        executable = compile_step(
            step, arrays.flatten(), gathered=arrays.gathered, per_step=arrays.per_step, steps_per_call=steps_per_call
        )
    except UntraceableError as error:
        return None, f"{CANNOT_TRACE}the step: {error}"
    except Exception as error:
        if os.environ.get("XPNET_STRICT", "0") not in ("", "0"):
            raise
        if isinstance(error, CompileError):
            reason = f"compiling them failed: {error}"
            hint = "this is a fault of xpnet: please report it, with the traceback that XPNET_STRICT=1 gives"
        else:
            reason = f"tracing them failed: {one_line(error)}"
            hint = "a layer, loss or optimizer may use what traced arrays lack; XPNET_STRICT=1 raises the error"
        warnings.warn(f"steps run eagerly, and slower: {reason} ({hint})", RuntimeWarning, stacklevel=2)
        return None, reason
    return executable, executable.compiled or why_not_compiled() or True
