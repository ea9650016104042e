"""Augmentation: what becomes of pictures, what draws it, equally in every way to run a step; of training rows alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import DIGITS, SHORT
from programs import check, code_folder  # noqa: F401
from trainers import without_seconds

from xpnet import MLP, Adam, Augmentation, Callback, StoredRows, Trainer, evaluate
from xpnet.commands import train
from xpnet.core.rng import Purpose, mask_keys
from xpnet.data.augmentation import ANGLES, Augmenter
from xpnet.data.augmentation import DIGITS as STRENGTHS
from xpnet.training.runner import step_table

SHAPES = [(28, 28), (9, 7), (8, 6, 3)]
KEY = np.uint32(123456789)


class Drawn(Augmenter):
    """One whose random numbers are given, from -1 to 1."""

    def __init__(self, numbers, shape, **strengths):
        super().__init__(np, Augmentation(**strengths), shape, "float64")
        self.numbers = np.asarray(numbers)

    def draw(self, rows, key, first=0):
        return np.minimum((self.numbers + 1.0) * 2.0**31, 2.0**32 - 1).astype(np.uint32)[:rows]


def pictures(rng, shape, count=5):
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def distorted(augmenter, x, first=0):
    return augmenter(x.reshape(len(x), -1), KEY, first).reshape(x.shape)


def affine(down=0.0, right=0.0, turn=0.0, tall=0.0, wide=0.0, slant=0.0):
    return [down, right, turn, tall, wide, slant]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_strengths_of_zero_change_nothing(shape, dtype, rng):
    x = pictures(rng, shape)
    found = distorted(Augmenter(np, Augmentation(), shape, dtype), x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shift_by_whole_pixels_moves_the_picture(shape, rng):
    x = pictures(rng, shape, 1)
    found = distorted(Drawn([affine(down=2 / 3, right=-1 / 3)], shape, shift=3.0), x)
    expected = np.roll(x, (2, -1), (1, 2))
    expected[:, :2], expected[:, :, -1:] = 0, 0
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_quarter_turn_is_counterclockwise(rng):
    x = pictures(rng, (9, 9, 2))
    rotate = 90.0 * ANGLES / (ANGLES - 1)  # of which the last angle is a quarter turn
    found = distorted(Drawn([affine(turn=1.0)] * len(x), (9, 9, 2), rotate=rotate), x)
    np.testing.assert_allclose(found, np.rot90(x, axes=(1, 2)), atol=1e-9)


def test_a_larger_and_a_slanted_picture():
    x = np.zeros((1, 9, 9), np.uint8)
    x[0, 3:6, 4] = 100
    twice = distorted(Drawn([affine(tall=1.0)], (9, 9), scale=0.5), x)[0, :, 4]
    np.testing.assert_allclose(twice, [0, 0, 200 / 3, 100, 100, 100, 200 / 3, 0, 0], atol=1e-5)
    slanted = distorted(Drawn([affine(slant=1.0)], (9, 9), shear=1.0), x)[0]
    np.testing.assert_allclose(slanted[[3, 4, 5], [3, 4, 5]], 100, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_those_of_scipy_at_the_same_positions(shape, rng):
    """Positions by matrices, of maps and of a field of waves; interpolation by SciPy, which sees zeros around."""
    ndimage = pytest.importorskip("scipy.ndimage")
    x = pictures(rng, shape)
    strengths = {"shift": 2.0, "rotate": 30.0, "scale": 0.3, "shear": 0.3, "elastic": 1.5, "smooth": 2.0}
    waves = Augmenter(np, Augmentation(**strengths), shape, "float64").waves
    numbers = rng.uniform(-1.0, 1.0, (len(x), 6 + 2 * len(waves)))
    found = distorted(Drawn(numbers, shape, **strengths), x)
    height, width, *channels = shape
    center = np.array([[(height - 1) / 2], [(width - 1) / 2]])
    p = np.indices((height, width)).reshape(2, -1)
    for picture, result, u in zip(x, found, numbers, strict=True):
        angle = np.radians(30.0) * (2 * (np.floor((u[2] + 1) / 2 * ANGLES) + 0.5) / ANGLES - 1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # of (down, right)
        grow, slant = np.diag(1 + 0.3 * u[3:5]), np.array([[1.0, 0.0], [0.3 * u[5], 1.0]])
        field = (u[6:].reshape(2, -1) @ waves)[:, :: channels[0] if channels else 1]
        at = np.linalg.solve(turn @ grow @ slant, p - center - 2.0 * u[:2, None]) + center + field
        for c in np.ndindex(*channels):
            expected = ndimage.map_coordinates(picture[..., *c].astype(float), at, order=1, mode="grid-constant")
            np.testing.assert_allclose(result[..., *c].ravel(), expected, atol=1e-4)


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_elastic_fields_are_those_of_smoothed_noise(sigma):
    """Their covariance is that of uniform noise behind SciPy's Gaussian; its size is that of Simard's alpha."""
    ndimage = pytest.importorskip("scipy.ndimage")
    alpha, side = 34.0, 40
    smoothed = ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0)
    expected = alpha**2 / 3.0 * np.kron(smoothed @ smoothed.T, smoothed @ smoothed.T)
    assert np.sqrt(expected[820, 820]) == pytest.approx(0.163 * alpha / sigma, rel=0.01)  # in the middle
    elastic = np.sqrt(np.diag(expected).mean())
    waves = Augmenter(np, Augmentation(elastic=elastic, smooth=sigma), (side, side), "float64").waves
    found = waves.T @ waves / 3.0
    assert np.sqrt(np.diag(found).mean()) == pytest.approx(elastic)
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_draws_are_uniform_and_independent():
    augmenter = Augmenter(np, Augmentation(elastic=1.0), (28, 28), "float64")
    keys = mask_keys(5, 0, 40, Purpose.AUGMENTATION)
    drawn = np.concatenate([augmenter.draw(100, key) for key in keys]) / 2.0**31 - 1.0  # (4000, 6 + 2 K)
    assert len(np.unique(drawn)) > 0.999 * drawn.size
    histograms = np.stack([np.histogram(column, 10, (-1, 1))[0] for column in drawn.T])
    chi2 = ((histograms - 400.0) ** 2 / 400.0).sum(axis=1)  # 9 degrees of freedom
    assert abs(chi2.mean() - 9.0) < 3.0
    assert chi2.max() < 40.0
    correlations = np.corrcoef(drawn.T) - np.eye(drawn.shape[1])
    assert np.abs(correlations).max() < 5.0 / np.sqrt(len(drawn))
    assert not (keys == mask_keys(5, 0, 40)).any(), "masks of dropout have other keys"


def test_parts_of_a_batch_draw_what_the_whole_one_does(rng):
    x = pictures(rng, (28, 28), 8)
    augmenter = Augmenter(np, Augmentation.digits(), (28, 28), "float64")
    whole = distorted(augmenter, x)
    np.testing.assert_allclose(distorted(augmenter, x[5:], first=5), whole[5:], atol=1e-9)
    assert not np.allclose(distorted(augmenter, x[5:]), whole[5:])
    np.testing.assert_array_equal(augmenter.draw(3, KEY, 5), augmenter.draw(8, KEY)[5:])


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-4), ("float64", 1e-11)])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_way_to_run_it_gives_the_same(shape, dtype, rtol, rng):
    x = pictures(rng, shape, 33).reshape(33, -1)
    augmenter = Augmenter(np, Augmentation.digits(), shape, dtype)

    def step(xp, a):
        a["y"][...] = augmenter.over(xp)(a["x"].take(a["i"], axis=0), a["key"], 3)

    index = rng.integers(0, 33, 20)
    check(step, {"x": x, "i": index, "key": np.array(KEY), "y": np.zeros((20, x.shape[1]), dtype)}, rtol=rtol)


# Training


def model_of_digits(**options):
    return MLP([64, 20, 10], input_shape=(8, 8), input_scale=16, seed=1, **options)


def trained(digits, epochs=2, model=None, seed=3, fit=None, **options):
    options = {"augment": Augmentation.digits(8), "batch_size": 100} | options
    trainer = Trainer(model or model_of_digits(), Adam(0.003), seed=seed, **options)
    given = {"validation": (digits.x_test, digits.y_test)} | (fit or {})
    trainer.fit(digits.x_train, digits.y_train, epochs=epochs, **given)
    return trainer


@pytest.mark.compiles
def test_a_compiled_training_is_the_eager_one(digits):
    options = {"dtype": "float64", "dropout": 0.1}
    one, other = (trained(digits, model=model_of_digits(**options), compile=compile) for compile in (True, False))
    assert one.compiled is True
    for key in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(
            [row[key] for row in one.history], [row[key] for row in other.history], rtol=1e-9, err_msg=key
        )


def test_a_training_on_a_device_is_that_on_the_host(stand_in, digits):
    one, other = (trained(digits, model=model_of_digits(device=device), compile=False) for device in ("cpu", stand_in))
    assert without_seconds(one.history) == without_seconds(other.history)


@pytest.mark.cuda
@pytest.mark.parametrize("compile", [True, False])
def test_a_gpu_sees_the_pictures_that_the_cpu_does(compile, cuda, digits):
    one, other = (
        trained(digits, epochs=1, model=model_of_digits(dtype="float64", device=device), compile=compile)
        for device in ("cpu", cuda)
    )
    assert other.compiled == one.compiled
    for key in ("train_loss", "validation_loss"):
        assert other.history[-1][key] == pytest.approx(one.history[-1][key], rel=1e-9)


def test_training_rows_alone_are_distorted(digits):
    trainer, plain = trained(digits), trained(digits, augment=None)
    x, y = digits.x_test, digits.y_test
    row = trainer.history[-1]
    assert (row["validation_loss"], row["validation_accuracy"]) == pytest.approx(evaluate(trainer.model, x, y))
    assert row["train_loss"] > plain.history[-1]["train_loss"]
    none = trained(digits, augment=Augmentation())
    assert without_seconds(none.history) == without_seconds(plain.history)
    assert row["train_loss"] != trained(digits, seed=4).history[-1]["train_loss"]


def test_replicas_see_the_same_pictures(digits):
    """Each is as a network of its seed alone."""
    both = trained(digits, model=model_of_digits(replicas=2, dtype="float64"))
    for replica, seed in enumerate(both.model.network.seeds):
        alone = MLP([64, 20, 10], input_shape=(8, 8), input_scale=16, seed=seed, dtype="float64")
        found = trained(digits, model=alone).history[-1]
        assert both.history[-1]["train_loss"][replica] == pytest.approx(found["train_loss"], rel=1e-9)


@pytest.mark.parametrize("compile", [True, False])
def test_a_resumed_training_is_an_uninterrupted_one(compile, digits, tmp_path):
    path, options = tmp_path / "state.safetensors", {"compile": compile}

    class Save(Callback):
        most_steps = 1

        def on_step(self, trainer):
            if trainer.step == 20:
                trainer.save(path)

    trainer = trained(digits, fit={"callbacks": [Save()]}, **options)
    again = Trainer.load(path)
    assert again.augment == trainer.augment
    again.fit(digits.x_train, digits.y_train, epochs=2, validation=(digits.x_test, digits.y_test))
    assert without_seconds(again.history) == without_seconds(trainer.history)
    assert again.model.network.values.tobytes() == trainer.model.network.values.tobytes()
    other = Trainer(model_of_digits(), Adam(0.003), seed=3, batch_size=100, **options)
    with pytest.raises(ValueError, match="another augment"):
        other.resume(path)


def test_watched_rows_are_as_they_are(digits):
    row = trained(digits, fit={"watch": True}).history[-1]
    assert row["watch"]


def test_rows_on_disk_are_distorted(digits, tmp_path):
    np.save(tmp_path / "x.npy", digits.x_train)
    stored = StoredRows(tmp_path / "x.npy", digits.y_train)
    found = []
    for augment in (Augmentation.digits(8), None):
        trainer = Trainer(model_of_digits(), Adam(0.003), seed=3, batch_size=100, augment=augment)
        found.append(trainer.fit(stored, epochs=2)[-1]["train_loss"])
    assert found[0] > found[1]


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ({"shift": -1}, (8, 8), "shift must be finite and at least 0"),
        ({"scale": 1.0}, (8, 8), "scale must be .* below 1, not 1"),
        ({"smooth": 0}, (8, 8), "smooth must be .* above 0"),
        (
            {"elastic": 1, "smooth": 0.1},
            (99, 99),
            "smooth must be larger for pictures of 99x99, not 0.1: .* waves",
        ),
        ({}, (64,), r"pictures, .*, and a row is of shape \(64,\)"),
        ({}, (3, 8, 8), r"pictures, .*, and a row is of shape \(3, 8, 8\)"),
        ({}, (1, 64), r"pictures, .*, and a row is of shape \(1, 64\)"),
    ],
)
def test_wrong_strengths_and_shapes_are_said_in_words(options, shape, words):
    with pytest.raises(ValueError, match=words):
        Trainer(MLP([int(np.prod(shape)), 3, 2], input_shape=shape), augment=Augmentation(**options))


def test_anything_but_an_augmentation_is_refused():
    with pytest.raises(TypeError, match=r"augment must be an Augmentation, .*, not True"):
        Trainer(model_of_digits(), augment=True)


def test_pictures_are_distorted_as_in_a_step_of_training(digits):
    augment = Augmentation.digits(8)
    trainer = trained(digits, epochs=1, model=model_of_digits(dtype="float64"), seed=7)
    rows = trainer.runner(trainer.model.rows(digits.x_train.reshape(-1, 64), digits.y_train)).rows
    key = step_table(trainer.model.network, trainer.optimizer, trainer.schedule, 5, 2, 1.0, 7)["augmentation_key"][1]
    found, _, _ = rows.batch(np.arange(9), key)
    expected = augment.distort(digits.x_train[:9], seed=7, step=6)
    np.testing.assert_allclose(found, expected.reshape(9, 64) / 16.0)
    colours = augment.distort(np.full((2, 8, 8, 3), 9.0))
    assert colours.shape == (2, 8, 8, 3)
    assert (colours[..., 0] == colours[..., 2]).all()
    assert augment.distort(np.zeros((0, 8, 8))).shape == (0, 8, 8)


def test_strengths_are_of_words_and_of_a_side():
    assert Augmentation.of("digits") == Augmentation.digits()
    with pytest.raises(ValueError, match="augment has shift twice"):
        Augmentation.of(["shift=1", "shift=2"])
    with pytest.raises(ValueError, match="side must be at least 1, got 0"):
        Augmentation.digits(0)


# The command


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], Augmentation.digits(8)),
        (["digits", "rotate=0"], Augmentation.digits(8, rotate=0)),
        (["shift=2", "elastic=0.5"], Augmentation(shift=2, elastic=0.5)),
    ],
)
def test_the_command_takes_strengths(words, found, run, tmp_path):
    out = tmp_path / "run"
    code, _, err = run(train, *DIGITS, *SHORT, "--augment", *words, "--out", out, "--quiet")
    assert code == 0, err
    options = json.loads((out / "config.json").read_text(encoding="utf-8"))["options"]
    assert options["augment"] == (words or ["digits"])
    assert Trainer.load(out).augment == found
    code, _, err = run(train, "--resume", out, "--augment", "shift=3")
    assert code == 2
    assert "--augment shift=3 is not the run's, which has --augment" in err


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("rotat=3", "augment has no 'rotat': did you mean 'rotate'?"),
        ("rotate", "augment takes rotate=NUMBER, such as rotate=10, not 'rotate'"),
        ("rotate=ten", "augment takes rotate=NUMBER, such as rotate=10, not 'rotate=ten'"),
        ("shift=nan", "shift must be finite"),
        ("shift=-1", "shift must be finite and at least 0"),
    ],
)
def test_wrong_words_end_the_command(word, words, run):
    code, out, err = run(train, *DIGITS, "--augment", word)
    assert (code, out) == (2, "")
    assert words in err


def test_the_command_draws_what_it_does(run, tmp_path):
    pytest.importorskip("matplotlib")
    picture, out = tmp_path / "distorted.png", tmp_path / "run"
    code, text, err = run(train, *DIGITS, "--augment", "--preview", picture, "--out", out)
    assert (code, text) == (0, "")
    assert "8 training pictures, each as in the batches of 8 steps" in err
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert not out.exists(), "it has trained"
    code, _, err = run(train, *DIGITS, "--preview", picture)
    assert code == 2
    assert "--preview draws what --augment does" in err
    code, _, err = run(train, *DIGITS, "--augment", "--preview", picture, "--plan")
    assert code == 2
    assert "one of them at a time" in err
    code, _, err = run(train, *DIGITS, "--augment", "--preview", tmp_path / "preview.jpg")
    assert code == 2
    assert err.endswith("preview.jpg would hold a PNG: name it preview.png\n")
    code, _, err = run(train, *DIGITS, "--augment", "--preview", tmp_path / "none" / "x.png")
    assert code == 2
    assert "cannot be written" in err


def test_tables_are_no_pictures(run, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n" + "1,x\n2,y\n" * 20, encoding="utf-8")
    code, _, err = run(train, "--dataset", path, "--augment", "--steps", "2")
    assert code == 2
    assert "augment is for pictures, (H, W) or (H, W, C) with up to 4 channels, and a row is of shape (1,)" in err


def test_the_strengths_of_digits_are_of_all_kinds():
    assert set(STRENGTHS) == set(vars(Augmentation()))
