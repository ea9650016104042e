"""The model: a network with its loss, its task, its scaling and its metrics; and model files."""

from . import metrics
from .mlp import MLP

__all__ = ["MLP", "metrics"]
