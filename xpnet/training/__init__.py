"""Training: the model, the loop over its data, and the files that a run leaves."""

from ..model import metrics
from ..model.mlp import MLP
from .calibration import calibrate
from .callbacks import Callback
from .checkpoint import Checkpoint
from .config import Config
from .early_stopping import EarlyStopping
from .progress import Progress
from .tensorboard import TensorBoard
from .trainer import Trainer, evaluate
from .watch import Watch

__all__ = [
    "MLP",
    "Callback",
    "Checkpoint",
    "Config",
    "EarlyStopping",
    "Progress",
    "TensorBoard",
    "Trainer",
    "Watch",
    "calibrate",
    "evaluate",
    "metrics",
]
