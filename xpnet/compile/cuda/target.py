"""An NVIDIA GPU as a target: its architectures, costs and threads."""

from __future__ import annotations

from ..passes.inline import Costs

TRIPLE = "nvptx64-nvidia-cuda"
LAYOUT = "e-p6:32:32-i64:64-i128:128-v16:16-v32:32-n16:32:64"

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities, times ten, that code is made for: Turing, Ampere, Ada, Hopper, Blackwell.

PTX for one of them is taken by every later device, too: the driver makes its machine code.
"""

PRECISIONS = ("fp32", "tf32", "bf16")
"""What the factors of a product of float32 are rounded to. Its sums are float32."""

COSTS = Costs(
    slow=frozenset({"exp", "expm1", "log", "log1p", "tanh", "sqrt", "divide"}),
    cheap=3,
)

WARP = 32  # threads that run together


def architecture_of(capability: int) -> int | None:
    """Return the architecture to make code for, by a device's compute capability, times ten; None for an older one."""
    return max((one for one in ARCHITECTURES if one <= capability), default=None)
