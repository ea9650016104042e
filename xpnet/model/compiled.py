"""Compiling a step of a model, or saying why it runs eagerly."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..compile import CompileError, Executable, Step, UntraceableError, compile_step, why_not_compiled
from ..core.device import Array, Device
from ..core.errors import DeviceError, one_line

CANNOT_TRACE = "cannot trace "
"""How every reason begins that is a refusal to trace."""

Compiled = tuple[Executable | None, bool | str]
"""A compiled step, or None where steps run eagerly; and True, or the reason why it is not compiled code."""

Warn = Callable[[str], None]
"""Receives the text of a warning."""


def warn_of_failure(text: str) -> None:
    """Warn of a step that failed to compile."""
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def try_compile_step(
    step: Step,
    arrays: Mapping[str, Array],
    *,
    device: Device,
    per_step: Collection[str],
    warn: Warn = warn_of_failure,
    **options: Any,
) -> Compiled:
    """Compile a step. A refusal to trace it is no error; `warn` gets other errors, or XPNET_STRICT=1 raises them.

    Other arguments are those of `compile_step`.
    """
    try:
        executable = compile_step(step, arrays, device=device, per_step=per_step, **options)
    except UntraceableError as error:
        return None, f"{CANNOT_TRACE}the step: {error}"
    except DeviceError as error:
        return None, str(error)
    except MemoryError:
        raise
    except Exception as error:
        if os.environ.get("XPNET_STRICT", "0") not in ("", "0"):
            raise
        if isinstance(error, CompileError):
            reason = f"compiling them failed: {error}"
            hint = "this is a fault of xpnet: please report it, with the traceback that XPNET_STRICT=1 gives"
        else:
            reason = f"tracing them failed: {one_line(error)}"
            hint = "a layer, loss or optimizer may use what traced arrays lack; XPNET_STRICT=1 raises the error"
        warn(f"steps run eagerly, and slower: {reason} ({hint})")
        return None, reason
    return executable, executable.compiled or why_not_compiled(device) or True
