"""Training: the model, the loop over its data, and the files that a run leaves."""

from ..model import metrics
from ..model.mlp import MLP
from .checkpoint import Checkpoints
from .config import Config
from .trainer import Trainer, evaluate

__all__ = ["MLP", "Checkpoints", "Config", "Trainer", "evaluate", "metrics"]
