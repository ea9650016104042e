"""The page to draw on, in a real browser: strokes, numbers equal to Python's, keys, languages and widths."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from browser import opened
from strokes import DIGITS, draw, smooth

from xpnet import MLP, load_mnist
from xpnet.commands import draw as command
from xpnet.commands import train
from xpnet.draw import Examples, drawing_page
from xpnet.draw.content import network_content
from xpnet.model.explanation import attributions
from xpnet.nn import ACTIVATIONS, LAYERS, BatchNorm, LayerNorm, Linear, Sequential

ANSWER = "[...document.querySelectorAll('.bar.best .name')].map((name) => name.textContent)"
PREDICT = (
    "([description, rows]) => { const n = new Network(description); return rows.map((row) => [...n.predict(row)]); }"
)
PREPARED = """(strokes) => {
  pad.drawing.marks = strokes.map((points) => ({ points }));
  return [[...pad.ink().levels], [...prepare(pad.ink(), network.side, network.digits)]];
}"""
ATTRIBUTE = """([description, row]) => {
  const n = new Network(description);
  const values = n.forward(n.scaled(row));
  const outputs = values.at(-1);
  return n.task === "classification"
    ? [[...n.attributions(values, n.single ? 0 : best(n.output(outputs)))]]
    : [...outputs].map((_, i) => [...n.attributions(values, i)]);
}"""


@pytest.fixture(scope="module")
def mnist_page(mnist_dir, tmp_path_factory):
    """A page with the posts' network, trained on MNIST."""
    folder = tmp_path_factory.mktemp("draw")
    arguments = ["--dataset", "mnist", "--data-dir", str(mnist_dir), "--epochs", "2", "--quiet"]
    assert train.main([*arguments, "--out", str(folder / "run")]) == 0
    path = folder / "숫자 digits.html"
    assert command.main([str(folder / "run"), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def digits_page(trained, tmp_path_factory):
    """A page with a network of the bundled digits."""
    path = tmp_path_factory.mktemp("draw") / "digits.html"
    assert command.main([str(trained), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def page(browser, digits_page):
    """The page of the bundled digits, for what leaves it as it is."""
    with opened(browser, digits_page, locale="en-US") as page:
        yield page


def write(tmp_path, model, examples=None):
    path = tmp_path / "page.html"
    path.write_text(drawing_page(model, examples), encoding="utf-8")
    return path


def settle(page):
    """Wait until what was done is shown."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_ten_digits_drawn_by_a_mouse(browser, mnist_page):
    assert mnist_page.stat().st_size < 2e6
    with opened(browser, mnist_page) as page:
        found = {}
        for digit, strokes in DIGITS.items():
            page.locator("#clear").click(force=True)
            draw(page, strokes)
            settle(page)
            found[digit] = page.evaluate(ANSWER)
            assert page.locator("#answer").text_content() == found[digit][0]
        assert found == {digit: [digit] for digit in DIGITS}


def test_probabilities_are_those_of_predict(browser, mnist_page, mnist_dir):
    data = load_mnist(mnist_dir)
    rows = data.x_test[:1000].reshape(1000, -1)
    expected = MLP.load(mnist_page.parent / "run" / "model.safetensors").predict(rows)
    text = base64.b64encode(rows.tobytes()).decode()
    with opened(browser, mnist_page) as page:
        found = page.evaluate(
            """(text) => { const bytes = bytesOf(text); return Array.from({ length: 1000 }, (_, k) =>
              [...network.predict(bytes.subarray(784 * k, 784 * (k + 1)))]); }""",
            text,
        )
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [28, 8])
def test_drawings_are_prepared_as_pictures_are(browser, mnist_page, digits_page, side):
    """Of any size, so with thick strokes too; Python finds the ink in a picture of it, dark on light, by itself."""
    from xpnet.data import handwriting

    with opened(browser, mnist_page if side == 28 else digits_page) as page:
        for k, (digit, strokes) in enumerate(DIGITS.items()):
            scale = (1.0, 0.6, 0.3)[k % 3]
            scaled = [(0.5 + (smooth(np.array(one)) - 0.5) * scale).tolist() for one in strokes]
            ink, seen = page.evaluate(PREPARED, scaled)
            grey = np.rint(255.0 * np.array(ink)).astype(np.uint8).reshape(160, 160)
            prepared = handwriting.prepare_digit(np.stack([255 - grey] * 3, axis=-1), side)
            np.testing.assert_allclose(np.reshape(seen, (side, side)), prepared.levels, atol=1e-6, err_msg=digit)


def random_model(rng, sizes=(64, 20, 15, 4), **options):
    """A model whose parameters and running statistics are all random."""
    model = MLP(list(sizes), **options)
    model.network.values = rng.normal(scale=0.4, size=model.network.values.shape)
    model.network.buffers = rng.uniform(0.5, 2.0, size=model.network.buffers.shape)
    return model


OPTIONS = {
    **{name: {"activation": name} for name in ACTIVATIONS},
    "batch norm and dropout": {"batch_norm": True, "dropout": 0.5},
    "float64": {"dtype": "float64", "activation": "gelu"},
    "standardized": {"input_shift": np.linspace(0, 9, 64), "input_scale": np.linspace(1, 20, 64)},
    "no hidden layer": {"sizes": (64, 4)},
    "two classes, one output": {"sizes": (64, 20, 1)},
    "output sigmoid": {"output": "sigmoid"},
    "output tanh": {"output": "tanh", "loss": "mean-squared-error"},
    "output softmax": {"output": "softmax", "loss": "mean-squared-error"},
    "output identity": {"output": "identity"},
    "output step": {"sizes": (64, 20, 1), "output": "step"},
    "multilabel": {"task": "multilabel"},
    "regression": {"task": "regression", "target_shift": [1, 2, 3, 4], "target_scale": [1, 10, 100, 1000]},
    "counts": {"task": "regression", "loss": "poisson"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_any_network_is_that_of_python(page, rng, name):
    scale = {} if name == "standardized" else {"input_scale": 16.0}
    model = random_model(rng, **scale, **OPTIONS[name])
    agrees(page, model, rng)


def test_layers_of_other_networks(page, rng):
    layers = [Linear(64, 12), LayerNorm(12), ACTIVATIONS["tanh"](), LayerNorm(12), BatchNorm(12), Linear(12, 3)]
    model = MLP.of(Sequential(layers), input_scale=16.0)
    model.network.values = rng.normal(size=model.network.values.shape)
    agrees(page, model, rng)


def agrees(page, model, rng):
    """Assert that the page's predictions and attributions are Python's."""
    x = rng.integers(0, 17, size=(5, 64))
    description = network_content(model, 16.0)
    p = np.array(page.evaluate(PREDICT, [description, x.tolist()]), dtype=float)
    np.testing.assert_allclose(p, model.predict(x), rtol=1e-5, atol=1e-5)
    products = np.array(page.evaluate(ATTRIBUTE, [description, x[0].tolist()]), dtype=float)
    expected = list(attributions(model, x[:1]).values())
    np.testing.assert_allclose(np.abs(products).mean(axis=0), expected, rtol=1e-4, atol=1e-5)


def test_every_layer_has_javascript(page):
    assert set(page.evaluate("Object.keys(LAYERS)")) == set(LAYERS)


def test_a_page_of_any_network_is_alive(browser, digits_page, tmp_path, rng):
    examples = Examples(rng.integers(0, 17, (4, 64)).astype(np.uint8), 1.0, list("abcd"), np.arange(4) > 0, 9, 3)
    with opened(browser, digits_page) as page:
        for name in ("batch norm and dropout", "no hidden layer", "multilabel", "regression", "output step"):
            model = random_model(rng, input_scale=16.0, **OPTIONS[name])
            page.goto(write(tmp_path, model, examples).as_uri())
            draw(page, DIGITS["1"])
            settle(page)
            assert page.locator("#answer").text_content() != "", name
            assert page.locator("#right-part h4").is_visible() == (name != "regression")
            for part in (".bar button", ".example"):
                page.evaluate("(part) => document.querySelectorAll(part).forEach((button) => button.click())", part)
                settle(page)


def test_a_network_that_diverged_gives_no_answer(browser, tmp_path):
    model = MLP([64, 10])
    model.network.values = np.nan
    with opened(browser, write(tmp_path, model), locale="en-US") as page:
        draw(page, DIGITS["1"])
        settle(page)
        assert page.locator("#answer").text_content().startswith("No answer")
        assert page.evaluate(ANSWER) == []


def test_by_finger_and_pen(browser, digits_page):
    """A finger draws, and does not scroll; a second one, the palm's, draws nothing. A pen draws as a mouse does."""
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(browser, digits_page, **phone) as page:
        area = page.locator("#pad").bounding_box()
        devices = page.context.new_cdp_session(page)

        def touch(kind, *places):
            points = [{"id": i, "x": area["x"] + x * 300, "y": area["y"] + y * 300} for i, (x, y) in enumerate(places)]
            devices.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", (0.5, 0.1))
        touch("touchStart", (0.5, 0.1), (0.9, 0.9))
        for y in np.linspace(0.9, 0.1, 9):
            touch("touchMove", (0.5, 1.0 - y), (0.9, y))
        touch("touchEnd")
        settle(page)
        assert page.evaluate("pad.drawing.strokes.length") == 1
        assert page.evaluate("scrollY") == 0
        assert page.evaluate(ANSWER) == ["1"]
        for kind, y in (("mousePressed", 50), ("mouseMoved", 150), ("mouseReleased", 150)):
            place = {"x": area["x"] + 20, "y": area["y"] + y, "button": "left", "buttons": 1, "clickCount": 1}
            devices.send("Input.dispatchMouseEvent", {"type": kind, "pointerType": "pen", **place})
        assert page.evaluate("pad.drawing.strokes.length") == 2


def test_a_palm_that_is_lifted_ends_no_stroke(browser, digits_page):
    with opened(browser, digits_page) as page:
        area = page.locator("#pad").bounding_box()
        page.mouse.move(area["x"] + 100, area["y"] + 100)
        page.mouse.down()
        page.evaluate("pad.canvas.dispatchEvent(new PointerEvent('pointerup', { pointerId: 99 }))")
        page.mouse.move(area["x"] + 100, area["y"] + 200)
        page.mouse.up()
        page.mouse.move(area["x"] + 200, area["y"] + 200)
        ((first, last),) = page.evaluate("pad.drawing.strokes")
        assert (last[0], last[1] - first[1]) == pytest.approx((first[0], 100 / area["height"]))


def test_a_tap_is_a_dot(browser, digits_page):
    with opened(browser, digits_page) as page:
        page.locator("#pad").click(position={"x": 100, "y": 100})
        settle(page)
        assert page.evaluate("Math.max(...pad.ink().levels)") == 1
        assert page.locator("#hint").is_hidden()


def test_undo_and_clear(browser, digits_page):
    with opened(browser, digits_page) as page:
        assert page.locator("#undo").is_disabled()
        draw(page, DIGITS["4"])
        strokes = len(DIGITS["4"])
        assert page.evaluate("pad.drawing.strokes.length") == strokes > 1
        page.locator("#undo").click()
        assert page.evaluate("pad.drawing.strokes.length") == strokes - 1
        page.locator("#clear").click()
        settle(page)
        assert page.evaluate("pad.ink().levels.every((value) => value === 0)")
        assert page.locator("#hint").is_visible()
        page.keyboard.press("Control+z")  # also a clearing
        assert page.evaluate("pad.drawing.strokes.length") == strokes - 1


def test_examples_are_shown_as_they_are(browser, digits_page, digits):
    with opened(browser, digits_page, locale="en-US") as page:
        page.locator("#wrong button").first.click()
        settle(page)
        seen = np.array(page.evaluate("[...pixelsSeen()]")).reshape(8, 8)
        (row,) = np.flatnonzero((digits.x_test == seen).all(axis=(1, 2)))
        truth = digits.y_test[row]
        assert page.locator("#seen-how").text_content() == f"8 \u00d7 8 pixels, a test picture of {truth}"
        assert page.evaluate(ANSWER) != [str(truth)]
        assert page.locator("#share").text_content().endswith(f"% \u00b7 correct answer: {truth}")
        page.locator("#spoken", has_text=f"%, correct answer: {truth}").wait_for(state="attached")
        draw(page, DIGITS["1"])
        assert page.evaluate("pad.drawing.strokes.length") == len(DIGITS["1"]), "a stroke begins a new drawing"
        page.locator("#undo").click()
        assert page.evaluate("pad.drawing.example") is not None


def test_by_keyboard_alone(browser, digits_page):
    with opened(browser, digits_page, locale="en-US") as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "pad"
        page.keyboard.press("Space")
        for _ in range(20):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
        settle(page)
        (points,) = page.evaluate("pad.drawing.strokes")
        assert points[0] == [0.5, 0.25]
        assert points[-1] == pytest.approx([0.5, 0.75])
        assert page.evaluate(ANSWER) == ["1"]
        page.locator("#spoken", has_text="1, ").wait_for(state="attached")
        page.keyboard.press("Backspace")
        assert page.evaluate("pad.drawing.empty")
        for _ in range(3):  # undo and clear are disabled, the bars are one stop
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Layer 2"
        page.keyboard.press("ArrowRight")
        settle(page)
        assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')").startswith("unit 2, value")
        assert page.locator("#weights-title").text_content() == "Weights of unit 2, layer 2"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) == "solid", "focus is visible"


def test_arrow_keys_start_from_the_unit_that_is_shown(browser, digits_page):
    shown = "Number(document.querySelector('.units').getAttribute('aria-valuenow'))"
    with opened(browser, digits_page) as page:
        draw(page, DIGITS["3"])
        settle(page)
        strongest = page.evaluate(shown)
        page.locator(".units").first.focus()
        page.keyboard.press("ArrowLeft" if strongest > 50 else "ArrowRight")
        settle(page)
        assert abs(page.evaluate(shown) - strongest) == 1


def test_units_show_their_weights_where_they_are_touched(browser, digits_page):
    with opened(browser, digits_page, locale="en-US", has_touch=True) as page:
        canvas = page.locator(".units").nth(1)
        area = canvas.bounding_box()
        canvas.tap(position={"x": area["width"] * 0.35, "y": area["height"] * 0.25})  # column 4 of 10, row 3
        settle(page)
        assert page.locator("#weights-title").text_content() == "Weights of unit 24, layer 2"
        assert page.evaluate("[...network.weights(network.groups[1], 23)]") == page.evaluate(
            "Array.from({ length: 100 }, (_, i) => network.layers[2].arrays.W[i * 100 + 23])"
        )
        assert page.evaluate(
            "[document.getElementById('weights').width, document.getElementById('weights').height]"
        ) == [10, 10]


def test_languages(browser, digits_page):
    texts = "[...document.querySelectorAll('h1, h2, h3, h4, button, figcaption')].map((one) => one.textContent)"
    with opened(browser, digits_page, locale="ko-KR") as page:
        assert page.evaluate("document.documentElement.lang") == "ko"
        korean = page.evaluate(texts)
        assert "되돌리기" in korean
        page.locator("#language").click()
        assert page.evaluate("document.documentElement.lang") == "en"
        english = page.evaluate(texts)
        assert "Undo" in english
        assert not any("가" <= letter <= "힣" for text in english if text != "한국어" for letter in text)
        assert page.title() == english[0]


def test_all_texts_are_in_both_languages(page):
    texts = page.evaluate("WORDS")
    assert list(texts["en"]) == list(texts["ko"])
    for name, english in texts["en"].items():
        korean = texts["ko"][name]
        places = [sorted(part.split("}")[0] for part in text.split("{")[1:]) for text in (english, korean)]
        assert places[0] == places[1], name
    used = page.evaluate("[...document.querySelectorAll('[data-word]')].map((one) => one.dataset.word)")
    assert set(used) <= set(texts["en"])


def test_it_fits_its_window(browser, digits_page):
    with opened(browser, digits_page) as page:
        draw(page, DIGITS["2"])
        for width in (320, 390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            settle(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark(browser, digits_page):
    """Page and pictures follow the system's theme, also while the page is open."""
    corner = "[...document.getElementById('weights').getContext('2d').getImageData(0, 0, 1, 1).data]"
    with opened(browser, digits_page, color_scheme="light") as page:
        found = {}
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            settle(page)
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            found[scheme] = page.evaluate(corner)
            assert (int(background.split("(")[1].split(",")[0]) < 128) == (scheme == "dark")
        assert found["light"] != found["dark"]


def test_hostile_names_are_text(browser, tmp_path):
    names = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\x1b[31m\u202e", "가 " * 60]
    examples = Examples(np.full((1, 64), 9, np.uint8), 1.0, [names[1]], np.array([True]), 1, 1)
    path = write(tmp_path, MLP([64, 4], class_names=names, input_scale=16.0), examples)
    with opened(browser, path, locale="en-US", viewport={"width": 390, "height": 800}) as page:
        page.locator(".example").click()
        settle(page)
        shown = page.locator(".bar .name").all_text_contents()
        assert shown == [*names[:2], r"\x1b[31m\u202e", names[3]]
        assert page.locator("#seen-how").text_content() == f"8 \u00d7 8 pixels, a test picture of {names[1]}"
        assert page.locator("img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
