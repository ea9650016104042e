"""Trainers in files: one that was saved goes on as the one that was not, byte for byte."""

from __future__ import annotations

import json

import numpy as np
import pytest
from trainers import without_seconds, write_unchecked

from xpnet import (
    MLP,
    SGD,
    Adam,
    AdamW,
    Checkpoint,
    DataError,
    LayerNorm,
    Linear,
    Momentum,
    ReLU,
    RMSprop,
    Sequential,
    Trainer,
)
from xpnet.core.errors import XpnetError
from xpnet.optim import SCHEDULES, schedules
from xpnet.training.state_file import read_state

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 6)), RNG.integers(0, 3, 60)


def trainer(rule=None, schedule=None, **options):
    return Trainer(MLP([6, 9, 3], **options), rule or Adam(0.01), schedule=schedule, batch_size=16, seed=3)


def state_of(one):
    arrays = {name: array.tobytes() for name, array in one.snapshot()[0].items()}
    return arrays, one.step, one.epoch, without_seconds(one.history), one.best_epoch, one.rate_scale


GPU = pytest.param({"device": "cuda"}, marks=pytest.mark.cuda)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_norm": True, "dropout": 0.3, "seed": 5},
        {"replicas": 2, "dropout": [0.1, 0.2]},
        {"dtype": "float64"},
        GPU,
    ],
)
def test_a_trainer_goes_on_after_a_file(options, tmp_path):
    whole, first = trainer(**options), trainer(**options)
    whole.fit(X, Y, epochs=3)
    whole.fit(X, Y, epochs=4)
    first.fit(X, Y, epochs=3)
    first.save(tmp_path / "t.safetensors")
    second = Trainer.load(tmp_path / "t.safetensors", device=first.model.device)
    assert state_of(second) == state_of(first)
    assert repr(second) == repr(first)
    second.fit(X, Y, epochs=4)
    assert state_of(second) == state_of(whole)
    assert second.model.predict(X).tobytes() == whole.model.predict(X).tobytes()


@pytest.mark.parametrize(
    "rule",
    [
        SGD(0.1, clip_norm=1.0),
        Momentum(0.1, momentum=0.5, weight_decay=0.1),
        RMSprop(np.float32(0.001), clip_value=0.5),
        AdamW([0.01, 0.001], weight_decay=[0.1, 0.0], l1=1e-4),
    ],
)
def test_rules_come_back(rule, tmp_path):
    one = trainer(rule, replicas=2)
    one.save(tmp_path / "t.safetensors")
    again = Trainer.load(tmp_path / "t.safetensors")
    assert again.optimizer == rule
    assert repr(again.optimizer) == repr(rule)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_come_back(name, tmp_path):
    schedule = schedules.join([(5, schedules.warmup(3, SCHEDULES[name](100)))], schedules.constant())
    trainer(schedule=schedule).save(tmp_path / "t.safetensors")
    assert Trainer.load(tmp_path / "t.safetensors").schedule == schedule


def test_tasks_and_scalings_come_back(tmp_path):
    model = MLP([6, 4, 2], task="regression", loss="huber", target_shift=[1.0, 2.0], input_scale=[1.0, 2, 3, 4, 5, 6])
    one = Trainer(model, Adam())
    one.fit(X, np.stack([X[:, 0], X[:, 1]], axis=1))
    one.save(tmp_path / "t.safetensors")
    again = Trainer.load(tmp_path / "t.safetensors").model
    assert again.summary() == model.summary()
    assert again.predict(X).tobytes() == model.predict(X).tobytes()


class Own(SGD):
    """A rule of the user's own."""


class OwnLayer(ReLU):
    """A layer of the user's own."""


def test_classes_of_ones_own(tmp_path):
    path = tmp_path / "t.safetensors"
    model = MLP.of(Sequential([Linear(6, 4), LayerNorm(4), OwnLayer(), Linear(4, 3)]))
    Trainer(model, Own(0.1), schedule=lambda taken: 0.5).save(path)
    with pytest.raises(XpnetError, match=r"'OwnLayer', which is none of xpnet's layers: give load its class, layers="):
        Trainer.load(path)
    with pytest.raises(DataError, match=r"Own' is none of xpnet's: give load its class, optimizers="):
        Trainer.load(path, layers=[OwnLayer])
    with pytest.raises(DataError, match=r"its schedule is a function of your own: give it, load\(path, schedule="):
        Trainer.load(path, layers=[OwnLayer], optimizers=[Own])
    again = Trainer.load(path, layers=[OwnLayer], optimizers=[Own], schedule=schedules.constant())
    assert type(again.optimizer) is Own
    assert type(again.model.network.layers[2]) is OwnLayer


def test_a_checkpoint_is_a_trainer(tmp_path):
    """And the next fit goes on with the one that wrote it, in the middle of an epoch."""
    path = tmp_path / "t.safetensors"
    whole, one = trainer(dropout=0.2), trainer(dropout=0.2)
    whole.fit(X, Y, epochs=5)

    def save(step):
        if step == 6:
            one.save(path)

    one.fit(X, Y, epochs=5, on_step=save)
    again = Trainer.load(path)
    assert (again.step, again.epoch) == (6, 1)
    again.fit(X, Y, epochs=5)
    assert state_of(again) == state_of(whole)


def test_the_checkpoint_of_a_folder_is_a_trainer(tmp_path):
    with pytest.raises(DataError, match="there is no checkpoint .*checkpoint.safetensors"):
        Trainer.load(tmp_path)
    one = trainer()
    one.fit(X, Y, epochs=2, checkpoint=tmp_path / "checkpoint.safetensors")
    for path in (tmp_path, str(tmp_path)):
        assert state_of(Trainer.load(path)) == state_of(one)


def test_the_best_epoch_comes_back(tmp_path):
    one = trainer()
    one.fit(X, Y, epochs=60, validation=(X[:20], (Y[:20] + 1) % 3), early_stop=2)
    one.save(tmp_path / "t.safetensors")
    again = Trainer.load(tmp_path / "t.safetensors")
    assert again.best_epoch == one.best_epoch is not None
    assert again.position == one.position == f"epoch {one.best_epoch}, the best"


def _set(value, *names):
    def edit(arrays, numbers):
        for name in names[:-1]:
            numbers = numbers[name]
        numbers[names[-1]] = value

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        _set(None, "trainer", "model"),
        _set([], "trainer", "model", "layers"),
        _set(10**9, "trainer", "model", "layers", 0, "in_features"),
        _set(10**9, "trainer", "model", "replicas"),
        _set("float16", "trainer", "model", "dtype"),
        _set({"type": "SGD"}, "trainer", "optimizer"),
        _set({"lr": 1.0}, "trainer", "optimizer", "settings"),
        _set(-1.0, "trainer", "optimizer", "settings", "learning_rate"),
        _set({"type": "__import__", "arguments": ["os"]}, "trainer", "schedule"),
        _set({"type": "cosine", "arguments": [0]}, "trainer", "schedule"),
        _set(0, "trainer", "batch_size"),
        _set("many", "trainer", "network seeds"),
        _set([0], "trainer", "seed"),
        _set("best", "best_epoch"),
        lambda arrays, numbers: arrays.pop("state m"),
        lambda arrays, numbers: arrays.pop("values"),
        lambda arrays, numbers: arrays.update(values=arrays["values"][:-1]),
        lambda arrays, numbers: numbers.pop("trainer"),
    ],
)
def test_a_file_that_holds_no_trainer(edit, tmp_path):
    """Its digest is right; the error names the file."""
    path = tmp_path / "t.safetensors"
    one = trainer(dropout=0.1)
    one.fit(X, Y)
    one.save(path)
    state = read_state(path)
    arrays, numbers = dict(state.arrays), json.loads(json.dumps(state.numbers))
    edit(arrays, numbers)
    write_unchecked(path, arrays, numbers)
    with pytest.raises((DataError, XpnetError), match=r"t\.safetensors") as caught:
        Trainer.load(path)
    assert isinstance(caught.value, ValueError)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    path = tmp_path / "c.safetensors"
    trainer().fit(X, Y, epochs=3, checkpoint=Checkpoint(path, "1epoch"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"c.safetensors .*; going on from .*c-previous.safetensors"):
        again = Trainer.load(path)
    assert again.epoch == 2


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="there is no checkpoint"):
        Trainer.load(tmp_path / "none.safetensors")
    MLP([2, 2]).save(tmp_path / "m.safetensors")
    with pytest.raises(DataError, match="is a safetensors file, but no checkpoint and no trainer"):
        Trainer.load(tmp_path / "m.safetensors")
