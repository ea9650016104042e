"""Ensembles: replicas that predict and are evaluated as one model."""

from __future__ import annotations

import json
import math
import pickle
import signal

import numpy as np
import pytest
from command_line import DIGITS, SHORT
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from xpnet import MLP, Adam, Config, Linear, ModelFileError, Sequential, Trainer, evaluate, load_digits, metrics
from xpnet.commands import options, predict, train
from xpnet.commands import search as search_command
from xpnet.core.device import CPU
from xpnet.model import prediction
from xpnet.nn import LOSSES, BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy

LOG3 = math.log(3.0)


def constant(z, *, device=CPU, **options):
    """Ensemble whose members' last outputs, (R, O), are z, whatever the row, of one number."""
    z = np.array(z, dtype=float)
    model = MLP(
        [1, z.shape[1]], replicas=len(z), ensemble=True, init="zeros", dtype="float64", device=device, **options
    )
    model.network.layers[0].b = z[:, None]
    return model


def test_two_members_by_hand(device):
    """Softmax of (log 3, 0) and of (0, 0): 3/4 and 1/2 for the first class."""
    model = constant([[LOG3, 0.0], [0.0, 0.0]], device=device)
    p, deviation = model.predict([[7.0], [8.0]], deviation=True)
    np.testing.assert_allclose(p, [[0.625, 0.375]] * 2, rtol=1e-12)
    np.testing.assert_allclose(deviation, [[0.125, 0.125]] * 2, rtol=1e-12)
    assert (model.predict([[7.0], [8.0]]) == p).all()
    loss, accuracy = evaluate(model, [[7.0], [8.0]], [0, 1])
    assert loss == pytest.approx(-(math.log(0.625) + math.log(0.375)) / 2.0, rel=1e-12)
    assert accuracy == 0.5


BY_HAND = {  # members' last outputs, options, a target, and what is predicted, its deviation and its loss, by hand
    "one sigmoid": ([[LOG3], [0.0]], {}, [1], [0.375, 0.625], [0.125] * 2, -math.log(0.625)),
    "labels": (
        [[LOG3, 0.0], [0.0, -LOG3]],
        {"task": "multilabel"},
        [[1, 0]],
        [0.625, 0.375],
        [0.125] * 2,
        -math.log(0.625),
    ),
    "numbers": (
        [[1.0], [3.0]],
        {"task": "regression", "target_shift": 10.0, "target_scale": 5.0},
        [[30.0]],
        [20.0],
        [5.0],
        4.0,
    ),
    "absolute": ([[1.0], [3.0]], {"task": "regression", "loss": "mean-absolute-error"}, [[5.0]], [2.0], [1.0], 3.0),
    "counts": (
        [[0.0], [LOG3]],
        {"task": "regression", "loss": "poisson"},
        [[5.0]],
        [2.0],
        [1.0],
        2.0 - 5.0 * math.log(2.0),
    ),
    "smoothed": (
        [[LOG3, 0.0], [0.0, 0.0]],
        {"loss": SoftmaxCrossEntropy(0.2)},
        [0],
        [0.625, 0.375],
        [0.125] * 2,
        -0.9 * math.log(0.625) - 0.1 * math.log(0.375),
    ),
    "weighted label": (
        [[LOG3], [0.0]],
        {"loss": BinaryCrossEntropy(3.0)},
        [1],
        [0.375, 0.625],
        [0.125] * 2,
        -3.0 * math.log(0.625),
    ),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_every_loss_by_hand(kind):
    z, options, target, predicted, deviation, loss = BY_HAND[kind]
    model = constant(z, **options)
    np.testing.assert_allclose(
        np.array(model.predict([[0.0]], deviation=True))[:, 0], [predicted, deviation], rtol=1e-12
    )
    assert evaluate(model, [[0.0]], target)[0] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_outputs_that_are_combined_are_means(name, rng):
    """`output` of the combined z is the mean of the members' `output`, and the loss takes weights of rows."""
    loss, z = LOSSES[name](), rng.normal(size=(5, 4, 3)) * 10.0
    together = loss.combine(np, z)
    np.testing.assert_allclose(loss.output(np, together), loss.output(np, z).mean(axis=0), rtol=1e-11)
    t, w = np.eye(3)[[0, 1, 2, 0]], np.array([1.0, 0.0, 2.0, 0.5])
    rows, _ = loss.rows(np, together, t)
    total, weight, _ = loss(np, together, t, w)
    assert (total, weight) == (pytest.approx((w * rows).sum()), 3.5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_without_overflow(dtype):
    """A probability of exp(-1000) is 0 in any type, and its logarithm is not."""
    far = np.array([[[1000.0, 0.0]], [[1000.0, 0.0]]], dtype=dtype)
    z = SoftmaxCrossEntropy().combine(np, far)
    assert z.dtype == dtype
    assert SoftmaxCrossEntropy().rows(np, z, np.array([1]))[0].tolist() == [1000.0]
    assert BinaryCrossEntropy().combine(np, far)[0].tolist() == pytest.approx([1000.0, 0.0], rel=1e-6, abs=1e-6)


def test_a_loss_of_your_own():
    class Mine(Loss):
        output_activation = "softmax"

        def rows(self, xp, z, t):
            return SoftmaxCrossEntropy().rows(xp, z, t)

    class Squashed(MeanSquaredError):
        output_activation = "squash"

    usual, mine = (constant([[LOG3, 0.0], [0.0, 0.0]], loss=loss) for loss in (SoftmaxCrossEntropy(), Mine()))
    assert evaluate(mine, [[0.0]], [0]) == evaluate(usual, [[0.0]], [0])
    with pytest.raises(ValueError, match="activation 'squash' is known: Squashed must have a method combine"):
        evaluate(constant([[0.0, 0.0]] * 2, loss=Squashed()), [[0.0]], [0])


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def trained(digits, device="cpu", **options):
    model = MLP([64, 20, 10], input_scale=16, replicas=3, device=device, ensemble=True, **options)
    Trainer(model, Adam(0.01), batch_size=100).fit(digits.x_train, digits.y_train, epochs=3)
    return model


def alone(model, path):
    """Members of an ensemble as models of their own, by way of files."""
    for r in range(model.replicas):
        model.save(path / f"{r}", replica=r)
    return [MLP.load(path / f"{r}") for r in range(model.replicas)]


SQUARED = {"output": "softmax", "loss": "mean-squared-error"}
KINDS = [{}, {"batch_norm": True, "dropout": 0.2}, {"dtype": "float64"}, SQUARED]


@pytest.mark.parametrize("options", KINDS, ids=["usual", "normalized", "float64", "squared"])
def test_a_trained_ensemble_is_the_mean_of_its_members(options, digits, tmp_path, device):
    model = trained(digits, device, **options)
    members = np.stack([one.predict(digits.x_test) for one in alone(model, tmp_path)])
    p, deviation = model.predict(digits.x_test, deviation=True)
    np.testing.assert_allclose(p, members.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(deviation, members.std(axis=0), atol=1e-5)
    loss, accuracy = evaluate(model, digits.x_test, digits.y_test)
    of_truth = p[np.arange(len(p)), digits.y_test]
    squares = ((p - np.eye(10)[digits.y_test]) ** 2).mean()
    assert loss == pytest.approx(squares if options is SQUARED else -np.log(of_truth).mean(), rel=1e-4)
    assert accuracy == metrics.accuracy(digits.y_test, p.argmax(axis=1)) > 0.8


def test_training_is_that_of_replicas(digits):
    """An ensemble trains as replicas do: each member has its own losses, and the weights have the same bytes."""
    models = [MLP([64, 20, 10], input_scale=16, replicas=3, ensemble=ensemble) for ensemble in (False, True)]
    pair = digits.x_test, digits.y_test
    plain, together = (
        Trainer(model, Adam(0.01)).fit(digits.x_train, digits.y_train, epochs=2, validation=pair)[-1]
        for model in models
    )
    assert plain | {"seconds": 0} == together | {"seconds": 0}
    assert len(together["validation_loss"]) == 3
    assert (models[0].network.values == models[1].network.values).all()
    assert (models[0].predict(pair[0]).mean(axis=0) == models[1].predict(pair[0])).all()


def test_rows_are_predicted_in_pieces(digits, monkeypatch):
    model = trained(digits)
    expected = model.predict(digits.x_test, deviation=True)
    seen = []
    forward = type(model.network).forward
    monkeypatch.setattr(type(model.network), "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    monkeypatch.setattr(prediction, "PREDICT_ROWS", 100)
    np.testing.assert_allclose(model.predict(digits.x_test, deviation=True), expected, atol=1e-6)
    assert seen == [100, 100, 100, 60]
    p, deviation = model.predict(digits.x_test[:0], deviation=True)
    assert (p.shape, deviation.shape, model.predict(digits.x_test[:0]).shape) == ((0, 10), (0, 10), (0, 10))


def test_rows_of_the_device_stay_there(device):
    model = constant([[LOG3, 0.0], [0.0, 0.0]], device=device)
    x = device.asarray(np.zeros((2, 1)))
    for found in (model.predict(x), *model.predict(x, deviation=True)):
        assert type(found) is type(x)
        assert found.shape == (2, 2)


def test_members_that_diverged_are_left_out(device):
    z = [[LOG3, 0.0], [np.nan, 0.0], [0.0, 0.0], [0.0, np.inf]]
    model = constant(z, device=device)
    assert model.members() == [0, 2]
    p, deviation = model.predict([[0.0]], deviation=True)
    np.testing.assert_allclose([p, deviation], [[[0.625, 0.375]], [[0.125, 0.125]]], rtol=1e-12)
    assert evaluate(model, [[0.0]], [0]) == (pytest.approx(-math.log(0.625)), 1.0)


def test_nothing_is_predicted_where_all_members_diverged():
    model = constant([[np.nan, 0.0], [0.0, np.inf]])
    assert model.members() == [0, 1]
    assert np.isnan(model.predict([[0.0]])).all()
    loss, accuracy = evaluate(model, [[0.0]], [0])
    assert math.isnan(loss)
    assert accuracy == 0.0


def test_rows_that_are_too_large_are_no_predictions():
    """The weights of all members are finite: it is the row that is wrong, and it is wrong for all of them."""
    model = MLP([1, 2], replicas=2, ensemble=True)
    model.network.layers[0].W = np.full((2, 1, 2), 1e30)
    assert np.isnan(model.predict([[1e30]])).all()
    assert np.isfinite(model.predict([[1.0]])).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "an ensemble needs members: give replicas=R with ensemble=True"),
        ({"replicas": 2, "output": "step", "sizes": [2, 1]}, "an ensemble has no output step"),
        ({"replicas": 2, "ensemble": 2}, "ensemble must be True or False, not 2"),
    ],
)
def test_what_makes_no_ensemble(options, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        MLP(**{"sizes": [2, 2], "ensemble": True} | options)
    assert "\n" not in str(caught.value)


def test_deviation_is_an_ensembles():
    with pytest.raises(ValueError, match="deviation is that of an ensemble's members"):
        MLP([2, 2], replicas=2).predict([[0, 0]], deviation=True)


def test_an_ensemble_of_any_network():
    network = Sequential([Linear(2, 3)], replicas=2)
    assert MLP.of(network, ensemble=True).predict([[1, 2]]).shape == (1, 3)
    assert MLP.of(network).predict([[1, 2]]).shape == (2, 1, 3)
    with pytest.raises(ValueError, match="an ensemble needs members"):
        MLP.of(Sequential([Linear(2, 3)]), ensemble=True)


def metadata(path):
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["xpnet"])


def test_files(digits, tmp_path):
    model = trained(digits)
    model.save(tmp_path / "m")
    again = MLP.load(tmp_path / "m")
    assert again.ensemble
    assert (again.predict(digits.x_test) == model.predict(digits.x_test)).all()
    assert (repr(again), again.summary()) == (repr(model), model.summary())
    assert "in each of 3 members" in model.summary()
    assert pickle.loads(pickle.dumps(model)).ensemble
    Trainer(model).save(tmp_path / "t")
    assert Trainer.load(tmp_path / "t").model.ensemble


def test_other_files_do_not_know_of_ensembles(digits, tmp_path):
    model = trained(digits)
    plain = MLP.of(model.network, input_scale=16)
    plain.save(tmp_path / "plain")
    assert "ensemble" not in metadata(tmp_path / "plain")
    assert not MLP.load(tmp_path / "plain").ensemble
    for name, one in (("ours", model), ("theirs", plain)):
        one.save(tmp_path / name, replica=1)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes(), "a member is a model of its own"
    assert MLP.load(tmp_path / "ours").replicas is None


@pytest.mark.parametrize("changes", [{"ensemble": "yes"}, {"ensemble": [True]}, {"replicas": None}])
def test_a_file_that_is_no_ensemble(changes, tmp_path, monkeypatch):
    path = tmp_path / "m"
    MLP([2, 2], replicas=2, ensemble=True).save(path)
    monkeypatch.setattr("xpnet.model.model_file._digest", lambda metadata, tensors: "fits")
    tensors = load_file(path)
    if "replicas" in changes:
        tensors = {name: tensor[0].copy() for name, tensor in tensors.items()}
    text = json.dumps(metadata(path) | {"sha256": "fits"} | changes)
    save_file(tensors, path, metadata={"xpnet": text})
    with pytest.raises(ModelFileError, match="does not describe a model"):
        MLP.load(path)


def test_pickles_of_earlier_versions_are_no_ensembles():
    model = MLP([2, 2], replicas=2)
    state = model.__getstate__()
    del state["ensemble"]
    old = MLP.__new__(MLP)
    old.__setstate__(state)
    assert old.predict([[1, 2]]).shape == (2, 1, 2)


# The command line


@pytest.fixture
def ensemble_run(run, tmp_path):
    """The folder of a run of three networks with early stopping, and its result."""
    code, out, err = run(
        train,
        *(*DIGITS, "--epochs", 12, "--hidden", 20, "--lr", 0.03, "--early-stop", 2, "--ensemble", 3, "--seed", 5),
        *("--out", tmp_path / "run", "--json", "--quiet"),
    )
    assert (code, err) == (0, "")
    return tmp_path / "run", json.loads(out)


def test_a_run_of_an_ensemble(run, ensemble_run, digits, tmp_path):
    folder, result = ensemble_run
    model = MLP.load(folder / "model.safetensors")
    assert (model.replicas, model.ensemble) == (3, True)
    pair = digits.x_test, digits.y_test
    loss, accuracy = evaluate(model, *pair)
    assert (result["test_loss"], result["test_accuracy"]) == (loss, accuracy)
    each = [evaluate(one, *pair) for one in alone(model, tmp_path)]
    assert [result["members_test_loss"], result["members_test_accuracy"]] == pytest.approx(np.mean(each, axis=0))
    assert result["members"] == 3
    assert result["members_test_loss_deviation"] == pytest.approx(np.std(each, axis=0, ddof=1)[0])
    for one, found in zip(result["per_seed"], each, strict=True):
        assert (one["test_loss"], one["test_accuracy"]) == pytest.approx(found)
    assert [one["seed"] for one in result["per_seed"]] == [5, 6, 7]
    assert [one["best_epoch"] for one in result["per_seed"]] == result["best_epoch"]
    assert len(set(result["best_epoch"])) > 1, "each member has a best epoch of its own"
    assert {"validation_loss", "members_validation_loss", "train_accuracy"} <= result.keys()
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert len(rows) == result["epochs"]
    assert {type(value) for row in rows for value in row.values()} == {int, float}


def test_members_are_the_runs_with_their_seeds(run, tmp_path):
    """On the batches of the first seed: the first member is the single run, and each begins as its own would."""
    how = (*SHORT, "--no-compile", "--dtype", "float64", "--seed", 4)
    for name, more in (("one", ()), ("three", ("--ensemble", 3))):
        assert run(train, *how, "--out", tmp_path / name, *more)[0] == 0
    one, three = (MLP.load(tmp_path / name / "model.safetensors").network for name in ("one", "three"))
    np.testing.assert_allclose(three.values[0], one.values, rtol=1e-9, atol=1e-12)
    drawn = options.build_trainer([Config(ensemble=3, seed=4)], load_digits(), CPU)[0].model
    for r in range(3):
        alone = options.build_trainer([Config(seed=4 + r)], load_digits(), CPU)[0].model
        assert (drawn.network.values[r] == alone.network.values).all()


def test_history_is_the_mean_of_the_members(run, tmp_path, monkeypatch):
    rows = []
    add = train.RunFolder.add
    monkeypatch.setattr(train.RunFolder, "add", lambda self, row: rows.append(row) or add(self, row))
    code, out, err = run(train, *SHORT, "--ensemble", 2, "--out", tmp_path / "run")
    assert code == 0
    written = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    for row, found in zip(rows, written, strict=True):
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate"):
            assert found[name] == pytest.approx(np.mean(row[name]))
    assert len(rows[0]["train_loss"]) == 2
    accuracy, of_test, loss = (written[-1][name] for name in ("train_accuracy", "test_accuracy", "train_loss"))
    assert f"epoch 3/3:    {accuracy:.4f}  {of_test:.4f}  {loss:.4f}" in err
    assert "training 2 networks, of which epochs show the mean, on cpu" in err
    assert f"of the ensemble, whose members have {written[-1]['test_accuracy']:.4f} on average, on digits" in out


def test_the_same_run_again(run, ensemble_run, tmp_path):
    folder, result = ensemble_run
    code, out, _ = run(train, "--config", folder / "config.json", "--out", tmp_path / "again", "--json")
    assert code == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    timeless = {
        "seconds": 0,
        "total_seconds": 0,
        "seconds_by_part": {},
        "samples_per_second": 0,
        "model": "",
        "requested_device": "",
        "ended": "",
    }
    assert json.loads(out) | timeless == result | timeless


@pytest.mark.parametrize("stop", [1, 17, 60])
def test_an_interrupted_ensemble_goes_on(run, ensemble_run, tmp_path, monkeypatch, stop):
    """After Ctrl-C in any step, a resumed run ends with the bytes, and the rows, of one that nothing happened to."""
    folder, result = ensemble_run
    broken = tmp_path / "broken"
    on_step = train.Notes.on_step

    def interrupt(self, trainer):
        if trainer.step >= stop:
            signal.raise_signal(signal.SIGINT)
        on_step(self, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(train.Notes, "on_step", interrupt)
        code, _, err = run(
            train, "--config", folder / "config.json", "--out", broken, "--checkpoint-every", "1epoch", "--quiet"
        )
    assert code == 130, err
    code, out, err = run(train, "--resume", broken, "--json", "--quiet")
    assert code == 0, err
    assert json.loads(out)["best_epoch"] == result["best_epoch"]
    assert (broken / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    histories = []
    for one in (folder, broken):
        rows = [json.loads(line) for line in (one / "history.jsonl").read_text().splitlines()]
        histories.append([row | {"seconds": 0} for row in rows])
    assert histories[0] == histories[1]


def test_predictions_of_an_ensemble(run, ensemble_run, digits, tmp_path):
    folder, result = ensemble_run
    np.savez(tmp_path / "x.npz", x=digits.x_test)
    np.savez(tmp_path / "y.npz", y=digits.y_test)
    code, out, err = run(predict, folder, tmp_path / "x.npz", "--labels", tmp_path / "y.npz", "--json")
    assert code == 0
    assert err.startswith(f"accuracy {result['test_accuracy']:.4f} (")
    found = [json.loads(line)["probabilities"] for line in out.splitlines()]
    np.testing.assert_array_equal(found, MLP.load(folder / "model.safetensors").predict(digits.x_test).tolist())


def test_members_that_diverged_are_told_of(run, tmp_path, monkeypatch):
    def build(*of_run):
        trainer, arguments = options.build_trainer(*of_run)
        trainer.model.network.layers[0].W[1] = np.inf
        return trainer, arguments

    monkeypatch.setattr(train, "build_trainer", build)
    code, out, err = run(train, *SHORT, "--ensemble", 3, "--out", tmp_path / "run", "--json", "--quiet")
    assert code == 0
    assert err == "1 of 3 members of the ensemble diverged, and are left out\n"
    result = json.loads(out)
    assert result["members_test_accuracy"] > 0.5
    assert math.isfinite(result["test_loss"])
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert all(math.isfinite(row["train_loss"]) for row in rows)
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 64)))
    code, out, err = run(predict, tmp_path / "run", tmp_path / "x.npz", "--json")
    assert err == "1 of 3 members of the ensemble diverged, and are left out\n"
    assert sum(json.loads(out)["probabilities"]) == pytest.approx(1.0)


def test_an_ensemble_of_one(run, tmp_path):
    """It is the single network, by another name."""
    results = []
    for more in ((), ("--ensemble", 1)):
        code, out, _ = run(train, *SHORT, "--json", *more)
        assert code == 0
        results.append(json.loads(out))
    assert results[1]["test_loss"] == pytest.approx(results[0]["test_loss"], rel=1e-5)
    assert results[1]["members_test_loss"] == pytest.approx(results[1]["test_loss"], rel=1e-5)
    assert "members_test_loss" not in results[0]


def test_an_ensemble_for_regression(run, tmp_path, rng):
    x = rng.normal(size=(300, 3))
    np.savez(tmp_path / "t.npz", x=x, y=x @ [[1.0], [2.0], [3.0]] + 100.0)
    code, out, _ = run(train, "--dataset", tmp_path / "t.npz", "--ensemble", 4, "--steps", 200, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["test_r2"] > 0.9
    assert result["test_loss"] < result["members_test_loss"], "the mean of predictions has the lower squared error"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--ensemble", 0), "ensemble must be at least 1, not 0"),
        (("--ensemble", "x"), "'x'"),
        (("--ensemble", 2, "--dataset", "TWO", "--output", "step"), "an ensemble has no output step"),
    ],
)
def test_ensembles_that_are_refused(more, words, run, tmp_path):
    np.savez(tmp_path / "two.npz", x=np.eye(20), y=np.arange(20) % 2)
    more = [tmp_path / "two.npz" if one == "TWO" else one for one in more]
    code, _, err = run(train, *SHORT, *more, "--quiet")
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def test_another_number_of_members_is_another_run(run, ensemble_run):
    code, _, err = run(train, "--resume", ensemble_run[0], "--ensemble", 4)
    assert code == 2
    assert err.endswith("error: --ensemble 4 is not the run's, which has --ensemble 3\n")


def test_searches_try_single_networks(run, tmp_path):
    (tmp_path / "o.toml").write_text("ensemble = 2\n")
    for more in (("--ensemble", 2), ("--config", tmp_path / "o.toml")):
        code, _, err = run(search_command, *DIGITS, "--trials", 2, "--epochs", 1, "--quiet", *more)
        assert code == 2
        assert err.count("\n") == 1
    assert "a search tries single networks, and no ensemble of 2" in err


@pytest.mark.cuda
def test_a_run_on_a_gpu(run, digits, tmp_path):
    code, out, err = run(
        train, *SHORT, "--device", "cuda", "--ensemble", 3, "--out", tmp_path / "run", "--json", "--quiet"
    )
    result = json.loads(out)
    assert (code, err, result["device"]) == (0, "", "cuda:0")
    here = MLP.load(tmp_path / "run" / "model.safetensors")
    assert evaluate(here, digits.x_test, digits.y_test)[0] == pytest.approx(result["test_loss"], rel=1e-4)
