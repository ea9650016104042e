"""The CPU as a target: lanes, costs, and the processor's vector registers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import NamedTuple

from ..passes.inline import Costs

LANES = 16  # elements of a vector, which LLVM cuts into the registers that there are: one of float32 with AVX-512
COSTS = Costs(
    slow=frozenset({"exp", "expm1", "log", "log1p", "tanh", "sqrt", "divide"}),
    cheap=3,
)

TARGET = "XPNET_LLVM_CPU"
"""The environment variable that names another target than the processor at hand: a level of x86-64."""

# What each level of the x86-64 psABI adds, by LLVM's names.
_ADDED = {
    "x86-64": ("sse2",),
    "x86-64-v2": ("cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}


class Registers(NamedTuple):
    """A processor's vector registers: the bytes of one, and how many there are."""

    size: int
    number: int

    @property
    def few(self) -> bool:
        """Whether there are only 16."""
        return self.number < 32


def is_x86() -> bool:
    """Whether this is a 64-bit processor of the x86 family."""
    return platform.machine().lower() in ("x86_64", "amd64")


def level_features(level: str, host: Mapping[str, bool]) -> dict[str, bool]:
    """Return the features of a level of x86-64; raise ValueError where the host has not all of them."""
    levels = list(_ADDED)
    if level not in levels:
        raise ValueError(f"{TARGET} must be one of {', '.join(levels)}, not {level!r}")
    needed = [name for below in levels[: levels.index(level) + 1] for name in _ADDED[below]]
    lacking = [name for name in needed if not host.get(name)]
    if lacking:
        raise ValueError(f"{TARGET} is {level}, and this processor has no {', '.join(lacking)}")
    return dict.fromkeys(needed, True)


def registers(features: Mapping[str, bool]) -> Registers:
    """Return the vectors of a processor that has these features."""
    if features.get("avx512f"):
        return Registers(64, 32)
    if is_x86():
        return Registers(32 if features.get("avx") else 16, 16)
    return Registers(16, 32)
