"""Files of earlier versions, which must be read for ever, and what was predicted from them when they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# An MLPClassifier of version 0.1, whose networks had biases in front of batch normalization.
OLD = Path(__file__).parent / "golden" / "biases_before_batch_norm.safetensors"
OLD_X = np.sin(np.arange(60.0).reshape(20, 3))
OLD_P = [0.9999942496724982, 7.04329918471136e-05, 0.9999516729031352]  # of the second class, for the first rows
