"""Predictions, in pieces of a bounded number of rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..core.device import Array, count_true
from ..data.batches import spans
from ..model.prediction import PREDICT_ROWS, predict_in_pieces
from ..nn import Linear
from .base import BaseMLP
from .fitting import dense_rows, few_threads
from .inputs import check_x, lives_on


class PredictionMixin(BaseMLP):
    """Predictions of a fitted estimator."""

    def _pieces(self, x: Any) -> Iterator[Array]:
        """Yield checked rows in pieces, in the network's type, (B, I).

        Sparse rows become dense on a GPU, and for an ensemble.
        """
        network = self._model.network
        if not hasattr(x, "tocsr"):
            for span in spans(x.shape[0], PREDICT_ROWS):
                yield network.device.asarray(x[span], dtype=network.dtype)
        elif network.device.index is None and network.replicas is None:  # x @ W is SciPy's
            for span in spans(x.shape[0], PREDICT_ROWS):
                yield x[span].astype(network.dtype, copy=False)
        else:
            for span in spans(x.shape[0], dense_rows(x, PREDICT_ROWS)):
                yield network.device.asarray(x[span].toarray(), dtype=network.dtype)

    def _joined(self, pieces: list[Array], stays: bool) -> Array:
        """Concatenate pieces, on the device where `stays`, else on the host."""
        if stays:
            return self._model.network.xp.concatenate(pieces, axis=-2)
        return np.concatenate([*map(self._model.device.to_host, pieces)], axis=-2)

    def _outputs(self, x: Any) -> Array:
        """Outputs, probabilities or numbers, (N, O), for unchecked rows: on the device if the rows are."""
        check_is_fitted(self)
        model = self._model
        with model.device.activate(), np.errstate(all="ignore"), few_threads(model, PREDICT_ROWS):
            x = check_x(self, x, model.device, reset=False)
            stays = lives_on(model.device, x)
            if hasattr(x, "tocsr"):
                found = [model.loss.output(model.network.xp, model.network.forward(part)) for part in self._pieces(x)]
            else:
                found = list(predict_in_pieces(model, x, decode=False))
            return self._joined([p.mean(axis=0) if model.ensemble else p for p in found], stays)

    def predict(self, X: Any) -> Array:
        """Predict classes (N,), labels (N, O), or numbers (N,) or (N, O), for rows X, (N, I).

        Outputs that are not finite, after a fit that diverged, or for rows that are far too large, stand for no class:
        a ValueError. Numbers, and probabilities, come with a RuntimeWarning.
        """
        p = self._outputs(X)
        wrong = None if self._y_numeric else self._not_finite(p)
        if wrong is not None:
            raise ValueError(f"{wrong}, and stand for no class")
        with self._model.device.activate():
            return self._decoded(self._warn_if_not_finite(p) if self._y_numeric else p)

    def _not_finite(self, p: Array) -> str | None:
        """Message about the rows of outputs p, (N, O), that are not finite; None where all are."""
        xp = np if isinstance(p, np.ndarray) else self._model.device.xp
        with self._model.device.activate():
            count = len(p) - int(count_true(count_true(xp.isfinite(p)) == p.shape[1]))
        where = "the fit diverged, or these rows are far too large"
        return f"the outputs of {count} of {len(p)} rows are not finite ({where})" if count else None

    def _warn_if_not_finite(self, p: Array) -> Array:
        """Warn where outputs p are not finite, and return them."""
        wrong = self._not_finite(p)
        if wrong is not None:
            warnings.warn(wrong, RuntimeWarning, stacklevel=3)
        return p

    def activations(self, X: Any) -> list[Array]:
        """Activations of each hidden layer for rows X, (N, I): the inputs of the next layer, a list of (N, units).

        Of an ensemble, they are those of each member, (R, N, units).
        """
        check_is_fitted(self)
        network = self._model.network
        with network.device.activate(), np.errstate(all="ignore"):
            x = check_x(self, X, network.device, reset=False)
            stays = lives_on(network.device, x)
            found: list[list[Array]] = [[] for _ in self._linear[1:]]
            for y in self._pieces(x):
                behind = iter(found)
                for index, layer in enumerate(network.layers):
                    if index and isinstance(layer, Linear):
                        next(behind).append(y)
                    y = layer.forward(y, False)
            return [self._joined(pieces, stays) for pieces in found]
