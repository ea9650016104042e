"""Random programs of the operations that layers consist of."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st


def quick(examples):
    return settings(derandomize=True, deadline=None, max_examples=examples, database=None)


def lead(replicas):
    return () if replicas is None else (replicas,)


WHOLE = ("int64", "int32", "uint8", "uint32", "bool")


def values(rng, shape, dtype):
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype in WHOLE:
        limits = np.iinfo(dtype)
        few = rng.integers(max(limits.min, -9), 9, shape)
        return np.where(rng.random(shape) < 0.5, few, rng.integers(limits.min, limits.max, shape, dtype)).astype(dtype)
    return (rng.normal(size=shape) * 3.0).astype(dtype)


numbers = st.integers(0, 1000)


@st.composite
def sizes(draw):
    return (
        draw(st.sampled_from([None, 1, 3])),  # replicas
        draw(st.sampled_from([1, 2, 8, 17, 33])),  # rows
        draw(st.sampled_from([1, 4, 17])),  # features
        draw(st.sampled_from([1, 3, 16, 20])),  # outputs
    )


KINDS = (
    *("exp", "tanh", "log1p", "sqrt", "add", "relu", "where", "row sum", "row max", "row mean", "column sum"),
    *("column mean", "column min", "center", "back", "forward", "weights", "bias", "flat", "softmax", "normalize"),
    *("column", "row", "one-hot", "mask", "reshape", "write", "read", "clip", "take"),
)
formulas = st.lists(st.tuples(st.sampled_from(KINDS), numbers, numbers, numbers), min_size=3, max_size=14)


def build(formula, dtype, size):
    """Return a step made of a formula, and arrays for it.

    What depends on comparisons is compared on data alone, so that rounding turns no condition.
    """
    replicas, B, F, G = size
    r = lead(replicas)
    rng = np.random.default_rng(len(formula))
    count = F * G + G + F
    N = B + 3
    outputs = {"big": (*r, B, G), "wide": (*r, B, F), "row": (*r, B, 1), "column": (*r, 1, G), "flat": (*r, B)}
    arrays = {
        "p": rng.normal(size=(*r, count)).astype(dtype),
        "g": np.zeros((*r, count), dtype),
        "x": rng.normal(size=(N, F)).astype(dtype),
        "t": rng.integers(0, G, N),
        "w": rng.random((*r, N)).astype(dtype),
        "i": rng.permutation(N)[:B],
        "key": rng.integers(0, 2**32, (*r, 1, 1), dtype=np.uint32),
        "rate": np.full((*r, *(1,) * bool(r)), 0.1, dtype),
        "total": np.zeros(r),
        "where": np.zeros((*r, B), np.int64),
        **{name: np.zeros(shape, dtype) for name, shape in outputs.items()},
    }

    def step(xp, a):
        p, g = a["p"], a["g"]
        W, b = p[..., : F * G].reshape(*r, F, G), p[..., F * G : F * G + G].reshape(*r, 1, G)
        dW, db = g[..., : F * G].reshape(*r, F, G), g[..., F * G : F * G + G].reshape(*r, 1, G)
        c = p[..., F * G + G :].reshape(*r, 1, F)
        x, t, w = a["x"].take(a["i"], axis=0), a["t"].take(a["i"], axis=0), a["w"].take(a["i"], axis=-1)
        h = (xp.arange(B * G, dtype="uint32").reshape(B, G) ^ a["key"]) * 0x7FEB352D
        truths = [h >= 2**31, b > 0.0, (t[:, None] == xp.arange(G))]
        big, wide, row, column, flat = [0.3 * (x @ W) + b], [x - c], [w[..., None]], [b * 0.5], [w * 1.0]
        for kind, i, j, k in formula:
            z, u, v = big[i % len(big)], big[j % len(big)], wide[i % len(wide)]
            line, stripe, one = row[j % len(row)], column[j % len(column)], flat[j % len(flat)]
            truth = truths[k % len(truths)]
            if kind == "exp":
                big.append(xp.exp(xp.minimum(z, 1.0)))
            elif kind == "tanh":
                big.append(xp.tanh(z))
            elif kind == "log1p":
                big.append(xp.log1p(xp.abs(z)))
            elif kind == "sqrt":
                big.append(xp.sqrt(xp.square(z) + 1.0))
            elif kind == "add":
                big.append(z * 0.5 - u)
            elif kind == "relu":
                big.append(xp.maximum(z, (0.0, line, stripe)[k % 3]))
            elif kind == "where":
                big.append(xp.where(truth, z, (0.0, u, stripe)[j % 3]))
            elif kind.startswith("row "):
                row.append(getattr(z, kind[4:])(axis=-1, keepdims=True) * 0.2)
            elif kind.startswith("column "):
                column.append(getattr(z, kind[7:])(axis=-2, keepdims=True) * 0.2)
            elif kind == "center":
                big.append(z - (line, stripe)[k % 2])
            elif kind == "back":
                wide.append(0.1 * (xp.tanh(z) @ W.swapaxes(-1, -2)))
            elif kind == "forward":
                big.append(0.2 * (xp.tanh(v) @ W))
            elif kind == "weights":
                dW[...] = v.swapaxes(-1, -2) @ z / float(B)
            elif kind == "bias":
                db[...] = z.sum(axis=-2, keepdims=True) / float(B)
            elif kind == "flat":
                flat.append(line[..., 0] - one)
            elif kind == "row":
                row.append((one * w)[..., None])
            elif kind == "column":
                column.append(1.0 / (xp.abs(stripe) + 1.0))
            elif kind == "softmax":
                e = xp.exp(z - z.max(axis=-1, keepdims=True))
                big.append(e / e.sum(axis=-1, keepdims=True))
            elif kind == "normalize":
                d = z - z.mean(axis=-2, keepdims=True)
                big.append(d / xp.sqrt((d * d).mean(axis=-2, keepdims=True) + 0.1))
            elif kind == "one-hot":
                big.append(z - truths[2].astype(dtype))
            elif kind == "mask":
                big.append(z * (truths[0].astype(dtype) * 2.0))
            elif kind == "reshape":
                big.append(xp.tanh(z).reshape(*r, B * G).reshape(*r, B, G) + z)
            elif kind == "write":
                p[..., k % count :] = p[..., k % count :] * 0.5 + 0.1
            elif kind == "read":
                column.append(b - db)
            elif kind == "clip":
                big.append(xp.clip(z, -0.5, 2.0))
            elif kind == "take":
                first = j % G
                index = xp.minimum((h >> 8) & 31, G - first - 1).astype(("int32", "int64", "uint32")[k % 3])
                big.append(xp.take_along_axis(z[..., first:], index, axis=-1))
        a["big"][...], a["wide"][...], a["row"][...] = big[-1], wide[-1], row[-1]
        a["column"][...], a["flat"][...] = column[-1], flat[-1]
        a["total"][...] = a["total"] + (flat[-1] * w).sum(axis=-1) + truths[0].all(axis=-1).sum(axis=-1)
        a["where"][...] = a["where"] + (x @ W * 0.0 + h.astype(dtype)).argmax(axis=-1)
        norm = xp.sqrt((g * g).sum(axis=-1, keepdims=True))
        g[...] = g * xp.minimum(1.0 / (norm + 1e-6), 1.0)
        p -= a["rate"] * g

    return step, arrays
