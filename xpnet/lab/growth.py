"""python -m xpnet.lab growth: the logistic curve of a growing population, and the cost of its exp."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..commands import cli
from ..core.device import HostArray
from ..model import MLP
from ..nn.activations import sigmoid
from . import experiment
from .experiment import Claim, Experiment, Lab, Verdict, Words, positive

FIRST, RATE = 0.01, 1.0  # the population at t = 0, as a share of the carrying capacity, and its growth a day
DAYS, STEP = 10.0, 0.001  # of the simulation
FAR = 40.0  # a t so large that only rounding is left of exp(-t)

SHAPE = (128, 100)  # of one layer's outputs in the posts' network
SIZES = (784, 100, 100, 100, 100, 10)
KINDS = ("relu", "sigmoid", "tanh")
REPEATS, ROUNDS = 20, 15


@dataclass(frozen=True)
class Results:
    """Results of the experiment.

    Attributes:
        t, population, curve: times, (N,), the simulated population, and the logistic function at each.
        limits: the logistic function at -FAR and FAR.
        elements: nanoseconds for an element, by function.
        steps: milliseconds for a pass forward and back through the posts' network, by activation.
    """

    t: HostArray
    population: HostArray
    curve: HostArray
    limits: tuple[float, float]
    elements: dict[str, float]
    steps: dict[str, float]


def add_options(parser: cli.Parser) -> None:
    """Add the first population, and its rate of growth."""
    add = parser.add_argument
    add("--first", type=below(1.0), default=FIRST, metavar="N", help=f"population at t = 0 (default: {FIRST:g})")
    add("--rate", type=below(20.0), default=RATE, metavar="R", help=f"growth a day (default: {RATE:g})")


def below(most: float) -> Callable[[str], float]:
    """Type of an option: a number above 0 and below `most`."""

    def number(text: str) -> float:
        value = positive(text)
        if value >= most:
            raise argparse.ArgumentTypeError(f"must be below {most:g}, not {value:g}")
        return value

    return number


def grow(first: float, rate: float) -> tuple[HostArray, HostArray]:
    """Simulate dN/dt = r N (1 - N) by small steps; return times and populations, (N,)."""
    count = round(DAYS / STEP)
    population = np.empty(count + 1)
    population[0] = first
    for i in range(count):  # Heun's rule: the mean of the slopes at both ends of a step
        slope = rate * population[i] * (1.0 - population[i])
        guess = population[i] + STEP * slope
        population[i + 1] = population[i] + 0.5 * STEP * (slope + rate * guess * (1.0 - guess))
    return STEP * np.arange(count + 1), population


def logistic(t: HostArray, first: float, rate: float) -> HostArray:
    """Return the logistic function that has the value `first` at t = 0: sigmoid(r t + log(first / (1 - first)))."""
    return np.asarray(sigmoid(np, rate * t + np.log(first / (1.0 - first))))


def element_functions(lab: Lab) -> dict[str, Callable[[], object]]:
    """Functions of one layer's inputs on the device, by their names."""
    xp, x = lab.device.xp, lab.device.asarray(np.random.default_rng(lab.seed).normal(size=SHAPE).astype("float32"))
    return {
        "max(x, 0)": lambda: xp.maximum(x, 0.0),
        "exp(x)": lambda: xp.exp(x),
        "1 / (1 + exp(-x))": lambda: 1.0 / (1.0 + xp.exp(-x)),
        "tanh(x)": lambda: xp.tanh(x),
    }


def passes(lab: Lab) -> dict[str, Callable[[], object]]:
    """A pass forward and back through the posts' network, by activation."""
    x = lab.device.asarray(np.random.default_rng(lab.seed).random((SHAPE[0], SIZES[0]), dtype="float32"))
    t = lab.device.asarray(np.arange(SHAPE[0]) % SIZES[-1])

    def pass_of(model: MLP) -> Callable[[], object]:
        def both_ways() -> None:
            _, _, dz = model.loss(model.network.xp, model.network.forward(x, train=True), t)
            model.network.backward(dz)

        return both_ways

    return {kind: pass_of(MLP(SIZES, activation=kind, seed=lab.seed, device=lab.device)) for kind in KINDS}


def timed(lab: Lab, work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of one call of each: the least of ROUNDS, in which they take turns."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, one in work.items():
            begun = time.perf_counter()
            for _ in range(REPEATS):
                one()
            lab.device.synchronize()
            found[name].append((time.perf_counter() - begun) / REPEATS)
    return {name: min(seconds) for name, seconds in found.items()}


def run(lab: Lab) -> Results:
    """Simulate the population, and time exp by itself and within a step."""
    first, rate = lab.options.first, lab.options.rate
    t, population = grow(first, rate)
    curve = logistic(t, first, rate)
    low, high = (float(sigmoid(np, np.float64(at))) for at in (-FAR, FAR))
    lab.say(f"a population grows by {rate:g} N (1 - N) a day, from {first:g} of the carrying capacity; and the curve")
    days = [round(day / STEP) for day in (0, 2, 4, 6, 8, 10)]
    rows = [(f"{t[i]:g}", f"{population[i]:.6f}", f"{curve[i]:.6f}") for i in days]
    lab.table(("day", "simulated", f"1 / (1 + {(1.0 - first) / first:g} exp(-{rate:g} t))"), rows)
    lab.say(f"sigmoid({-FAR:g}) = {low:.3g}, sigmoid({FAR:g}) = {high:.15g}")
    lab.say()

    elements = {name: 1e9 * seconds / math.prod(SHAPE) for name, seconds in timed(lab, element_functions(lab)).items()}
    lab.say(f"time for an element of an array {SHAPE} of float32, in nanoseconds")
    cheapest = elements["max(x, 0)"]
    rows = [(name, f"{time_:.3f}", f"{time_ / cheapest:.1f}") for name, time_ in elements.items()]
    lab.table(("function", "ns", "to max(x, 0)"), rows)
    steps = {name: 1e3 * seconds for name, seconds in timed(lab, passes(lab)).items()}
    lab.say(f"time forward and back through {'-'.join(map(str, SIZES))}, {SHAPE[0]} rows, in milliseconds")
    rows = [(kind, f"{time_:.3f}", f"{time_ / steps['relu']:.2f}") for kind, time_ in steps.items()]
    lab.table(("activation", "ms", "to relu"), rows)
    results = Results(t, population, curve, (low, high), elements, steps)
    lab.draw("growth", CAPTION, partial(_draw, results))
    lab.draw("growth-cost", COST_CAPTION, partial(_draw_cost, results))
    return results


def _judge_limits(results: Results) -> Verdict:
    """Whether the function goes to 0 and 1, and the population follows it."""
    low, high = results.limits
    error = float(np.abs(results.population - results.curve).max())
    right = low < 1e-15 and 1.0 - high < 1e-15 and error < 1e-4
    return Verdict(
        "right" if right else "wrong",
        f"f(-{FAR:g}) = {low:.1g}, f({FAR:g}) = {high:.12g}",
        Words(
            f"The simulated population stays within {error:.0e} of the logistic function, which goes from 0 to 1.",
            f"시뮬레이션한 개체수와 로지스틱 함수의 차이는 최대 {error:.0e}이고, 함숫값은 0에서 1까지 커진다.",
        ),
    )


def _judge_cost(results: Results) -> Verdict:
    """Whether a sigmoid costs more than a ReLU, by itself and in a pass through the network."""
    element = results.elements["1 / (1 + exp(-x))"] / results.elements["max(x, 0)"]
    network = results.steps["sigmoid"] / results.steps["relu"]
    return Verdict(
        "right" if network > 1.1 else "conditional" if element > 1.1 else "wrong",
        f"sigmoid / ReLU = {element:.2f}; {'-'.join(map(str, SIZES))}: {network:.2f}",
        Words(
            f"The function alone takes {element:.2f} times as long as a ReLU; forward and back through the posts'"
            f" network, most of which is matrix products, takes {network:.2f} times as long.",
            f"걸리는 시간이 함수만 재면 ReLU의 {element:.2f}배이고, 계산의 대부분이 행렬 곱인 글의 신경망에서 순전파와"
            f" 역전파를 함께 재면 {network:.2f}배이다.",
        ),
    )


def _draw(results: Results) -> Any:
    """Draw the simulated population, and the logistic function through it."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 1, width=7.0)
    axes = grid[0, 0]
    days = slice(None, None, round(0.5 / STEP))
    axes.plot(results.t, results.curve, color=PALETTE[0], label="logistic function")
    axes.plot(results.t[days], results.population[days], "o", color=PALETTE[1], label="simulated population")
    axes.axhline(1.0, color="0.5", linestyle=":", label="carrying capacity")
    axes.set(xlabel="t, days", ylabel="population")
    axes.legend(loc="lower right")
    return figure


def _draw_cost(results: Results) -> Any:
    """Draw the times as bars."""
    from ..plots import PALETTE, new_figure

    figure, grid = new_figure(1, 2, width=5.4, height=3.0)
    titles = ("an element, nanoseconds", "forward and back through the network, ms")
    for axes, times, title in zip(grid[0], (results.elements, results.steps), titles, strict=True):
        bars = axes.barh(list(times), list(times.values()), color=PALETTE[0])
        axes.bar_label(bars, fmt="%.3f", padding=3)
        axes.margins(x=0.18)
        axes.invert_yaxis()
        axes.set_title(title)
    return figure


CAPTION = Words(
    "A population grows along the logistic function",
    "로지스틱 함수를 따라 늘어나는 개체수",
)
COST_CAPTION = Words(
    "The cost of exp: alone, and within a pass through the network",
    "exp의 계산 비용: 함수만 쟀을 때와 신경망 전체를 쟀을 때",
)

EXPERIMENT = Experiment(
    name="growth",
    title=Words("The logistic function, and the cost of exp", "로지스틱 함수와 exp의 계산 비용"),
    text=Words(
        "The sigmoid is older than neural networks: it is the curve of a population that grows in proportion to its"
        " size and to the room that is left. Simulated in small steps, a population follows it, from near 0 to the"
        " carrying capacity. Is its exp too costly for a network? Timed here are a sigmoid and a ReLU on the outputs of"
        " one layer, and a pass forward and back through the posts' network with either. Most of such a pass is"
        " matrix products, and exp is computed by vector instructions, so measure before you decide by speed.",
        "시그모이드는 신경망이 나오기 전부터 쓰인 함수로, 현재 개체수와 환경에 남은 여유에 비례해 늘어나는 개체군의"
        " 성장을 나타낸다. 짧은 시간 간격으로 시뮬레이션하면 개체수는 이 곡선을 따라 0 근처에서 환경 수용력까지"
        " 늘어난다. 그런데 시그모이드의 exp는 신경망에 쓰기에 너무 느릴까? 여기서는 한 층의 출력에 시그모이드와 ReLU를"
        " 적용하는 시간, 그리고 글의 신경망에서 순전파와 역전파에 걸리는 시간을 잰다. 신경망 전체로 보면 시간의"
        " 대부분은 행렬 곱에 쓰이고 exp도 벡터 명령으로 계산되므로, 속도를 근거로 고르려면 먼저 재어 보아야 한다.",
    ),
    run=run,
    add_options=add_options,
    formula=("dN/dt = r N (1 - N)", "N(t) = 1 / (1 + e⁻ᵗ)"),
    claims=(
        Claim(
            "003",
            Words(
                "The logistic function describes growth: it goes to 1 as t goes to infinity, and to 0 at minus"
                " infinity.",
                "로지스틱 함수는 개체군의 성장을 나타내며, t가 양의 무한대로 가면 1이, 음의 무한대로 가면 0이 된다.",
            ),
            _judge_limits,
        ),
        Claim(
            "003",
            Words("The exp of a sigmoid makes it costly.", "시그모이드는 exp()를 쓰므로 계산 비용이 크다."),
            _judge_cost,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return experiment.main(EXPERIMENT, arguments)


if __name__ == "__main__":
    sys.exit(main())
