"""A search: trials over a space of options, ranked by their score on rows held out of the training rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import check_int, elements, path_of, shown
from ..core.device import CPU, Device, HostArray, usable_processors
from ..core.errors import DataError, did_you_mean
from ..core.rng import check_seed
from ..data import Dataset
from ..model.metrics import TITLES
from ..model.mlp import MLP
from ..training.build import build, prepare
from ..training.config import Config
from .engine import Engine, executor_of, slots_of
from .groups import Outcome, groups_of
from .halving import Halving
from .journal import Journal, Trial
from .space import Point, Space, check_searchable

VALIDATION = 0.1  # default share of the training rows
TRIALS = 24
MOST_VALUES = 8  # of numbers, that are compared one by one
FEWEST = 8  # trials that say which options matter
MOST_TRIALS = 10**6
OF_MACHINE = ("device", "data_dir", "threads")
SCORES = tuple(f"validation_{name}" for name in TITLES)
METHODS = ("random", "grid")


@dataclass
class Results:
    """What a search has found.

    Attributes:
        trials: the trials that have ended, by number: dicts with `trial`, the options that were searched over, `seed`,
            `epochs`, `score` (accuracy, or R2, on the validation rows), `curve` (the score after each epoch), losses
            and metrics of the epoch that the score is of, and `seconds`.
        configs: options of each trial.
        searched: names of the options that were searched over.
        interruption: the interruption that ended the search early, or None.
        best_outcome: number and outcome of the best trial, where this search has trained it.
        leader: the best trial so far, or None.
    """

    configs: list[Config]
    searched: list[str]
    data: Dataset = field(repr=False)
    device: Device = CPU
    trials: list[Trial] = field(default_factory=list)
    interruption: KeyboardInterrupt | None = None
    best_outcome: tuple[int, Outcome] | None = field(default=None, repr=False)
    leader: Trial | None = None

    @property
    def ranked(self) -> list[Trial]:
        """The trials that did not diverge, the best first: by score, and equal ones by validation loss."""
        finite = [trial for trial in self.trials if math.isfinite(trial["score"])]
        return sorted(finite, key=rank_of)

    @property
    def best(self) -> Trial | None:
        """The best trial; None where all diverged."""
        return next(iter(self.ranked), None)

    @cached_property
    def identity(self) -> str:
        """Digest of the data, and of the options that are not searched over: those of a journal must be the same."""
        options = self.configs[0].as_dict()
        own = {name: options[name] for name in options if name not in (*self.searched, "seed", *OF_MACHINE)}
        return hashlib.sha256(f"{own}{self.data.fingerprint()}".encode()).hexdigest()[:16]

    @property
    def varied(self) -> list[str]:
        """Names of the options that had more than one value, `seed` among them."""
        names = [*self.searched, "seed"]
        return [name for name in names if len({repr(getattr(config, name)) for config in self.configs}) > 1]

    def importance(self) -> dict[str, float]:
        """Return the share of the scores' variance that each varied option explains, from 0 to 1, the largest first.

        It is the correlation ratio (Fisher, 1925) of the ranks of the scores, diverged trials last, between the values
        of an option; of numbers with many values, between the quarters of their order. It is empty for fewer than eight
        trials.
        """
        trials = [trial for trial in self.trials if "error" not in trial]
        if len(trials) < FEWEST:
            return {}
        scores = np.array([trial["score"] for trial in trials])
        finite = np.where(np.isnan(scores), -np.inf, scores)
        _, places, counts = np.unique(finite, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts + 1) / 2.0)[places]  # equal scores share the mean of their ranks
        shares = {name: _explained(ranks, [trial[name] for trial in trials]) for name in self.varied}
        return dict(sorted(shares.items(), key=lambda pair: -pair[1]))

    def model(self) -> MLP:
        """Return the model of the best trial; raise ValueError where there is none that this search has trained."""
        if self.best_outcome is None:
            raise ValueError("this search has trained no model that is the best; an earlier one may have")
        number, outcome = self.best_outcome
        trainer, _ = build([self.configs[number]], self.data, self.device)
        to_device = self.device.asarray
        with self.device.activate():
            trainer.model.network.restore((to_device(outcome.values), to_device(outcome.buffers)))
        return trainer.model


def search(
    space: Space | dict[str, Any] | Sequence[Point],
    data: Dataset,
    base: Config | None = None,
    *,
    method: str = "random",
    trials: int | None = None,
    seeds: Iterable[int] | None = None,
    halving: int | None = None,
    first_rung: int = 1,
    executor: Executor | None = None,
    workers: int | None = None,
    threads: int | None = None,
    device: Device = CPU,
    most: int | None = None,
    journal: Path | str | None = None,
    best: Path | str | None = None,
    on_begin: Callable[[Results], None] | None = None,
    on_trial: Callable[[Trial, Results], None] | None = None,
) -> Results:
    """Search for good options, and return all trials.

    Trials of one shape train together, as replicas. They are judged on rows held out of the training rows (a tenth,
    unless `base.validation` says otherwise); the test rows are never looked at.

    Args:
        space: a `Space`, or the dict that makes one; or points, dicts of options.
        data: a data set as it is loaded.
        base: the options that are not searched over.
        method: "random" or "grid"; points need none.
        trials: number of random points.
        seeds: of weights; each point is tried with all of them. By default, the base's.
        halving: the factor of successive halving: one trial of so many trains on past each rung. None trains all to the
            end.
        first_rung: the fewest epochs of the first rung; a score after too few says little about the later ones.
        executor: any `concurrent.futures.Executor`, such as Dask's or MPI's; by default processes of this machine.
        workers: how many jobs at a time, by default as many as the executor says. Without an executor, the number of
            processes: 1, for this one, unless it is given.
        threads: of a job on the CPU; by default as many as make the processors of this machine for its processes, and
            one for an executor's.
        device: where to train.
        most: replicas in a group at most; by default as many as are fastest, and give each worker a group.
        journal: a file with a line for each trial that has ended. Trials that are in it already are not done again.
        best: a model file for the best trial so far, which is in it before the trial is in the journal.
        on_begin: called once, with the results, when all is checked and before anything is trained.
        on_trial: called with each trial that has ended, and the results so far.

    Raises:
        TypeError, ValueError: an option is wrong; nothing was trained.
        DataError: the journal is of another search.
    """
    base = Config() if base is None else base
    configs, searched = configs_of(
        space, base, method=method, trials=trials, seeds=seeds, halving=halving, first_rung=first_rung
    )
    data = prepare(configs[0], data)
    for members in groups_of(configs, data):  # what is wrong with options is found before hours of training
        build([configs[members[0]]], data, CPU)
    rungs = None if halving is None or base.epochs is None else Halving(base.epochs, halving, len(configs), first_rung)
    results = Results(configs, searched, data, device)
    count = _workers(executor, workers)
    if most is None:
        most = -(-len(configs) // count)  # so that each worker has a group
    if threads is None:
        threads = 1 if executor is not None else max(1, usable_processors() // count)

    with nullcontext() if journal is None else Journal(path_of(journal)) as kept:
        done = {} if kept is None else _done(kept, results, rungs)
        results.leader = results.best
        engine = Engine(configs, data, device.name, halving=rungs, done=done, most=most, threads=threads)

        def finished(number: int, outcome: Outcome) -> None:
            trial = _trial(number, outcome, configs[number], searched)
            results.trials.append(trial)
            if outcome.values is not None and rank_of(trial) < rank_of(results.leader):
                results.leader = trial
                results.best_outcome = number, replace(outcome, state=None)
                if best is not None:
                    results.model().save(best)
            if kept is not None and "error" not in trial:  # what was given up is tried again
                kept.add(trial | {"search": results.identity})
            if on_trial is not None:
                on_trial(trial, results)

        if on_begin is not None:
            on_begin(results)

        own = executor_of(count) if executor is None else nullcontext(executor)
        try:
            with own as chosen:
                engine.run(chosen, count, finished)
        except KeyboardInterrupt as error:
            results.interruption = error
    results.trials.sort(key=lambda trial: trial["trial"])
    return results


def rank_of(trial: Trial | None) -> tuple[float, ...]:
    """Key that sorts trials, the best first: by score, equal ones by validation loss; last, those that diverged."""
    if trial is None or math.isnan(trial["score"]):
        return (math.inf,)
    return -trial["score"], trial["validation_loss"], trial["trial"]


def configs_of(
    space: Space | dict[str, Any] | Sequence[Point],
    base: Config,
    *,
    method: str = "random",
    trials: int | None = None,
    seeds: Iterable[int] | None = None,
    halving: int | None = None,
    first_rung: int = 1,
) -> tuple[list[Config], list[str]]:
    """Return the options of each trial of a search, and the names of those that are searched over.

    Arguments and errors are those of `search`.
    """
    if base.calibrate:
        raise ValueError("a search does not calibrate: train one of the best with calibrate")
    if base.ensemble is not None:
        raise ValueError(f"a search tries single networks, and no ensemble of {base.ensemble}: train one of the best")
    if base.networks is not None:
        raise ValueError("a search tries single networks, and no replicas: give seeds to the search")
    points = _points(space, method, trials, base.seed)
    given = [base.seed] if seeds is None else [check_seed(seed) for seed in elements(seeds) or []]
    if not given:
        raise ValueError(f"seeds must be a sequence of seeds, not {shown(seeds)}")
    if len(points) * len(given) > MOST_TRIALS:
        raise ValueError(f"{len(points)} points and {len(given)} seeds make more than {MOST_TRIALS} trials")
    base = base if base.held_out is not None else replace(base, validation=VALIDATION)
    if halving is not None:
        check_int("halving", halving, least=2)
        check_int("first_rung", first_rung)
        if base.early_stop is not None or base.epochs is None:
            raise ValueError("halving needs a number of epochs, and no early_stop")
        if len(Halving(base.epochs, halving, 1, first_rung).rungs) == 1:
            raise ValueError(
                f"no rung: of {base.epochs} epochs, one in {halving} is less than first_rung ({first_rung})"
            )
    return [replace(base, **point, seed=seed) for point in points for seed in given], list(points[0])


def _explained(ranks: HostArray, values: Sequence[Any]) -> float:
    """Share of the ranks' variance that is between values; 0 where all ranks are equal."""
    names = [repr(value) for value in values]
    if len(set(names)) > MOST_VALUES and all(isinstance(value, int | float) for value in values):
        order = np.argsort(np.argsort(np.array(values, dtype=float), kind="stable"))
        names = [str(4 * place // len(values)) for place in order]
    means = {name: ranks[[one == name for one in names]].mean() for name in set(names)}
    between = np.array([means[name] for name in names])
    return float(between.var() / ranks.var()) if ranks.var() > 0.0 else 0.0


def _points(space: Space | dict[str, Any] | Sequence[Point], method: str, trials: int | None, seed: int) -> list[Point]:
    """Return the points of a search."""
    if not isinstance(space, Space | dict):
        points = elements(space) or []
        if not points or not all(isinstance(point, dict) and point.keys() == points[0].keys() for point in points):
            raise TypeError(f"points must be a sequence of dicts with the same options, not {shown(space)}")
        check_searchable(points[0])
        return points
    space = space if isinstance(space, Space) else Space(space)
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: {did_you_mean(str(method), METHODS)}")
    if method == "random":
        return space.draw(check_int("trials", TRIALS if trials is None else trials, most=MOST_TRIALS), seed)
    if trials is not None:
        raise ValueError(f"trials ({trials}) goes with random search: a grid has as many as its values make")
    if (space.finite or 0) > MOST_TRIALS:
        raise ValueError(f"the grid has {space.finite} points, more than {MOST_TRIALS}")
    return space.grid()


def _workers(executor: Executor | None, workers: int | None) -> int:
    """Return the number of jobs at a time."""
    if workers is not None:
        check_int("workers", workers)
    if executor is not None and isinstance(executor, type):
        raise TypeError(f"executor must be a concurrent.futures.Executor, not the class {executor.__name__}")
    return workers or 1 if executor is None else slots_of(executor, workers)


def _trial(number: int, outcome: Outcome, config: Config, searched: Sequence[str]) -> Trial:
    """Return the record of a trial, as JSON values."""
    options = config.as_dict()
    curve = [row[name] for row in outcome.history for name in row if name in SCORES]
    return (
        {"trial": number}
        | {name: options[name] for name in searched}
        | {"seed": config.seed, "epochs": outcome.epochs, "score": outcome.score, "curve": curve}
        | outcome.metrics
        | {"seconds": outcome.seconds}
    )


def _done(journal: Journal, results: Results, halving: Halving | None) -> dict[int, Outcome]:
    """Take the trials of a journal; raise DataError where they are not those of this search."""
    done = {}
    for number, trial in sorted(journal.trials.items()):
        options = results.configs[number].as_dict() if number < len(results.configs) else {}
        kept = {name: trial.get(name) for name in (*results.searched, "seed")}
        if trial.pop("search", None) != results.identity:
            raise DataError(f"{journal.path} is of a search with other options or other data")
        if kept != {name: options.get(name) for name in kept}:
            raise DataError(f"{journal.path} is of another search: trial {number} was {shown(kept)}")
        if halving is not None:
            halving.restore(number, trial["curve"])
        results.trials.append(trial)
        done[number] = Outcome(trial["score"], trial["epochs"], [], trial)
    return done
