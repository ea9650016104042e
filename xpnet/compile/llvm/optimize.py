"""Optimizing LLVM text."""

from __future__ import annotations

from typing import Any


def optimized(text: str, machine: Any) -> Any:
    """Return the module of an LLVM text, optimized for a target machine."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = (
        False  # the text has the vectors that it is to have
    )
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module
