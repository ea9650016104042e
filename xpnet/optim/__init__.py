"""Update rules: one formula each, on the flat vector of all parameters at once."""

from .optimizers import OPTIMIZERS, SGD, Adam, Optimizer, State

__all__ = ["OPTIMIZERS", "SGD", "Adam", "Optimizer", "State"]
