"""Training: the model, the loop over its data, and the files that a run leaves."""

from . import metrics
from .config import Config
from .model import MLP
from .trainer import Trainer, evaluate

__all__ = ["MLP", "Config", "Trainer", "evaluate", "metrics"]
