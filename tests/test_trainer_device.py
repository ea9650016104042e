"""Training on a device: as on the CPU, without waiting for it."""

from __future__ import annotations

import copy
import pickle
import sys

import numpy as np
import pytest
from stand_in import Array, StandIn
from trainers import digits_model, fit, nan_at, without_seconds

from xpnet import MLP, Adam, Augmentation, Trainer, evaluate


@pytest.mark.parametrize("replicas", [None, 3])
def test_the_stand_in_trains_bit_for_bit_as_numpy_does(replicas, stand_in, digits):
    here, there = digits_model(replicas=replicas), digits_model(replicas=replicas, device=stand_in)
    w = np.linspace(0.5, 2.0, len(digits.x_train))
    options = {"epochs": 3, "sample_weight": w}
    assert without_seconds(fit(here, digits, **options)) == without_seconds(fit(there, digits, **options))
    assert (here.network.values == stand_in.to_host(there.network.values)).all()
    assert (here.predict(digits.x_test) == there.predict(digits.x_test)).all()


@pytest.mark.parametrize(("replicas", "augment"), [(None, None), (3, None), (None, Augmentation.digits(8))])
def test_no_step_crosses_the_border_or_waits(replicas, augment, stand_in, digits):
    """After an epoch's first step, nothing is copied between host and device until its last step is done."""
    model = digits_model(replicas=replicas, device=stand_in)
    counts = []
    trainer = Trainer(model, Adam(0.003), batch_size=100, augment=augment)
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


def test_a_step_makes_few_calls(stand_in):
    """Each call is a kernel, or more; assignments, which copy, are not counted."""
    model = MLP([784, 100, 100, 100, 100, 10], device=stand_in)
    counts = []
    x, y = np.zeros((384, 784), np.uint8), np.arange(384) % 10
    Trainer(model, Adam(), batch_size=128).fit(x, y, on_step=lambda step: counts.append(stand_in.xp.counts["calls"]))
    assert np.diff(counts).max() <= 86


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


def test_on_the_second_of_two_devices(second, digits, tmp_path):
    """Everything the library does on cuda:1 it does with that device current; the stand-in refuses anything else."""
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


def test_the_step_is_a_function_of_arrays(stand_in):
    """It takes no number that changes from step to step, so that one trace of it serves for all steps."""
    model = MLP([4, 3], device=stand_in)
    trainer = Trainer(model, Adam(0.01), batch_size=2)
    seen = []
    trainer.optimizer.update = lambda xp, p, g, state, h: seen.append(h)
    trainer.fit(np.ones((4, 4), np.float32), [0, 1, 2, 0])
    assert all(isinstance(value, Array) and value.shape == () for h in seen for value in h.values())
    assert all(value.dtype == "float32" for h in seen for value in h.values())
