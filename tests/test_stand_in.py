"""The stand-in itself: what a device must refuse, it refuses; what it counts, it counts."""

from __future__ import annotations

import numpy as np
import pytest

A = np.arange(6.0).reshape(2, 3)

REFUSED = {
    "asarray": lambda xp, a: np.asarray(a),
    "np.sum": lambda xp, a: np.sum(a),
    "np.exp": lambda xp, a: np.exp(a),
    "np.concatenate": lambda xp, a: np.concatenate([a, a]),
    "array + device": lambda xp, a: A + a,
    "device + array": lambda xp, a: a + A,
    "device @ array": lambda xp, a: a @ A.T,
    "device + NumPy scalar": lambda xp, a: a + np.float64(1.0),
    "function of array": lambda xp, a: xp.exp(A),
    "function of list": lambda xp, a: xp.exp([1.0]),
    "set from array": lambda xp, a: a.__setitem__(..., A),
    "array set from device": lambda xp, a: A.copy().__setitem__(..., a),
    "index by array": lambda xp, a: a[np.array([0])],
    "index by list": lambda xp, a: a[[0]],
    "take by array": lambda xp, a: a.take(np.array([0])),
    "if": lambda xp, a: bool(a.sum() > 0),
    "for": lambda xp, a: list(a),
    "in": lambda xp, a: 1.0 in a,
    "format": lambda xp, a: f"{a.sum():.3f}",
    "range": lambda xp, a: range(xp.asarray(3)),
    "memoryview": lambda xp, a: memoryview(a),
    "where out": lambda xp, a: xp.where(a > 0, a, a, out=a),
    "take_along_axis out": lambda xp, a: xp.take_along_axis(a, xp.asarray([[0], [1]]), axis=1, out=a),
    "sum where": lambda xp, a: xp.sum(a, where=a > 0),
    "sum initial": lambda xp, a: a.sum(initial=1.0),
    "max initial": lambda xp, a: a.max(axis=1, initial=0.0),
    "exp where": lambda xp, a: xp.exp(a, where=a > 0),
    "where alone": lambda xp, a: xp.where(a > 2.0),
    "mask": lambda xp, a: a[a > 2.0],
    "all of bool": lambda xp, a: (a > 2.0).all(),
    "sum of bool": lambda xp, a: xp.sum(a > 2.0, axis=-1),
    "initial by place": lambda xp, a: xp.sum(a, None, None, None, False, 5.0),
    "initial of a method by place": lambda xp, a: a.max(1, None, False, 9.0),
    "tuple": lambda xp, a: a + (1.0, 2.0, 3.0),
    "no such function": lambda xp, a: xp.einsum("ij->i", a),
    "no random numbers": lambda xp, a: xp.random.rand(3),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refuses(kind, stand_in):
    with pytest.raises((TypeError, AttributeError)):
        REFUSED[kind](stand_in.xp, stand_in.asarray(A))


def test_computes_as_numpy_does(stand_in):
    xp, a = stand_in.xp, stand_in.asarray(A)
    for ours, theirs in (
        (a @ a.swapaxes(0, 1), A @ A.T),
        (2.0 - a, 2.0 - A),
        (xp.where(a > 2.0, a, 0.0), np.where(A > 2.0, A, 0.0)),
        (xp.maximum(a, 1.5), np.maximum(A, 1.5)),
        (a.take(xp.asarray([1]), axis=0), A[[1]]),
        (a[..., None].astype("float32"), A[..., None].astype("float32")),
    ):
        assert type(ours) is xp.ndarray
        assert ours.dtype == theirs.dtype
        assert (stand_in.to_host(ours) == theirs).all()


def test_reductions_give_arrays(stand_in):
    total = stand_in.asarray(A).sum()
    assert type(total) is stand_in.xp.ndarray
    assert total.shape == ()


def test_out_and_views_write(stand_in):
    xp, a = stand_in.xp, stand_in.asarray(A)
    view = a[0, 1:]
    view[...] = 9.0
    xp.multiply(a, 2.0, out=a)
    assert stand_in.to_host(a).tolist() == [[0, 18, 18], [6, 8, 10]]
    a[0, 0][...] = 99.0
    assert float(a[0, 0]) == 99.0


def test_arrays_belong_to_a_device(stand_in):
    xp = stand_in.xp
    here = xp.asarray(A)
    with xp.cuda.Device(1):
        there = xp.asarray(A)
        there + there
        mixtures = (lambda: here + there, lambda: xp.exp(here), lambda: there.__setitem__(..., here))
        for mixed in (*mixtures, lambda: xp.asarray(here)):
            with pytest.raises(ValueError, match="device 0 is used while device 1 is current"):
                mixed()
    with pytest.raises(ValueError, match="device 1 is used while device 0 is current"):
        there.sum()
    assert stand_in.to_host(there).sum() == 15.0, "copies to the host work from everywhere, as in CuPy"


def test_counts(stand_in):
    counts = stand_in.xp.counts
    a = stand_in.asarray(A)
    assert dict(counts) == {"to_device": 1, "to_host": 0, "waits": 0, "calls": 0}
    total = (a + 1.0).sum()
    assert counts["calls"] == 2
    assert float(total) == 21.0
    assert total.item() == 21.0
    stand_in.synchronize()
    assert dict(counts) == {"to_device": 1, "to_host": 2, "waits": 3, "calls": 2}
    stand_in.asarray(a)
    assert counts["to_device"] == 1, "what is there already is not copied again"
