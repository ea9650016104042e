"""Parts of the page to play with: forms whose numbers the page computes, by the rules of the experiments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ...core.device import CPU
from ...core.rng import permutation
from ...model import MLP
from ...nn import ACTIVATIONS, activations
from .. import minibatch, zigzag
from ..experiment import Words
from ..plane import moons
from .texts import attribute, both

RATES = sorted(
    {float(f"{rate:.2g}") for rate in np.geomspace(1e-3, 10.0, 81)} | {one[1] for one in zigzag.RULES.values()}
)
ZIGZAG_STEPS = 300
LOOKS = 30  # losses on the curve of a training on mini-batches
EPOCHS = 20
BATCHES = (1, 2, 4, 8, 16, 32, 64, 100, 200)
COMPARED = (1, 200)  # batch sizes whose curves are drawn beside the chosen one
BATCH_RATES = (0.01, 0.03, 0.1, 0.3, 0.5)  # at 1, a batch of one row is chaotic: rounding would decide


def slider(name: str, label: Words, least: float, most: float, step: float, value: float) -> str:
    """A slider of numbers, with its number beside it."""
    return _slider(name, label, f'min="{least:g}" max="{most:g}" step="{step:g}" value="{value:g}"')


def list_slider(name: str, label: Words, numbers: Sequence[float], value: float) -> str:
    """A slider that goes through a list of numbers."""
    place = f'min="0" max="{len(numbers) - 1}" step="1" value="{numbers.index(value)}"'
    return _slider(name, label, f'{place} data-list="{json.dumps(list(numbers))}"')


def _slider(name: str, label: Words, attributes: str) -> str:
    shown = f'<output name="{name}-shown"></output>'
    return (
        f'<label><span class="name">{both(label)}</span><input type="range" name="{name}" {attributes}>{shown}</label>'
    )


def choice(name: str, label: Words, values: Mapping[str, str]) -> str:
    """A menu of values with their names; the first is chosen."""
    options = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in values.items())
    return f'<label><span class="name">{both(label)}</span><select name="{name}">{options}</select></label>'


def reading(name: str, label: Words, states: Mapping[str, Words] | None = None) -> str:
    """A number or, of the states, the one that holds, below its label."""
    words = "".join(f'<span data-state="{state}" hidden>{both(text)}</span>' for state, text in (states or {}).items())
    return f'<div><dt>{both(label)}</dt><dd><output name="{name}">{words}</output></dd></div>'


def chart(name: str, label: Words) -> str:
    """An empty chart, which the page's script draws."""
    return f'<svg class="chart" id="{name}" role="img" {attribute("aria-label", label)}></svg>'


def form(name: str, controls: Sequence[str], charts: Sequence[str], readings: Sequence[str], note: Words) -> str:
    """A form to play with: controls, charts, and numbers."""
    return f"""<form class="play" id="play-{name}" {attribute("aria-label", PLAY)}>
<h3>{both(PLAY)}</h3>
<p class="note">{both(note)}</p>
<div class="controls">{"".join(controls)}</div>
<div class="charts">{"".join(charts)}</div>
<dl aria-live="polite">{"".join(readings)}</dl>
</form>
"""


KINDS = sorted(ACTIVATIONS, key=lambda name: name != "sigmoid")  # the posts' first, then the others

PLAY = Words("Try it", "직접 해 보기")
RATE = Words("learning rate", "학습률")
SLOPE = Words("slope dy/dx, which backpropagation multiplies by", "역전파에서 곱해지는 기울기 dy/dx")

FORMS = {
    "descent": form(
        "descent",
        (
            slider("rate", RATE, 0.01, 1.2, 0.01, 0.1),
            slider("start", Words("start", "시작점"), -4.5, 4.5, 0.1, 4.0),
            slider("steps", Words("steps", "갱신 횟수"), 1, 100, 1, 20),
        ),
        (
            chart("descent-curve", Words("x² and the path on it", "x²의 그래프와 경로")),
            chart("descent-distance", Words("distance from the minimum by step", "갱신 횟수에 따른 최솟값까지의 거리")),
        ),
        (
            reading("end", Words("x at the end", "마지막 x")),
            reading("value", Words("x² at the end", "마지막 x²")),
            reading("factor", Words("each step multiplies x by", "갱신할 때마다 x에 곱해지는 수")),
            reading(
                "way",
                Words("the path", "경로"),
                {
                    "creeps": Words("comes down one side", "한쪽 비탈을 따라 내려간다"),
                    "jumps": Words("jumps across the minimum, and comes closer", "최솟값을 넘나들며 다가간다"),
                    "stands": Words("jumps from side to side for ever", "같은 두 점을 끝없이 오간다"),
                    "diverges": Words("diverges", "발산한다"),
                },
            ),
        ),
        Words(
            "Gradient descent on x²: move the rate past 0.5, then past 1.",
            "x²에 경사 하강법을 적용한다. 학습률을 0.5보다 크게, 이어서 1보다 크게 바꾸어 보자.",
        ),
    ),
    "zigzag": form(
        "zigzag",
        (
            choice("rule", Words("update rule", "갱신 방법"), {rule: rule for rule in zigzag.RULES}),
            list_slider("rate", RATE, RATES, zigzag.RULES["SGD"][1]),
            choice(
                "length", Words("valley", "골짜기"), {f"{length:g}": f"{length:g} : 1" for length in zigzag.LENGTHS}
            ),
        ),
        (chart("zigzag-path", Words("path on the contours of the valley", "골짜기의 등고선 위에 그린 경로")),),
        (
            reading("arrival", Words("steps to the minimum", "최솟값에 이르기까지의 갱신 횟수")),
            reading(
                "crossings",
                Words(
                    f"crossings of the valley in {zigzag.SHOWN} steps",
                    f"{zigzag.SHOWN}번 갱신하는 동안 골짜기를 가로지른 횟수",
                ),
            ),
            reading(
                "steps",
                Words("the path", "경로"),
                {
                    "arrives": Words("arrives, and stays", "최솟값에 이르러 머문다"),
                    "never": Words(
                        f"has not settled after {ZIGZAG_STEPS} steps",
                        f"{ZIGZAG_STEPS}번 갱신해도 최솟값에 머물지 못한다",
                    ),
                },
            ),
        ),
        Words(
            f"Five rules on x²/20 + y², or on a longer valley. {zigzag.SHOWN} steps are drawn; the ring is the start.",
            f"x²/20 + y² 또는 더 긴 골짜기에서 다섯 가지 방법을 비교한다. 처음 {zigzag.SHOWN}번의 갱신을 그렸고,"
            " 빈 원이 시작점이다.",
        ),
    ),
    "minibatch": form(
        "minibatch",
        (
            list_slider("batch", Words("batch size", "배치 크기"), BATCHES, 8),
            list_slider("rate", RATE, BATCH_RATES, minibatch.SAME_RATE),
        ),
        (
            chart("minibatch-steps", Words("loss by steps", "갱신 횟수에 따른 손실")),
            chart("minibatch-rows", Words("loss by rows seen", "사용한 데이터 수에 따른 손실")),
        ),
        (
            reading("steps", Words(f"steps in {EPOCHS} epochs", f"{EPOCHS}에폭 동안의 갱신 횟수")),
            reading("loss", Words("loss on all rows at the end", "학습을 마쳤을 때 전체 데이터의 손실")),
        ),
        Words(
            f"The network 2-16-2 on {minibatch.MOONS} rows, trained in this page. Thin lines: batches of"
            f" {COMPARED[0]} and of all {COMPARED[1]} rows (dashed).",
            f"데이터 {minibatch.MOONS}개로 2-16-2 신경망을 이 페이지에서 학습시킨다. 가는 실선은 배치 크기가"
            f" {COMPARED[0]}일 때, 가는 파선은 데이터 {COMPARED[1]}개를 모두 쓸 때의 결과이다.",
        ),
    ),
    "activations": form(
        "activations",
        (
            choice("kind", Words("activation", "활성화 함수"), {name: name for name in KINDS}),
            slider("input", Words("input x", "입력 x"), -4.0, 4.0, 0.05, 1.0),
        ),
        (chart("activations-curve", Words("the activation and its slope", "활성화 함수와 그 기울기")),),
        (
            reading("y", Words("output y", "출력 y")),
            reading("slope", SLOPE),
        ),
        Words(
            "The line is the activation, dashes are its slope; softmax is the first probability of (x, 0).",
            "실선은 활성화 함수, 파선은 그 기울기이다. softmax는 입력이 (x, 0)일 때의 첫 번째 확률이다.",
        ),
    ),
}
"""Forms by the names of their experiments."""


def data(seed: int) -> dict[str, Any]:
    """Numbers that the forms compute with: the constants of rules and activations, and the rows of a training."""
    constants = ("momentum", "epsilon", "alpha", "beta1", "beta2")
    rules = {}
    for name, (make, rate) in zigzag.RULES.items():
        settings = make(rate).settings()
        rules[name] = {"rate": rate} | {key: settings[key] for key in constants if key in settings}
    x, y = moons(minibatch.MOONS, 0.2, seed)
    return {
        "zigzag": {
            "start": zigzag.START,
            "shown": zigzag.SHOWN,
            "steps": ZIGZAG_STEPS,
            "near": zigzag.NEAR,
            "rules": rules,
        },
        "minibatch": {
            "x": x.tolist(),
            "y": y.tolist(),
            "weights": [
                array.tolist() if name.endswith("W") else array[0].tolist()
                for name, array in small_model(seed).network.parameters().items()
            ],
            "orders": [permutation(seed, epoch + 1, len(x)).tolist() for epoch in range(EPOCHS)],
            "looks": LOOKS,
            "compared": COMPARED,
        },
        "activations": {
            "cody": {name: getattr(activations, name) for name in ("ERF_P", "ERF_Q", "ERFC_P", "ERFC_Q")},
            "constants": {
                name: {key: getattr(kind(), key) for key in ("slope", "alpha", "scale") if hasattr(kind(), key)}
                for name, kind in ACTIVATIONS.items()
            },
        },
    }


def small_model(seed: int) -> MLP:
    """Make the network that the page trains, in float64."""
    return MLP(minibatch.COMPARED, activation="tanh", dtype="float64", seed=seed, device=CPU)
