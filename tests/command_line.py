"""Short runs of the commands, and commands in a process of their own."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

DIGITS = ("--dataset", "digits")
SHORT = (*DIGITS, "--steps", "30")
PLOTS = find_spec("matplotlib") is not None
PROC = Path("/proc")  # a folder that nobody can write
