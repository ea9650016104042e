"""What notebooks show of models and trainings: their HTML, and the outputs of a kernel."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from trainers import digits_model

from xpnet import MLP, Linear, Sequential, Trainer
from xpnet.nn import ACTIVATIONS
from xpnet.training.history import MOST_ROWS, History, curves_svg, panel

CELL = """
from xpnet import MLP, Adam, Trainer, load_digits
digits = load_digits()
trainer = Trainer(MLP([64, 30, 10], input_scale=16), Adam(0.003))
history = trainer.fit(digits.x_train, digits.y_train, epochs=4, test=(digits.x_test, digits.y_test), OPTIONS)
"""

WITHOUT_WIDGETS = """
import importlib.util
from xpnet.training import progress
progress.find_spec = lambda name: None if name == "ipywidgets" else importlib.util.find_spec(name)
"""

EXPERIMENT = """
from xpnet.training.progress import hidden
with hidden():
    trainer.fit(digits.x_train, digits.y_train)
"""


def parsed(html):
    """The tree of a piece of HTML, which must be XML, too."""
    return ET.fromstring(html)


def cells(html):
    return [[cell.text for cell in row] for row in parsed(html).iter("tr")]


def test_a_model_is_a_table_of_its_layers():
    model = digits_model(replicas=2)
    found = cells(model._repr_html_())
    assert found == [
        ["layer", "type", "output", "parameters"],
        ["0", "Linear", "30", "1950"],
        ["1", "ReLU", "30", "0"],
        ["2", "Linear", "10", "310"],
    ]
    assert parsed(model._repr_html_()).find("caption").text == model.summary().splitlines()[-1]


def test_hostile_names_are_text():
    name = "</td><script>alert(1)</script>&\x1b[31m"
    layer = type(name, (ACTIVATIONS["relu"],), {})
    model = MLP.of(Sequential([Linear(4, 3), layer()]))
    assert cells(model._repr_html_())[2][1] == "</td><script>alert(1)</script>&\\x1b[31m"
    history = [{"epoch": e, "watch": {f"1 {name}": {"dead": 0.5}}} for e in (1, 2)]
    svg = parsed(History(history)._repr_html_())
    assert not list(svg.iter("script"))
    assert "script" in "".join(svg.itertext())


def test_a_history_is_a_table_and_curves(digits):
    trainer = Trainer(digits_model())
    assert "nothing was trained yet" in trainer.history._repr_html_()
    history = trainer.fit(digits.x_train[:200], digits.y_train[:200], epochs=20)
    found = cells(history._repr_html_())
    assert found[0] == ["epoch", "step", "learning rate", "seconds", "train loss", "train accuracy"]
    assert [row[0] for row in found[1:]] == ["1", "…", *map(str, range(20 - MOST_ROWS + 2, 21))]
    assert found[-1][4] == f"{history[-1]['train_loss']:.4g}"
    assert [len(line.get("points").split()) for line in lines_of(history._repr_html_())] == [20, 20]


def lines_of(html):
    return list(parsed(html).iter("{http://www.w3.org/2000/svg}polyline"))


def test_means_and_watched_layers_of_replicas(digits):
    trainer = Trainer(digits_model(replicas=2))
    html = trainer.fit(digits.x_train[:200], digits.y_train[:200], epochs=2, watch=True)._repr_html_()
    assert "means over 2 replicas" in html
    assert len(cells(html)[0]) == 6, "neither deviations nor what was watched"
    assert len(lines_of(html)) == 2 + 1 + 2  # loss and accuracy; ReLU's dead units; updates of two layers


def test_a_long_history_has_few_points():
    """The first and the last, and those that were watched."""
    rows = [{"epoch": e, "train_loss": 1.0 / e} for e in range(1, 100_001)]
    rows[5] |= {"watch": {"1 ReLU": {"dead": 0.5}}}
    [loss, dead] = lines_of(curves_svg(rows))
    points = loss.get("points").split()
    assert 200 < len(points) < 305
    assert (points[0], points[-1]) == ("52.0,40.0", "322.0,168.0")
    assert len(dead.get("points").split()) == 1


def test_points_of_a_panel():
    """Places worked by hand; numbers that are not finite are left out, and where the axis is logarithmic, zeros."""
    inf, nan = float("inf"), float("nan")
    found = re.findall(r'points="([^"]*)"', panel("loss", {"train": [(1, 3.0), (2, nan), (3, 1.0), (4, inf)]}))
    assert found == ["52.0,40.0 322.0,168.0"]
    found = re.findall(
        r'points="([^"]*)"', panel("", {"a": [(1, 1e-4), (2, 1e-2), (3, 0.0), (4, 1e-3)]}, logarithmic=True)
    )
    assert found == ["52.0,168.0 142.0,40.0 322.0,104.0"]
    assert panel("", {"a": [(1, nan)]}) == ""
    assert "<circle" in panel("", {"a": [(1, 2.0)]})


@pytest.fixture(scope="module")
def outputs():
    """Outputs of cells: fits with `verbose` as it is, 0 and 2; a history; an experiment; a fit without widgets."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    sources = [CELL.replace("OPTIONS", options) for options in ("", "verbose=0", "verbose=2")]
    sources += ["history", EXPERIMENT, WITHOUT_WIDGETS + sources[0]]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", coalesce_streams=True).execute()
    return [cell.outputs for cell in notebook.cells]


def test_a_notebook_has_a_bar_and_one_curve(outputs):
    """The curve is drawn in one place: its last state has all epochs."""
    shown = [one for one in outputs[0] if "text/html" in one.get("data", {}) and "<svg" in one["data"]["text/html"]]
    assert len(shown) == 1
    lines = lines_of(shown[0]["data"]["text/html"])
    assert [len(line.get("points").split()) for line in lines] == [4] * 4
    texts = [one.get("text", "") + one.get("data", {}).get("text/plain", "") for one in outputs[0]]
    assert any("epoch 4/4" in text or "epoch 1/4" in text for text in texts), "a bar"


def test_without_widgets_the_bar_is_text(outputs):
    """It goes at its end, and there are no warnings."""
    [bar, curve] = outputs[5]
    assert bar["name"] == "stderr"
    assert re.fullmatch(r"\s*|(\r|epoch \d/4: .*steps/s\]|\s)*", bar["text"]), bar["text"]
    assert len(lines_of(curve["data"]["text/html"])) == 4


def test_verbose_in_a_notebook(outputs):
    assert outputs[1] == []
    [lines] = outputs[2]
    assert re.findall(r"epoch (\d)/4", lines["text"]) == ["1", "2", "3", "4"]
    [history] = outputs[3]
    assert len(cells(history["data"]["text/html"])) == 5
    assert outputs[4] == []
