"""The result of a run: of one network, of an ensemble, or of several seeds with mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..model import MLP
from ..model.metrics import TITLES
from ..model.scores import (
    NEEDS_SKLEARN,
    SCORE_TITLES,
    best_threshold,
    f1_above,
    has_threshold,
    score_sentence,
    scores_of,
)
from ..training import Config, Trainer, evaluate
from ..training.run_folder import machine, versions
from ..training.spread import DEVIATION, converged, with_deviations
from ..training.training import HistoryRow
from . import cli

HELD_OUT = ("validation", "test")
MOST_SEEDS = 8  # that are named one by one


def evaluated(trainer: Trainer, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Loss and metric on the rows held out, of an ensemble or a calibrated model, which the history does not have."""
    cli.tell_of_diverged(trainer.model)
    found: dict[str, Any] = {}
    for name in HELD_OUT:
        if arguments[name] is not None:
            metric = f"{name}_{trainer.model.task.metric}"
            held_out = evaluate(trainer.model, *arguments[name], communicator=trainer.ranks)
            found[f"{name}_loss"], found[metric] = held_out
    return found


def scores_held_out(model: MLP, data: Dataset, *, quiet: bool) -> dict[str, Any]:
    """Scores of the model on the rows held out, by name, which are printed too; of replicas, lists of R."""
    predicted = {}
    for name in HELD_OUT:
        if getattr(data, f"x_{name}") is not None:
            p = model.device.to_host(model.predict(getattr(data, f"x_{name}")))
            predicted[name] = getattr(data, f"y_{name}"), p
    if model.replicas is None or model.ensemble:
        found = _scores(model.task.name, predicted)
    else:
        of_each = [{name: (y, p[r]) for name, (y, p) in predicted.items()} for r in range(model.replicas)]
        every = [_scores(model.task.name, one) for one in of_each]
        found = {name: [one[name] for one in every] for name in every[0] if all(name in one for one in every)}
    if not quiet:
        _tell_scores(found, predicted)
        if data.task != "regression" and "test_f1" not in found:
            cli.tell(NEEDS_SKLEARN)
    return found


def _scores(task: str, predicted: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Scores of predictions on the rows held out, with the best threshold for the validation rows."""
    found: dict[str, Any] = {}
    limit = None
    for name, (y, p) in predicted.items():
        of_rows = scores_of(task, y, p)
        if limit is not None:
            of_rows["f1_at_threshold"] = f1_above(task, y, p, limit)
        elif name == "validation" and has_threshold(task, p, of_rows):
            limit, _ = best_threshold(task, y, p)
            found["threshold"] = limit
        found |= {f"{name}_{score}": value for score, value in of_rows.items()}
    return found


def _tell_scores(found: Mapping[str, Any], names: Sequence[str] | Mapping[str, Any]) -> None:
    spread = with_deviations(found)
    for name in names:
        of_rows = {score: f"{name}_{score}" for score in SCORE_TITLES if f"{name}_{score}" in found}
        cli.tell(f"{name}: {score_sentence({score: _shown(spread, key) for score, key in of_rows.items()})}")
    if "threshold" in found and "test_f1_at_threshold" in found:
        on_others = f"F1 is {_shown(spread, 'test_f1_at_threshold')} on the test rows"
        limit = _shown(spread, "threshold")
        cli.tell(f"at the threshold {limit}, which is the best one for the validation rows, {on_others}")


def _shown(figures: Mapping[str, Any], name: str, digits: str = ".4g") -> str:
    """A figure as people read it, with its deviation where it has one: 0.9731 ± 0.0012."""
    deviation = figures.get(f"{name}{DEVIATION}", math.nan)
    return f"{figures[name]:{digits}}" + (f" ± {deviation:{digits}}" if math.isfinite(deviation) else "")


def result_of(
    config: Config, data: Dataset, trainer: Trainer, threads: int, measured: Mapping[str, Any], model_path: Path | None
) -> dict[str, Any]:
    """Return the result of a run: what `--json` prints, and `result.json` holds.

    Args:
        config, data, trainer: of the run.
        threads: that it used.
        measured: figures of the model that the history does not have; of replicas, lists of R.
        model_path: where the model is, if it was written.
    """
    model = trainer.model
    seconds = sum(row["seconds"] for row in trainer.history)
    whole, part = divmod(trainer.step, trainer.steps_in_epoch(len(data.x_train)))
    samples = whole * len(data.x_train) + part * config.batch_size
    return {
        "device": model.device.name,
        "ranks": 1 if trainer.ranks is None else trainer.ranks.count,
        "threads": threads,
        "requested_device": config.device,
        "dataset": data.name,
        "task": data.task,
        "seed": config.seed,
        "epochs": trainer.epoch,
        "steps": trainer.step,
        "seconds": seconds,
        "samples_per_second": samples / seconds,
        "seconds_by_part": dict(trainer.stopwatch.seconds),
        "best_epoch": trainer.best_epoch,
        **_figures(trainer, measured),
        "model": None if model_path is None else str(model_path),
        "compiled": trainer.compiled,
        "versions": versions(),
        "machine": machine(model.device),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _figures(trainer: Trainer, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Losses, metrics and scores; of several networks, with deviations, and those of each."""
    model, kept = trainer.model, _kept(trainer)
    own = {name: kept[name] for name in kept if name.endswith(("_loss", model.task.metric))}
    if model.replicas is None:
        return own | dict(measured)
    if model.ensemble:
        spread = with_deviations(own)
        of_members = {f"members_{name}": spread[name] for name in spread if name.removesuffix(DEVIATION) in measured}
        found = {name: spread[name] for name in own} | {**measured, "members": model.replicas} | of_members
    else:
        own |= measured
        found = with_deviations(own) | {"replicas": model.replicas}
    return found | {"per_seed": _per_seed(trainer, own)}


def _per_seed(trainer: Trainer, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures of each of several networks, with its seed and its best epoch."""
    best = {"best_epoch": trainer.best_epoch} if isinstance(trainer.best_epoch, list) else {}
    of_each = {"seed": trainer.model.network.seeds} | best | dict(figures)
    return [{name: values[r] for name, values in of_each.items()} for r in range(trainer.model.replicas or 0)]


def _kept(trainer: Trainer) -> HistoryRow:
    """Row of the model that is kept: the last one, or early stopping's best, which each network has of its own."""
    history, best = trainer.history, trainer.best_epoch
    if not isinstance(best, list):
        return next(row for row in reversed(history) if best in (None, row["epoch"]))
    rows = [history[max(epoch, 0) - 1] for epoch in best]  # the last one of a network that never had a finite loss
    figures = [name for name, value in rows[0].items() if isinstance(value, list)]
    return {name: [row[name][r] for r, row in enumerate(rows)] for name in figures}


def tell_of_seeds(result: Mapping[str, Any]) -> None:
    """Say which of several seeds diverged, so that mean and deviation are without them."""
    every = result["per_seed"]
    there = converged({name: [one[name] for one in every] for name in every[0]})
    lost = [one["seed"] for r, one in enumerate(every) if r not in there]
    if lost:
        cli.tell(f"{len(lost)} of {len(every)} networks diverged, and are left out: {seeds_in_words(lost)}")


def where_time_went(result: Mapping[str, Any]) -> str:
    """What a run's seconds went to, in one line, for people."""
    parts = result["seconds_by_part"]
    total = result["total_seconds"] + parts.get("imports", 0.0)
    return f"took {total:.1f} s: {', '.join(f'{part} {seconds:.1f}' for part, seconds in parts.items())}"


def sentence(result: Mapping[str, Any]) -> str:
    """The result of a run in one line, for people."""
    best = f", of epoch {result['best_epoch']}, the best" if result["best_epoch"] is not None else ""
    if isinstance(result["best_epoch"], list):
        best = f", of each {'member' if 'members' in result else 'network'}'s best epoch"
    kept = f"; the run is in {Path(result['model']).parent}" if result["model"] else ""
    metric = next(name for name in TITLES if f"test_{name}" in result)
    names = [f"test_{metric}", "test_loss"]
    of_whom = ""
    if "replicas" in result:
        names = [name for rows in ("test", "validation", "train") for name in (f"{rows}_{metric}", f"{rows}_loss")]
        of_whom = f" ({'mean ± deviation, ' * (len(result['per_seed']) > 1)}{seeds_in_words(_seeds(result))})"
    if "members" in result:
        of_whom = f" of the ensemble, whose members have {result[f'members_test_{metric}']:.4f} on average,"
    figures = ", ".join(f"{_title(name)} {_shown(result, name, '.4f')}" for name in names if name in result)
    return (
        f"{figures}{of_whom} on {result['dataset']}, after {result['steps']} steps in {result['seconds']:.1f} s"
        f" on {result['device']}{best}{kept}"
    )


def _title(name: str) -> str:
    """Name of a figure in messages: of test_r2, test R2."""
    rows, _, figure = name.partition("_")
    return f"{rows} {TITLES.get(figure, figure)}"


def _seeds(result: Mapping[str, Any]) -> list[int]:
    return [one["seed"] for one in result["per_seed"]]


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Seeds in words: seed 3; seeds 0 to 7; seeds 1, 5, 6.

    >>> seeds_in_words([0, 1, 2, 3]), seeds_in_words([4, 1])
    ('seeds 0 to 3', 'seeds 4, 1')
    """
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    more = f" and {len(seeds) - MOST_SEEDS} more" if len(seeds) > MOST_SEEDS else ""
    return f"seeds {', '.join(map(str, seeds[:MOST_SEEDS]))}{more}"
