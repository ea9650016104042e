"""Preparation of tables: features of columns, by the training rows alone, in files and in models."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from xpnet import MLP, Adam, Trainer, evaluate
from xpnet.core.errors import DataError
from xpnet.data import preparation as preparing
from xpnet.data.columns import Column, columns_of, values_of
from xpnet.data.frames import frame_of
from xpnet.data.preparation import Preparation

NAN = np.nan


def fitted(values, y=None, column=None):
    """The preparation of one column, and its features of the same rows."""
    values = np.asarray(values, dtype=np.float64)
    column = column or Column("a", "number")
    y = np.arange(len(values)) % 2 if y is None else np.asarray(y)
    one = Preparation.fit([column], values[:, None], y)
    return one, one.of_values([column], values[:, None])


def test_numbers():
    """Mean 0 and deviation 1; a hole is the mean, and 1 in a feature of its own."""
    one, features = fitted([1.0, 2.0, NAN, 3.0])
    assert one.names == ("a", "a is missing")
    root = np.sqrt(1.5)
    np.testing.assert_allclose(features, [[-root, 0], [0, 0], [0, 1], [root, 0]], rtol=1e-6)
    assert features.dtype == np.float32
    assert fitted([1.0, 2.0, 3.0])[0].names == ("a",)
    later = one.of_values([Column("a", "number")], np.array([[NAN], [1e9]]))
    np.testing.assert_allclose(later[0], [0, 1])


def test_heavy_tails():
    """They become normal scores, as scikit-learn's QuantileTransformer has them, standardized."""
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(0, 2, 2000))
    one, features = fitted(values)
    assert one.encodings[0].kind == "quantiles"
    assert (np.diff(features[np.argsort(values), 0]) >= 0).all()
    assert abs(features).max() < 4
    sklearn = pytest.importorskip("sklearn.preprocessing")
    theirs = sklearn.QuantileTransformer(n_quantiles=201, output_distribution="normal").fit_transform(values[:, None])
    inner = abs(theirs[:, 0]) < 2
    np.testing.assert_allclose(features[inner, 0] * one.encodings[0].scale[0], theirs[inner, 0], atol=0.05)
    assert fitted(rng.normal(size=2000))[0].encodings[0].kind == "standard"
    assert fitted(rng.integers(0, 2, 2000))[0].encodings[0].kind == "standard"


def test_words():
    """One-hot for few levels; a word without a level is zeros, and so is a hole, which has a feature of its own."""
    column = Column("a", "words", ("x", "y", "z"))
    one, features = fitted([0, 2, NAN, 2], column=column)
    assert one.names == ("a=x", "a=z", "a is missing")  # no training row has y
    np.testing.assert_array_equal(features, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(one.of_values([column], np.array([[1.0], [-1.0]])), np.zeros((2, 3)))


def many_levels(rows=4000, levels=60):
    rng = np.random.default_rng(0)
    values = rng.integers(0, levels, rows).astype(np.float64)
    chance = rng.uniform(0, 1, levels)
    return (
        Column("a", "words", tuple(f"l{i:02}" for i in range(levels))),
        values,
        rng.uniform(size=rows) < chance[values.astype(int)],
    )


def test_target_means():
    """Words of many levels become the smoothed mean of the target, as worked by hand, and how often they occur."""
    column, values, y = many_levels()
    one, features = fitted(values, y.astype(np.int64), column)
    assert one.names == ("a: mean 0", "a: rows")
    mean = np.array([(y[values == level].sum() + 10 * y.mean()) / ((values == level).sum() + 10) for level in values])
    rows = np.log1p([(values == level).sum() for level in values])
    for number, expected in enumerate((mean, rows)):
        np.testing.assert_allclose(features[:, number], (expected - expected.mean()) / expected.std(), atol=1e-5)
    unseen = one.of_values([column], np.array([[-1.0], [NAN]]))
    assert unseen[0, 0] == pytest.approx((y.mean() - mean.mean()) / mean.std(), abs=1e-5)
    np.testing.assert_array_equal(unseen[1], [0, 0])


def test_training_rows_do_not_see_their_own_targets():
    """Of a target that is noise, the features of training rows tell nothing; those of all rows would."""
    column, values, _ = many_levels(600, 200)
    y = np.random.default_rng(1).integers(0, 2, 600)
    one, naive = fitted(values, y, column)
    honest = one.of_training([column], values[:, None], y, seed=0)
    assert np.corrcoef(naive[:, 0], y)[0, 1] > 0.4
    assert abs(np.corrcoef(honest[:, 0], y)[0, 1]) < 0.15
    np.testing.assert_array_equal(honest, one.of_training([column], values[:, None], y, seed=0))
    assert (honest != one.of_training([column], values[:, None], y, seed=1)).any()


def test_target_means_of_numbers_and_classes():
    column, values, _ = many_levels()
    y = np.stack([values, -values], axis=1)
    one, features = fitted(values, y, column)
    assert one.names == ("a: mean 0", "a: mean 1", "a: rows")
    np.testing.assert_allclose(features[:, 0], -features[:, 1], atol=1e-5)
    assert len(fitted(values, np.arange(4000) % 4, column)[0].names) == 4  # three classes but the first, and rows


def test_dates():
    """They are standardized; where they span a period, their place in it is a point on a circle."""
    days = np.arange("2020-01-01", "2022-06-01", dtype="datetime64[D]").astype("datetime64[s]").astype(np.float64)
    one, features = fitted(days, column=Column("a", "date"))
    names = ["a", *(f"a: {wave} of the {cycle}" for cycle in ("week", "year") for wave in ("sine", "cosine"))]
    assert list(one.names) == names
    np.testing.assert_allclose(np.hypot(features[:, 1], features[:, 2]), 1.0, rtol=1e-6)
    np.testing.assert_allclose(features[7, 1:3], features[0, 1:3], atol=1e-6)  # a week later
    np.testing.assert_allclose(features[366, 3:], features[0, 3:], atol=0.02)  # a year later
    hours = days[0] + 3600.0 * np.arange(60)
    assert [name for name in fitted(hours, column=Column("a", "date"))[0].names if "day" in name]


def test_columns_without_features():
    columns = [Column("one", "number"), Column("id", "words", tuple(f"w{i}" for i in range(50))), Column("a", "number")]
    values = np.stack([np.full(50, 3.0), np.arange(50.0), np.arange(50.0)], axis=1)
    one = Preparation.fit(columns, values, np.arange(50) % 2)
    assert one.names == ("a",)
    assert one.left_out == (
        "column 'one' has one value alone, and is left out",
        "column 'id' has another word in each row, and is left out",
    )
    with pytest.raises(DataError, match="there is no column to learn from: column 'one' has one value alone"):
        Preparation.fit(columns[:1], values[:, :1], np.arange(50) % 2)


def frame_and_target(rows=600):
    rng = np.random.default_rng(0)
    age = np.where(rng.uniform(size=rows) < 0.1, NAN, rng.integers(18, 80, rows))
    town, pay = rng.integers(0, 50, rows), np.exp(rng.normal(0, 2, rows))
    day = np.datetime64("2020-01-01") + rng.integers(0, 900, rows)
    job = np.array(["cook", "nurse", "clerk"])[rng.integers(0, 3, rows)]
    score = np.nan_to_num((age - 50) / 20) + np.log(pay) / 2 + (job == "nurse") + rng.normal(0, 0.3, rows)
    return {
        "age": age,
        "town": np.array([f"t{i}" for i in town]),
        "pay": pay,
        "day": day.astype("datetime64[s]"),
        "job": job,
        "member": rng.uniform(size=rows) < 0.5,
        "kind": np.where(score > 0.4, "yes", "no"),
    }


def part(table, rows):
    return {name: column[rows] for name, column in table.items()}


def test_settings():
    """A preparation is its settings, as JSON: the same features, to the bit."""
    table = frame_of(frame_and_target()).drop_columns(["kind"])
    columns = columns_of(table)
    y = np.arange(600) % 3
    one = Preparation.fit(columns, values_of(columns, table), y, "kind")
    assert {encoding.kind for encoding in one.encodings} == set(preparing.KINDS)
    again = Preparation.of(json.loads(json.dumps(one.settings())))
    assert again == one
    np.testing.assert_array_equal(again.features(table), one.of_values(columns, values_of(columns, table)))
    for broken in ({"encodings": []}, {"target": "x"}, {"target": "x", "encodings": [{"column": {}}]}):
        with pytest.raises((LookupError, TypeError)):
            Preparation.of(broken)


def test_a_model_of_a_table(tmp_path):
    """It trains on data frames, predicts for them, and keeps its preparation in files, copies and pickles."""
    table = frame_and_target()
    train, test = part(table, slice(0, 450)), part(table, slice(450, None))
    model = MLP.for_table(train, "kind", hidden=[30])
    assert model.class_names == ("no", "yes")
    trainer = Trainer(model, Adam(0.01))
    history = trainer.fit(train, epochs=30, test=test, class_weight={"yes": 2.0})
    assert history[-1]["test_accuracy"] > 0.85
    assert evaluate(model, test)[1] == history[-1]["test_accuracy"]
    expected = model.predict(test)
    right = (expected.argmax(axis=1) == (test["kind"] == "yes")).mean()
    assert right == pytest.approx(history[-1]["test_accuracy"])
    model.save(tmp_path / "model.safetensors")
    trainer.save(tmp_path / "trainer.safetensors")
    others = [
        MLP.load(tmp_path / "model.safetensors"),
        Trainer.load(tmp_path / "trainer.safetensors").model,
        copy.copy(model),
        pickle.loads(pickle.dumps(model)),
    ]
    without_target = {name: column for name, column in test.items() if name != "kind"}
    for other in others:
        np.testing.assert_array_equal(other.predict(without_target), expected)
        np.testing.assert_array_equal(other.predict(other.features(without_target)), expected)


def test_numbers_as_targets():
    table = frame_and_target()
    model = MLP.for_table(table, "pay", drop=["town"], hidden=[20])
    history = Trainer(model).fit(table, epochs=3, validation=table)
    assert "validation_r2" in history[-1]
    assert model.predict(part(table, slice(0, 2))).shape == (2, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("age"), "there is no column 'age'"),
        (lambda t: t.update(age=t["job"]), "column 'age' holds words, where it held numbers before"),
        (lambda t: t.update(job=t["day"]), "column 'job' holds dates, where it held words before"),
        (lambda t: t.update(day=t["age"]), "column 'day' holds numbers, where it held dates before"),
    ],
)
def test_rows_that_do_not_fit(change, reason):
    table = frame_and_target()
    model = MLP.for_table(table, "kind", hidden=[5])
    change(table)
    with pytest.raises(DataError, match=reason):
        model.predict(table)


def test_a_label_that_no_training_row_has():
    table = frame_and_target()
    model = MLP.for_table(table, "kind", hidden=[5])
    table["kind"] = table["kind"].astype(object)
    table["kind"][7] = "maybe"
    with pytest.raises(ValueError, match=r"y has no such class as 'maybe' in row 7: choose from: no, yes"):
        Trainer(model).fit(table)


def test_arguments():
    with pytest.raises(TypeError, match="frame must be a data frame"):
        MLP.for_table(np.zeros((3, 2)), "a")
    with pytest.raises(ValueError, match="y must be given"):
        Trainer(MLP([2, 2])).fit([[0, 1]])
    with pytest.raises(ValueError, match="preparation makes 1 features, and the network takes 2"):
        MLP([2, 2], preparation=fitted([1.0, 2.0])[0])


def test_classes_by_name():
    """Targets and class weights may be names, which count as the labels do."""
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    names = ["red", "green", "blue"]
    by_label, by_name = (MLP([4, 5, 3], class_names=names) for _ in range(2))
    one = Trainer(by_label).fit(x, y, class_weight={1: 2.0})
    other = Trainer(by_name).fit(x, np.array(names)[y], class_weight={"green": 2.0})
    assert one[-1]["train_loss"] == other[-1]["train_loss"]
    with pytest.raises(ValueError, match="y has no such class as 'gren' in row 1: did you mean 'green'"):
        Trainer(by_name).fit(x[:2], ["red", "gren"])
    with pytest.raises(ValueError, match="class_weight has no such class as 'grey': did you mean 'green'"):
        Trainer(by_name).fit(x, y, class_weight={"grey": 2.0})


def test_frames_beside_targets():
    """A data frame is prepared, with y given too; arrays, which have no columns, are refused."""
    table = frame_and_target()
    model = MLP.for_table(table, "kind", hidden=[10])
    Trainer(model).fit(table, epochs=3)
    y, x = table["kind"], {name: column for name, column in table.items() if name != "kind"}
    assert evaluate(model, x, y) == evaluate(model, table)
    one, other = (MLP.for_table(table, "kind", hidden=[10]) for _ in range(2))
    histories = [Trainer(one).fit(table, epochs=2), Trainer(other).fit(x, y, epochs=2)]
    assert histories[0][-1]["train_loss"] == histories[1][-1]["train_loss"]
    for ask in (model.predict, lambda rows: evaluate(model, rows, y), lambda rows: Trainer(model).fit(rows, y)):
        with pytest.raises(TypeError, match="the model was made for a table"):
            ask(np.zeros((600, model.in_features)))


@pytest.mark.parametrize("y", [[0.0, 1.0, 1.0], [0, 1, None], [True, False, True]])
def test_targets_of_any_type(y):
    table = {"x": [1.0, 2.0, 4.0] * 9, "y": y * 9}
    model = MLP.for_table(table, "y", hidden=[3])
    assert np.isfinite(Trainer(model).fit(table, epochs=1)[-1]["train_loss"])


def test_numbers_that_are_too_large():
    table = frame_and_target()
    model = MLP.for_table(table, "kind", hidden=[3])
    table["age"][5] = 1e300
    with pytest.raises(DataError, match=r"column 'age' is too large in row 5: 1e\+300"):
        model.predict(table)
