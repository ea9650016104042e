"""The page of the posts in a real browser: each control moved as users move it, and its numbers those of Python."""

from __future__ import annotations

import numpy as np
import pytest
from browser import opened

from xpnet import SGD, Trainer, evaluate
from xpnet.core.device import CPU
from xpnet.lab import activations, descent, minibatch, zigzag
from xpnet.lab.experiment import Claim, Experiment, Lab, Picture, Verdict, Words
from xpnet.lab.page import TITLE, controls, make_page
from xpnet.lab.plane import moons
from xpnet.nn import ACTIVATIONS, Sequential
from xpnet.training.descent import descend

HOSTILE = "<img src=x onerror=alert(1)>\"'&$x$</script><script>alert(1)</script>"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63f80f00010101001bb6ee56"
    "0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page of the experiments with something to play with, and of one whose texts are hostile."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "zigzag.png").write_bytes(PIXEL)
    words = Words(HOSTILE, "낱말 " + HOSTILE)
    claim = Claim("001", words, lambda results: None)
    hostile = Experiment("hostile", words, words, lambda lab: None, formula=(HOSTILE,), claims=(claim,))
    picture = Picture(folder / "zigzag.png", words)
    ran = Lab(CPU, None, 0, None, lines=["", HOSTILE], verdicts=[(claim, Verdict("wrong", HOSTILE, words))])
    labs = [(one.EXPERIMENT, Lab(CPU, None, 0, None)) for one in (descent, zigzag, minibatch, activations)]
    labs[1][1].pictures.append(picture)
    path = folder / "글 index.html"
    path.write_text(make_page([*labs, (hostile, ran)]), encoding="utf-8")
    return path


def press(page, form, name, key, times=1):
    """Move a slider by its keyboard."""
    page.locator(f"#play-{form} [name={name}]").focus()
    for _ in range(times):
        page.keyboard.press(key)
    return result(page, form)


def result(page, form):
    return page.evaluate(f"document.getElementById('play-{form}').result")


def read(page, form, name):
    """Return the number that a form shows."""
    return float(page.locator(f"#play-{form} output[name={name}]").inner_text().replace("\N{MINUS SIGN}", "-"))


def assert_equal(found, expected):
    """To 1e-10, relative to the largest."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def test_descent(browser, path):
    with opened(browser, path, locale="en-US") as page:
        for name, key, times in (("rate", "ArrowRight", 3), ("start", "ArrowLeft", 55), ("steps", "ArrowRight", 30)):
            before = result(page, "descent")[name]
            found = press(page, "descent", name, key, times)
            assert found[name] != before
            assert read(page, "descent", f"{name}-shown") == found[name]
            start, rule = [found["start"]], SGD(found["rate"])
            walked = descend(lambda p: (p**2).sum(-1), start, rule, found["steps"], gradient=lambda p: 2.0 * p)
            assert_equal(found["path"], walked.path[:, 0])
            assert read(page, "descent", "end") == pytest.approx(walked.x[0], rel=1e-3)
            assert read(page, "descent", "value") == pytest.approx(walked.values[-1], rel=1e-3)
        assert press(page, "descent", "rate", "End")["rate"] == 1.2
        assert page.locator("#play-descent output[name=way]").inner_text() == "diverges"


@pytest.mark.parametrize("rule", list(zigzag.RULES))
def test_zigzag(browser, path, rule):
    with opened(browser, path) as page:
        page.locator("#play-zigzag [name=rule]").select_option(rule)
        assert result(page, "zigzag")["rate"] == zigzag.RULES[rule][1], "a rule starts at the book's rate"
        for key, times, length in (("ArrowRight", 1, 20), ("ArrowLeft", 9, 20), ("ArrowLeft", 0, 1000)):
            page.locator("#play-zigzag [name=length]").select_option(str(length))
            found = press(page, "zigzag", "rate", key, times)
            assert found["rate"] in controls.RATES
            curvature = np.array([2.0 / length, 2.0])
            walked = descend(
                lambda p, length=length: zigzag.valley(p, length),
                zigzag.START,
                zigzag.RULES[rule][0](found["rate"]),
                controls.ZIGZAG_STEPS,
                gradient=lambda p, curvature=curvature: p * curvature,
            )
            assert_equal(found["path"], walked.path)
            assert found["arrival"] == zigzag.arrival(walked.path)
            if found["arrival"] is not None:
                assert read(page, "zigzag", "arrival") == found["arrival"]


def test_minibatch(browser, path):
    x, y = moons(minibatch.MOONS, 0.2, 0)
    with opened(browser, path) as page:
        for name, key, times in (("batch", "Home", 1), ("rate", "End", 1), ("batch", "ArrowRight", 6)):
            found = press(page, "minibatch", name, key, times)
            wanted = [step for step, _ in found["curve"]]
            model = controls.small_model(0)
            losses = [evaluate(model, x, y)[0]]

            def look(step, wanted=wanted, model=model, losses=losses):
                if step in wanted:
                    losses.append(evaluate(model, x, y)[0])

            trainer = Trainer(model, SGD(found["rate"]), batch_size=found["batch"])
            trainer.fit(x, y, epochs=controls.EPOCHS, on_step=look)
            assert wanted[-1] == found["steps"] == trainer.step
            assert_equal([loss for _, loss in found["curve"]], losses)
            assert read(page, "minibatch", "loss") == pytest.approx(losses[-1], rel=1e-3)


def test_activations(browser, path):
    with opened(browser, path) as page:
        for kind, layer in ACTIVATIONS.items():
            page.locator("#play-activations [name=kind]").select_option(kind)
            for key, times in (("Home", 1), ("ArrowRight", 2), ("End", 1), ("ArrowLeft", 75 if kind == "gelu" else 4)):
                found = press(page, "activations", "input", key, times)
                network = Sequential([layer()], dtype="float64")
                out = network.forward(np.array([[found["input"], 0.0]]), train=True)[0, 0]
                slope = network.backward(np.array([[1.0, 0.0]]), input_gradient=True)[0, 0]
                assert found["y"] == pytest.approx(out, rel=1e-10, abs=1e-15), kind
                assert found["slope"] == pytest.approx(slope, rel=1e-10, abs=1e-15), kind
        assert read(page, "activations", "y") == pytest.approx(found["y"], rel=1e-3)


def test_a_slider_moved_by_the_mouse(browser, path):
    with opened(browser, path, viewport={"width": 390, "height": 800}, has_touch=True) as page:
        slider = page.locator("#play-descent [name=rate]")
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
        assert 0.8 < result(page, "descent")["rate"] < 1.0
        assert slider.get_attribute("aria-valuetext") == f"{result(page, 'descent')['rate']:g}"


def test_the_language(browser, path):
    """It begins as the browser's, changes by a button, and is remembered."""
    with opened(browser, path, locale="ko-KR") as page:
        assert page.title() == TITLE.korean
        assert page.locator("h1").inner_text() == TITLE.korean
        picture = page.locator("#zigzag img")
        assert picture.get_attribute("alt") == "낱말 " + HOSTILE
        page.get_by_role("button", name="English").click()
        assert page.title() == page.locator("h1").inner_text() == TITLE.english
        assert picture.get_attribute("alt") == HOSTILE
        page.reload()
        assert page.locator("h1").inner_text() == TITLE.english
    with opened(browser, path, locale="fr-FR") as page:
        assert page.title() == TITLE.english


def test_a_picture_is_enlarged_by_the_keyboard(browser, path):
    with opened(browser, path) as page:
        link = page.locator("#zigzag a.enlarge")
        link.focus()
        page.keyboard.press("Enter")
        assert page.locator("dialog img").is_visible()
        assert page.locator("dialog img").get_attribute("alt") == HOSTILE
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()
        assert link.evaluate("link => link === document.activeElement")


def test_hostile_texts_are_texts(browser, path):
    """Claims, verdicts, captions, formulas and printed lines; `opened` sees errors and requests."""
    with opened(browser, path, locale="en-US") as page:
        page.on("dialog", lambda dialog: pytest.fail("a script ran"))
        assert page.locator("#hostile h2").inner_text() == HOSTILE
        row = page.locator("table.claims tbody tr", has_text="wrong").first
        assert row.locator("td").nth(0).inner_text() == HOSTILE
        assert row.locator("td").nth(2).inner_text() == HOSTILE
        assert page.locator("#hostile pre").text_content().strip() == HOSTILE
        assert "".join(page.locator("#hostile math").text_content().split()) == HOSTILE.replace(" ", "")
        assert page.locator("#hostile img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(browser, path, width, scheme):
    with opened(browser, path, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("nav details").evaluate("contents => contents.open") == (width > 390)
        ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
        dark_ink = sum(map(int, ink[4:-1].split(","))) < sum(map(int, paper[4:-1].split(",")))
        assert dark_ink == (scheme == "light")


@pytest.mark.parametrize("width", [840, 1125])
def test_no_answer_breaks_within_a_word(browser, path, width):
    """Where columns are narrowest: above the width of a list, and where the contents move to the left."""
    with opened(browser, path, viewport={"width": width, "height": 800}, locale="en-US") as page:
        words = page.evaluate(
            """() => [...document.querySelectorAll(".answer [lang=en]")].map(answer => {
                 answer.textContent = "conditions";
                 return answer.getClientRects().length;
               })"""
        )
        assert words and set(words) == {1}


def test_every_control_has_a_name(browser, path):
    """As a screen reader finds it."""
    with opened(browser, path, locale="en-US") as page:
        for role in ("slider", "combobox", "button", "link", "img"):
            for one in page.get_by_role(role).all():
                name = one.evaluate(
                    "e => e.ariaLabel || e.alt || [...(e.labels ?? [])].map(l => l.innerText).join() || e.innerText"
                    " || e.querySelector('img')?.alt"
                )
                assert name.strip(), one.evaluate("e => e.outerHTML")
