"""The training loop: on NumPy and on a device alike, without waiting for it; what it counts, and what it refuses."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings

import numpy as np
import pytest
from stand_in import Array, StandIn

from xpnet import MLP, SGD, Adam, Device, DivergedError, Linear, Trainer, evaluate, load_digits
from xpnet.core.rng import permutation
from xpnet.optim.schedules import cosine
from xpnet.training import trainer as trainer_module


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def digits_model(**options):
    return MLP([64, 30, 10], input_shape=(8, 8), input_scale=16, **options)


def fit(model, digits, **options):
    trainer = Trainer(model, Adam(0.003), batch_size=100, seed=3)
    return trainer.fit(digits.x_train, digits.y_train, test=(digits.x_test, digits.y_test), **options)


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


@pytest.mark.parametrize("replicas", [None, 3])
def test_the_stand_in_trains_bit_for_bit_as_numpy_does(replicas, stand_in, digits):
    here, there = digits_model(replicas=replicas), digits_model(replicas=replicas, device=stand_in)
    w = np.linspace(0.5, 2.0, len(digits.x_train))
    options = {"epochs": 3, "sample_weight": w}
    assert without_seconds(fit(here, digits, **options)) == without_seconds(fit(there, digits, **options))
    assert (here.network.values == stand_in.to_host(there.network.values)).all()
    assert (here.predict(digits.x_test) == there.predict(digits.x_test)).all()


@pytest.mark.parametrize("replicas", [None, 3])
def test_no_step_crosses_the_border_or_waits(replicas, stand_in, digits):
    """After an epoch's first step, nothing is copied between host and device until its last step is done."""
    model = digits_model(replicas=replicas, device=stand_in)
    counts = []
    trainer = Trainer(model, Adam(0.003), batch_size=100)
    steps_per_epoch = -(-len(digits.x_train) // 100)
    trainer.fit(
        digits.x_train,
        digits.y_train,
        epochs=3,
        on_step=lambda step: counts.append(dict(stand_in.xp.counts)),
    )
    for epoch in range(3):
        first, *rest = counts[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]
        for later in rest:
            for kind in ("to_device", "to_host", "waits"):
                assert later[kind] == first[kind], f"a step of epoch {epoch} has added to {kind}"
        assert rest[-1]["calls"] > first["calls"], "the stand-in has counted nothing at all"


def test_the_data_set_stays_bytes_on_the_device(stand_in, digits):
    model = digits_model(device=stand_in)
    rows = model.rows(digits.x_train.reshape(-1, 64), digits.y_train)
    assert isinstance(rows.x, Array)
    assert rows.x.dtype == np.uint8


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "steps", "tolerance"), [("float64", 50, 1e-8), ("float32", 5, 1e-5)])
def test_cpu_and_gpu_run_alike(cuda, digits, dtype, steps, tolerance):
    losses = []
    for device in ("cpu", cuda):
        trainer = Trainer(digits_model(dtype=dtype, device=device), Adam(0.003), batch_size=100, seed=3)
        for _ in range(steps):
            trainer.fit(digits.x_train, digits.y_train, steps=1)
        losses.append([row["train_loss"] for row in trainer.history])
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance)


def test_two_runs_are_the_same_run(digits):
    first, second = digits_model(), digits_model()
    assert without_seconds(fit(first, digits, epochs=2)) == without_seconds(fit(second, digits, epochs=2))
    assert (first.network.values == second.network.values).all()


def test_fitting_again_goes_on(digits):
    """Three epochs in one call, in three calls, and with a pickle in between, are the same run."""
    whole = digits_model()
    history = fit(whole, digits, epochs=3)
    model = digits_model()
    trainer = Trainer(model, Adam(0.003), batch_size=100, seed=3)
    test = (digits.x_test, digits.y_test)
    for _ in range(3):
        trainer.fit(digits.x_train, digits.y_train, epochs=1, test=test)
    assert without_seconds(trainer.history) == without_seconds(history)
    assert (model.network.values == whole.network.values).all()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
def test_a_copied_trainer_goes_on(duplicate, digits):
    whole = digits_model()
    fit(whole, digits, epochs=2)
    trainer = Trainer(digits_model(), Adam(0.003), batch_size=100, seed=3)
    trainer.fit(digits.x_train, digits.y_train)
    trainer = duplicate(trainer)
    trainer.fit(digits.x_train, digits.y_train)
    assert (trainer.model.network.values == whole.network.values).all()


def test_replicas_follow_single_runs(digits):
    """Replica r is the run with seed r on the same batches, after 200 steps on real data."""
    three = digits_model(replicas=3, seed=5)
    history = Trainer(three, Adam(), batch_size=64).fit(digits.x_train, digits.y_train, steps=200)
    for r in range(3):
        one = digits_model(seed=5 + r)
        alone = Trainer(one, Adam(), batch_size=64).fit(digits.x_train, digits.y_train, steps=200)
        np.testing.assert_allclose(three.network.values[r], one.network.values, rtol=1e-3, atol=1e-4)
        assert history[-1]["train_loss"][r] == pytest.approx(alone[-1]["train_loss"], rel=1e-4)


def test_weights_may_differ_by_replica(blobs):
    x, y = blobs
    w = np.random.default_rng(0).uniform(size=(2, len(x)))
    two = MLP([4, 8, 3], replicas=2, seed=[1, 1])
    Trainer(two, batch_size=32).fit(x, y, epochs=5, sample_weight=w)
    for r in range(2):
        one = MLP([4, 8, 3], seed=1)
        Trainer(one, batch_size=32).fit(x, y, epochs=5, sample_weight=w[r])
        np.testing.assert_allclose(two.network.values[r], one.network.values, rtol=1e-4, atol=1e-6)


def test_a_weight_of_two_is_a_row_twice(blobs):
    x, y = blobs
    w = np.ones(len(x))
    w[:10] = 2.0
    models = [MLP([4, 8, 3], dtype="float64") for _ in range(2)]
    Trainer(models[0], SGD(0.1), batch_size=1000).fit(x, y, steps=1, sample_weight=w)
    Trainer(models[1], SGD(0.1), batch_size=1000).fit(np.r_[x, x[:10]], np.r_[y, y[:10]], steps=1)
    np.testing.assert_allclose(models[0].network.values, models[1].network.values, rtol=1e-12, atol=1e-15)


def test_train_loss_is_the_mean_over_rows_as_they_were_trained(blobs):
    """At a rate too small to change anything, the mean over batches of 32, 32 and 26 rows is the mean over all rows."""
    x, y = blobs
    model = MLP([4, 8, 3], dtype="float64")
    row = Trainer(model, SGD(1e-30), batch_size=32).fit(x, y)[0]
    loss, accuracy = evaluate(model, x, y)
    assert row["train_loss"] == pytest.approx(loss, rel=1e-12)
    assert row["train_accuracy"] == accuracy


def test_epochs_and_steps(blobs):
    x, y = blobs  # 90 rows: 3 batches of 32
    trainer = Trainer(MLP([4, 3]), batch_size=32)
    history = trainer.fit(x, y, steps=7)
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 3), (2, 6), (3, 7)]
    assert trainer.fit(x, y, epochs=2)[-1]["step"] == 13
    seen = []
    trainer.fit(x, y, steps=2, on_step=seen.append)
    assert seen == [14, 15]
    assert list(history[0]) == ["epoch", "step", "learning_rate", "seconds", "train_loss", "train_accuracy"]
    assert Trainer(MLP([4, 3]), batch_size=1000).fit(x, y, epochs=2)[-1]["step"] == 2


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own():
    orders = [permutation(0, epoch, 1000) for epoch in (1, 2)]
    for order in orders:
        assert sorted(order) == list(range(1000))
    assert (orders[0] != orders[1]).mean() > 0.9
    assert (permutation(0, 1, 1000) == orders[0]).all()
    assert (permutation(1, 1, 1000) != orders[0]).mean() > 0.9


def test_accuracy_and_loss_of_evaluate_by_hand():
    """Zero weights give every class the same probability, and argmax takes the first: accuracy 2/3, loss ln 2."""
    model = MLP([2, 2], init="zeros")
    loss, accuracy = evaluate(model, [[1, 2], [3, 4], [5, 6]], [0, 1, 0])
    assert loss == pytest.approx(np.log(2))
    assert accuracy == pytest.approx(2 / 3)


def test_divergence_stops_with_the_last_good_model(blobs):
    x, y = blobs
    model = MLP([4, 8, 3])
    trainer = Trainer(model, SGD(0.01), batch_size=30)
    trainer.fit(x, y, epochs=2)
    good = model.network.values.copy()
    huge = np.full_like(x, 1e38)
    with pytest.raises(DivergedError, match="epoch 3, at a learning rate of 0.01.* as after epoch 2"):
        trainer.fit(huge, y, epochs=5)
    assert (trainer.epoch, trainer.step, len(trainer.history)) == (2, 6, 2)
    assert (model.network.values == good).all()


@pytest.mark.parametrize("interruption", ["divergence", "Ctrl-C", "Ctrl-C in the evaluation"])
def test_after_an_interruption_fit_goes_on_as_if_it_had_not_been(interruption, blobs, monkeypatch):
    """Values, moments, counts and buffers are those of the last good epoch."""
    x, y = blobs
    options = {"batch_norm": interruption != "divergence", "dropout": 0.1}  # normalized, nothing diverges
    model = MLP([4, 8, 3], **options)
    trainer = Trainer(model, Adam(), batch_size=30)
    trainer.fit(x, y, epochs=2)
    if interruption == "divergence":
        with pytest.raises(DivergedError):
            trainer.fit(np.full_like(x, 3e38), y, epochs=2)
    else:

        def interrupt(*args):
            if interruption == "Ctrl-C" and trainer.step == 8:
                raise KeyboardInterrupt

        def interrupted(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            if interruption != "Ctrl-C":
                patch.setattr(trainer_module.Evaluator, "means", interrupted)
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(x, y, epochs=2, on_step=interrupt, test=(x, y))
    assert [row["epoch"] for row in trainer.history] == list(range(1, trainer.epoch + 1))
    trainer.fit(x, y, epochs=4 - trainer.epoch)
    whole = MLP([4, 8, 3], **options)
    history = Trainer(whole, Adam(), batch_size=30).fit(x, y, epochs=4)
    assert (model.network.values == whole.network.values).all()
    assert (model.network.buffers == whole.network.buffers).all()
    assert trainer.history[-1]["train_loss"] == history[-1]["train_loss"]
    assert trainer.step == history[-1]["step"]


def test_weights_that_are_no_longer_finite_are_found_at_once(blobs):
    """One step with a finite loss can leave weights of infinity; that is not a good epoch."""
    x, y = blobs
    model = MLP([4, 8, 3])
    before = model.network.values.copy()
    with pytest.raises(DivergedError, match="the weights are no longer finite in epoch 1"):
        Trainer(model, SGD(1e38), batch_size=1000).fit(x * np.float32(1000), y)
    assert (model.network.values == before).all()


def test_one_replica_that_diverges_does_not_stop_the_others(blobs):
    x, y = blobs
    model = MLP([4, 8, 3], replicas=2)
    history = Trainer(model, SGD([0.1, 1e30]), batch_size=30).fit(x, y, epochs=10)
    fine, diverged = history[-1]["train_loss"]
    assert fine < 0.7
    assert not np.isfinite(diverged)


def test_ctrl_c_leaves_the_model_of_the_last_epoch(blobs):
    x, y = blobs
    model = MLP([4, 8, 3])
    kept = []

    def interrupt(step):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(model, batch_size=30).fit(
            x, y, epochs=5, on_step=interrupt, on_epoch=lambda row: kept.append(model.network.values.copy())
        )
    assert len(kept) == 2
    assert (model.network.values == kept[-1]).all()


@pytest.mark.parametrize(
    "x_kind", ["list", "object", "big-endian", "fortran", "strided", "reversed", "float16", "int", "pictures"]
)
def test_arrays_of_all_kinds_are_the_same_data(x_kind, blobs):
    x, y = blobs
    x = np.round(x * 4) / 4  # so that float16 holds it
    kinds = {
        "list": lambda: x.tolist(),
        "object": lambda: x.astype(object),
        "big-endian": lambda: x.astype(">f8"),
        "fortran": lambda: np.asfortranarray(x),
        "strided": lambda: np.repeat(x, 2, axis=1)[:, ::2],
        "reversed": lambda: x[::-1].copy()[::-1],
        "float16": lambda: x.astype(np.float16),
        "int": lambda: (x * 4).astype(np.int32),
        "pictures": lambda: x.reshape(-1, 2, 2),
    }
    given = kinds[x_kind]()
    before = copy.deepcopy(given)
    models = [MLP([4, 8, 3], input_scale=4.0 if x_kind == "int" else 1.0), MLP([4, 8, 3])]
    Trainer(models[0], batch_size=32).fit(given, y.tolist())
    Trainer(models[1], batch_size=32).fit(x, y)
    assert (models[0].network.values == models[1].network.values).all()
    assert np.array_equal(np.asarray(before), np.asarray(given)), "training has changed its input"


def test_the_order_of_rows_is_the_seeds(blobs):
    x, y = blobs
    runs = []
    for seed in (0, 0, 1):
        model = MLP([4, 8, 3])
        Trainer(model, batch_size=10, seed=seed).fit(x, y)
        runs.append(model.network.values)
    assert (runs[0] == runs[1]).all()
    assert (runs[0] != runs[2]).any()


def test_the_first_layer_is_not_asked_for_its_input_gradient(blobs, monkeypatch):
    asked = []
    backward = Linear.backward
    monkeypatch.setattr(Linear, "backward", lambda layer, dy: asked.append(layer.index) or backward(layer, dy))
    Trainer(MLP([4, 8, 8, 3]), batch_size=1000, compile=False).fit(*blobs)
    assert asked == [4, 2]


def test_on_the_second_of_two_devices(eager, digits, tmp_path):
    """Everything the library does on cuda:1 it does with that device current; the stand-in refuses anything else."""
    second = Device("cuda:1", StandIn(), 1)
    model = digits_model(device=second, replicas=2, batch_norm=True, dropout=0.2)
    options = {"epochs": 2, "sample_weight": np.ones(len(digits.x_train))}
    history = fit(model, digits, **options)
    here = digits_model(replicas=2, batch_norm=True, dropout=0.2)
    assert without_seconds(fit(here, digits, **options)) == without_seconds(history)
    assert (model.predict(digits.x_test) == here.predict(digits.x_test)).all()
    for twin in (copy.deepcopy(model), copy.copy(model)):
        assert (twin.predict(digits.x_test[:5]) == here.predict(digits.x_test[:5])).all()
    model.save(tmp_path / "m")
    assert (MLP.load(tmp_path / "m", device=second).predict(digits.x_test[:5]) == here.predict(digits.x_test[:5])).all()
    model.network.layers[0].W = np.zeros((2, 64, 30))
    with second.activate():
        model.network.layers[0].W *= 2.0
    model.network.values = np.zeros(model.network.values.shape)
    x = second.asarray(digits.x_test.reshape(-1, 64).astype(np.float32))
    evaluate(model, x, digits.y_test)
    Trainer(model).fit(x, second.asarray(digits.y_test), sample_weight=second.asarray(np.ones(len(digits.y_test))))
    assert model.predict(x).shape == (2, 360, 10)
    z = model.forward(x, train=True)
    model.network.backward(z, input_gradient=True)
    model.network.to("cpu").to(second)
    assert model.device.xp.current == 0, "the device that was current is so again"


def test_a_trainer_pickled_on_a_gpu_goes_on_without_one(eager, digits, monkeypatch):
    cupy = StandIn()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr("xpnet.core.device.cupy_distributions", dict)
    trainer = Trainer(digits_model(device="cuda"), Adam(0.003), batch_size=100, seed=3)
    trainer.fit(digits.x_train, digits.y_train)
    pickled = pickle.dumps(trainer)
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    with pytest.warns(UserWarning, match="is now on cpu"):
        trainer = pickle.loads(pickled)
    trainer.fit(digits.x_train, digits.y_train)
    whole = digits_model()
    fit(whole, digits, epochs=2)
    assert (trainer.model.network.values == whole.network.values).all()


def test_data_of_the_device_is_checked_there_too(device, blobs):
    x, y = blobs
    model = MLP([4, 8, 3], device=device)
    Trainer(model).fit(device.asarray(x), device.asarray(y))
    other = MLP([4, 8, 3], device=device)
    Trainer(other).fit(x, y)
    assert (device.to_host(model.network.values) == device.to_host(other.network.values)).all()
    with pytest.raises(ValueError, match="row 7, column 2 is nan"):
        Trainer(model).fit(device.asarray(nan_at(x, 7, 2, np.nan)), y)


@pytest.mark.parametrize(
    ("class_weight", "weights"),
    [
        ("balanced", [90 / (3 * 60), 90 / (3 * 20), 90 / (3 * 10)]),
        ({1: 5.0}, [1.0, 5.0, 1.0]),
        ([1.0, 0.0, 2.0], [1.0, 0.0, 2.0]),
    ],
)
@pytest.mark.parametrize("replicas", [None, 2])
def test_class_weights_are_weights_of_rows(class_weight, weights, replicas, blobs):
    x, _ = blobs
    y = np.repeat([0, 1, 2], [60, 20, 10])
    w = np.random.default_rng(0).uniform(size=90 if replicas is None else (2, 90))
    ours, theirs = (MLP([4, 8, 3], replicas=replicas, dtype="float64") for _ in range(2))
    Trainer(ours).fit(x, y, sample_weight=w, class_weight=class_weight)
    Trainer(theirs).fit(x, y, sample_weight=w * np.array(weights)[y])
    np.testing.assert_allclose(ours.network.values, theirs.network.values, rtol=1e-9, atol=1e-12)


def test_balanced_classes_count_alike(blobs):
    """A class with a tenth of the rows: unweighted it is hardly ever found, balanced it mostly is."""
    rng = np.random.default_rng(0)
    y = (np.arange(1000) % 20 == 0).astype(int)
    x = rng.normal(size=(1000, 2)) + 1.5 * y[:, None]
    found = []
    for class_weight in (None, "balanced"):
        model = MLP([2, 2])
        Trainer(model, Adam(0.05)).fit(x, y, epochs=20, class_weight=class_weight)
        found.append((model.predict(x).argmax(axis=-1)[y == 1] == 1).mean())
    assert found[0] < 0.4
    assert found[1] > 0.75


@pytest.mark.parametrize(
    ("class_weight", "error", "words"),
    [
        ("even", ValueError, "class_weight must be 'balanced'"),
        ([1.0, 2.0], ValueError, "for each of 3 classes"),
        ({3: 1.0}, ValueError, "a class in class_weight must be at most 2, not 3"),
        ({0: -1.0}, ValueError, r"class_weight\[0\] must be finite and at least 0"),
        ([1, 2, "x"], TypeError, r"class_weight\[2\] must be a number"),
        ([0, 0, 0], ValueError, "class_weight is zero for the class of every row"),
    ],
)
def test_bad_class_weights(class_weight, error, words, blobs):
    with pytest.raises(error, match=words):
        Trainer(MLP([4, 3])).fit(*blobs, class_weight=class_weight)


def test_weights_count_by_their_proportions(blobs):
    x, y = blobs
    w = np.random.default_rng(0).uniform(size=len(x))
    runs = []
    for scale in (1.0, 1e-35, 1e300):
        model = MLP([4, 8, 3])
        Trainer(model, SGD(0.1)).fit(x, y, sample_weight=w * scale)
        runs.append(model.network.values)
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(runs[2], runs[0], rtol=1e-5, atol=1e-7)


def test_an_optimizer_serves_one_trainer():
    optimizer = Adam()
    Trainer(MLP([4, 3]), optimizer)
    with pytest.raises(ValueError, match="this Adam already belongs to a trainer"):
        Trainer(MLP([4, 3]), optimizer)


def test_numpy_numbers_and_arrays_are_numbers_and_sequences(blobs):
    x, y = blobs
    model = MLP(np.array([4, 8, y.max() + 1]), replicas=np.int64(2), seed=np.arange(2))
    history = Trainer(model, Adam(np.full((2, 1), 0.01)), batch_size=np.int32(30)).fit(x, y, epochs=np.int64(2))
    assert history[-1]["step"] == 6


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, y: Trainer(MLP([4, 3]), "adam"), TypeError, "optimizer must be an Optimizer, not 'adam'"),
        (lambda x, y: Trainer(MLP([4, 3]).network), TypeError, "model must be an MLP"),
        (lambda x, y: Trainer(MLP([4, 3])).fit(x, y, test=x), TypeError, "test must be a pair"),
        (
            lambda x, y: Trainer(MLP([4, 3]), SGD(1e-50)),
            ValueError,
            "1e-50 is out of the range of float32",
        ),
        (lambda x, y: Trainer(MLP([4, 3]), SGD([0.1, 1e39])), ValueError, "learning_rate"),
        (lambda x, y: Trainer(MLP([4, 3])).fit(x.astype(float) * 1e300, y), ValueError, "row 0, .* beyond float32"),
        (lambda x, y: MLP([4, 3]).predict(x.astype(float) * 1e300), ValueError, "beyond float32"),
        (lambda x, y: MLP([4, 3]).save("m", replica="a"), ValueError, "no replicas"),
        (lambda x, y: MLP([4, 3], replicas=2).save("m", replica=1.0), TypeError, "replica must be a whole number"),
        (lambda x, y: MLP([4, 3], input_scale="2"), TypeError, "input_scale must be a number, not '2'"),
        (lambda x, y: MLP([4, 3], input_shape="4"), TypeError, "input_shape must be a whole number, not '4'"),
        (lambda x, y: MLP([4, 3], input_shape=(-2, -2)), ValueError, "input_shape must be at least 1, not -2"),
        (lambda x, y: MLP([10**20, 3]), MemoryError, "parameters and their gradients take 2.4e.12 GB; use fewer units"),
    ],
)
def test_other_bad_arguments(call, error, words, blobs):
    with pytest.raises(error, match=words):
        call(*blobs)


def test_small_and_odd_data_train(blobs):
    x, y = blobs
    assert Trainer(MLP([4, 3])).fit(x[:1], y[:1])[-1]["step"] == 1
    assert Trainer(MLP([4, 3])).fit(x * np.float32(1e-40), y)[-1]["train_loss"] > 0
    assert np.isfinite(Trainer(MLP([4, 3])).fit(x, y[:, None].astype(float))[-1]["train_loss"])


def nan_at(x, row, column, value):
    x = x.copy()
    x[row, column] = value
    return x


BAD = {
    "nan": (lambda x, y: (nan_at(x, 7, 2, np.nan), y), ValueError, "x must be finite: row 7, column 2 is nan"),
    "inf": (lambda x, y: (nan_at(x, 0, 3, -np.inf), y), ValueError, "row 0, column 3 is -inf"),
    "inf in float16": (
        lambda x, y: (nan_at(x.astype(np.float16), 3, 1, np.inf), y),
        ValueError,
        "row 3, column 1 is inf",
    ),
    "no rows": (lambda x, y: (x[:0], y[:0]), ValueError, "x has no rows"),
    "no features": (lambda x, y: (x[:, :0], y), ValueError, "no features"),
    "one axis": (lambda x, y: (x[0], y), ValueError, r"x must have the shape \(rows, features\)"),
    "features": (lambda x, y: (x[:, :3], y), ValueError, "x has 3 features in a row, and 4 are wanted"),
    "lengths": (lambda x, y: (x, y[:-1]), ValueError, "y has 89 labels, and there are 90 rows"),
    "too large": (lambda x, y: (x, y + 1), ValueError, "from 0 to 2: row 2 is 3"),
    "negative": (lambda x, y: (x, y - 1), ValueError, "row 0 is -1"),
    "fraction": (lambda x, y: (x, y + 0.5), ValueError, "whole numbers.*row 0 is 0.5"),
    "nan label": (lambda x, y: (x, np.where(y == 2, np.nan, y)), ValueError, "row 2 is nan"),
    "text labels": (lambda x, y: (x, y.astype(str)), TypeError, "y must hold real numbers"),
    "label rows": (lambda x, y: (x, np.stack([y, y], axis=1)), ValueError, "y must hold one label for each row"),
    "text": (lambda x, y: (x.astype(str), y), TypeError, "x must hold real numbers"),
    "complex": (lambda x, y: (x + 1j, y), TypeError, "x must hold real numbers, not complex"),
    "objects": (lambda x, y: ([[object()] * 4] * 90, y), TypeError, "x holds objects that are no numbers"),
    "ragged": (lambda x, y: ([[1, 2, 3, 4], [1, 2]], y), ValueError, "x cannot be made an array"),
    "masked": (lambda x, y: (np.ma.masked_array(x, x > 0), y), TypeError, "x is a masked array"),
    "none": (lambda x, y: (None, y), ValueError, "x must have the shape"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_arrays(kind, blobs):
    bring, error, words = BAD[kind]
    model = MLP([4, 8, 3])
    before = model.network.values.copy()
    with pytest.raises(error, match=words):
        Trainer(model).fit(*bring(*blobs))
    assert (model.network.values == before).all()


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(89), r"shape \(90,\), not \(89,\)"),
        (-np.ones(90), "finite and not negative: it holds -1"),
        (np.full(90, np.nan), "nan"),
        (np.zeros(90), "zero for every row"),
        (np.ones((2, 90)), "shape"),
    ],
)
def test_bad_weights(weights, words, blobs):
    with pytest.raises(ValueError, match=f"sample_weight.*{words}"):
        Trainer(MLP([4, 3])).fit(*blobs, sample_weight=weights)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"epochs": 0}, ValueError),
        ({"epochs": -1}, ValueError),
        ({"steps": 0}, ValueError),
        ({"epochs": 1.5}, TypeError),
        ({"epochs": True}, TypeError),
        ({"epochs": 1, "steps": 1}, ValueError),
    ],
)
def test_bad_lengths(options, error, blobs):
    with pytest.raises(error, match="epochs|steps"):
        Trainer(MLP([4, 3])).fit(*blobs, **options)


def test_bad_batch_size():
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        Trainer(MLP([4, 3]), batch_size=0)
    with pytest.raises(TypeError, match="batch_size must be a whole number, not 2.5"):
        Trainer(MLP([4, 3]), batch_size=2.5)


def test_the_step_is_a_function_of_arrays(stand_in):
    """It takes no number that changes from step to step, so that one trace of it serves for all steps."""
    model = MLP([4, 3], device=stand_in)
    trainer = Trainer(model, Adam(0.01), batch_size=2)
    seen = []
    trainer.optimizer.update = lambda xp, p, g, state, h: seen.append(h)
    trainer.fit(np.ones((4, 4), np.float32), [0, 1, 2, 0])
    assert all(isinstance(value, Array) and value.shape == () for h in seen for value in h.values())
    assert all(value.dtype == "float32" for h in seen for value in h.values())


def test_prediction(device, digits):
    model = digits_model(device=device, replicas=2)
    fit(model, digits, epochs=5)
    p = model.predict(digits.x_test)
    assert isinstance(p, np.ndarray)
    assert p.shape == (2, 360, 10)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=-1), 1.0, rtol=1e-5)
    accuracy = evaluate(model, digits.x_test, digits.y_test)[1]
    np.testing.assert_allclose((p.argmax(-1) == digits.y_test).mean(-1), accuracy)
    assert model.predict(digits.x_test[:0]).shape == (2, 0, 10)
    on_device = model.predict(device.asarray(digits.x_test))
    assert type(on_device) is type(model.network.values)
    np.testing.assert_allclose(device.to_host(on_device), p, rtol=1e-6)


def test_a_long_prediction_is_the_same_in_pieces(digits):
    model = digits_model()
    x = np.concatenate([digits.x_train] * 2)
    pieces = np.concatenate([model.predict(part) for part in np.split(x, 6)])
    np.testing.assert_allclose(model.predict(x), pieces, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sizes": [4]}, ValueError, "sizes"),
        ({"sizes": 4}, ValueError, "sizes"),
        ({"sizes": [4, 0, 3]}, ValueError, r"sizes\[1\] must be at least 1, not 0"),
        ({"activation": "rellu"}, ValueError, "did you mean 'relu'"),
        ({"init": "hee"}, ValueError, "did you mean 'he'"),
        ({"input_shape": (3, 3)}, ValueError, r"input_shape \(3, 3\)"),
        ({"input_scale": 0}, ValueError, "input_scale.*0"),
        ({"class_names": ["a"]}, ValueError, "class_names has 1 names, and there are 3 classes"),
    ],
)
def test_bad_models(options, error, words):
    with pytest.raises(error, match=words):
        MLP(**{"sizes": [4, 3]} | options)


def test_summary():
    text = MLP([6, 5, 3], input_shape=(2, 3), input_scale=255, replicas=4).summary()
    assert text.splitlines()[1].split() == ["0", "Linear", "5", "35"]
    last = "53 parameters in each of 4 replicas, float32, on cpu; input (2, 3) divided by 255; classification by "
    assert text.endswith(last + "softmax-cross-entropy")


@pytest.mark.filterwarnings("default:the schedule gives")
def test_a_schedule_that_is_over_is_told(blobs):
    """It counts all of a trainer's steps, so that a second fit with it would learn nothing."""
    x, y = blobs
    trainer = Trainer(MLP([4, 8, 3]), batch_size=30, schedule=cosine(6))
    with warnings.catch_warnings(action="error"):
        trainer.fit(x, y, epochs=2)
    before = trainer.model.network.values.copy()
    with pytest.warns(UserWarning, match="learning rate of 0 from here on") as seen:
        trainer.fit(x, y)
    assert seen[0].filename == __file__
    np.testing.assert_allclose(trainer.model.network.values, before)


def test_no_seed_draws_an_order(blobs):
    x, y = blobs
    one, other = (Trainer(MLP([4, 8, 3]), batch_size=30, seed=None) for _ in range(2))
    assert one.seed != other.seed
    assert one.fit(x, y)[0]["train_loss"] != other.fit(x, y)[0]["train_loss"]
    again = Trainer(MLP([4, 8, 3]), batch_size=30, seed=one.seed)
    assert again.fit(x, y)[0]["train_loss"] == one.history[0]["train_loss"]
