"""Preparation of a table: from the values of its columns to the features of a network, by the training rows alone.

- Numbers are standardized; those with heavy tails become normal scores first, by their quantiles.
- Words of few levels are one-hot. Those of more become the mean of the target over the rows of their level, drawn
  towards the mean of all rows where these are few, and the logarithm of their number. (Micci-Barreca, "A preprocessing
  scheme for high-cardinality categorical attributes", 2001.) Training rows are encoded by the other folds' rows, since
  a row's own target would tell what is to be learnt.
- Dates are standardized, and become sines and cosines of the time of day, the day of the week and the day of the year,
  where they differ in these.
- A hole is the mean, and 1 in a feature of its own. A word that no training row has is as no level: zeros in one-hot
  features, the mean among means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..core.device import HostArray, usable_processors
from ..core.errors import DataError
from ..core.rng import Purpose, stream
from .batches import spans
from .columns import MANY_ROWS, Column, side_by_side, values_of
from .frames import Frame

MOST_ONE_HOT = 30  # levels
SMOOTHING = 10.0  # rows of the mean of all that a level's mean is drawn towards
FOLDS = 5
ROWS = 2**15  # of which features are made at a time: they stay in a cache
HEAVY = 20.0  # kurtosis beyond which a column has heavy tails; that of a normal distribution is 3
QUANTILES = 200
CYCLES = {"day": 86400.0, "week": 7 * 86400.0, "year": 365.2425 * 86400.0}  # seconds


class Features(np.ndarray[Any, Any]):
    """Features of a table's rows, as a `Preparation` makes them: no rows of an array as it came."""


@dataclass(frozen=True)
class Encoding:
    """The features of a column.

    Attributes:
        column: the column.
        kind: "standard", "quantiles", "one-hot", "target means" or "date".
        holes: whether training rows have holes, for which there is a feature.
        shift, scale: of each feature but one-hot ones and cycles: (value - shift) / scale.
        knots: of quantiles, the values and their normal scores.
        means: of target means, those of each level, (levels, O + 1), with the logarithm of its rows; the last row is
            that of words without a level.
        cycles: of a date, the names of its cycles.
    """

    column: Column
    kind: str
    holes: bool = False
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    knots: tuple[tuple[float, ...], ...] = ()
    means: tuple[tuple[float, ...], ...] = ()
    cycles: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        name = self.column.name
        if self.kind == "one-hot":
            own: Sequence[str] = [f"{name}={level}" for level in self.column.levels]
        elif self.kind == "target means":
            own = [f"{name}: mean {number}" for number in range(len(self.shift) - 1)] + [f"{name}: rows"]
        else:
            own = [name, *(f"{name}: {wave} of the {cycle}" for cycle in self.cycles for wave in ("sine", "cosine"))]
        return (*own, *([f"{name} is missing"] if self.holes else []))

    def features(self, values: HostArray, means: HostArray | None = None) -> HostArray:
        """Return the features of values, (N, names); `means` are those of each row, where they are not the level's."""
        there = ~np.isnan(values)
        if self.kind == "one-hot":
            found = (values[:, None] == np.arange(len(self.column.levels))).astype(np.float64)
        elif self.kind == "target means":
            table = np.array(self.means)
            levels = np.where(there & (values >= 0), values, len(table) - 1).astype(np.int64)
            found = (table[levels] if means is None else means) - self.shift
            found = np.where(there[:, None], found / self.scale, 0.0)
        else:
            scored = np.interp(values, self.knots[0], self.knots[1]) if self.knots else values
            found = np.where(there, (scored - self.shift) / self.scale, 0.0)[:, None]
            for cycle in self.cycles:
                angle = np.where(there, values, 0.0) * (2.0 * np.pi / CYCLES[cycle])
                waves = np.stack([np.sin(angle), np.cos(angle)], axis=1)
                found = np.concatenate([found, np.where(there[:, None], waves, 0.0)], axis=1)
        return np.concatenate([found, ~there[:, None]], axis=1) if self.holes else found


@dataclass(frozen=True)
class Preparation:
    """The preparation of a table, as a model file holds it.

    Attributes:
        encodings: of each column that has features.
        target: name of the column that is to be predicted.
        left_out: notes on columns that have no features.
    """

    encodings: tuple[Encoding, ...]
    target: str = ""
    left_out: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def fit(cls, columns: Sequence[Column], values: HostArray, y: HostArray, target: str = "") -> Preparation:
        """Fit a preparation to training rows.

        Args:
            columns: the columns.
            values: their values, (N, columns).
            y: targets: labels, (N,), or numbers, (N, O).
            target: name of the column that they are from.

        Raises:
            DataError: no column tells one row from another.
        """
        encodings: list[Encoding] = []
        notes: list[str] = []
        for number, column in enumerate(columns):
            encoding = _fit(column, values[:, number], _by_class(y))
            if isinstance(encoding, str):
                notes.append(f"column {column.name!r} {encoding}, and is left out")
            else:
                encodings.append(encoding)
        if not encodings:
            raise DataError("there is no column to learn from: " + ("; ".join(notes) or "the target is the only one"))
        return cls(tuple(encodings), target, tuple(notes))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(name for encoding in self.encodings for name in encoding.names)

    @property
    def columns(self) -> list[Column]:
        """The columns that have features."""
        return [encoding.column for encoding in self.encodings]

    def features(self, frame: Frame) -> HostArray:
        """Return the features of a table's rows, float32, (N, F); raise DataError where a column does not fit."""
        return self.of_values(self.columns, values_of(self.columns, frame))

    def of_values(self, columns: Sequence[Column], values: HostArray) -> HostArray:
        """Return the features of rows, float32, (N, F), from the values of columns, as those that were fitted to."""
        return self._joined((own, None) for own in self._own(columns, values))

    def of_training(self, columns: Sequence[Column], values: HostArray, y: HostArray, seed: int) -> HostArray:
        """Return the features of training rows: target means are those of the other folds, which `seed` draws."""
        by_class = _by_class(y)
        folds = stream(seed, Purpose.FOLDS, 0).permutation(len(values)) % FOLDS

        def means(encoding: Encoding, own: HostArray) -> HostArray | None:
            return _means_of_others(encoding, own, by_class, folds) if encoding.kind == "target means" else None

        every = zip(self.encodings, self._own(columns, values), strict=True)
        return self._joined((own, means(encoding, own)) for encoding, own in every)

    def _own(self, columns: Sequence[Column], values: HostArray) -> Iterator[HostArray]:
        """Yield the values of each column that has features, words by the levels that the training rows have."""
        place = {column.name: number for number, column in enumerate(columns)}
        for encoding in self.encodings:
            number = place[encoding.column.name]
            yield _renumbered(values[:, number], columns[number].levels, encoding.column.levels)

    def _joined(self, columns: Iterable[tuple[HostArray, HostArray | None]]) -> HostArray:
        """Return features, given the values of columns, and the means of each row where they are not a level's."""
        given = list(columns)
        features = np.empty((len(given[0][0]), len(self.names)), np.float32)

        def fill(rows: slice) -> None:
            first = 0
            for encoding, (values, means) in zip(self.encodings, given, strict=True):
                last = first + len(encoding.names)
                with np.errstate(over="ignore"):
                    part = encoding.features(values[rows], None if means is None else means[rows])
                    features[rows, first:last] = part
                if not np.isfinite(features[rows, first:last]).all():
                    row = rows.start + int(np.argmin(np.isfinite(features[rows, first:last]).all(axis=1)))
                    raise DataError(f"column {encoding.column.name!r} is too large in row {row}: {values[row]:g}")
                first = last

        workers = usable_processors() if len(features) >= MANY_ROWS else 1
        side_by_side(workers, [partial(fill, rows) for rows in spans(len(features), ROWS)])
        return features.view(Features)

    def settings(self) -> dict[str, Any]:
        """Return the preparation as JSON values."""
        return {"target": self.target, "encodings": [asdict(encoding) for encoding in self.encodings]}

    @classmethod
    def of(cls, settings: Any) -> Preparation:
        """Make a preparation from its settings; raise TypeError, LookupError or ValueError where they are none."""
        encodings = []
        for one in settings["encodings"]:
            column = Column(**{**one["column"], "levels": tuple(map(str, one["column"]["levels"]))})
            numbers: dict[str, Any] = {name: tuple(map(float, one[name])) for name in ("shift", "scale")}
            for name in ("knots", "means"):
                numbers[name] = tuple(tuple(map(float, row)) for row in one[name])
            cycles = tuple(one["cycles"])
            if one["kind"] not in KINDS or not set(cycles) <= set(CYCLES):
                raise ValueError(f"it prepares column {column.name!r} as this version does not")
            encodings.append(Encoding(column, one["kind"], bool(one["holes"]), **numbers, cycles=cycles))
        return cls(tuple(encodings), str(settings["target"]))


KINDS = ("standard", "quantiles", "one-hot", "target means", "date")


def _by_class(y: HostArray) -> HostArray:
    """Return targets as numbers, (N, O): of labels, 1 for each class but the first."""
    return (y[:, None] == np.arange(1, y.max() + 1)).astype(np.float64) if y.ndim == 1 else y.astype(np.float64)


def _fit(column: Column, values: HostArray, y: HostArray) -> Encoding | str:
    """Return the features of a column, fitted to training rows; or why it has none."""
    there = ~np.isnan(values)
    holes = bool((~there).any() and there.any())
    if column.kind == "words":
        return _fit_words(column, values, y, holes)
    known = values[there]
    if not len(known):
        return "is empty"
    mean, deviation = float(known.mean()), float(known.std())
    if not deviation > 1e-13 * abs(mean):
        return Encoding(column, "standard", holes, (mean,), (1.0,)) if holes else "has one value alone"
    if column.kind == "date":
        cycles = tuple(name for name, period in CYCLES.items() if _turns(known, period))
        return Encoding(column, "date", holes, (mean,), (deviation,), cycles=cycles)
    z = (known - mean) / deviation
    if column.kind == "number" and np.square(np.square(z)).mean() > HEAVY and len(np.unique(known)) > QUANTILES:
        shares = np.linspace(0.0, 1.0, QUANTILES + 1)
        knots = np.unique(np.quantile(known, shares))
        ranks = (np.searchsorted(np.sort(known), knots, "left") + np.searchsorted(np.sort(known), knots, "right")) / 2.0
        scores = _normal_scores(np.clip(ranks / len(known), 0.5 / QUANTILES, 1.0 - 0.5 / QUANTILES))
        scored = np.interp(known, knots, scores)
        spread = (float(scored.mean()),), (float(scored.std()),)
        return Encoding(column, "quantiles", holes, *spread, knots=(tuple(knots.tolist()), tuple(scores.tolist())))
    return Encoding(column, "standard", holes, (mean,), (deviation,))


def _fit_words(column: Column, values: HostArray, y: HostArray, holes: bool) -> Encoding | str:
    counts = np.bincount(values[values >= 0].astype(np.int64), minlength=len(column.levels))
    levels = tuple(level for level, count in zip(column.levels, counts.tolist(), strict=True) if count)
    known = Column(column.name, "words", levels)
    if not levels:
        return "is empty"
    if len(levels) == 1 and not holes:
        return "has one value alone"
    if len(levels) <= MOST_ONE_HOT:
        return Encoding(known, "one-hot", holes)
    if len(levels) == counts.sum():
        return "has another word in each row"
    own = _renumbered(values, column.levels, levels)
    means = _level_means(own, y, len(levels))
    of_rows = means[own[own >= 0].astype(np.int64)]
    deviation = of_rows.std(axis=0)
    scale = tuple(np.where(deviation > 0.0, deviation, 1.0).tolist())
    table = tuple(map(tuple, means.tolist()))
    return Encoding(known, "target means", holes, tuple(of_rows.mean(axis=0).tolist()), scale, means=table)


def _level_means(levels: HostArray, y: HostArray, count: int) -> HostArray:
    """Return the mean target of each level, and the logarithm of its rows, (count + 1, O + 1); last, of no level."""
    known = levels >= 0
    numbers = levels[known].astype(np.int64)
    rows = np.bincount(numbers, minlength=count).astype(np.float64)[:, None]
    each = [np.bincount(numbers, weights=of_one, minlength=count) for of_one in y[known].T]
    sums = np.array(each).reshape(y.shape[1], count).T  # of no targets, too
    mean = y[known].mean(axis=0) if known.any() else np.zeros(y.shape[1])
    means = np.concatenate([(sums + SMOOTHING * mean) / (rows + SMOOTHING), np.log1p(rows)], axis=1)
    return np.concatenate([means, [[*mean, 0.0]]])


def _means_of_others(encoding: Encoding, levels: HostArray, y: HostArray, folds: HostArray) -> HostArray:
    """Return the target means of each row, (N, O + 1), from the rows of the other folds."""
    count = len(encoding.column.levels)
    found = np.empty((len(levels), y.shape[1] + 1))
    numbers = np.where(levels >= 0, levels, count).astype(np.int64)
    for fold in range(FOLDS):
        own = folds == fold
        found[own] = _level_means(levels[~own], y[~own], count)[numbers[own]]
    found[:, -1] = np.array(encoding.means)[numbers, -1]  # the number of rows tells nothing of a row's target
    return found


def _renumbered(values: HostArray, levels: Sequence[str], wanted: Sequence[str]) -> HostArray:
    """Return values of words by other levels: those that are none of them become `UNSEEN`."""
    if tuple(levels) == tuple(wanted):
        return values
    place = {level: number for number, level in enumerate(wanted)}
    table = np.array([*(place.get(level, -1) for level in levels), -1], dtype=np.float64)  # of -1, the last
    there = ~np.isnan(values)
    result = np.full(len(values), np.nan)
    result[there] = table[values[there].astype(np.int64)]
    return result


def _turns(seconds: HostArray, period: float) -> bool:
    """Whether dates differ in their place within a period, and span it."""
    place = np.unique(np.round(seconds[:: max(1, len(seconds) // 10_000)] % period, 3))
    return len(place) > 1 and float(seconds.max() - seconds.min()) >= period


def _normal_scores(shares: HostArray) -> HostArray:
    """Return the quantiles of a normal distribution."""
    from statistics import NormalDist

    return np.array([NormalDist().inv_cdf(share) for share in shares.tolist()])
