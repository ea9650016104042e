"""A plan for a GPU as text, with an estimate of the time that a step takes."""

from __future__ import annotations

import math

from ..ir import View
from ..passes.describe import describe
from ..passes.instructions import AllReduce, Instruction, Loop, Product
from ..passes.memory import accessed
from .mapping import grid_of
from .plan import LaunchPlan

# Of an H200, from what others have measured and its data sheet; nothing here was timed by this project.
NODE = 1.2e-6  # seconds of a small kernel in a graph: https://github.com/pytorch/pytorch/issues/161104
PRODUCT = 1.5e-6  # more of a small product, and for each column of its left factor, so that one of 128 x 128 x 128
COLUMN = 8e-9  # takes 4 us: https://github.com/JuliaGPU/GemmKernels.jl/pull/169
PROCESSORS = 132  # which have a block each, or several
BANDWIDTH = 4.3e12  # bytes a second
RATES = {"float32": 67e12, "float64": 67e12}  # operations a second; float64 by tensor cores


def describe_launches(plan: LaunchPlan, target: str, why_no_graph: str | None = None) -> str:
    """Return the plan of a step in words.

    Args:
        plan: the plan.
        target: the name of the device, or of its architecture.
        why_no_graph: the reason why its kernels are not one graph, if they are not.
    """
    shares: dict[Instruction, str] = {}
    for launch in plan.launches:
        for one in launch:
            if isinstance(one, Loop):
                grid = grid_of(one, plan.inlining)
                blocks = f"{grid.blocks:,} block{'s' * (grid.blocks > 1)}"
                beside = ", in the same kernel as the one above" if one is not launch[0] else ""
                shares[one] = f"{blocks} of {' x '.join(str(n) for n in grid.threads if n > 1)} threads{beside}"
    products = sum(isinstance(launch[0], Product) for launch in plan.launches)
    all_reduces = sum(isinstance(launch[0], AllReduce) for launch in plan.launches)
    kernels = len(plan.launches) - products - all_reduces + 1  # one fetches the step's inputs
    graphs = "a CUDA graph" if not all_reduces else f"CUDA graphs, with {all_reduces} all-reduces between them"
    nodes = f"{target}, {kernels + products} nodes of {graphs}: {kernels} kernels and {products} products"
    if why_no_graph is not None:
        nodes = f"{target}, {kernels} kernels and {products} products, launched one by one: {why_no_graph}"
    estimate = f"{estimated_seconds(plan) * 1e6:.0f} us a step, an estimate for an H200 and not measured"
    first, *rest = describe(plan, nodes, shares).splitlines()
    return "\n".join([first, estimate, *rest])


def estimated_seconds(plan: LaunchPlan) -> float:
    """Return a rough time of a step: of its nodes, the bytes that they move, and the operations of its products."""
    seconds = NODE * (1 + len(plan.launches))
    for launch in plan.launches:
        for one in launch:
            views: set[View] = {view for view, _ in accessed(one, plan.inlining)}
            busy = min(1.0, grid_of(one, plan.inlining).blocks / PROCESSORS) if isinstance(one, Loop) else 1.0
            seconds += sum(view.size * view.dtype.itemsize for view in views) / (BANDWIDTH * busy)
            if isinstance(one, Product):
                inner = one.matrices[0].shape[-1]
                operations = 2 * math.prod(one.operation.shape) * inner
                seconds += PRODUCT + COLUMN * inner + operations / RATES[one.operation.dtype.name]
    return seconds
