"""Watching layers while a model trains: numbers worked by hand, and a training that ends with the same bytes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from command_line import DIGITS, PLOTS
from trainers import digits_model, without_seconds

from xpnet import MLP, SGD, Adam, DivergedError, StoredRows, Trainer, Watch, schedules
from xpnet.commands import train
from xpnet.compile import why_not_compiled
from xpnet.training.watch import BINS, Sample, edges, histogram


def sampled(trainer, x, y, **options):
    """What `Watch` sees of a trainer that has not trained."""
    model = trainer.model
    t = model.task.targets(np.asarray(y), model.device, len(x), model.network.dtype)
    return Sample(trainer, model.rows(np.asarray(x, dtype=float), t, **options)).take()


def by_hand():
    """A unit that is never above 0, and one that is twice as large for the second row; outputs 2 and 4."""
    model = MLP([2, 2, 1], task="regression", dtype="float64")
    first, _, last = model.network.layers
    first.W[...], first.b[...] = [[1, -1], [1, -1]], 0
    last.W[...], last.b[...] = [[2], [5]], 0
    return model


def test_a_step_worked_by_hand():
    """Both targets are 1: dz = (1, 3), dW = (7, 0) and db = 4 above; dW = ((2, 0), (12, 0)) and db = (8, 0) below."""
    found = sampled(Trainer(by_hand(), SGD(0.1), batch_size=2), [[1, 0], [0, 2]], [[1.0], [1.0]])
    assert list(found) == ["0 Linear", "1 ReLU", "2 Linear"]
    assert [layer["dead"] for layer in found.values()] == [0.0, 0.5, 0.0]
    assert found["1 ReLU"].keys() == {"activations", "dead"}
    assert found["0 Linear"]["update_ratio"] == pytest.approx(0.1 * math.sqrt(2**2 + 12**2 + 8**2) / 2, rel=1e-4)
    assert found["2 Linear"]["update_ratio"] == pytest.approx(0.1 * math.sqrt((7**2 + 4**2) / 29), rel=1e-4)
    gradients = found["2 Linear"]["gradients"]
    assert (gradients["least"], gradients["most"], gradients["mean"]) == (0.0, 7.0, pytest.approx(11 / 3, rel=1e-4))
    outputs = found["1 ReLU"]["activations"]
    assert (outputs["counts"][0], outputs["counts"][BINS // 2], outputs["counts"][-1]) == (2, 1, 1)


def test_replicas_have_numbers_of_their_own():
    model = MLP([2, 2, 1], task="regression", dtype="float64", replicas=2)
    one = by_hand()
    model.network.values = np.stack([one.network.values, 2.0 * one.network.values])
    found = sampled(Trainer(model, SGD([0.1, 0.2]), batch_size=2), [[1, 0], [0, 2]], [[1.0], [1.0]])
    assert found["1 ReLU"]["dead"] == [0.5, 0.5]
    # Twice the weights below and above: outputs 8 and 16, dz = (7, 15), dW = (74, 0) and db = 22 above.
    ratios = [0.1 * math.sqrt(65 / 29), 0.2 * math.hypot(74, 22) / math.hypot(4, 10)]
    assert found["2 Linear"]["update_ratio"] == pytest.approx(ratios, rel=1e-4)
    assert sum(found["1 ReLU"]["activations"]["counts"]) == 8


def test_the_rate_of_the_last_step_counts():
    """A schedule may end at 0, of which nobody is warned: the training took no such step."""
    trainer = Trainer(by_hand(), SGD(0.1), schedule=lambda taken: float(taken < 5))
    trainer.step = 5
    assert sampled(trainer, [[1, 0], [0, 2]], [[1.0], [1.0]])["2 Linear"]["update_ratio"] > 0.1


def test_a_histogram_worked_by_hand():
    """99 values of 0 and one of 100: mean 1, deviation 9.95; all beyond 40.8 is in the last bin."""
    found = histogram(np.array([0.0] * 99 + [100.0]))
    assert (found["mean"], found["deviation"], found["least"], found["most"]) == (1.0, 9.9499, 0.0, 100.0)
    assert (found["low"], found["high"]) == (0.0, 40.799)
    assert found["counts"] == [99, *[0] * (BINS - 2), 1]
    assert edges(found)[[0, 1, -2, -1]] == pytest.approx([0.0, 40.799 / BINS, 40.799 * (1 - 1 / BINS), 100.0])


def test_histograms_of_odd_arrays():
    assert histogram(np.full((3, 2), np.nan)) is None
    assert histogram(np.array([1.0, np.inf, np.nan]))["counts"] == [1, *[0] * (BINS - 1)]
    many = histogram(np.tile([0.0, 1.0], 50_000))
    assert many["mean"] == pytest.approx(0.5, abs=0.01), "values at a distance that takes one column alone"
    assert sum(many["counts"]) <= 20_000


OPTIONS = {"plain": {}, "replicas": {"replicas": 3}, "random": {"batch_norm": True, "dropout": 0.2}}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_watched_training_ends_with_the_same_bytes(options, device, digits):
    found = []
    for watch in (False, True):
        model = digits_model(**options, device=device)
        trainer = Trainer(model, Adam(0.003), batch_size=100, schedule=schedules.cosine(45), seed=3)
        rows = trainer.fit(
            digits.x_train, digits.y_train, epochs=3, watch=watch, validation=(digits.x_test, digits.y_test)
        )
        assert [("watch" in row) for row in rows if row["epoch"] != 2] == [watch, watch]
        for row in rows:
            row.pop("watch", None)
        state = {name: device.to_host(array).tobytes() for name, array in trainer.arrays().items()}
        found.append((state, without_seconds(rows)))
    assert found[0] == found[1]


@pytest.mark.compiles
def test_steps_stay_compiled(digits):
    trainer = Trainer(digits_model(), Adam(0.003))
    trainer.fit(digits.x_train, digits.y_train, epochs=2, watch=True)
    assert trainer.compiled is True or why_not_compiled() is not None


@pytest.mark.parametrize(
    ("share", "epochs"), [(1e-9, [1, 2, 5, 10, 20, 50, 100]), (1e9, [1, 2, 4, 5, *range(6, 101, 2)])]
)
def test_how_often_a_fit_is_watched(share, epochs, rng):
    """The first epochs more often than later ones, and the last one; where there is time, each second one of 100."""
    trainer = Trainer(MLP([3, 4, 2]), batch_size=10)
    rows = trainer.fit(rng.normal(size=(20, 3)), np.arange(20) % 2, epochs=100, callbacks=[Watch(share=share)])
    assert [row["epoch"] for row in rows if "watch" in row] == epochs


def test_the_epoch_that_stops_a_fit_is_watched(blobs):
    x, y = blobs
    fit = {"epochs": 100, "early_stop": 2, "validation": (x, -y + 2), "callbacks": [Watch(share=1e-9)]}
    rows = Trainer(MLP([4, 5, 3]), SGD(0.5), batch_size=30).fit(x, y, **fit)
    assert len(rows) == 3
    assert ["watch" in row for row in rows] == [True, True, True]


def test_rows_on_disk(tmp_path, blobs):
    x, y = blobs
    np.save(tmp_path / "x.npy", x)
    rows = Trainer(MLP([4, 5, 3]), batch_size=30).fit(StoredRows(tmp_path / "x.npy", y, window=30), watch=True)
    assert sum(rows[0]["watch"]["1 ReLU"]["activations"]["counts"]) == 90 * 5


def test_a_watched_training_that_diverges(blobs):
    """It ends as any other; where weights of one replica are not finite, the numbers of the other are."""
    x, y = blobs
    with pytest.raises(DivergedError):
        Trainer(MLP([4, 5, 3]), SGD(1e30), batch_size=30).fit(x, y, epochs=3, watch=True)
    trainer = Trainer(MLP([4, 5, 3], replicas=2), SGD([0.1, 1e30]), batch_size=30)
    seen = trainer.fit(x, y, epochs=3, watch=True)[-1]["watch"]["2 Linear"]
    assert [math.isfinite(one) for one in seen["update_ratio"]] == [True, False]
    assert seen["activations"] is not None


def test_the_command(run, tmp_path):
    """The history has what was watched; the model is that of a run that was not, and a resumed run keeps it."""
    words = [*DIGITS, "--epochs", 4, "--ensemble", 2]
    assert run(train, *words, "--out", tmp_path / "plain")[0] == 0
    code, _, err = run(train, *words, "--watch", "--out", tmp_path / "run")
    assert code == 0, err
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "run")]
    assert models[0] == models[1]
    history = tmp_path / "run" / "history.jsonl"
    rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    first = rows[0]["watch"]["1 ReLU"]
    assert isinstance(first["dead"], float), "the mean over the members"
    assert sum(first["activations"]["counts"]) > 1000
    assert "watch" in rows[3]
    if PLOTS:
        assert (tmp_path / "run" / "watch.png").read_bytes().startswith(b"\x89PNG")
        assert not (tmp_path / "plain" / "watch.png").exists()
    assert run(train, "--resume", tmp_path / "run", "--epochs", 5)[0] == 0
    assert json.loads(history.read_text(encoding="utf-8").splitlines()[3])["watch"] == rows[3]["watch"]


@pytest.mark.parametrize(("words", "said"), [((), True), (("--out", "run"), False)])
def test_a_folder_keeps_what_is_watched(words, said, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(train, *DIGITS, "--steps", 2, "--watch", *words)
    assert (code, "nothing keeps what --watch records" in err) == (0, said)


@pytest.mark.skipif(not PLOTS, reason="needs matplotlib")
def test_a_picture_of_odd_rows(rng):
    """Names with a $ and Korean; weights that are not finite, of which there is no histogram; many layers."""
    from xpnet.plots import draw_watch

    def figures(values):
        return {"activations": histogram(values), "gradients": histogram(values), "dead": 0.5, "update_ratio": 0.0}

    layers = [f"{i} $x_{{깊은" for i in range(9)]
    seen = {layer: figures(rng.normal(size=(5, 3))) for layer in layers}
    rows = [
        {"epoch": 1, "watch": seen},
        {"epoch": 2},
        {"epoch": 3, "watch": seen | {layers[0]: figures(np.array([np.nan]))}},
    ]
    assert draw_watch(rows).startswith(b"\x89PNG")
    assert draw_watch([{"epoch": 1, "watch": {"0 Linear": figures(np.zeros(4))}}]).startswith(b"\x89PNG")


def test_bad_arguments(blobs):
    for options, message in (
        ({"watch": "yes"}, "watch must be"),
        ({"verbose": 3}, "verbose must be 0, 1, 2 or 'auto', not 3"),
        ({"verbose": "loud"}, "verbose must be"),
        ({"verbose": np.zeros(2)}, "verbose must be"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Trainer(MLP([4, 5, 3])).fit(*blobs, **options)
    with pytest.raises(ValueError, match="rows must be at least 1"):
        Watch(rows=0)
    with pytest.raises(ValueError, match="share must be finite and above 0"):
        Watch(share=0)
