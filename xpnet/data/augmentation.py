"""Random distortions of pictures in training: shifts, rotations, scalings, shears and elastic ones.

A picture's pixel at a position p has, distorted, the value that the picture has at A (p - t) + d(p), between its pixels
by bilinear interpolation, and 0 outside. A and t, an affine map, and d, a smooth field, are drawn anew for each row of
each batch. They are a function of (seed, step, position in the batch), and so the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..core.checks import check_float
from ..core.device import Array, HostArray
from ..core.errors import did_you_mean
from ..core.rng import Purpose, mask_keys, mix

MOST_CHANNELS = 4
LARGEST = 2**24  # numbers in a picture: up to there, float32 counts them
ANGLES = 4096  # angles of a rotation, at equal distances
KEPT = 0.99  # share of the variance of an elastic field that its waves have
MOST_IN_WAVES = 2**24  # numbers in the waves of an elastic field
AFFINE = 6  # random numbers of an affine map

BOUNDS: dict[str, dict[str, float]] = {
    "shift": {"least": 0.0, "below": 1000.0},
    "rotate": {"least": 0.0, "below": 360.0},
    "scale": {"least": 0.0, "below": 1.0},
    "shear": {"least": 0.0, "below": 10.0},
    "elastic": {"least": 0.0, "below": 1000.0},
    "smooth": {"above": 0.0, "below": 1000.0},
}
DIGITS = {"shift": 1.0, "rotate": 10.0, "scale": 0.15, "shear": 0.15, "elastic": 1.2, "smooth": 5.0}
SIDE = 28  # of the pictures that DIGITS are for, in pixels
LENGTHS = ("shift", "elastic", "smooth")  # which grow with pictures


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random distortions of training pictures; by default, of each, 0: none.

    Each number is drawn uniformly from minus to plus its strength, but for the elastic field. Raises ValueError for one
    that is out of its bounds.

    >>> Augmentation(shift=2, rotate=10)
    Augmentation(shift=2.0, rotate=10.0, scale=0.0, shear=0.0, elastic=0.0, smooth=4.0)

    Args:
        shift: of the picture, down and to the right, in pixels.
        rotate: counterclockwise, in degrees.
        scale: by which share height and width, each for itself, grow; below 1.
        shear: by how many pixels a row is moved to the right of the row above it.
        elastic: root mean square of elastic displacements in each direction, over the picture, in pixels. Simard's, of
            alpha pixels, smoothed by sigma, have 0.163 alpha / sigma far from borders: 1.4 for 34 and 4.
        smooth: sigma, the deviation of the Gaussian that smoothes them, in pixels.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    smooth: float = 4.0

    def __post_init__(self) -> None:
        for name, bounds in BOUNDS.items():
            object.__setattr__(self, name, check_float(name, getattr(self, name), **bounds))

    @classmethod
    def digits(cls, side: int = SIDE, **others: float) -> Augmentation:
        """Strengths for handwritten digits, in pictures of `side` pixels; `others` are in place of some of them.

        >>> Augmentation.digits(rotate=5).rotate
        5.0
        """
        if side < 1:
            raise ValueError(f"side must be at least 1, got {side}")
        lengths = {name: DIGITS[name] * side / SIDE for name in LENGTHS}
        return cls(**DIGITS | lengths | others)

    @classmethod
    def of(cls, words: Iterable[str], side: int = SIDE) -> Augmentation:
        """Strengths as typed, NAME=NUMBER; with "digits" among them, those that are not named are those of `digits`.

        >>> Augmentation.of(["digits", "rotate=5"]) == Augmentation.digits(rotate=5)
        True
        """
        names = [field.name for field in fields(cls)]
        found: dict[str, Any] = {}
        words = [words] if isinstance(words, str) else list(words)
        for word in words:
            name, _, number = word.partition("=")
            if word == "digits":
                continue
            if name not in names:
                raise ValueError(f"augment has no {name!r}: {did_you_mean(name, ['digits', *names])}")
            if name in found:
                raise ValueError(f"augment has {name} twice")
            try:
                found[name] = float(number)
            except ValueError:
                example = f"{name}={DIGITS[name]:g}"
                raise ValueError(f"augment takes {name}=NUMBER, such as {example}, not {word!r}") from None
        return cls.digits(side, **found) if "digits" in words else cls(**found)

    def distort(self, pictures: Any, seed: int = 0, step: int = 0) -> HostArray:
        """Return pictures, (N, H, W) or (N, H, W, C), as a training of this seed has them as a batch of this step."""
        x = np.asarray(pictures)
        augmenter = Augmenter(np, self, x.shape[1:], "float64")
        key = mask_keys(seed, step, 1, Purpose.AUGMENTATION)[0]
        distorted: HostArray = augmenter(x.reshape(len(x), math.prod(x.shape[1:])), key).reshape(x.shape)
        return distorted


def picture_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return height, width and channels of rows of a shape, (H, W) or (H, W, C); raise ValueError for others."""
    height, width, channels = (*shape, 1) if len(shape) == 2 else tuple(shape) if len(shape) == 3 else (0, 0, 0)
    if min(height, width) < 2 or not 1 <= channels <= MOST_CHANNELS or math.prod(shape) > LARGEST:
        raise ValueError(
            f"augment is for pictures, (H, W) or (H, W, C) with up to {MOST_CHANNELS} channels, and a row is of shape"
            f" {tuple(shape)}"
        )
    return height, width, channels


class Augmenter:
    """Distorts the pictures of a batch.

    Args:
        xp: the array module.
        augmentation: how strongly.
        shape: of a picture, (H, W) or (H, W, C).
        dtype: of the distorted pictures.
    """

    def __init__(self, xp: Any, augmentation: Augmentation, shape: Sequence[int], dtype: str) -> None:
        self.xp, self.augmentation, self.shape, self.dtype = xp, augmentation, shape, dtype
        height, width, channels = self._size = picture_shape(shape)
        down, right, channel = (one.reshape(1, -1) for one in np.indices(self._size))  # (1, I)
        angles = math.radians(augmentation.rotate) * (2.0 * (np.arange(ANGLES) + 0.5) / ANGLES - 1.0)
        waves = _waves(height, width, augmentation) if augmentation.elastic else np.zeros((0, height * width))
        self.waves = self._constant(np.repeat(waves, channels, axis=1))  # (K, I)
        self.down, self.right = (self._constant(one) for one in (down - (height - 1) / 2, right - (width - 1) / 2))
        self.channel = self._constant(channel)
        self.cosines, self.sines = (self._constant(one[None]) for one in (np.cos(angles), np.sin(angles)))

    def _constant(self, values: HostArray) -> Array:
        return self.xp.asarray(values.astype(self.dtype))

    def over(self, xp: Any) -> Augmenter:
        """Return the same over another array module."""
        return Augmenter(xp, self.augmentation, self.shape, self.dtype)

    def __call__(self, x: Array, key: Array, first: int = 0) -> Array:  # (B, I)
        """Return distorted pictures.

        Args:
            x: pictures as they came, (B, I), I = H W C.
            key: of the step, uint32, ().
            first: position of the first row in the whole batch.
        """
        xp, strength, height, width = self.xp, self.augmentation, *self._size[:2]
        x = x.astype(self.dtype)
        drawn = self.draw(len(x), key, first)
        u = drawn.astype(self.dtype) * 2.0**-31 - 1.0  # (B, 6 + 2 K), from -1 to 1
        turn = (drawn[:, 2:3] >> (32 - int(math.log2(ANGLES)))).astype("int32")
        c, s = (xp.take_along_axis(table, turn, axis=-1) for table in (self.cosines, self.sines))
        # The affine map undoes shear, scaling, rotation and shift, in this order from the last.
        grown_down, grown_right = 1.0 + strength.scale * u[:, 3:4], 1.0 + strength.scale * u[:, 4:5]  # (B, 1)
        a, b = c / grown_down, s / grown_down
        slant = strength.shear * u[:, 5:6]
        d, e = -s / grown_right - slant * a, c / grown_right - slant * b
        t, r = strength.shift * u[:, 0:1], strength.shift * u[:, 1:2]
        y, z = (height - 1) / 2 - a * t - b * r, (width - 1) / 2 - d * t - e * r
        if len(self.waves):  # both products first: what follows is then one loop
            middle = AFFINE + len(self.waves)
            fields = u[:, AFFINE:middle] @ self.waves, u[:, middle:] @ self.waves  # (B, I)
            y, z = y + fields[0], z + fields[1]
        return self.sampled(x, y + a * self.down + b * self.right, z + d * self.down + e * self.right)

    def draw(self, rows: int, key: Array, first: int = 0) -> Array:
        """Return the random numbers of the pictures of a batch, uint32, (B, 6 + 2 K)."""
        count = AFFINE + 2 * len(self.waves)
        position = self.xp.arange(first * count, (first + rows) * count, dtype="uint32")
        return mix(position.reshape(rows, count) ^ key)

    def sampled(self, x: Array, y: Array, z: Array) -> Array:
        """Return pictures x, (B, I), at the positions (y, z), (B, I), by bilinear interpolation; 0 outside.

        Of the pixels around a position, each counts by max(0, 1 - distance) in y, times that in z. Near a border, where
        there are fewer than four, others stand for them, which are too far away to count.
        """
        xp, (height, width, channels) = self.xp, self._size
        top = xp.minimum(xp.maximum(xp.floor(y), 0.0), float(height - 2))
        left = xp.minimum(xp.maximum(xp.floor(z), 0.0), float(width - 2))
        below, beside = y - top, z - left
        of_top, of_bottom = (xp.maximum(1.0 - xp.abs(one), 0.0) for one in (below, below - 1.0))
        of_left, of_right = (xp.maximum(1.0 - xp.abs(one), 0.0) for one in (beside, beside - 1.0))
        index = top * float(width) + left
        index = (index if channels == 1 else index * float(channels) + self.channel).astype("int32")

        def corner(down: int, right: int) -> Array:
            return xp.take_along_axis(x[:, (down * width + right) * channels :], index, axis=-1)

        upper = of_left * corner(0, 0) + of_right * corner(0, 1)
        lower = of_left * corner(1, 0) + of_right * corner(1, 1)
        return of_top * upper + of_bottom * lower


def _waves(height: int, width: int, augmentation: Augmentation) -> HostArray:
    """Return the waves of an elastic field, (K, H W), whose sum, with factors drawn from -1 to 1, is the field.

    Simard et al. ("Best practices for convolutional neural networks", 2003) give each pixel a displacement from -1 to
    1, smooth the field by a Gaussian of deviation sigma, and multiply it by alpha. Reflected at the borders, a Gaussian
    multiplies the wave cos(pi j (y + 1/2) / H) by exp(-(pi j sigma / H)^2 / 2), and likewise along a row. So their
    field is a sum of such waves with random factors, of which a few, the long ones, have nearly all of its variance.

    Raises ValueError where they would have more than `MOST_IN_WAVES` numbers.
    """

    def along(length: int) -> tuple[HostArray, HostArray]:
        """Return waves along an axis, of a mean square of 1, and by what they are multiplied."""
        j = np.arange(length)[:, None]
        waves = np.cos(math.pi * j * (np.arange(length) + 0.5) / length) * np.where(j > 0, math.sqrt(2.0), 1.0)
        return waves, np.exp(-0.5 * (math.pi * j[:, 0] * augmentation.smooth / length) ** 2)

    (rows, of_rows), (columns, of_columns) = along(height), along(width)
    factors = np.outer(of_rows, of_columns).ravel()
    order = np.argsort(-factors, kind="stable")
    count = int(np.searchsorted(np.cumsum(factors[order] ** 2), KEPT * (factors**2).sum())) + 1
    if count * height * width > MOST_IN_WAVES:
        raise ValueError(
            f"smooth must be larger for pictures of {height}x{width}, not {augmentation.smooth:g}: their elastic field"
            f" would be a sum of {count} waves"
        )
    kept = order[:count]
    waves: HostArray = rows[kept // width, :, None] * columns[kept % width, None, :]  # (K, H, W)
    scale = augmentation.elastic * math.sqrt(3.0 / (factors[kept] ** 2).sum())  # 1/3 is the variance of a factor
    waves *= scale * factors[kept, None, None]
    return waves.reshape(count, height * width)
