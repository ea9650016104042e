"""`draw`: the page as a text, its examples, and what the command refuses; test_draw_browser.py opens the page."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet import MLP
from xpnet.commands import draw, train
from xpnet.data.dataset import Dataset
from xpnet.draw import choose_examples, drawing_page
from xpnet.draw.page import SCRIPTS
from xpnet.model.pictures import white_level
from xpnet.nn import Linear, ReLU, Sequential

pytestmark = pytest.mark.usefixtures("no_downloads")
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$&{{x}}\x1b[31m\u202e",
    "<!-- script -->",
)


def content_of(page):
    """The JSON in a page."""
    (found,) = re.findall(r'<script id="content" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


def test_the_page_holds_the_network(run, trained, tmp_path):
    path = tmp_path / "그림 digits.html"
    code, out, err = run(draw, trained, "--out", path)
    assert (code, err) == (0, "")
    page = path.read_text(encoding="utf-8")
    size = len(page.encode())
    assert re.fullmatch(
        rf"{path}: 64-100-100-100-100-10, (\d+) test pictures, (\d+) of them mistakes; {size:,} bytes\n", out
    )
    network = content_of(page)["network"]
    model = MLP.load(trained / "model.safetensors")
    assert (network["side"], network["white"], network["class_names"]) == (8, 16.0, list("0123456789"))
    linear = [layer for layer in network["layers"] if layer["type"] == "Linear"]
    for layer, W in zip(linear, (one.W for one in model.network.layers[::2]), strict=True):
        held = np.frombuffer(base64.b64decode(layer["arrays"]["W"]), "<f4").reshape(W.shape)
        np.testing.assert_array_equal(held, W)


def test_examples_are_of_the_test_set_mistakes_among_them(run, trained, tmp_path, digits):
    assert run(draw, trained, "--out", tmp_path / "d.html")[0] == 0
    content = content_of((tmp_path / "d.html").read_text(encoding="utf-8"))
    model = MLP.load(trained / "model.safetensors")
    answers = model.predict(digits.x_test).argmax(axis=1)
    hits = answers == digits.y_test
    assert content["test"] == {"rows": 360, "right": int(hits.sum())}
    found = {True: [], False: []}
    for example in content["examples"]:
        pixels = np.frombuffer(base64.b64decode(example["bytes"]), np.uint8).reshape(8, 8) * content["unit"]
        (row,) = np.flatnonzero((digits.x_test == pixels).all(axis=(1, 2)))
        assert example["truth"] == str(digits.y_test[row])
        assert example["right"] == hits[row]
        found[example["right"]].append(example["truth"])
    assert found[True][:20] == [*"0123456789"] * 2, "classes take turns"
    assert len(found[False]) == min(24, (~hits).sum()) > 0


def test_pixels_of_any_type_become_bytes(digits):
    """Of floats, to half a level of 256."""
    data = Dataset(
        "x", digits.x_train / 16.0, digits.y_train, digits.x_test / 16.0, digits.y_test, digits.class_names, 1.0, "x"
    )
    model = MLP([64, 10], input_shape=(8, 8))
    white = white_level(model, data)
    assert white == 1.0
    found = choose_examples(model, data, white)
    assert found.pixels.dtype == np.uint8
    flat = data.x_test.reshape(360, 64)
    for pixels in found.pixels:
        assert np.abs(flat - pixels * found.unit).max(axis=1).min() <= 0.5 / 255 + 1e-12


def test_nothing_comes_from_elsewhere():
    """No address but that of a standard, and a policy that allows the page's own text alone."""
    page = drawing_page(MLP([64, 10]))
    assert not re.findall(r"https?:|//[a-z]+\.|@import|url\(|src=|fetch\(|XMLHttpRequest|<link", page)
    assert "default-src 'none'; style-src 'sha256-" in page
    assert page.count("<script") == page.count("</script") == 2


def test_hostile_names_end_no_element():
    model = MLP([64, 4], class_names=HOSTILE)
    page = drawing_page(model)
    assert page.count("<script") == page.count("</script") == 2
    assert content_of(page)["network"]["class_names"] == [*HOSTILE[:2], r"$&{{x}}\x1b[31m\u202e", HOSTILE[3]]


def test_a_model_without_a_run_has_no_examples(run, tmp_path):
    MLP([64, 10], input_scale=16).save(tmp_path / "m")
    code, _, err = run(draw, tmp_path / "m", "--out", tmp_path / "m.html")
    assert code == 0
    assert err == f"no test pictures are in the page: there is no config.json of a run beside {tmp_path / 'm'}\n"
    assert "examples" not in content_of((tmp_path / "m.html").read_text(encoding="utf-8"))


def test_white_is_that_of_the_training_data(run, tmp_path, digits):
    MLP([64, 10]).save(tmp_path / "m")
    code, _, err = run(draw, tmp_path / "m", "--out", tmp_path / "m.html")
    assert (code, err.count("\n")) == (0, 2)
    assert "the model does not hold its white level, and 255 is assumed" in err
    assert white_level(MLP([64, 10], input_shape=(8, 8)), digits) == 16.0


def test_data_that_have_gone_are_done_without(run, tmp_path, digits):
    path = tmp_path / "d.npz"
    np.savez(path, x=digits.x_train, y=digits.y_train)
    assert train.main(["--dataset", str(path), "--steps", "1", "--quiet", "--out", str(tmp_path / "run")]) == 0
    path.unlink()
    code, _, err = run(draw, tmp_path / "run", "--out", tmp_path / "d.html")
    assert (code, err.count("\n")) == (0, 2)
    assert err.startswith(f"no test pictures are in the page: {path}")


def test_a_page_that_is_there_is_replaced(run, trained, tmp_path):
    path = tmp_path / "d.html"
    path.write_text("old", encoding="utf-8")
    assert run(draw, trained, "--out", path)[0] == 0
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(tmp_path.iterdir()) == [path]


def test_a_replica_is_drawn_with(run, tmp_path):
    model = MLP([64, 5, 10], replicas=3, ensemble=True, dropout=[0.1, 0.2, 0.3])
    model.save(tmp_path / "m")
    code, out, err = run(draw, tmp_path / "m", "--out", tmp_path / "m.html")
    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path / 'm'}: the model has 3 members: choose one, --replica 0 to 2\n"
    assert run(draw, tmp_path / "m", "--out", tmp_path / "m.html", "--replica", 2)[0] == 0
    layer = content_of((tmp_path / "m.html").read_text(encoding="utf-8"))["network"]["layers"][0]
    held = np.frombuffer(base64.b64decode(layer["arrays"]["W"]), "<f4").reshape(64, 5)
    np.testing.assert_array_equal(held, model.network.layers[0].W[2])


def test_open(run, trained, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert run(draw, trained, "--out", tmp_path / "d.html", "--open")[0] == 0
    assert opened == [(tmp_path / "d.html").as_uri()]


class Mine(ReLU):
    """A layer that has no JavaScript."""


MODELS = {
    "(30,), and a page to draw on needs square pictures": lambda: MLP([30, 2]),
    "(8, 4, 2), and a page": lambda: MLP([64, 2], input_shape=(8, 4, 2)),
    "(1, 8, 8), and a page": lambda: MLP([64, 2], input_shape=(1, 8, 8)),
    "pictures of 4x4, and a page to draw on has 5 to 256": lambda: MLP([16, 2]),
    "takes rows of a table": lambda: MLP.for_table({"a": [*range(9)], "b": [0, 1, 2] * 3}, "b"),
    "the model has 2 replicas: choose one, --replica 0 to 1": lambda: MLP([64, 2], replicas=2),
}


@pytest.mark.parametrize("words", MODELS)
def test_models_that_no_page_can_hold(run, tmp_path, words):
    if "table" in words:
        pytest.importorskip("pyarrow")
    MODELS[words]().save(tmp_path / "m")
    code, out, err = run(draw, tmp_path / "m", "--out", tmp_path / "m.html")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {tmp_path / 'm'}: ")
    assert words in err
    assert not (tmp_path / "m.html").exists()


def test_layers_and_sizes_that_no_page_can_hold(monkeypatch):
    with pytest.raises(ValueError, match=r"layer 1, Mine\(\), is none of xpnet's own"):
        drawing_page(MLP.of(Sequential([Linear(64, 10), Mine()])))
    monkeypatch.setattr("xpnet.draw.content.MOST_BYTES", 2**20)
    with pytest.raises(ValueError, match="the model has 2 MiB of weights, and a page holds 1 MiB"):
        drawing_page(MLP([64, 8192, 10]))


def test_bad_arguments(run, trained, tmp_path):
    for words, arguments in {
        "must end in .html": (trained, "--out", tmp_path / "d.txt"),
        "cannot be written": (trained, "--out", tmp_path / "none" / "d.html"),
        "nothing does not exist": (tmp_path / "nothing", "--out", tmp_path / "d.html"),
        "required: --out": (trained,),
        "the model has no replicas": (
            trained,
            "--out",
            tmp_path / "d.html",
            "--replica",
            1,
        ),
        "is not a whole number": (trained, "--out", tmp_path / "d.html", "--replica", "one"),
    }.items():
        code, out, err = run(draw, *arguments)
        assert (code, out) == (2, ""), words
        assert words in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_scripts_are_all_there_is():
    folder = Path(xpnet.__file__).parent / "draw"
    assert {path.name for path in folder.glob("*.js")} == set(SCRIPTS)
    for name in SCRIPTS:
        assert "</script" not in (folder / name).read_text(encoding="utf-8")
