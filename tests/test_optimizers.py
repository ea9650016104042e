"""Update rules against PyTorch's trajectories, a parabola and Rosenbrock's function; and per replica."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xpnet import MLP, Trainer
from xpnet.nn import Linear, ReLU, Sequential, SoftmaxCrossEntropy
from xpnet.optim import OPTIMIZERS, SGD, Adam, Momentum, schedules

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("torch.json").read_text(encoding="utf-8"))
X, T, W = (np.array(GOLDEN[name]) for name in ("x", "t", "w"))


def golden_network(device="cpu", replicas=None):
    net = Sequential([Linear(3, 4), ReLU(), Linear(4, 3)], dtype="float64", device=device, replicas=replicas)
    for slot in net.layout.slots:
        value = slot.parameter.from_torch(np.array(GOLDEN["start"][slot.torch_name]))
        shape = value.shape if replicas is None else (replicas, *value.shape)
        net.layers[slot.layer].params[slot.parameter.name] = np.broadcast_to(value, shape)
    return net


def torch_values(net, flat=None):
    """A network's parameters (or its gradients) by PyTorch's names, on the host."""
    flat = net.device.to_host(net.values if flat is None else flat)
    return {slot.torch_name: slot.parameter.to_torch(slot.view(flat)) for slot in net.layout.slots}


def assert_close(ours, golden, **tolerance):
    assert set(ours) == set(golden)
    for name, value in golden.items():
        np.testing.assert_allclose(ours[name], np.array(value), err_msg=name, **tolerance)


@pytest.mark.parametrize("weights", ["plain", "weighted"])
def test_loss_and_gradients_are_pytorchs(weights, device):
    net = golden_network(device)
    w = device.asarray(W) if weights == "weighted" else None
    z = net.forward(device.asarray(X), train=True)
    total, weight, dz = SoftmaxCrossEntropy()(device.xp, z, device.asarray(T), w)
    net.backward(dz)
    assert float(total / weight) == pytest.approx(GOLDEN["losses"][weights]["loss"], rel=1e-13)
    assert_close(torch_values(net, net.gradients), GOLDEN["losses"][weights]["gradients"], rtol=1e-10, atol=1e-15)


def test_golden_file_has_every_rule():
    assert {case["rule"] for case in GOLDEN["trajectories"]} == set(OPTIMIZERS)


@pytest.mark.parametrize("replicas", [None, 2])
@pytest.mark.parametrize(
    "case",
    GOLDEN["trajectories"],
    ids=lambda c: f"{c['rule']}-{c['learning_rate']}-{c['weight_decay']}-{c['clip_norm']}",
)
def test_trajectories_are_pytorchs(case, replicas, device):
    net = golden_network(device, replicas)
    model = MLP.of(net)
    optimizer = OPTIMIZERS[case["rule"]](
        case["learning_rate"], weight_decay=case["weight_decay"], clip_norm=case["clip_norm"]
    )
    trainer = Trainer(model, optimizer, batch_size=8)
    for steps, golden in case["after"].items():
        trainer.fit(X, T, steps=int(steps) - trainer.step)
        for r in range(replicas or 1):
            ours = torch_values(net)
            ours = ours if replicas is None else {name: value[r] for name, value in ours.items()}
            # Adam divides by the root of a tiny second moment, which magnifies the order of summation.
            assert_close(ours, golden, rtol=1e-7, atol=1e-9)


def descend(optimizer, gradient, start, steps, schedule=None):
    """Follow a rule on a function of a few variables; return where it ends. Nothing is decayed."""
    p = np.array(start, dtype=np.float64)
    state = {name: np.zeros_like(p) for name in optimizer.state_names}
    for t in range(1, steps + 1):
        h = optimizer.step_table(np.float64(t))
        h["learning_rate"] *= 1.0 if schedule is None else schedule(t - 1)
        optimizer.step(np, p, gradient(p), state, h)
    return p


def parabola(p):
    """The gradient of p0^2 / 20 + p1^2."""
    return np.array([p[0] / 10.0, 2.0 * p[1]])


def rosenbrock(p):
    """The gradient of (1 - x)^2 + 100 (y - x^2)^2, whose minimum is at (1, 1) in a bent, flat valley."""
    x, y = p
    return np.array([-2.0 * (1.0 - x) - 400.0 * x * (y - x**2), 200.0 * (y - x**2)])


# Rates and steps at which each rule arrives on the parabola and on Rosenbrock; a new rule has to be added here.
ARRIVES = {
    "sgd": [(0.5, 500), (0.0015, 20_000)],
    "momentum": [(0.1, 500), (0.0005, 10_000)],
    "nesterov": [(0.1, 500), (0.0005, 10_000)],
    "adagrad": [(1.5, 1000), (0.3, 20_000)],
    "rmsprop": [(0.05, 1000), (0.01, 10_000)],
    "adam": [(0.2, 1000), (0.05, 5000)],
    "adamw": [(0.2, 1000), (0.05, 5000)],
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finds_the_minimum(name):
    """With a rate that falls to zero, since rules that divide by the gradient's size end in steps of the rate's."""
    (rate, steps), (slow, more) = ARRIVES[name]
    rule = OPTIMIZERS[name]
    end = descend(rule(rate), parabola, [-7.0, 2.0], steps, schedules.cosine(steps))
    np.testing.assert_allclose(end, [0, 0], atol=1e-4)
    end = descend(rule(slow), rosenbrock, [-1.0, 1.5], more, schedules.cosine(more))
    np.testing.assert_allclose(end, [1, 1], atol=5e-3)


def test_sgd_by_hand():
    """p = 3 with gradient 2 p = 6, at rate 0.1: 3 - 0.6; then 2.4 - 0.48."""
    assert descend(SGD(0.1), lambda p: 2 * p, [3.0], 1) == pytest.approx([2.4])
    assert descend(SGD(0.1), lambda p: 2 * p, [3.0], 2) == pytest.approx([1.92])


def test_first_step_of_adam_is_the_rate():
    """At t = 1, m^ = g and v^ = g^2, so that each coordinate moves by the rate, whatever its gradient."""
    p = descend(Adam(0.25), lambda p: np.array([1e-3, 50.0]), [0.0, 0.0], 1)
    np.testing.assert_allclose(p, [-0.25, -0.25], rtol=1e-4)


@pytest.mark.parametrize("replicas", [None, 2])
def test_decay_by_hand(replicas):
    """From w = (2, -3) with a zero gradient and rate 0.1: L2 of 0.5 takes 0.1 * 0.5 w, l1 of 0.5 takes 0.05 sign(w).

    Biases stay as they are.
    """
    for options, expected in (
        ({"weight_decay": 0.5}, [1.9, -2.85]),
        ({"l1": 0.5}, [1.95, -2.95]),
        ({"weight_decay": 0.5, "l1": 0.5}, [1.85, -2.80]),
    ):
        for rule in (SGD, Momentum):
            net = Sequential([Linear(1, 2)], dtype="float64", replicas=replicas)
            net.layers[0].W[...] = [[2.0, -3.0]]
            net.layers[0].b[...] = 7.0
            optimizer = rule(0.1, **options)
            optimizer.bind(net)
            h = {name: np.array(value) for name, value in optimizer.step_table(np.array(1.0)).items()}
            optimizer.step(np, net.values, net.gradients, optimizer.state, h)
            np.testing.assert_allclose(net.layers[0].W, np.broadcast_to(expected, net.layers[0].W.shape))
            assert (net.layers[0].b == 7.0).all()


def test_clipping_by_hand():
    """A gradient (3, 4) has norm 5: clipped to 1 it is (0.6, 0.8); by value to 3.5, (3, 3.5). Each row on its own."""
    for options, expected in (
        ({"clip_norm": 1.0}, [[-0.6, -0.8], [-0.3, -0.4]]),
        ({"clip_value": 3.5}, [[-3.0, -3.5], [-0.3, -0.4]]),
    ):
        p = descend(SGD(1.0, **options), lambda p: np.array([[3.0, 4.0], [0.3, 0.4]]), np.zeros((2, 2)), 1)
        np.testing.assert_allclose(p, expected, rtol=1e-6)


def test_bias_correction_in_float32():
    """1 - beta2**t in float32 is off by 1e-5 at t = 1; the table is made in float64 and cast once."""
    table = Adam().step_table(np.array([1.0]))
    assert np.float32(table["v_correction"][0]) == np.float32(0.001)
    assert np.float32(1.0) - np.float32(0.999) != np.float32(0.001)


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_three_rates_follow_three_single_runs(rule, device, blobs):
    x, y = blobs
    rates, decays = [0.001, 0.01, 0.05], [0.0, 0.001, 0.1]
    three = MLP([4, 8, 3], replicas=3, seed=[1, 2, 3], device=device)
    Trainer(three, OPTIMIZERS[rule](rates, weight_decay=decays), batch_size=16).fit(x, y, epochs=20)
    together = device.to_host(three.network.values)
    for r in range(3):
        one = MLP([4, 8, 3], seed=r + 1, device=device)
        Trainer(one, OPTIMIZERS[rule](rates[r], weight_decay=decays[r]), batch_size=16).fit(x, y, epochs=20)
        np.testing.assert_allclose(together[r], device.to_host(one.network.values), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SGD(0), ValueError, "learning_rate must be finite and above 0, not 0"),
        (lambda: SGD(-1.0), ValueError, "learning_rate"),
        (lambda: SGD(float("nan")), ValueError, "learning_rate.*nan"),
        (lambda: SGD(float("inf")), ValueError, "learning_rate.*inf"),
        (lambda: SGD("fast"), TypeError, "learning_rate must be a number, not 'fast'"),
        (lambda: SGD([0.1, -0.1]), ValueError, r"learning_rate\[1\]"),
        (lambda: SGD([]), ValueError, "learning_rate"),
        (lambda: Adam(beta1=1.0), ValueError, "beta1.*below 1"),
        (lambda: Adam(epsilon=0.0), ValueError, "epsilon"),
        (lambda: Adam(weight_decay=-0.1), ValueError, "weight_decay.*at least 0"),
        (lambda: SGD(l1=[-0.1]), ValueError, r"l1\[0\]"),
        (lambda: SGD(clip_norm=0), ValueError, "clip_norm.*above 0"),
        (lambda: SGD(clip_value="x"), TypeError, "clip_value"),
        (lambda: Momentum(momentum=1), ValueError, "momentum.*below 1"),
    ],
)
def test_bad_hyperparameters(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("replicas", [None, 2])
def test_a_rate_for_each_replica_needs_replicas(replicas):
    with pytest.raises(ValueError, match="learning_rate has 3 numbers, and the network has (no|2) replicas"):
        Trainer(MLP([4, 3], replicas=replicas), SGD([0.1, 0.2, 0.3]))
