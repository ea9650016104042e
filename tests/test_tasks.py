"""Tasks: what outputs stand for, which losses go with them, their metrics, and what predictions mean."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from problems import PROBLEMS, divided

from xpnet import MLP, SGD, Adam, Config, Linear, Sequential, Trainer, data, evaluate, metrics, standard_scaling
from xpnet.core.device import CPU
from xpnet.model.tasks import OUTPUTS, choose_loss
from xpnet.nn import LOSSES, BinaryCrossEntropy, Loss, SoftmaxCrossEntropy, Tanh
from xpnet.training.build import build

SKLEARN = json.loads(Path(__file__).with_name("golden").joinpath("sklearn.json").read_text(encoding="utf-8"))
CROSS, BINARY, SQUARED = "softmax-cross-entropy", "binary-cross-entropy", "mean-squared-error"


@pytest.fixture
def table(rng):
    """Rows and the targets of every task: one of three classes, two classes, labels, and numbers in odd units."""
    x = rng.normal(size=(120, 4))
    scores = np.stack([x[:, 0] + x[:, 1], x[:, 1] - x[:, 2], np.sin(x[:, 3])], axis=1)
    return x, {
        "classes": scores.argmax(axis=1),
        "two": (scores[:, 0] > 0).astype(int),
        "labels": (scores > 0).astype(int),
        "numbers": scores * [1.0, 1e-3, 1e5] + [0.0, 7.0, 2e6],
    }


# What to train on a table, by name: outputs and options of a model, and the targets.
KINDS = {
    "classes": (3, {}),
    "two": (1, {"class_names": ["no", "yes"]}),
    "labels": (3, {"task": "multilabel"}),
    "numbers": (3, {"task": "regression", "target_shift": [0.0, 7.0, 2e6], "target_scale": [1.0, 1e-3, 1e5]}),
}


def trained(kind, table, *, epochs=30, device="cpu", **options):
    x, targets = table
    outputs, own = KINDS[kind]
    model = MLP([4, 16, outputs], device=device, **own, **options)
    Trainer(model, Adam(0.01), batch_size=20).fit(x, targets[kind], epochs=epochs)
    return model


@pytest.mark.parametrize("name", data.TASKS)
def test_tasks_by_name(name):
    assert MLP([2, 2], task=name).task.name == name


@pytest.mark.parametrize(
    ("task", "loss", "output", "single", "expected"),
    [
        ("classification", None, None, False, (CROSS, None)),
        ("classification", None, None, True, (BINARY, None)),
        ("classification", None, "softmax", False, (CROSS, None)),
        ("classification", None, "sigmoid", False, (BINARY, None)),
        ("classification", None, "step", True, (BINARY, None)),
        ("classification", None, "step", False, "the output step tells two classes apart"),
        ("classification", None, "tanh", False, (SQUARED, "tanh")),
        ("classification", None, "identity", False, (SQUARED, None)),
        ("classification", SQUARED, "sigmoid", False, (SQUARED, "sigmoid")),
        ("classification", "huber", "softmax", False, ("huber", "softmax")),
        ("multilabel", None, None, True, (BINARY, None)),
        ("multilabel", None, "step", False, (BINARY, None)),
        ("multilabel", None, "tanh", False, (SQUARED, "tanh")),
        ("regression", None, None, True, (SQUARED, None)),
        ("regression", None, "sigmoid", False, (SQUARED, "sigmoid")),
        ("regression", "poisson", None, False, ("poisson", None)),
        ("classification", CROSS, None, True, "one output tells two classes apart"),
        ("classification", None, "softmax", True, "one output tells two classes apart"),
        ("classification", CROSS, "tanh", False, "output tanh does not go with the loss softmax-cross-entropy"),
        ("classification", "poisson", None, False, "loss poisson does not go with the task classification"),
        ("multilabel", CROSS, None, False, "does not go with the task multilabel"),
        ("regression", BINARY, None, False, "does not go with the task regression"),
        ("regression", "poisson", "tanh", False, "has exp built in"),
        ("regression", None, "step", False, "the output step goes with binary cross entropy"),
        ("classification", CROSS, "step", False, "the output step goes with binary cross entropy"),
        ("clasification", None, None, False, "unknown task 'clasification': did you mean 'classification'"),
        ("regression", "hubber", None, False, "unknown loss 'hubber': did you mean 'huber'"),
        ("regression", None, "relu", False, "unknown output 'relu'"),
    ],
)
def test_what_goes_together(task, loss, output, single, expected):
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            choose_loss(task, loss, output, single=single)
    else:
        chosen, layer = choose_loss(task, loss, output, single=single)
        assert type(chosen) is LOSSES[expected[0]]
        assert layer == expected[1]


def test_every_loss_and_output_trains_somewhere(table):
    """Each loss serves a task, and each output; the loss falls, and predictions lie where they must."""
    x, targets = table
    served, behind = set(), set()
    for task, kind in (("classification", "classes"), ("multilabel", "labels"), ("regression", "numbers")):
        for loss in (None, *LOSSES):
            for output in (None, *OUTPUTS):
                try:
                    model = MLP([4, 16, 3], task=task, loss=loss, output=output)
                except ValueError:
                    continue
                y = targets["labels"] if task == "regression" else targets[kind]
                history = Trainer(model, Adam(0.01), batch_size=20).fit(x, y, epochs=10)
                assert history[-1]["train_loss"] < history[0]["train_loss"], (task, loss, output)
                p = model.predict(x)
                assert p.shape == (120, 3)
                if output == "step":
                    assert set(p.ravel()) <= {0.0, 1.0}
                if output == "softmax":
                    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)
                if output == "tanh":
                    assert p.min() < 0.0
                served.add(loss)
                behind.add(output)
    assert served == {None, *LOSSES}
    assert behind == {None, *OUTPUTS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("replicas", [None, 2])
def test_history_and_evaluation_are_the_metrics_of_predictions(kind, replicas, table, device):
    x, targets = table
    outputs, own = KINDS[kind]
    model = MLP([4, 16, outputs], replicas=replicas, device=device, **own)
    pair = (x, targets[kind])
    row = Trainer(model, Adam(0.01), batch_size=20).fit(*pair, epochs=20, validation=pair)[-1]
    p = model.predict(x)
    each = [p] if replicas is None else list(p)
    measure = {
        "classes": lambda p: metrics.accuracy(targets[kind], p.argmax(axis=1)),
        "two": lambda p: metrics.accuracy(targets[kind], p.argmax(axis=1)),
        "labels": lambda p: metrics.accuracy(targets[kind], p > 0.5),
        "numbers": lambda p: metrics.r2(targets[kind], p),
    }[kind]
    expected = [measure(one) for one in each]
    metric = "r2" if kind == "numbers" else "accuracy"
    found = evaluate(model, *pair)[1]
    np.testing.assert_allclose(found if replicas else [found], expected, rtol=1e-4)
    assert found == row[f"validation_{metric}"]
    assert min(expected) > 0.5, "nothing was learnt"
    assert np.min(row[f"train_{metric}"]) > 0.5


def test_training_metrics_are_of_the_rows_that_were_seen(table):
    """With a rate of next to nothing, an epoch that ends early has R2 and accuracy of its rows alone."""
    from xpnet.core.rng import permutation

    x, targets = table
    seen = permutation(0, 1, 120)[:60]
    for kind, metric in (("numbers", "r2"), ("labels", "accuracy")):
        outputs, own = KINDS[kind]
        model = MLP([4, 16, outputs], dtype="float64", **own)
        row = Trainer(model, SGD(1e-12), batch_size=20).fit(x, targets[kind], steps=3)[-1]
        assert row[f"train_{metric}"] == pytest.approx(evaluate(model, x[seen], targets[kind][seen])[1], rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_stand_in_is_bit_identical_in_every_task(kind, table, stand_in):
    x, targets = table
    here, there = trained(kind, table, epochs=3), trained(kind, table, epochs=3, device=stand_in)
    assert (here.network.values == stand_in.to_host(there.network.values)).all()
    assert (here.predict(x) == there.predict(x)).all()
    assert evaluate(here, x, targets[kind]) == evaluate(there, x, targets[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_waits_in_any_task(kind, table, stand_in):
    x, targets = table
    outputs, own = KINDS[kind]
    loss = BinaryCrossEntropy([1.0, 2.0, 3.0]) if kind == "labels" else None
    model = MLP([4, 16, outputs], loss=loss, device=stand_in, **own)
    counts = []
    Trainer(model, batch_size=20).fit(x, targets[kind], on_step=lambda step: counts.append(dict(stand_in.xp.counts)))
    for kind_of_count in ("to_device", "to_host", "waits"):
        assert {count[kind_of_count] for count in counts} == {counts[0][kind_of_count]}


def test_two_classes_are_one_sigmoid_or_a_softmax_of_two(table):
    """softmax([0, z]) is sigmoid(z): the same probabilities, the same loss, the same gradient with respect to z."""
    z = np.array([[-3.0], [0.5], [40.0]])
    t = np.array([0, 1, 0])
    both = np.concatenate([z * 0.0, z], axis=1)
    one, two = BinaryCrossEntropy()(np, z, t), SoftmaxCrossEntropy()(np, both, t)
    np.testing.assert_allclose(one[0], two[0], rtol=1e-12)
    np.testing.assert_allclose(one[2][:, 0], two[2][:, 1], rtol=1e-12)
    model = trained("two", table)
    p = model.predict(table[0])
    assert p.shape == (120, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-6)
    assert model.class_names == ("no", "yes")


def test_large_targets_keep_their_digits():
    """A mean a million times the deviation: float32 could not hold it, so scaling is done in float64."""
    x = np.linspace(-1.0, 1.0, 64)[:, None]
    y = 1e6 + x
    model = MLP([1, 1], task="regression", target_shift=1e6, target_scale=0.5)
    history = Trainer(model, Adam(0.05), batch_size=64).fit(x, y, epochs=500)
    assert history[-1]["train_r2"] > 0.9999
    p = model.predict(x)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p, y, atol=0.02)  # half a step of float32 near 1e6 would be 0.03


@pytest.mark.parametrize("unit", [1e-60, 1e60])
def test_units_beyond_float32(unit):
    x = np.linspace(-1.0, 1.0, 64)[:, None]
    model = MLP([1, 1], task="regression", target_scale=unit)
    Trainer(model, Adam(0.05), batch_size=64).fit(x, x * unit, epochs=300)
    np.testing.assert_allclose(model.predict(x), x * unit, atol=0.01 * unit)
    assert metrics.r2(x * unit, model.predict(x)) > 0.99


def test_one_hot_rows_are_labels(table):
    x, targets = table
    onehot = np.eye(3, dtype=int)[targets["classes"]]
    losses = [Trainer(MLP([4, 3])).fit(x, y, epochs=2)[-1]["train_loss"] for y in (targets["classes"], onehot)]
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match="y must hold labels, or one-hot rows"):
        evaluate(MLP([4, 3]), x, onehot * 2)


class huber(Loss):
    """Called like one of the library's."""


def test_a_loss_called_like_one_of_the_librarys(tmp_path):
    with pytest.raises(ValueError, match=r"huber\(\) is called like a loss of xpnet"):
        MLP([4, 3], task="regression", loss=huber()).save(tmp_path / "m")


@pytest.mark.parametrize("kind", KINDS)
def test_model_files_and_copies(kind, table, tmp_path):
    x, targets = table
    model = trained(kind, table, epochs=2)
    model.save(tmp_path / "m")
    for again in (MLP.load(tmp_path / "m"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (again.predict(x) == model.predict(x)).all()
        assert again.task == model.task
        assert type(again.loss) is type(model.loss)
        assert evaluate(again, x, targets[kind]) == evaluate(model, x, targets[kind])


def test_losses_with_settings_come_back(table, tmp_path):
    x, targets = table
    for loss, options in (
        (SoftmaxCrossEntropy(0.2), {}),
        (BinaryCrossEntropy([1.0, 2.0, 0.5]), {"task": "multilabel"}),
        (BinaryCrossEntropy(3.0), {"task": "multilabel"}),
        (LOSSES["huber"](0.3), {"task": "regression"}),
    ):
        y = targets["classes" if not options else "labels"]
        model = MLP([4, 3], loss=loss, **options)
        model.save(tmp_path / "m")
        for again in (MLP.load(tmp_path / "m"), copy.copy(model), pickle.loads(pickle.dumps(model))):
            assert again.loss.settings() == loss.settings()
            assert evaluate(again, x, y) == evaluate(model, x, y)
            assert evaluate(again, x, y) != evaluate(MLP.of(model.network, **options), x, y)


def test_steps_and_outputs_come_back(table, tmp_path):
    x, _ = table
    for output in ("step", "tanh"):
        model = MLP([4, 3], task="multilabel", output=output)
        model.save(tmp_path / "m")
        assert (MLP.load(tmp_path / "m").predict(x) == model.predict(x)).all()


class Cosh(Loss):  # log cosh(z - t): smooth, and like the absolute error far out
    def __init__(self, width=1.0):
        self.width = width

    def __call__(self, xp, z, t, w=None):
        d = (z - t) / self.width
        rows = xp.logaddexp(d, -d).sum(axis=-1) - 0.6931471805599453 * z.shape[-1]
        count = float(z.shape[-2])
        return rows.sum(axis=-1), count, xp.tanh(d) / (self.width * count)


def test_a_loss_of_ones_own(table, tmp_path):
    x, targets = table
    model = MLP([4, 16, 3], task="regression", loss=Cosh(2.0), target_shift=[0, 7, 2e6], target_scale=[1, 1e-3, 1e5])
    history = Trainer(model, Adam(0.01), batch_size=20).fit(x, targets["numbers"], epochs=50)
    assert history[-1]["train_r2"] > 0.8
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match="'Cosh', which is none of xpnet's losses: give load its class, losses="):
        MLP.load(tmp_path / "m")
    again = MLP.load(tmp_path / "m", losses={"Cosh": Cosh})
    assert again.loss.width == 2.0
    assert (again.predict(x) == model.predict(x)).all()


def test_class_weights_of_labels_are_positive_weights(table):
    """A weight of k for yes is as good as k copies of each yes: for one label, of each row that has it."""
    x, targets = table
    y = targets["labels"][:, :1]
    repeated = np.concatenate([x, x[y[:, 0] == 1], x[y[:, 0] == 1]])
    t = np.concatenate([y, y[y[:, 0] == 1], y[y[:, 0] == 1]])
    for weight in (3.0, [3.0]):
        model = MLP([4, 1], task="multilabel", loss=BinaryCrossEntropy(weight), dtype="float64")
        plain = MLP([4, 1], task="multilabel", dtype="float64")
        total, expected = evaluate(model, x, y)[0] * len(x), evaluate(plain, repeated, t)[0] * len(t)
        assert total == pytest.approx(expected, rel=1e-12)


def test_what_a_run_makes_of_its_options(tmp_path):
    """Balanced labels count no / yes; behind a tanh, targets lie from -1 to 1; behind a sigmoid, from 0 to 1."""
    x = np.arange(20.0)[:, None]
    some = np.stack([np.arange(20) < 4, np.arange(20) < 15, np.arange(20) < 0], axis=1).astype(int)
    np.savez(tmp_path / "t.npz", x_train=x, y_train=some, x_test=x, y_test=some)
    trainer, _ = build([Config(class_weight="balanced")], data.load_npz(tmp_path / "t.npz"), CPU)
    assert trainer.model.loss.settings() == {"positive_weight": [4.0, pytest.approx(1 / 3), 1.0]}
    y = np.linspace(10.0, 30.0, 20)
    np.savez(tmp_path / "t.npz", x_train=x, y_train=y + 0.5, x_test=x, y_test=y + 0.5)
    for output, low, high in (("tanh", -1.0, 1.0), ("sigmoid", 0.0, 1.0), ("softmax", 10.5, 30.5)):
        table = data.load_npz(tmp_path / "t.npz")
        model = build([Config(output=output)], table, CPU)[0].model
        t = model.task.targets(table.y_train, CPU, 20, "float64")
        assert (t.min(), t.max()) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("kind", "y", "words"),
    [
        ("labels", [[0, 1, 2]], "y must hold 0 and 1: row 0, column 2 is 2"),
        ("labels", [0], r"y must have the shape \(rows, 3\), not \(1,\)"),
        ("labels", [[0, 1]], r"y must have the shape \(rows, 3\), not \(1, 2\)"),
        ("numbers", [[0.0, np.nan, 1.0]], "y must be finite: row 0, column 1 is nan"),
        ("numbers", [[0.0, 1e300, 1.0]], "y must be finite: row 0, column 1 is 1e.303, beyond float32"),
        ("numbers", [["a", "b", "c"]], "y must hold real numbers"),
        ("numbers", [[0.0, 0.0, 0.0]] * 2, "y has 2 targets, and there are 1 rows"),
        ("two", [2], "y must hold whole numbers from 0 to 1: row 0 is 2"),
    ],
)
def test_bad_targets(kind, y, words):
    outputs, own = KINDS[kind]
    model = MLP([4, outputs], **own)
    with pytest.raises((TypeError, ValueError), match=words):
        Trainer(model).fit(np.zeros((1, 4)), y)
    with pytest.raises((TypeError, ValueError), match=words):
        evaluate(model, np.zeros((1, 4)), y)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "regression", "class_names": ["a"] * 3}, "class_names goes with classification and multilabel"),
        ({"target_scale": 2.0}, "target_shift and target_scale go with regression"),
        ({"task": "regression", "target_scale": 0.0}, "target_scale must be finite and above 0"),
        ({"task": "regression", "target_shift": [1.0]}, "target_shift has 1 numbers, and there are 3 outputs"),
        ({"task": "multilabel", "class_names": ["a"]}, "class_names has 1 names, and there are 3 classes"),
        ({"task": "multilabel", "loss": BinaryCrossEntropy([1.0])}, "positive_weight has 1 numbers, for 3 outputs"),
        ({"loss": 3}, "unknown loss 3"),
        ({"loss": ["huber"]}, "unknown loss"),
        ({"task": ["x"]}, "unknown task"),
        ({"task": None}, "unknown task None"),
        ({"target_shift": np.ones(3)}, "target_shift and target_scale go with regression"),
        ({"class_names": "abc"}, "class_names must be a sequence of names, not 'abc'"),
        ({"class_names": 5}, "class_names must be a sequence of names, not 5"),
    ],
)
def test_bad_models(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        MLP([4, 3], **options)


def test_other_refusals():
    with pytest.raises(ValueError, match="the output tanh must be a layer of the network"):
        MLP.of(Sequential([Linear(4, 3)]), task="regression", output="tanh")
    MLP.of(Sequential([Linear(4, 3), Tanh()]), task="regression")
    with pytest.raises(ValueError, match="y must be at least 0 for this loss: it holds -1"):
        Trainer(MLP([1, 1], task="regression", loss="poisson")).fit([[0.0]], [-1.0])
    with pytest.raises(ValueError, match="class_weight is zero for the class of every row"):
        Trainer(MLP([1, 2])).fit([[0.0]], [1], class_weight=[1.0, 0.0])
    for task in ("multilabel", "regression"):
        with pytest.raises(ValueError, match=f"class_weight goes with classification, and the task is {task}"):
            Trainer(MLP([1, 1], task=task)).fit([[0.0]], [1.0], class_weight="balanced")


@pytest.mark.parametrize("name", PROBLEMS)
def test_scores_are_scikit_learns_within_noise(name):
    """On problems made by formula, the mean over seeds is not below that of scikit-learn's MLP, as in the golden file.

    scripts/compare_sklearn.py made it, and says what both train, and how.
    """
    golden = SKLEARN[name]
    x, y, x_test, y_test = divided(*PROBLEMS[name]())
    options = {}
    if golden["task"] == "regression":
        options["target_shift"], options["target_scale"] = standard_scaling(y)
    outputs = y.shape[1] if y.ndim == 2 else 1
    model = MLP([x.shape[1], 100, outputs], task=golden["task"], replicas=5, **options)
    Trainer(model, Adam(0.001), batch_size=200).fit(x, y, epochs=100)
    ours, theirs = np.array(evaluate(model, x_test, y_test)[1]), np.array(golden["scores"])
    error = np.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs))
    assert ours.mean() > theirs.mean() - 3.0 * error


def test_metrics_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]])
    assert [metrics.top_k_accuracy([1, 0, 1], p, k) for k in (1, 2, 3)] == pytest.approx([0.0, 2 / 3, 1.0])
    assert metrics.accuracy([[1, 0], [1, 1]], [[1, 0], [0, 1]]) == 0.5
    assert metrics.confusion_matrix([0, 0, 2], [1, 0, 2], 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert metrics.r2([[1.0, 5.0], [3.0, 5.0]], [[1.0, 5.0], [3.0, 5.0]]) == 1.0, "a constant that is met"
    assert metrics.r2([[1.0, 5.0], [3.0, 5.0]], [[1.0, 5.0], [3.0, 6.0]]) == 0.5, "and one that is not"
    assert metrics.r2([1.0, 3.0], [2.0, 2.0]) == 0.0
    for bad in (lambda: metrics.r2([], []), lambda: metrics.accuracy([1], [1, 2])):
        with pytest.raises(ValueError, match="same shape, and rows"):
            bad()
    assert metrics.r2(np.full(9, 0.1), np.full(9, 0.2)) == 0.0, "0.1 has no exact mean"
    assert np.isnan(metrics.r2([1.0, np.nan], [1.0, 2.0]))
    assert np.isnan(metrics.r2([1.0, 1.0], [np.nan, 1.0]))
    for labels in ([0, -2], [0, 2]):
        with pytest.raises(ValueError, match="predicted must hold whole numbers from 0 to 1: row 1 is"):
            metrics.confusion_matrix([0, 1], labels, 2)
    for labels in ([], [0], [0, 1]):
        with pytest.raises(ValueError, match="a label for each row"):
            metrics.top_k_accuracy(labels, p, 1)
    with pytest.raises(ValueError, match="k must be at most 3"):
        metrics.top_k_accuracy([1], p[:1], 4)
