"""Searches: many networks at once against one after another, scikit-learn, Optuna with PyTorch, and JAX.

    python bench/searches.py [--problems mnist table halving] [--rounds 3] [--trials N] [--json FILE]

mnist: trials of 784-100-10 for 3 epochs. table: networks of 30-20-2 on 5,000 rows for 5 epochs. Each contender is a
process of its own with its own defaults, which reads the data and imports first; in each round all have a turn, and a
comparison is the median over rounds of two times per trial of the same round, compiling included. Peers that are not
installed are left out. halving: for ten seeds, the best score of a halving search and of a full one over the same
points.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import in_words, noted, surroundings, write_results

from xpnet import Config, Dataset, load_digits, load_mnist
from xpnet.core.device import CPU
from xpnet.search import search
from xpnet.search.search import configs_of
from xpnet.search.space import Space
from xpnet.training.build import build, prepare

SPACE = Space({"lr": "1e-4..1e-2"})
EPOCHS = {"mnist": 3, "table": 5}
HIDDEN = {"mnist": 100, "table": 20}
BATCH = {"mnist": 128, "table": 200}
TRIALS = {"mnist": 100, "table": 1000}
CONTENDERS = {
    "mnist": ["search", "one after another", "scikit-learn", "Optuna with PyTorch"],
    "table": ["search", "one after another", "JAX"],
}
FEWER = {"scikit-learn": 10, "Optuna with PyTorch": 10, "one after another": 3}  # a share of the trials: they are slow
NEEDS = {"scikit-learn": ["sklearn"], "Optuna with PyTorch": ["optuna", "torch"], "JAX": ["jax"]}


def data_of(problem: str) -> Dataset:
    """Return the data set of a problem."""
    if problem == "mnist":
        return load_mnist(os.environ.get("XPNET_DATA_DIR"))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5600, 30)).astype(np.float32)
    y = (x[:, :3].sum(axis=1) > 0.0).astype(np.int64)
    return Dataset("table", x[:5556], y[:5556], x[5556:], y[5556:], ("no", "yes"), 1.0, "made here")


def base_of(problem: str) -> Config:
    """Return the options that are not searched over; a tenth of the rows is held out."""
    hidden = (HIDDEN[problem],)
    return Config(hidden=hidden, epochs=EPOCHS[problem], batch_size=BATCH[problem], validation=0.1)


def rows_of(problem: str, data: Dataset) -> list[tuple[Any, Any]]:
    """Return scaled training and validation rows, float32, (N, I), each with its labels."""
    some: Any = prepare(base_of(problem), data)
    pairs = (some.x_train, some.y_train), (some.x_validation, some.y_validation)
    return [(np.reshape(x / np.float32(some.input_scale), (len(y), -1)), y) for x, y in pairs]


def by_search(problem: str, data: Dataset, points: list[dict[str, Any]]) -> float:
    """Train all trials by a search; return the best score."""
    best = search(points, data, base_of(problem)).best
    return float(best["score"]) if best else 0.0


def by_single_runs(problem: str, data: Dataset, points: list[dict[str, Any]]) -> float:
    """Train the trials one after another, each as the command would."""
    configs, _ = configs_of(points, base_of(problem))
    prepared = prepare(configs[0], data)
    scores = []
    for config in configs:
        trainer, arguments = build([config], prepared, CPU)
        scores.append(trainer.fit(**arguments | {"test": None})[-1]["validation_accuracy"])
    return float(max(scores))


def by_sklearn(problem: str, data: Dataset, points: list[dict[str, Any]]) -> float:
    """Train the trials by RandomizedSearchCV on two processes."""
    from sklearn.model_selection import PredefinedSplit, RandomizedSearchCV
    from sklearn.neural_network import MLPClassifier

    (x_train, y_train), (x_held, y_held) = rows_of(problem, data)
    x, y = np.concatenate([x_train, x_held]), np.concatenate([y_train, y_held])
    fold = np.repeat([-1, 0], [len(x_train), len(x_held)])
    model = MLPClassifier((HIDDEN[problem],), batch_size=BATCH[problem], max_iter=EPOCHS[problem], tol=0.0)
    rates = {"learning_rate_init": [point["lr"] for point in points]}
    options: dict[str, Any] = {"n_iter": len(points), "n_jobs": 2, "refit": False}
    found = RandomizedSearchCV(model, rates, cv=PredefinedSplit(fold), **options)
    found.fit(x, y)
    return float(found.best_score_)


def by_torch(problem: str, data: Dataset, points: list[dict[str, Any]]) -> float:
    """Train the trials by Optuna's random sampler, with PyTorch's own layers and Adam."""
    import optuna
    import torch

    (x, y), (x_held, y_held) = [
        (torch.tensor(x), torch.tensor(y, dtype=torch.int64)) for x, y in rows_of(problem, data)
    ]

    def objective(trial: Any) -> float:
        layers = torch.nn.Linear(x.shape[1], HIDDEN[problem]), torch.nn.ReLU()
        model = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[problem], len(data.class_names)))
        rule = torch.optim.Adam(model.parameters(), lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True))
        for _ in range(EPOCHS[problem]):
            for rows in torch.randperm(len(x)).split(BATCH[problem]):
                rule.zero_grad()
                torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                rule.step()
        with torch.no_grad():
            return float((model(x_held).argmax(dim=1) == y_held).float().mean())

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
    study.optimize(objective, n_trials=len(points))
    return float(study.best_value)


def by_jax(problem: str, data: Dataset, points: list[dict[str, Any]]) -> float:
    """Train all networks at once: a step under vmap over networks, all steps under scan, compiled by jit."""
    import jax
    import jax.numpy as jnp

    (x, y), (x_held, y_held) = [(jnp.asarray(x), jnp.asarray(y)) for x, y in rows_of(problem, data)]
    sizes, batch = [x.shape[1], HIDDEN[problem], 2], BATCH[problem]

    def start(key: Any) -> Any:
        keys = jax.random.split(key, 2)
        pairs = zip(keys, sizes, sizes[1:], strict=False)
        return [(jax.random.normal(k, (i, o)) * jnp.sqrt(2.0 / i), jnp.zeros(o)) for k, i, o in pairs]

    def logits(params: Any, rows: Any) -> Any:
        (w, b), (v, c) = params
        return jax.nn.relu(rows @ w + b) @ v + c

    def loss(params: Any, rows: Any, labels: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(params, rows)), labels[:, None], axis=1).mean()

    def train(params: Any, rate: Any, order: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)

        def step(carry: Any, index: Any) -> Any:
            params, m, v, t = carry
            g = jax.grad(loss)(params, x[index], y[index])
            t = t + 1.0
            m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
            v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
            down = lambda p, a, b: p - rate * (a / (1 - 0.9**t)) / (jnp.sqrt(b / (1 - 0.999**t)) + 1e-8)  # noqa: E731
            return (jax.tree.map(down, params, m, v), m, v, t), None

        (params, *_), _ = jax.lax.scan(step, (params, zeros, zeros, 0.0), order)
        return (logits(params, x_held).argmax(axis=1) == y_held).mean()

    rng = np.random.default_rng(0)
    epochs = [rng.permutation(len(x))[: len(x) // batch * batch] for _ in range(EPOCHS[problem])]
    order = jnp.asarray(np.concatenate(epochs).reshape(-1, batch))
    params = jax.vmap(start)(jax.random.split(jax.random.key(0), len(points)))
    rates = jnp.asarray([point["lr"] for point in points])
    return float(jax.jit(jax.vmap(train, in_axes=(0, 0, None)))(params, rates, order).max())


METHODS: dict[str, Callable[[str, Dataset, list[dict[str, Any]]], float]] = {
    "search": by_search,
    "one after another": by_single_runs,
    "scikit-learn": by_sklearn,
    "Optuna with PyTorch": by_torch,
    "JAX": by_jax,
}


def turn(problem: str, contender: str, trials: int) -> dict[str, float]:
    """Return seconds per trial and the best score of a contender, in a process of its own."""
    words = [sys.executable, __file__, "--turn", problem, contender, str(trials)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender} failed: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def race(problem: str, rounds: int, trials: int) -> list[dict[str, Any]]:
    """Let all contenders take turns; return a row for each."""
    missing = {name for name in CONTENDERS[problem] for one in NEEDS.get(name, []) if not importlib.util.find_spec(one)}
    names = [name for name in CONTENDERS[problem] if name not in missing]
    times: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 else names[::-1]:
            times[name].append(turn(problem, name, max(trials // FEWER.get(name, 1), 4)))
    rows = []
    for name in names:
        ratios = [one["seconds"] / ours["seconds"] for one, ours in zip(times[name], times["search"], strict=True)]
        seconds = statistics.median(one["seconds"] for one in times[name])
        row = {"problem": problem, "contender": name, "trials": max(trials // FEWER.get(name, 1), 4)}
        row |= {"milliseconds_a_trial": round(1000 * seconds, 2), "relative": round(statistics.median(ratios), 2)}
        rows.append(row | {"ratios": [round(one, 2) for one in ratios], "best": times[name][-1]["best"]})
        print(rows[-1], flush=True)
    for name in sorted(missing):
        print(f"left out, not installed: {name}")
    return rows


def halving(seeds: int = 10, trials: int = 32, factor: int = 2) -> list[dict[str, Any]]:
    """Compare halving with full searches over the same points, by the best score on the validation rows.

    An epoch of the digits has 12 steps, and one of MNIST 422: so there are more of the former.
    """
    space = Space({"lr": "1e-4..1e-1", "dropout": [0.0, 0.2], "optimizer": ["adam", "momentum"]})
    rows = []
    for name, data, epochs, first in (("digits", load_digits(), 64, 4), ("mnist", data_of("mnist"), 16, 1)):
        differences, shares = [], []
        for seed in range(seeds):
            base = Config(hidden=(100,), epochs=epochs, seed=seed)
            options: list[dict[str, Any]] = [{}, {"halving": factor, "first_rung": first}]
            full, halved = (search(space, data, base, trials=trials, **one) for one in options)
            if full.best is None or halved.best is None:
                raise SystemExit(f"all trials of {name} diverged")
            differences.append(100.0 * (full.best["score"] - halved.best["score"]))
            count = [sum(trial["epochs"] for trial in one.trials) for one in (halved, full)]
            shares.append(count[0] / count[1])
        row = {"problem": f"halving on {name}", "points_lost": [round(one, 3) for one in differences]}
        row |= {"mean_points_lost": round(statistics.mean(differences), 3), "share_of_epochs": round(max(shares), 3)}
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> int:
    """Run the comparisons; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", nargs="+", default=["mnist", "table", "halving"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turn", nargs=3)
    options = parser.parse_args()
    if options.turn:
        problem, contender, trials = options.turn
        data, points = data_of(problem), SPACE.draw(int(trials), 0)
        for name in NEEDS.get(contender, []):
            importlib.import_module(name)
        started = time.perf_counter()
        best = METHODS[contender](problem, data, points)
        print(json.dumps({"seconds": (time.perf_counter() - started) / len(points), "best": best}))
        return 0
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    found, rows = surroundings(), []
    for problem in options.problems:
        more = halving() if problem == "halving" else race(problem, options.rounds, options.trials or TRIALS[problem])
        rows += more
    if options.json:
        write_results(options.json, found, {"rows": rows})
    print(in_words(noted(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
