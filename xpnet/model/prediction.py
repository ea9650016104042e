"""Compiled predictions: of many rows in pieces, and of few rows at a time in held buffers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from ..compile import Executable
from ..core.checks import check_int, plain_attributes
from ..core.device import CPU, Array, HostArray
from ..data.arrays import check_features
from ..data.batches import Rows, spans
from .compiled import try_compile_step

Model = Any  # an `MLP`, whose module imports this one

PREDICT_ROWS = 1024  # rows per piece of a long prediction: enough to fill a device, little memory
# The most pieces, and multiplications (some 30 ms), in a call of a compiled forward. Each call starts threads, and
# Ctrl-C waits for its end. With 16 pieces, 60,000 rows of 784-100-10 took 41 ms, with 64 they take 31 (medians).
PIECES, MULTIPLICATIONS = 64, 10**10
# Compiling takes 4 ms, and the first time on a machine 30 ms; a compiled forward saves 3 ns for each input and each
# output of a Linear layer.
BREAK_EVEN_ELEMENTS = 3_000_000


def predict_in_pieces(model: Model, rows: Array, decode: bool = True) -> Iterator[Array]:
    """Yield predictions, (..., B, C), for checked rows, (N, I), piece by piece; of an ensemble, those of each member.

    On the CPU, the forward of many rows is compiled. The number of rows alone decides, so equal calls give equal bytes.
    """
    if isinstance(rows, np.ndarray) and len(rows) >= max(break_even_rows(model), PREDICT_ROWS):
        forward = _kept_forward(model, rows.dtype, decode)
        if forward.compiled:
            yield from forward.pieces(rows)
            return
    for span in spans(len(rows), PREDICT_ROWS):
        yield predict_piece(model, rows[span], decode)


def predict_piece(model: Model, x: Array, decode: bool = True) -> Array:
    """Predictions, (..., B, C), for some checked rows; with `decode=False`, the outputs of the loss, (..., B, O)."""
    x, shift, scale = model.scaled(x)
    ready = Rows(model.device.asarray(x), None, None, shift, scale, model.network.dtype)
    z = model.network.forward(ready.inputs(ready.x))
    return model.output(z) if decode else model.loss.output(model.network.xp, z)


def joint(model: Model, p: Array, members: list[int], *, deviation: bool = False) -> Array:
    """Predictions of an ensemble, (B, C), from those of its replicas, (R, B, C).

    With `deviation`, stacked on their standard deviation, (2, B, C).
    """
    xp = model.device.xp
    each = p.take(model.device.asarray(members), axis=0)
    mean = each.mean(axis=0)
    if not deviation:
        return mean
    d = each - mean
    return xp.stack([mean, xp.sqrt((d * d).mean(axis=0))])


class Forward:
    """Forward of a model on the CPU as a compiled step, from rows as they come to predictions.

    Attributes:
        settings: those of the model that are constants of the step.

    Args:
        model: the model.
        size: rows of a step.
        dtype: of the rows.
        steps: steps of a call.
        decode: as for `predict_piece`.
    """

    def __init__(self, model: Model, size: int, dtype: Any, *, steps: int, decode: bool = True) -> None:
        self.settings = settings_of(model)
        self._network, self._size = model.network, size
        self._executable: Executable | None = None
        if model.device.index is not None or model.why_untraceable() is not None:
            return
        x = np.zeros((size, model.in_features), dtype)
        one = predict_piece(model, x[:1], decode)  # (..., 1, C)
        self._shape, self._dtype = (*one.shape[:-2], size, one.shape[-1]), one.dtype

        def step(xp: Any, a: dict[str, Any]) -> None:
            over = model.over(xp, a["values"], a["values"], a["buffers"])  # a forward reads no gradients
            a["p"][...] = predict_piece(over, a["x"], decode)

        arrays = self._arrays() | {"x": x, "p": np.empty(self._shape, self._dtype)}
        options: dict[str, Any] = {"device": model.device, "per_step": {"x"}, "outputs": {"p"}}
        self._executable, _ = try_compile_step(step, arrays, steps_per_call=steps, **options)

    def _arrays(self) -> dict[str, HostArray]:
        return {"values": self._network.values, "buffers": self._network.buffers}

    @property
    def compiled(self) -> bool:
        """Whether there is a step; without, the model predicts eagerly."""
        return self._executable is not None

    def bind(self, x: HostArray) -> tuple[Callable[[], object], HostArray]:
        """Return a call that predicts for rows x, (steps, B, I), and its result, (steps, ..., B, C)."""
        assert self._executable is not None
        p = np.empty((len(x), *self._shape), self._dtype)
        return self._executable.bind(self._arrays() | {"x": x, "p": p}, len(x)), p

    def pieces(self, rows: HostArray) -> Iterator[HostArray]:
        """Yield predictions, (..., B, C), for rows, (N, I), of which there are at least those of a step.

        The last step also takes rows before the last ones, whose predictions are there already.
        """
        size = self._size
        steps, rest = divmod(len(rows), size)
        together = MULTIPLICATIONS // (size * self._network.values.size)
        for span in spans(steps, max(1, min(together, PIECES))):
            x = np.ascontiguousarray(rows[span.start * size : span.stop * size])
            p = self._predicted(x.reshape(-1, size, x.shape[-1])).swapaxes(0, -3)  # (..., steps, B, C)
            yield p.reshape(*p.shape[:-3], -1, p.shape[-1])
        if rest:
            yield self._predicted(np.ascontiguousarray(rows[-size:])[None])[0, ..., -rest:, :]

    def _predicted(self, x: HostArray) -> HostArray:
        call, p = self.bind(x)
        call()
        return p


class Predictor:
    """Predictions of a model for a few rows at a time, in held buffers: `MLP.predictor` makes one.

    Called like `MLP.predict`, with the same results to rounding, and the same errors. Each result is a new array.
    It follows the weights of the model, whether training or an assignment changes them; other settings are those of
    the model when the predictor was made. Several threads may call it, and wait for each other; a copy or a pickle
    holds buffers of its own.

    Attributes:
        model: the model.
        rows: the number of rows with held buffers. Fewer take the time of all; more are predicted by `model.predict`.
    """

    def __init__(self, model: Model, rows: int = 1) -> None:
        self.model, self.rows = model, check_int("rows", rows)
        self._lock = threading.Lock()
        self._call: Callable[[], object] | None = None
        with np.errstate(all="ignore"):
            forward = Forward(model, self.rows, model.input_dtype, steps=1)
            if forward.compiled:
                self._x = CPU.zeros((1, self.rows, model.in_features), model.input_dtype)
                self._call, self._p = forward.bind(self._x)

    def __call__(self, x: Any, *, deviation: bool = False) -> Any:
        """Predict for unscaled rows x, (N, ...); arguments, result and errors are those of `MLP.predict`."""
        model, width = self.model, self._x.shape[-1] if self._call is not None else 0
        if self._call is None or deviation is not False:
            return model.predict(x, deviation=deviation)
        if not (type(x) is np.ndarray and x.ndim == 2 and x.shape[1] == width and x.dtype.kind in "buif"):
            x = self._checked(x)
        count = len(x)
        if count > self.rows:
            return model.predict(x)
        with np.errstate(all="ignore"), self._lock:
            held = self._x[0, :count]
            held[...] = x
            if x.dtype.kind == "f" and not np.isfinite(held).all():
                self._checked(x)  # raises
            self._call()
            p = self._p[0, ..., :count, :]
            return joint(model, p, model.members()) if model.ensemble else p.copy()

    def _checked(self, x: Any) -> Array:
        return check_features(x, CPU, features=self.model.in_features, dtype=self.model.input_dtype)

    # A compiled step can be neither copied nor pickled.
    def __reduce__(self) -> tuple[Any, ...]:
        return Predictor, (self.model, self.rows)


def _kept_forward(model: Model, dtype: Any, decode: bool) -> Forward:
    """The compiled forward of many rows, which the model keeps until its settings change."""
    key = PREDICT_ROWS, dtype, decode
    found = model.forwards.get(key)
    if found is None or found.settings != settings_of(model):
        found = model.forwards[key] = Forward(model, PREDICT_ROWS, dtype, steps=PIECES, decode=decode)
    return cast(Forward, found)


def settings_of(model: Model) -> list[Any]:
    """Settings of a model that are constants of its compiled forward."""
    owners = [*model.network.layers, model.loss]
    scaling = model.input_shift, model.input_scale, model.step, model.task
    return [model.network, *scaling, *((type(owner), plain_attributes(owner)) for owner in owners)]


def break_even_rows(model: Model) -> int:
    """Number of rows from which compiling their forward takes less time than it saves."""
    network = model.network
    elements = (model.in_features + network.units) * (network.replicas or 1)
    return int(BREAK_EVEN_ELEMENTS * (1.0 + len(network.layers) / 15) / elements) + 1
