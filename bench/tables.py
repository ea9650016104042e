"""Scores on five tables, of CSV files as people have them: xpnet's command beside scikit-learn's pipelines.

    python bench/tables.py [--seeds 10] [--json FILE]

Each table is written as CSV with a byte-order mark, semicolons, decimal commas, quotes and holes, and divided into
training and test rows by a seed. Contenders: `python -m xpnet.train FILE.csv --early-stop 10`; scikit-learn's MLP of
the same size, rate, batch and patience behind a ColumnTransformer (median and a feature for holes, scaled numbers,
words as one-hot, dates as numbers); and HistGradientBoosting with its own defaults. Scores are accuracy or R2 on the
test rows: mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from surroundings import in_words, noted, surroundings, write_results

from xpnet.commands import train

HIDDEN, PATIENCE, EPOCHS, BATCH, RATE = 100, 10, 200, 128, 1e-3


def adult() -> pd.DataFrame:
    """Incomes above a threshold, made here: numbers with heavy tails, words of few and of many levels, holes."""
    rng = np.random.default_rng(0)
    rows = 6000
    job, town = rng.integers(0, 12, rows), rng.integers(0, 90, rows)
    age, hours = rng.integers(18, 80, rows), rng.normal(40, 9, rows).round()
    gain = np.where(rng.uniform(size=rows) < 0.1, np.exp(rng.normal(8, 1, rows)), 0.0).round(2)
    of_job, of_town = rng.normal(0, 1, 12), rng.normal(0, 0.7, 90)
    score = of_job[job] + of_town[town] - ((age - 50) / 15) ** 2 + (hours - 40) / 12 + np.log1p(gain) / 4
    rich = score + rng.logistic(0, 0.6, rows) > 0.3
    jobs = np.array(["clerk", "cook, chef", 'the "boss"', *(f"job {i}" for i in range(9))], dtype=object)
    frame = pd.DataFrame(
        {
            "age": age.astype(float),
            "job": jobs[job],
            "town": [f"town {i}" for i in town],
            "hours": hours,
            "gain": gain,
            "member": np.where(rng.uniform(size=rows) < 0.5, "true", "false"),
            "income": np.where(rich, ">50K", "<=50K"),
        }
    )
    for name in ("age", "job", "hours"):
        frame.loc[rng.uniform(size=rows) < 0.05, name] = None
    return frame


def housing() -> pd.DataFrame:
    """Prices of houses, made here: places, skewed areas, and a product of the two."""
    rng = np.random.default_rng(1)
    rows = 4000
    x, y = rng.uniform(-1, 1, rows), rng.uniform(-1, 1, rows)
    area, year = np.exp(rng.normal(4.6, 0.5, rows)), rng.integers(1900, 2024, rows)
    near = np.exp(-4 * (x**2 + y**2))
    price = area * (1.0 + 2.0 * near) * (1.0 + (year - 1960) / 200) * np.exp(rng.normal(0, 0.15, rows))
    kind = np.array(["flat", "house", "loft"], dtype=object)[rng.integers(0, 3, rows)]
    frame = pd.DataFrame({"x": x, "y": y, "area": area, "year": year, "kind": kind, "price": price.round(1)})
    frame.loc[rng.uniform(size=rows) < 0.1, "year"] = None
    return frame


def rentals() -> pd.DataFrame:
    """Bicycles rented in an hour, made here: the time tells most."""
    rng = np.random.default_rng(2)
    rows = 5000
    when = np.datetime64("2021-01-01T00:00:00") + rng.integers(0, 2 * 365 * 24, rows) * np.timedelta64(3600, "s")
    hour = when.astype("datetime64[h]").astype(int) % 24
    day = when.astype("datetime64[D]").astype(int) % 7
    season = np.cos(2 * np.pi * (when.astype("datetime64[D]").astype(int) % 365.25) / 365.25)
    rain = np.exp(rng.normal(-1, 1.5, rows))
    count = 120 * np.exp(-0.5 * ((hour - 17) / 3) ** 2) + 90 * np.exp(-0.5 * ((hour - 8) / 2) ** 2) * (day < 5)
    count = count * (1.4 - 0.6 * season) * np.exp(-0.3 * rain) + rng.normal(0, 6, rows)
    return pd.DataFrame({"when": when.astype("datetime64[s]"), "rain": rain, "count": count.round(1)})


def of_sklearn(load: Callable[..., Any]) -> Callable[[], pd.DataFrame]:
    """A table that scikit-learn has."""

    def table() -> pd.DataFrame:
        frame: pd.DataFrame = load(as_frame=True).frame
        return frame.assign(target="cultivar " + frame["target"].astype(str)) if load is load_wine else frame

    return table


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "adult": adult,
    "housing": housing,
    "diabetes": of_sklearn(load_diabetes),
    "wine": of_sklearn(load_wine),
    "rentals": rentals,
}


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as a spreadsheet program does in Europe."""
    options: dict[str, Any] = {"sep": ";", "decimal": ",", "quoting": csv.QUOTE_MINIMAL, "encoding": "utf-8-sig"}
    frame.to_csv(path, index=False, **options)


def of_xpnet(rows: pd.DataFrame, others: pd.DataFrame, seed: int, classes: bool) -> float:
    """Score of the command."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("train.csv", "test.csv")]
        for frame, path in zip((rows, others), files, strict=True):
            write(frame, path)
        words = ["--dataset", str(files[0]), "--test", str(files[1]), "--hidden", str(HIDDEN), "--json", "--quiet"]
        words += ["--early-stop", str(PATIENCE), "--epochs", str(EPOCHS), "--batch-size", str(BATCH), "--lr", str(RATE)]
        words += ["--seed", str(seed), "--task", "classification" if classes else "regression"]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            if train.main(words):
                raise RuntimeError("the command failed")
        return float(json.loads(said.getvalue())["test_accuracy" if classes else "test_r2"])


def of_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns as scikit-learn takes them: dates as numbers."""
    dates = frame.select_dtypes("datetime").columns
    return frame.assign(**{name: frame[name].astype("int64") for name in dates})


def of_mlp(rows: pd.DataFrame, others: pd.DataFrame, seed: int, classes: bool) -> float:
    """Score of scikit-learn's MLP."""
    target = rows.columns[-1]
    x, other = (of_columns(frame.drop(columns=target)) for frame in (rows, others))
    numbers, words = list(x.select_dtypes("number").columns), list(x.select_dtypes(exclude="number").columns)
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
        (
            make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(handle_unknown="ignore")),
            words,
        ),
    )
    options = {"hidden_layer_sizes": (HIDDEN,), "batch_size": BATCH, "learning_rate_init": RATE, "max_iter": EPOCHS}
    options |= {"early_stopping": True, "n_iter_no_change": PATIENCE, "random_state": seed}
    if classes:
        return float(make_pipeline(prepare, MLPClassifier(**options)).fit(x, rows[target]).score(other, others[target]))
    scale = StandardScaler().fit(rows[[target]].to_numpy())
    t, t_other = (scale.transform(frame[[target]].to_numpy())[:, 0] for frame in (rows, others))
    return float(make_pipeline(prepare, MLPRegressor(**options)).fit(x, t).score(other, t_other))


def of_trees(rows: pd.DataFrame, others: pd.DataFrame, seed: int, classes: bool) -> float:
    """Score of gradient boosted trees."""
    target = rows.columns[-1]
    x, other = (of_columns(frame.drop(columns=target)) for frame in (rows, others))
    for name in x.select_dtypes(exclude="number").columns:
        levels = sorted(x[name].dropna().unique())
        x, other = (one.assign(**{name: pd.Categorical(one[name], levels)}) for one in (x, other))
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    model = kind(categorical_features="from_dtype", random_state=seed)
    return float(model.fit(x, rows[target]).score(other, others[target]))


CONTENDERS = {"xpnet": of_xpnet, "scikit-learn MLP": of_mlp, "HistGradientBoosting": of_trees}


def main() -> None:
    """Run all contenders on all tables, and print a table of their scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the scores there")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = surroundings()
    scores: dict[str, dict[str, list[float]]] = {}
    for name, make in TABLES.items():
        frame = make()
        classes = not pd.api.types.is_numeric_dtype(frame.iloc[:, -1])
        scores[name] = {contender: [] for contender in CONTENDERS}
        for seed in range(options.seeds):
            stratify = frame.iloc[:, -1] if classes else None
            rows, others = train_test_split(frame, test_size=0.2, random_state=seed, stratify=stratify)
            for contender, score in CONTENDERS.items():
                scores[name][contender].append(score(rows, others, seed, classes))
        cells = [f"{one}: {np.mean(of):.4f} +- {np.std(of):.4f}" for one, of in scores[name].items()]
        print(f"{name} ({'accuracy' if classes else 'R2'}): {', '.join(cells)}", flush=True)
    if options.json is not None:
        write_results(options.json, found, {"seeds": options.seeds, "scores": scores})
    print(in_words(noted(found)))


if __name__ == "__main__":
    main()
