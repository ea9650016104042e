"""Diagrams as SVG: in the colours of the page, in both languages, and with numbers that are computed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

from ...core.device import HostArray
from ...nn import BatchNorm, Sequential, Sigmoid
from .. import logistic
from ..experiment import Words
from .texts import attribute


@dataclass(frozen=True)
class Diagram:
    """A diagram of the page.

    Attributes:
        name: its anchor.
        caption: the text below it, and its description.
        draw: the function that makes its SVG, inside.
        width, height: of its coordinates.
    """

    name: str
    caption: Words
    draw: Callable[[], str]
    width: int
    height: int

    def svg(self) -> str:
        """Return the element."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" {attribute("aria-label", self.caption)}>'
            f"{self.draw()}</svg>"
        )


def heads() -> str:
    """Return heads of arrows, which all diagrams use: an SVG of its own."""
    kinds = "".join(
        f'<marker id="head{kind}" class="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto" markerUnits="userSpaceOnUse"><path d="M0 0L8 4L0 8z"/></marker>'
        for kind in ("", "forward", "backward")
    )
    return f'<div class="diagram heads" aria-hidden="true"><svg><defs>{kinds}</defs></svg></div>'


def text(x: float, y: float, words: str | Words, kind: str = "") -> str:
    """Return a line of text around x, on the baseline y."""
    if isinstance(words, str):
        return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'
    return "".join(
        f'<text x="{x:g}" y="{y:g}" class="{kind}" lang="{lang}">{escape(one)}</text>'
        for lang, one in (("en", words.english), ("ko", words.korean))
    )


def box(x: float, y: float, width: float, height: float, *lines: str | Words, kind: str = "") -> str:
    """Return a box around (x, y) with lines of text, the later ones small."""
    top = y - 9.0 * (len(lines) - 1) + 5.0
    inside = "".join(text(x, top + 18.0 * i, line, "small" if i else "") for i, line in enumerate(lines))
    place = f'x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="7"'
    return f'<rect class="{kind}" {place}/>{inside}'


def arrow(points: Sequence[tuple[float, float]], kind: str = "") -> str:
    """Return an arrow through points."""
    path = "L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="{kind}" d="M{path}" marker-end="url(#head{kind})"/>'


def edge(x1: float, y1: float, x2: float, y2: float, forward: str, backward: str) -> str:
    """Return an edge of a graph: the value that goes forward above it, and the derivative that comes back below."""
    x, y, length = (x1 + x2) / 2, (y1 + y2) / 2, math.hypot(x2 - x1, y2 - y1)
    right, down = 36 * (y2 - y1) / length, 15 * (x2 - x1) / length  # at a right angle to the edge
    labels = text(x + right, y + 5 - down, forward, "forward") + text(x - right, y + 5 + down, backward, "backward")
    return arrow([(x1, y1), (x2, y2)]) + labels


def loop() -> str:
    """Draw the four steps of training, and the way back from the last to the first."""
    steps: tuple[tuple[str | Words, ...], ...] = (
        (Words("1. mini-batch", "1. 미니배치"), Words("draw some rows", "데이터를 무작위로 뽑는다")),
        (Words("2. gradient", "2. 기울기 산출"), "g = ∂L/∂p"),
        (Words("3. update", "3. 매개변수 갱신"), "p ← p − η g"),
        (Words("4. repeat", "4. 반복"), Words("until it is good enough", "충분히 좋아질 때까지")),
    )
    places = [100 + 175 * i for i in range(len(steps))]
    boxes = "".join(box(x, 50, 150, 64, *lines, kind="strong") for x, lines in zip(places, steps, strict=True))
    between = "".join(arrow([(x + 75, 50), (x + 99, 50)]) for x in places[:-1])
    back = arrow([(places[-1], 82), (places[-1], 115), (places[0], 115), (places[0], 83)])
    return boxes + between + back


LAYERS = (3, 4, 4, 2)  # neurons that are drawn


def passes() -> str:
    """Draw a network of two hidden layers, the values that go forward, and the gradients that come back."""
    names = (
        Words("inputs", "입력층"),
        Words("hidden layer 1", "은닉층 1"),
        Words("hidden layer 2", "은닉층 2"),
        Words("outputs", "출력층"),
    )
    places = [
        [(90 + 175 * i, 150 + 42 * (j - (count - 1) / 2)) for j in range(count)] for i, count in enumerate(LAYERS)
    ]
    lines = "".join(
        f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" opacity="0.45"/>'
        for one, other in pairwise(places)
        for x1, y1 in one
        for x2, y2 in other
    )
    circles = "".join(f'<circle cx="{x:g}" cy="{y:g}" r="14" class="strong"/>' for layer in places for x, y in layer)
    labels = "".join(text(layer[0][0], 60, name) for layer, name in zip(places, names, strict=True))
    onward = Words("forward: z = a W + b, a = φ(z), layer by layer", "순전파: 층마다 z = a W + b, a = φ(z)")
    back = Words(
        "backward: ∂L/∂W = aᵀ ∂L/∂z, and ∂L/∂a = ∂L/∂z Wᵀ for the layer before",
        "역전파: ∂L/∂W = aᵀ ∂L/∂z, 앞 층에는 ∂L/∂a = ∂L/∂z Wᵀ",
    )
    forward = arrow([(90, 30), (690, 30)], "forward") + text(375, 22, onward, "forward")
    backward = arrow([(690, 262), (90, 262)], "backward") + text(375, 285, back, "backward")
    return lines + circles + labels + box(690, 150, 50, 40, "L") + arrow([(629, 150), (664, 150)]) + forward + backward


def graph() -> str:
    """Draw the graph of logistic regression for one sample, with each value and each derivative."""
    sample = logistic.Sample()
    (x1, x2), (w1, w2) = sample.x, sample.w
    found = {name: f"{value:.4f}".replace("-", "−") for name, value in logistic.graph_by_hand(sample).items()}
    shown = {
        name: f"{value:g}".replace("-", "−") for name, value in {"p1": w1 * x1, "p2": w2 * x2, "b": sample.b}.items()
    }
    leaves = (
        ("w₁", w1, 45, found["dL/dw1"]),
        ("x₁", x1, 95, ""),
        ("w₂", w2, 150, found["dL/dw2"]),
        ("x₂", x2, 200, ""),
        ("b", sample.b, 250, found["dL/db"]),
    )
    parts = []
    for name, value, y, derivative in leaves:
        parts.append(text(62, y + 5, f"{name} = {value:g}".replace("-", "−"), "forward"))
        parts.append(text(62, y + 21, derivative, "backward small"))
        ends = {45: [(176, 66)], 95: [(176, 78)], 150: [(176, 171)], 200: [(176, 183)], 250: [(312, 250), (312, 159)]}
        parts.append(arrow([(105, y), *ends[y]]))
    parts += [
        edge(212, 76, 294, 128, shown["p1"], found["dL/dz"]),
        edge(212, 172, 292, 143, shown["p2"], found["dL/dz"]),
        edge(330, 140, 420, 140, f"z = {found['z']}", found["dL/dz"]),
        edge(480, 140, 570, 140, f"a = {found['a']}", found["dL/da"]),
        edge(630, 140, 715, 140, found["L"], "1"),
        box(194, 72, 36, 36, "×"),
        box(194, 177, 36, 36, "×"),
        box(312, 140, 36, 36, "+"),
        box(450, 140, 60, 44, "σ", kind="strong"),
        box(600, 140, 60, 44, "L", kind="strong"),
        text(600, 190, f"y = {sample.y:g}", "small"),
        text(450, 190, f"a (1 − a) = {found['da/dz']}", "small"),
        text(520, 245, Words("above: values, forward", "위: 순전파의 값"), "forward"),
        text(520, 268, Words("below: derivatives of L, backward", "아래: 역전파로 구한 L의 미분"), "backward"),
    ]
    return "".join(parts)


def axes() -> str:
    """Draw arrays of one, two and three axes, with their shapes as NumPy gives them."""
    arrays = (np.array([1, 2, 1]), np.array([[1, 0, 0], [0, 1, 2]]), np.arange(12).reshape(2, 2, 3))
    parts = []
    for array, left in zip(arrays, (40, 250, 500), strict=True):
        rows = array.reshape(-1, *array.shape[-2:]) if array.ndim > 1 else array.reshape(1, 1, -1)
        for depth in reversed(range(len(rows))):
            x, y = left + 60 * depth, 120 - 74 * depth
            parts += [
                box(x + 34 * j + 17, y + 34 * i + 17, 34, 34, str(value))
                for i, row in enumerate(rows[depth])
                for j, value in enumerate(row)
            ]
        down = array.shape[-2] if array.ndim > 1 else 1
        parts += [arrow([(left, 110), (left + 90, 110)], "forward")] if len(rows) == 1 else []
        bottom = 120 + 34 * down
        last = array.ndim - 1
        if len(rows) == 1:
            parts.append(text(left + 51, 100, _axis(last), "small"))
        else:
            parts += [
                arrow([(left, bottom + 10), (left + 90, bottom + 10)], "forward"),
                text(left + 51, bottom + 26, _axis(last), "small"),
            ]
            parts += [arrow([(left - 8, 112), (left + 44, 48)], "forward"), text(left - 8, 76, _axis(0), "small")]
        if array.ndim > 1:
            parts += [
                arrow([(left - 10, 122), (left - 10, bottom)], "forward"),
                text(left - 34, 120 + 17 * down + 4, _axis(last - 1), "small"),
            ]
        shape = f"shape {array.shape}, ndim {array.ndim}, size {array.size}"
        parts.append(text(left + (51 if array.ndim < 3 else 75), 238, shape, "small"))
    return "".join(parts)


def _axis(number: int) -> Words:
    return Words(f"axis {number}", f"축 {number}")


def rules() -> str:
    """Draw update rules, each below those that it grew from."""
    direction = Words("which way: average the gradients", "방향: 기울기를 평균 낸다")
    size = Words("how far: divide by the gradients' size", "폭: 기울기의 크기로 나눈다")
    return "".join(
        (
            box(375, 35, 190, 50, "SGD", "p ← p − η g", kind="strong"),
            box(190, 140, 200, 50, "Momentum", "v ← μ v + g", kind="strong"),
            box(560, 140, 200, 50, "AdaGrad", "h ← h + g²", kind="strong"),
            box(90, 250, 160, 50, "Nesterov", Words("looks ahead", "한발 앞의 기울기")),
            box(560, 250, 220, 50, "RMSprop", "h ← β h + (1 − β) g²", kind="strong"),
            box(320, 345, 200, 50, "Adam", Words("both, bias-corrected", "둘을 합치고 편향을 보정"), kind="strong"),
            box(560, 345, 180, 50, "AdamW", Words("separate weight decay", "가중치 감소를 분리")),
            arrow([(320, 60), (235, 114)]),
            arrow([(430, 60), (515, 114)]),
            arrow([(165, 165), (115, 224)]),
            arrow([(560, 165), (560, 224)]),
            arrow([(220, 165), (290, 319)]),
            arrow([(480, 275), (385, 319)]),
            arrow([(420, 345), (469, 345)]),
            text(135, 95, direction, "forward small"),
            text(605, 95, size, "backward small"),
        )
    )


BATCH = (7.0, 9.0, 8.0, 12.0)  # inputs of one neuron, where a sigmoid is flat


def normalized() -> str:
    """Draw fully connected layer, batch normalization and activation, and take four numbers through them."""
    normalization = Sequential([BatchNorm(1)], dtype="float64")
    sigmoid = Sequential([Sigmoid()], dtype="float64")
    z = np.array(BATCH)[:, None]
    scaled = normalization.forward(z, train=True)
    flat = Words("without batch normalization: hardly any slope", "배치 정규화가 없을 때: 기울기가 거의 0인 구간")
    connected = Words("fully connected", "완전연결층")
    return "".join(
        (
            box(85, 50, 130, 64, connected, "z = x W + b", kind="strong"),
            box(280, 50, 180, 64, Words("batch normalization", "배치 정규화"), "γ (z − μ)/σ + β", kind="strong"),
            box(510, 50, 150, 64, Words("activation", "활성화 함수"), "a = sigmoid(·)", kind="strong"),
            box(676, 50, 120, 64, connected, "…"),
            arrow([(150, 50), (189, 50)]),
            arrow([(370, 50), (434, 50)]),
            arrow([(585, 50), (615, 50)]),
            text(85, 115, _listed(z, "g"), "forward"),
            text(280, 115, _listed(scaled, ".2f"), "forward"),
            text(510, 115, _listed(sigmoid.forward(scaled), ".3f"), "forward"),
            text(280, 138, f"μ = {z.mean():g}, σ = {z.std():.3f}, γ = 1, β = 0", "small"),
            arrow([(85, 125), (85, 180), (395, 180)], "backward"),
            text(510, 185, _listed(sigmoid.forward(z), ".4f"), "backward"),
            text(510, 206, flat, "backward small"),
        )
    )


def _listed(values: HostArray, form: str) -> str:
    return ",  ".join(format(value, form) for value in values[:, 0]).replace("-", "−")


DIAGRAMS: dict[str, tuple[Diagram, ...]] = {
    "minibatch": (
        Diagram(
            "loop", Words("The four steps of training, again and again", "학습의 네 단계와 그 반복"), loop, 725, 130
        ),
    ),
    "gradients": (
        Diagram(
            "passes",
            Words(
                "Layers: values go forward, gradients come back",
                "여러 층의 순전파와 역전파: 값은 앞으로, 기울기는 뒤로 전달된다",
            ),
            passes,
            740,
            300,
        ),
    ),
    "logistic": (
        Diagram(
            "graph",
            Words(
                "The graph of logistic regression for one sample, with its numbers",
                "데이터 하나에 대한 로지스틱 회귀의 계산 그래프와 값",
            ),
            graph,
            740,
            285,
        ),
    ),
    "neuron": (
        Diagram(
            "axes",
            Words(
                "Axes of arrays: as many as the shape has numbers",
                "배열의 축: 축의 개수는 형상(shape)을 이루는 수의 개수와 같다",
            ),
            axes,
            740,
            250,
        ),
    ),
    "race": (Diagram("rules", Words("The family tree of update rules", "매개변수 갱신 방법의 계보"), rules, 740, 380),),
    "batchnorm": (
        Diagram(
            "normalized",
            Words(
                "Fully connected layer, batch normalization, activation: four rows of one neuron",
                "완전연결층, 배치 정규화, 활성화 함수: 데이터 네 개가 한 뉴런을 지날 때의 값",
            ),
            normalized,
            740,
            220,
        ),
    ),
}
"""Diagrams by the experiment in whose section they are."""
