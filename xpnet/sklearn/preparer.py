"""A transformer of data frames, for pipelines."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ..core.checks import shown
from ..core.device import HostArray
from ..data.columns import columns_of, values_of
from ..data.frames import Frame, frame_of
from ..data.preparation import Preparation
from ..data.targets import encode, guess_task
from .inputs import set_columns


class TablePreparer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer of data frames with numbers, words, dates and holes into features of a network, float32.

    The estimators do the same by themselves; in front of other estimators it stands in a Pipeline. Numbers are
    standardized; words of few levels are one-hot, those of more become means of the target.

    Args:
        random_state: of the folds: `fit_transform` encodes the words of a row by the targets of other rows.

    Attributes:
        preparation_: an `xpnet.data.preparation.Preparation`.
        n_features_in_, feature_names_in_: number of the columns, and their names.
    """

    def __init__(self, random_state: Any = None) -> None:
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to the rows of a data frame, and return the transformer.

        Args:
            X: the frame, of pandas, polars or Arrow.
            y: targets: classes, (N,), or numbers, (N,) or (N, O); None for words by their frequency alone.
        """
        self.fit_transform(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> HostArray:
        """Fit to the rows of a data frame, and return their features, (N, F), target means from other folds."""
        frame = _frame(X)
        set_columns(self, frame)
        if y is None:
            t = np.empty((frame.num_rows, 0))
        else:
            y = np.asarray(y)
            y = y.astype(str) if y.dtype.kind not in "buif" else y
            check_consistent_length(X, y)
            (t,), _ = encode([y], guess_task(y))
        columns = columns_of(frame)
        values = values_of(columns, frame)
        self.preparation_ = Preparation.fit(columns, values, t)
        seed = int(check_random_state(self.random_state).randint(2**31))
        return self.preparation_.of_training(columns, values, t, seed)

    def transform(self, X: Any) -> HostArray:
        """Return the features of a data frame's rows, (N, F)."""
        check_is_fitted(self)
        return self.preparation_.features(_frame(X))

    def get_feature_names_out(self, input_features: Any = None) -> HostArray:
        """Names of the features, (F,)."""
        check_is_fitted(self)
        return np.array(self.preparation_.names, dtype=object)


def _frame(x: Any) -> Frame:
    frame = frame_of(x)
    if frame is None:
        raise TypeError(f"X must be a data frame, and not {shown(x)}")
    return frame
