"""Experiments: python -m xpnet.lab NAME, one file each; in Python and in notebooks, `run` runs one.

`descend` is what those on functions are made of: it walks down any function with any update rule, and `parse` makes
such a function of text, with its gradient.
"""

from ..training.descent import Descent, descend
from .functions import Function, parse
from .result import Result, run

__all__ = ["Descent", "Function", "Result", "descend", "parse", "run"]
