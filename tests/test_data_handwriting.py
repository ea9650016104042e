"""Digits in pictures, prepared as those of MNIST and of the UCI digits were."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import MLP, load_digits, load_mnist
from xpnet.commands import predict, train
from xpnet.data.handwriting import box_of, pictures_in, prepare_digit, shear, slant
from xpnet.data.pictures import read_digit

pytest.importorskip("matplotlib")  # for its fonts
image = pytest.importorskip("PIL.Image")
image_draw = pytest.importorskip("PIL.ImageDraw")
drawn_digits = pytest.importorskip("drawn_digits")

pytestmark = pytest.mark.usefixtures("no_downloads")
SIX = drawn_digits.Glyph(6, None, 3)
LEAST = 0.95  # of the pictures whose clean original is read right


def picture_of(*glyphs, size=(280, 280), height=140, paper=(255, 255, 255), pen=(0, 0, 0), **style):
    """A picture, (H, W, 3), of glyphs side by side."""
    middles = [(size[0] * (2 * k + 1) / (2 * len(glyphs)), size[1] / 2) for k in range(len(glyphs))]
    ink = sum(drawn_digits.draw(one, size, height, at, **style) for one, at in zip(glyphs, middles, strict=True))
    return np.asarray(drawn_digits.paint(ink, paper, pen))


@pytest.fixture(scope="module")
def reader(mnist_dir, tmp_path_factory):
    """The folder of a run on MNIST: four networks, whose mean depends less on rounding; test accuracy 0.98."""
    folder = tmp_path_factory.mktemp("reader") / "run"
    options = "--hidden 300 100 --dropout 0.2 --epochs 4 --schedule one-cycle --lr 0.003 --ensemble 4 --quiet"
    assert train.main([*options.split(), "--data-dir", str(mnist_dir), "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_pictures_as_people_make_them(reader, tmp_path):
    """360 pictures: of each kind nearly all are read whose clean original is."""
    model = MLP.load(reader / "model.safetensors")
    found = drawn_digits.read_right(model, drawn_digits.glyphs(1), 1, "auto", tmp_path)
    assert found["clean"][0].mean() >= LEAST
    assert {kind: right[clean].mean() for kind, (right, clean) in found.items() if right[clean].mean() < LEAST} == {}


@pytest.mark.slow
def test_pictures_for_the_small_digits(trained, tmp_path):
    """The network of the bundled 8x8 digits reads them too, but for those that are rotated."""
    model = MLP.load(trained / "model.safetensors")
    drawn = drawn_digits.glyphs(1, strokes=1)[10:]
    found = drawn_digits.read_right(model, drawn, 1, "auto", tmp_path)
    right, clean = np.concatenate([one for kind, one in found.items() if kind != "rotated"], axis=1)
    assert clean.mean() >= 0.8
    assert right[clean].mean() >= LEAST


@pytest.mark.parametrize("side", [28, 8])
def test_where_a_digit_is_and_its_colours_do_not_matter(side):
    first = prepare_digit(picture_of(SIX), side).levels
    for options in (
        {"size": (400, 300)},
        {"height": 200},
        {"pen": (0, 0, 255)},
        {"pen": (90, 60, 60), "paper": (140, 120, 110)},
        {"pen": (255, 255, 255), "paper": (0, 0, 0)},
    ):
        again = prepare_digit(picture_of(SIX, **options), side)
        assert np.abs(again.levels - first).mean() < 0.02, options
        assert again.dark_ink == (options.get("pen") != (255, 255, 255))


def test_loops_of_a_light_digit_are_no_ink():
    """They are as dark as the paper, and touch the border no more than the digit does, in a small picture of it."""
    for size in ((240, 320), (600, 400)):
        for seed in range(8):
            nine = drawn_digits.Glyph(9, None, seed)
            dark, light = (
                prepare_digit(picture_of(nine, size=size, height=120, paper=paper, pen=pen))
                for paper, pen in (((255, 255, 255), (0, 0, 0)), ((30, 40, 35), (220, 220, 210)))
            )
            assert not light.dark_ink
            assert np.abs(light.levels - dark.levels).mean() < 0.01, (size, seed)


def test_a_frame_is_no_part_of_a_digit():
    """A box or a circle around it, on flash cards and forms; a zero with a dot in it stays whole."""
    expected = prepare_digit(picture_of(SIX)).levels
    for frame in ("rectangle", "ellipse"):
        picture = image.fromarray(picture_of(SIX))
        getattr(image_draw.Draw(picture), frame)((25, 25, 255, 255), outline="black", width=3)
        assert np.abs(prepare_digit(np.asarray(picture)).levels - expected).mean() < 0.01, frame
    zero = picture_of(drawn_digits.Glyph(0, "DejaVuSansMono-Oblique", 0), height=180)
    levels = prepare_digit(zero).levels
    assert min(levels[13:16, :11].max(), levels[13:16, 12:16].max()) > 0.9
    assert prepare_digit(zero).remark == ""


@pytest.mark.parametrize("width", [0.01, 0.09, 0.24])
def test_a_digit_is_as_mnist_has_it(width):
    """Its longer side is 20, its centre of mass in the middle, and it has as much ink."""
    levels = prepare_digit(picture_of(SIX, height=180, width=width)).levels
    assert (levels.shape, levels.min(), levels.max()) == ((28, 28), 0.0, 1.0)
    rows, columns = box_of(levels > 0.0)
    assert max(rows.stop - rows.start, columns.stop - columns.start) == 20
    for axis in (0, 1):
        assert abs(levels.sum(axis=1 - axis) @ np.arange(28) / levels.sum() - 14.0) <= 0.5
    assert 0.04 < levels.mean() < 0.25  # 98 % of MNIST's digits


def test_a_shear_takes_its_slope_from_the_slant():
    levels = drawn_digits.draw(SIX, (80, 80), 70)
    assert slant(shear(levels, 0.25)) == pytest.approx(slant(levels) - 0.25, abs=0.01)
    assert shear(levels, 0.25).sum() == pytest.approx(levels.sum(), rel=1e-6)


def test_a_digit_of_mnist_stays_as_it_is(mnist_dir, tmp_path):
    mnist = load_mnist(mnist_dir)
    for pixels in (mnist.x_test[0], 255 - mnist.x_test[0]):
        image.fromarray(pixels).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_digit(tmp_path / "a.png", 28).levels * 255.0, mnist.x_test[0])
    assert pictures_in(mnist.x_train) == pictures_in(mnist.x_train.reshape(-1, 784)) == "digits"


def test_which_pictures_are_digits(rng):
    digits = load_digits()
    assert pictures_in(digits.x_train) == "digits"
    assert pictures_in(np.roll(digits.x_train, 2, axis=2)) == "plain"
    assert pictures_in(rng.integers(0, 255, (50, 28, 28))) == "plain"
    assert pictures_in(rng.normal(size=(50, 30))) is None


def test_a_model_says_how_its_pictures_were_made(trained):
    assert MLP.load(trained / "model.safetensors").pictures == "digits"
    with pytest.raises(ValueError, match="pictures must be 'digits' or 'plain', not 'photographs'"):
        MLP([64, 10], pictures="photographs")


def sheet(paper, wood=(170, 135, 95)):
    """A sheet of paper, (350, 290, 3), on a table."""
    table = np.tile(np.array(wood, np.uint8), (500, 400, 1))
    table[80:430, 60:350] = paper
    return table


def nothing(rng):
    yield "white", np.full((200, 300, 3), 255.0)
    yield "black", np.zeros((200, 300, 3))
    yield "one pixel", np.full((1, 1, 3), 9.0)
    yield "a line of pixels", np.full((2, 300, 3), 255.0)
    yield "a sheet of paper", sheet(np.full((350, 290, 3), 240))
    yield "noise", rng.normal(200.0, 12.0, (200, 300, 3))
    yield (
        "shade",
        np.repeat(np.linspace(100.0, 230.0, 300)[None, :, None], 200, axis=0) + rng.normal(0, 4, (200, 300, 3)),
    )


def test_a_picture_without_a_digit(run, trained, rng, tmp_path):
    for name, pixels in nothing(rng):
        image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
        code, out, err = run(predict, trained, tmp_path / "a.png")
        assert (code, out, err) == (2, "", f"error: {tmp_path / 'a.png'}: there is no digit in it\n"), name


def test_a_picture_with_several_digits(run, trained, tmp_path):
    others = [drawn_digits.Glyph(digit, None, 1) for digit in (1, 9, 8, 4)]
    for count in (2, 4):
        image.fromarray(picture_of(*others[:count], size=(170 * count, 240), height=120)).save(tmp_path / "a.png")
        code, _, err = run(predict, trained, tmp_path / "a.png")
        path = tmp_path / "a.png"
        assert (code, err) == (0, f"{path}: there are {count} digits in it, and the largest one is read\n")
    image.fromarray(picture_of(SIX)).save(tmp_path / "a.png")
    assert run(predict, trained, tmp_path / "a.png")[2] == ""
    assert "wider than a digit" in prepare_digit(picture_of(SIX, height=80).repeat(4, axis=1)).remark


def test_a_sheet_of_paper_on_a_table():
    """Its digit is read, on dark wood and on light, and not the sheet; a bold digit with small loops is no sheet."""
    seven = drawn_digits.Glyph(7, None, 1)
    for glyph in (SIX, seven):
        expected = prepare_digit(picture_of(glyph)).levels
        for wood in ((90, 70, 50), (170, 135, 95)):
            for height in (140, 200):
                table = sheet(picture_of(glyph, size=(290, 350), height=height), wood)
                assert np.abs(prepare_digit(table).levels - expected).mean() < 0.02, (glyph, wood, height)
    bold = prepare_digit(picture_of(drawn_digits.Glyph(8, "DejaVuSans", 0), height=180, width=0.24))
    assert bold.dark_ink


def test_what_the_network_saw_is_drawn(run, trained, tmp_path, monkeypatch):
    image.fromarray(picture_of(SIX, pen=(0, 0, 200))).save(tmp_path / "$x$.png")
    np.savez(tmp_path / "x.npz", x=load_digits().x_test[:3])
    shown = tmp_path / "shown.png"
    code, out, err = run(predict, trained, tmp_path / "x.npz", tmp_path / "$x$.png", "--show", shown)
    assert (code, err) == (0, "")
    with image.open(shown) as picture:
        assert picture.width > 300
    drawn = []
    monkeypatch.setattr("xpnet.plots.draw_seen", lambda pictures: drawn.extend(pictures) or b"")
    assert run(predict, trained, tmp_path / "x.npz", tmp_path / "$x$.png", "--show", shown)[1] == out
    ((given, seen, name, answer),) = drawn
    assert name == "$x$.png"
    assert (given.shape, given.min(axis=(0, 1)).tolist()) == ((280, 280, 3), [0, 0, 200])
    np.testing.assert_allclose(seen, 16.0 * prepare_digit(given, 8).levels, atol=1e-6)
    _, label, probability = out.splitlines()[3].split("\t")
    assert answer == f"{label} ({float(probability):.1%})"
    code, out, err = run(predict, trained, tmp_path / "x.npz", "--show", shown)
    assert (code, err) == (2, f"error: --show {shown}: it draws pictures, and none was given\n")
    code, out, err = run(predict, trained, tmp_path / "$x$.png", "--show", tmp_path / "no" / "a.png")
    assert (code, out, "cannot be written" in err) == (2, "", True)


def test_a_hostile_class_name_is_text(run, tmp_path):
    """In the terminal and in the picture."""
    names = ["<b>\x1b[31m$\\frac", *"123456789"]
    MLP([64, 10], init="zeros", class_names=names, input_shape=(8, 8), pictures="digits").save(tmp_path / "m")
    image.fromarray(picture_of(SIX)).save(tmp_path / "a.png")
    code, out, err = run(predict, tmp_path / "m", tmp_path / "a.png", "--show", tmp_path / "b.png")
    assert (code, err) == (0, "")
    assert out == "0\t<b>\\x1b[31m$\\frac\t0.100000\n"
    with image.open(tmp_path / "b.png") as picture:
        assert picture.format == "PNG"


def test_how_pictures_are_prepared_can_be_chosen(run, trained, tmp_path):
    image.fromarray(picture_of(SIX, height=60)).save(tmp_path / "a.png")
    auto, digits, plain = (
        run(predict, trained, tmp_path / "a.png", "--prepare", prepare)[1] for prepare in ("auto", "digits", "plain")
    )
    assert auto == digits != plain
    MLP([100, 10], init="zeros").save(tmp_path / "m")
    code, _, err = run(predict, tmp_path / "m", tmp_path / "a.png", "--prepare", "digits")
    assert (code, err.count("\n")) == (2, 1)
    assert "digits are prepared as 28x28 or 8x8 pixels, and the model takes 10x10" in err
