"""Explanations: by hand, against scikit-learn and central differences, and the command."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import PLOTS

from xpnet import MLP, Linear, Trainer
from xpnet.commands import explain, train
from xpnet.model.explanation import attributions, input_columns, permutation_importance

pytestmark = pytest.mark.usefixtures("no_downloads")


def linear(weights, **options):
    """A regression, x W, in float64."""
    model = MLP([len(weights), 1], task="regression", dtype="float64", **options)
    model.network.layers[0].W = np.array(weights)[:, None]
    return model


def test_importance_by_hand(rng, device):
    """y = 3 a + 4 b + 0 c, of equal variance: a permuted column costs 2 w^2 / (9 + 16) of R2, on average."""
    x = rng.normal(size=(5000, 3))
    found = permutation_importance(linear([3.0, 4.0, 0.0]), x, x @ [3.0, 4.0, 0.0], repeats=10)
    means, deviations = zip(*found.values(), strict=True)
    assert means == pytest.approx([18 / 25, 32 / 25, 0.0], abs=0.05)
    assert means[2] == deviations[2] == 0.0
    assert 0.0 < deviations[0] < 0.05
    again = permutation_importance(linear([3.0, 4.0, 0.0], device=device), x, x @ [3.0, 4.0, 0.0], repeats=10)
    for feature, moments in again.items():
        assert moments == pytest.approx(found[feature], rel=1e-10), "one result on every device, up to rounding"
    assert found != permutation_importance(linear([3.0, 4.0, 0.0]), x, x @ [3.0, 4.0, 0.0], seed=1)


def test_importance_is_scikit_learns(rng):
    inspection = pytest.importorskip("sklearn.inspection")
    x = rng.normal(size=(3000, 4)) * [1.0, 2.0, 3.0, 4.0]
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    model = MLP([4, 20, 2])
    Trainer(model).fit(x, y, epochs=5)
    learner = SimpleNamespace(fit=lambda x, y: None)

    def score(learner, x, y):
        return (model.predict(x).argmax(axis=1) == y).mean()

    expected = inspection.permutation_importance(learner, x, y, scoring=score, n_repeats=5, random_state=0)
    ours = [mean for mean, _ in permutation_importance(model, x, y).values()]
    np.testing.assert_allclose(ours, expected.importances_mean, atol=0.02)


def test_attributions_by_hand(device):
    """Of inputs that the network sees: (x - 1) / 2 is 0 and 2; of a shift, nothing is left of the first row."""
    model = linear([3.0, -4.0], input_shift=1.0, input_scale=2.0, device=device)
    assert attributions(model, np.array([[1.0, 1.0], [5.0, 3.0]])) == {"0": 3.0, "1": 2.0}


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_attributions_are_central_differences(rng, task):
    """Of predictions: batch normalization by running statistics, and no dropout; the model stays as it was."""
    model = MLP([4, 8, 6, 3], task=task, activation="tanh", batch_norm=True, dropout=0.5, dtype="float64")
    x = rng.normal(size=(7, 4))
    model.forward(rng.normal(size=(50, 4)) + 1.0, train=True)  # statistics of their own
    values, buffers, gradients = (array.copy() for array in (*model.network.snapshot(), model.network.gradients))
    found = attributions(model, x)
    for before, after in ((values, "values"), (buffers, "buffers"), (gradients, "gradients")):
        np.testing.assert_array_equal(getattr(model.network, after), before)

    z = model.forward(x)
    best = z.argmax(axis=1)
    expected = []
    for column in range(4):
        step = 1e-6 * np.eye(4)[column]
        slopes = (model.forward(x + step) - model.forward(x - step)) / 2e-6
        slopes = slopes[np.arange(7), best][:, None] if task == "classification" else slopes
        expected.append(np.abs(slopes * x[:, column : column + 1]).mean())
    assert list(found.values()) == pytest.approx(expected, rel=1e-6)


def test_two_classes_of_one_output_and_an_ensemble(rng, device):
    x = rng.normal(size=(9, 3))
    single = MLP([3, 1], dtype="float64", device=device)
    w = device.to_host(single.network.layers[0].W)[:, 0]
    assert list(attributions(single, x).values()) == pytest.approx(np.abs(w * x).mean(axis=0).tolist())
    ensemble = MLP([3, 2], task="regression", replicas=2, ensemble=True, dtype="float64", device=device)
    weights = device.to_host(ensemble.network.layers[0].W)  # (R, I, O)
    expected = np.abs(weights).mean(axis=(0, 2)) * np.abs(x).mean(axis=0)
    assert list(attributions(ensemble, x).values()) == pytest.approx(expected.tolist())


def test_layers_of_another_order(rng):
    """A network whose first layer is not Linear, and rows in several parts."""
    from xpnet import ReLU, Sequential

    model = MLP.of(Sequential([ReLU(), Linear(2, 1)], dtype="float64"), task="regression", input_shape=2)
    x = rng.normal(size=(3000, 2))
    w = model.network.layers[1].W[:, 0]
    expected = np.abs(w * np.maximum(x, 0.0)).mean(axis=0).tolist()
    assert list(attributions(model, x).values()) == pytest.approx(expected)


@pytest.fixture
def table(tmp_path, rng, run):
    """A model of a table of which the column "color", of three words, says all; and the table."""
    pytest.importorskip("pyarrow")
    color, noise = rng.integers(0, 3, 300), rng.normal(size=300)
    lines = [
        f"{n:.6f},{('red', 'green', 'blue')[c]},{'yes' if c == 1 else 'no'}" for n, c in zip(noise, color, strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["noise,color,bought", *lines]))
    options = ("--dataset", tmp_path / "t.csv", "--hidden", 20, "--steps", 500, "--out", tmp_path / "run", "--quiet")
    assert run(train, *options)[0] == 0
    return tmp_path / "run", tmp_path / "t.csv"


def test_a_table_of_which_one_column_matters(run, table):
    code, out, err = run(explain, *table)
    assert (code, err) == (0, "accuracy 1.0000 on 300 rows\n")
    header, first, second = (line.split() for line in out.splitlines())
    assert header == ["column", "importance", "deviation", "attribution"]
    assert (first[0], second[0]) == ("color", "noise")
    # A permuted row is wrong where one of two independent rows is green, and the other is not: 4 / 9.
    assert float(first[1]) == pytest.approx(4 / 9, abs=0.06)
    assert float(second[1]) < 0.02
    assert float(first[3]) > 3 * float(second[3])
    result = json.loads(run(explain, *table, "--json", "--repeats", 2)[1])
    assert (result["metric"], result["accuracy"], result["rows"]) == ("accuracy", 1.0, 300)
    assert [list(column) for column in result["columns"]] == [["name", "importance", "deviation", "attribution"]] * 2
    model = MLP.load(table[0] / "model.safetensors")
    assert input_columns(model) == {"noise": slice(0, 1), "color": slice(1, 4)}


def test_pictures_have_a_map(run, trained, tmp_path, digits):
    np.savez(tmp_path / "d.npz", x=digits.x_test)
    code, out, err = run(explain, trained, tmp_path / "d.npz", *(("--out", tmp_path / "p.png") if PLOTS else ()))
    assert code == 0
    assert err.startswith("pixels are not permuted")
    assert len(out.splitlines()) == 65
    assert float(out.splitlines()[-1].split()[1]) == 0.0, "some pixels are always black"
    assert not PLOTS or (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_arrays_with_labels_in_another_file(run, tmp_path, rng):
    linear([3.0, 0.0]).save(tmp_path / "m")
    x = rng.normal(size=(50, 2))
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "y.npz", y=3.0 * x[:, 0])
    words = (tmp_path / "m", tmp_path / "x.npz", "--labels", tmp_path / "y.npz")
    code, out, err = run(explain, *words, *(("--out", tmp_path / "p.png") if PLOTS else ()))
    assert (code, err) == (0, "R2 1.0000 on 50 rows\n")
    assert out.splitlines()[2].split() == ["1", "0", "0", "0"]
    assert not PLOTS or (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_errors_are_one_line(run, tmp_path):
    linear([3.0, 0.0]).save(tmp_path / "m")
    MLP([2, 1], task="regression", replicas=2).save(tmp_path / "two")
    np.savez(tmp_path / "d.npz", x=np.ones((3, 2)), y=np.ones(3))
    np.savez(tmp_path / "wide.npz", x=np.ones((3, 3)), y=np.ones(3))
    np.savez(tmp_path / "none.npz", x=np.ones((0, 2)), y=np.ones(0))
    for words, said in (
        (("m", "wide.npz"), "wide.npz: x has 3 features in a row, and 2 are wanted"),
        (("m", "none.npz"), "none.npz: x has no rows"),
        (("two", "d.npz"), "has 2 replicas: choose one, --replica 0 to 1"),
        (("m", "d.npz", "--labels", "none.npz"), "none.npz: y has 0 targets, and there are 3 rows"),
        (("m", "d.npz", "--repeats", 0), "--repeats must be at least 1, not 0"),
        (("m", "d.npz", "--seed", -1), "--seed must be at least 0, not -1"),
        (("m", "d.npz", "--out", "no/p.png"), "no/p.png cannot be written"),
        (("m", "nothing.npz"), "nothing.npz cannot be read"),
    ):
        files = [tmp_path / word if str(word).endswith((".npz", ".png", "m", "two")) else word for word in words]
        code, out, err = run(explain, *files)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert said in err
