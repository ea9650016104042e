"""Layers, losses and networks against central differences, in float64, on every device, at R = none, 1 and 3."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from xpnet import MLP, SGD, Trainer
from xpnet.core.rng import layer_keys, mask_keys
from xpnet.nn import (
    ACTIVATIONS,
    LAYERS,
    LOSSES,
    BatchNorm,
    Dropout,
    LayerNorm,
    Linear,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    numerical_gradient,
)

B, I, O = 5, 4, 3  # noqa: E741 (the axis alphabet)
REPLICAS = [None, 1, 3]
GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("torch.json").read_text(encoding="utf-8"))

# How each layer is made for these tests; a new layer has to be added here, or test_every_layer_is_checked fails.
MAKE = {name: LAYERS[name] for name in (activation.__name__ for activation in ACTIVATIONS.values())} | {
    "Linear": lambda: Linear(I, O),
    "Linear without bias": lambda: Linear(I, O, bias=False),
    "BatchNorm": lambda: BatchNorm(I),
    "LayerNorm": lambda: LayerNorm(I),
    "Dropout": lambda: Dropout(0.4),
}
LAYOUTS = {
    "contiguous": lambda a: a,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "transposed": lambda a: np.swapaxes(np.swapaxes(a, -1, -2).copy(), -1, -2),
}


def lead(replicas):
    return () if replicas is None else (replicas,)


def put(device, array, layout="contiguous"):
    """Put a host array on the device, in a memory layout; the stand-in and CuPy keep strides of a view alone."""
    host = LAYOUTS[layout](array)
    if device.index is None:
        return host
    base = device.asarray(np.ascontiguousarray(np.repeat(array, 2, axis=-1)))
    return base[..., ::2] if layout != "contiguous" else device.asarray(array)


def test_every_layer_is_checked():
    assert {type(make()).__name__ for make in MAKE.values()} == set(LAYERS)
    assert set(ACTIVATIONS.values()) <= set(LAYERS.values())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("replicas", REPLICAS)
@pytest.mark.parametrize("name", MAKE)
def test_layer_gradients(name, replicas, layout, device, rng):
    """For a random direction v, d(sum v y)/dx and d(sum v y)/d(parameters) are what backward says."""
    layer = MAKE[name]()
    network = Sequential([layer], replicas=replicas, dtype="float64", device=device)
    network.values = rng.normal(size=network.values.shape)
    layer.key = network._first_keys
    x_host = rng.normal(size=(*lead(replicas), B, I))
    x = put(device, x_host, layout)
    y = layer.forward(x, train=True)
    v = put(device, rng.normal(size=y.shape), layout)
    v_host = device.to_host(v).copy()

    dx = layer.backward(v)
    analytic = network.gradients.copy()

    def f():
        return float((layer.forward(x, train=True) * v).sum())

    if layer.differentiable:
        np.testing.assert_allclose(device.to_host(dx), device.to_host(numerical_gradient(f, x)), atol=1e-8)
    else:
        assert not device.to_host(dx).any()
    if layer.params:
        numeric = device.to_host(numerical_gradient(f, network.values))
        np.testing.assert_allclose(device.to_host(analytic), numeric, atol=1e-8)
    assert (device.to_host(x) == x_host).all(), "forward or backward has changed its input"
    assert (device.to_host(v) == v_host).all(), "backward has changed its input"
    assert y.dtype == dx.dtype == "float64"


# Every loss, and what its targets are like; a new loss has to be added here.
TARGETS = {
    "softmax-cross-entropy": lambda rng: np.arange(B) % O,
    "binary-cross-entropy": lambda rng: rng.integers(0, 2, (B, O)).astype(float),
    "mean-squared-error": lambda rng: rng.normal(size=(B, O)),
    "mean-absolute-error": lambda rng: rng.normal(size=(B, O)),
    "huber": lambda rng: rng.normal(size=(B, O)),
    "poisson": lambda rng: rng.integers(0, 5, (B, O)).astype(float),
}


def test_every_loss_is_checked():
    assert set(TARGETS) == set(LOSSES)
    assert set(LOSSES) <= set(GOLDEN["row_losses"])


@pytest.mark.parametrize("name", [name for name in GOLDEN["row_losses"] if len(name) > 1])
def test_losses_are_pytorchs(name, device):
    golden = GOLDEN["row_losses"][name]
    kind, _, variant = name.partition(", ")
    options = {"smoothed": {"label_smoothing": 0.1}, "weighted": {"positive_weight": [0.5, 2.0, 3.0]}}
    loss = LOSSES[kind](**options.get(variant, {}))
    loss.bind(device.xp, "float64", 3)
    z, t, w = (device.asarray(np.array(a)) for a in (GOLDEN["row_losses"]["z"], golden["t"], GOLDEN["row_losses"]["w"]))
    total, weight, dz = loss(device.xp, z, t, w)
    assert float(total / weight) == pytest.approx(golden["loss"], rel=1e-12)
    np.testing.assert_allclose(device.to_host(dz), golden["dz"], rtol=1e-10, atol=1e-14)


def test_one_hot_targets_are_labels(rng):
    z, t = rng.normal(size=(6, 4)), np.arange(6) % 4
    losses = [SoftmaxCrossEntropy(0.2), *(kind() for name, kind in LOSSES.items() if name != "poisson")]
    for loss in losses:
        for ours, theirs in zip(loss(np, z, t), loss(np, z, np.eye(4)[t]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    for name in ("binary-cross-entropy", "mean-squared-error"):  # one output stands for class 1
        pairs = zip(LOSSES[name]()(np, z[:, :1], t % 2), LOSSES[name]()(np, z[:, :1], t[:, None] % 2), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_do_not_overflow(name):
    """For outputs of 1e4, everything but a Poisson rate of exp(1e4) is finite, and no warning is raised."""
    z = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 3.0]], dtype=np.float32)
    if name == "poisson":
        z = np.minimum(z, 80.0)
    t = np.array([1, 1]) if "softmax" in name else np.array([[0, 1, 1], [1, 0, 0]], dtype=np.float32)
    total, _, dz = LOSSES[name]()(np, z, t)
    assert np.isfinite(total)
    assert np.isfinite(dz).all()
    assert total.dtype == dz.dtype == np.float32


@pytest.mark.parametrize("weights", ["none", "shared", "per replica"])
@pytest.mark.parametrize("replicas", REPLICAS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients(name, layout, replicas, weights, device, rng):
    loss = LOSSES[name]()
    if weights == "per replica" and replicas is None:
        pytest.skip("one network has no replica axis")
    z_host = rng.normal(size=(*lead(replicas), B, O))
    t_host = TARGETS[name](rng)
    z, t = put(device, z_host, layout), device.asarray(t_host)
    w_host = rng.uniform(size=(B,) if weights == "shared" else (*lead(replicas), B))
    w = None if weights == "none" else device.asarray(w_host)
    xp = device.xp

    def mean():
        total, weight, _ = loss(xp, z, t, w)
        return float((total / weight).sum())

    total, weight, dz = loss(xp, z, t, w)
    assert total.shape == lead(replicas)
    np.testing.assert_allclose(device.to_host(dz), device.to_host(numerical_gradient(mean, z)), atol=1e-9)
    if w is None:
        assert weight == B
    else:
        np.testing.assert_allclose(device.to_host(weight), w_host.sum(axis=-1))
    for array, before in ((z, z_host), (t, t_host), *(() if w is None else ((w, w_host),))):
        assert (device.to_host(array) == before).all(), "the loss has changed its input"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("replicas", REPLICAS)
def test_network_gradients(replicas, layout, device, rng):
    """The whole network with its loss, and the gradient with respect to its input."""
    network = Sequential([Linear(I, 6), ReLU(), Linear(6, O)], replicas=replicas, dtype="float64", device=device)
    network.values = rng.normal(size=network.values.shape)
    x_host = rng.normal(size=(B, I))
    x, t = put(device, x_host, layout), device.asarray(np.arange(B) % O)
    loss = SoftmaxCrossEntropy()

    def mean():
        total, weight, _ = loss(device.xp, network.forward(x), t)
        return float((total / weight).sum())

    dz = loss(device.xp, network.forward(x, train=True), t)[2]
    dx = network.backward(dz, input_gradient=True)
    analytic = device.to_host(network.gradients).copy()
    np.testing.assert_allclose(analytic, device.to_host(numerical_gradient(mean, network.values)), atol=1e-8)
    summed = dx if replicas is None else dx.sum(axis=0)  # replicas share the input
    np.testing.assert_allclose(device.to_host(summed), device.to_host(numerical_gradient(mean, x)), atol=1e-8)
    assert (device.to_host(x) == x_host).all(), "the network has changed its input"

    network.gradients[...] = 1.0
    assert network.backward(dz) is None
    for slot in network.layout.slots:
        difference = slot.view(device.to_host(network.gradients)) - slot.view(analytic)
        assert abs(difference).max() < 1e-15


def test_predicting_does_not_spoil_a_training_step(rng):
    network = Sequential([Linear(I, 6), ReLU(), Linear(6, O)], dtype="float64")
    x = rng.normal(size=(B, I))
    dz = rng.normal(size=(B, O))
    network.forward(x, train=True)
    network.backward(dz)
    expected = network.gradients.copy()
    network.forward(x, train=True)
    network.forward(rng.normal(size=(9, I)))
    network.backward(dz)
    assert (network.gradients == expected).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, device, rng):
    network = Sequential([Linear(I, 6), ReLU(), Linear(6, O)], dtype=dtype, device=device, replicas=2)
    x = device.asarray(rng.normal(size=(B, I)).astype(dtype))
    z = network.forward(x, train=True)
    total, _, dz = SoftmaxCrossEntropy()(device.xp, z, device.asarray(np.arange(B) % O))
    assert z.dtype == dz.dtype == total.dtype == dtype
    assert network.backward(dz, input_gradient=True).dtype == dtype


def test_an_input_of_another_type_is_cast(rng):
    network = Sequential([Linear(I, O)])
    assert network.forward(rng.normal(size=(B, I))).dtype == np.float32
    assert network.forward(np.ones((B, I), dtype=np.uint8), train=True).dtype == np.float32
    assert network.layers[0].x.dtype == np.float32


def test_numbers_of_numpy_do_not_widen_the_type():
    layers = [Linear(I, I, np.float32(0.1)), BatchNorm(I, eps=np.float64(1e-5)), LayerNorm(I, np.float64(1e-5))]
    layers += [ACTIVATIONS["leaky-relu"](np.float64(0.1)), ACTIVATIONS["elu"](np.float64(1.0)), Linear(I, O)]
    network = Sequential(layers)
    z = network.forward(np.ones((B, I), dtype=np.float32), train=True)
    loss = SoftmaxCrossEntropy(np.float64(0.1))(np, z, np.arange(B) % O)
    assert z.dtype == loss[2].dtype == LOSSES["huber"](np.float64(1))(np, z, z * 2)[2].dtype == np.float32
    json.dumps([layer.settings() for layer in layers])
    for bad in (lambda: BatchNorm(3, eps=-1), lambda: ACTIVATIONS["leaky-relu"]("x"), lambda: LOSSES["huber"](0)):
        with pytest.raises((TypeError, ValueError), match="must be"):
            bad()


def test_relu_lets_nan_through():
    """A NaN that became 0 would hide that training has diverged."""
    network = Sequential([ReLU()])
    assert np.isnan(network.forward(np.array([[np.nan, 1.0]], dtype=np.float32))[0, 0])


def test_cross_entropy_by_hand():
    """z = (0, ln 3), label 0: softmax is (1/4, 3/4), the loss ln 4, the gradient (1/4 - 1, 3/4)."""
    total, weight, dz = SoftmaxCrossEntropy()(np, np.array([[0.0, np.log(3.0)]]), np.array([0]))
    assert total == pytest.approx(np.log(4.0))
    assert weight == 1.0
    np.testing.assert_allclose(dz, [[-0.75, 0.75]])


def test_cross_entropy_does_not_overflow():
    z = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32)
    total, _, dz = SoftmaxCrossEntropy()(np, z, np.array([0, 0]))
    assert total == 2e4
    np.testing.assert_array_equal(dz, [[0.0, 0.0], [-0.5, 0.5]])


def test_rows_without_weight_count_for_nothing(rng):
    loss = SoftmaxCrossEntropy()
    z, t = rng.normal(size=(4, 3)), np.array([0, 1, 2, 0])
    total, weight, dz = loss(np, z, t, np.array([1.0, 0.0, 1.0, 0.0]))
    kept = loss(np, z[::2], t[::2])
    assert total == pytest.approx(kept[0])
    assert weight == kept[1]
    np.testing.assert_allclose(dz[::2], kept[2])
    assert not loss(np, z, t, np.zeros(4))[2].any(), "a batch without any weight must not give 0/0"


def test_linear_by_hand():
    """x = (1, 2), W = ((1, 2), (3, 4)), b = (10, 20): y = (1+6+10, 2+8+20). dy = (1, -1): dW = x^T dy, dx = dy W^T."""
    layer = Linear(2, 2)
    network = Sequential([layer], dtype="float64")
    layer.W, layer.b = [[1, 2], [3, 4]], [[10, 20]]
    np.testing.assert_array_equal(network.forward(np.array([[1.0, 2.0]]), train=True), [[17, 30]])
    np.testing.assert_array_equal(layer.backward(np.array([[1.0, -1.0]])), [[-1, -1]])
    np.testing.assert_array_equal(layer.grads["W"], [[1, -1], [2, -2]])
    np.testing.assert_array_equal(layer.grads["b"], [[1, -1]])


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ((0, 3), ValueError, "in_features"),
        ((3, -1), ValueError, "out_features"),
        ((3, 2.0), TypeError, "out_features"),
        ((3, True), TypeError, "out_features"),
        ((3, 2, "hee"), ValueError, "did you mean 'he'"),
    ],
)
def test_bad_linear(arguments, error, word):
    with pytest.raises(error, match=word):
        Linear(*arguments)


def test_numerical_gradient_puts_x_back_when_f_raises():
    x = np.ones(3)

    def f():
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        numerical_gradient(f, x)
    assert (x == 1.0).all()
    for x, kind in ((np.array([1, 2]), "int64"), ([1.0, 2.0], "list"), (np.float64(1.0), "float64"), (1.0, "float")):
        with pytest.raises(TypeError, match=f"array of floats, of one axis or more, not {kind}"):
            numerical_gradient(f, x)


def test_golden_file_has_every_activation():
    assert set(GOLDEN["activations"]) == set(ACTIVATIONS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_pytorchs(name, dtype, device):
    golden = {key: np.array(value, dtype=dtype) for key, value in GOLDEN["activations"][name].items()}
    layer = ACTIVATIONS[name]()
    network = Sequential([layer], dtype=dtype, device=device)
    y = network.forward(device.asarray(golden["x"]), train=True)
    dx = layer.backward(device.asarray(golden["dy"]))
    assert y.dtype == dx.dtype == dtype
    tolerance = {"rtol": 1e-12, "atol": 1e-14} if dtype == "float64" else {"rtol": 1e-5, "atol": 2e-6}
    np.testing.assert_allclose(device.to_host(y), golden["y"], **tolerance)
    np.testing.assert_allclose(device.to_host(dx), golden["dx"], **tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_do_not_overflow(name):
    """For inputs of 1e4, everything is finite, and no warning is raised; NaN stays NaN."""
    layer = ACTIVATIONS[name]()
    network = Sequential([layer])
    x = np.array([[-1e4, -100.0, 0.0, 100.0, 1e4]], dtype=np.float32)
    assert np.isfinite(network.forward(x, train=True)).all()
    assert np.isfinite(layer.backward(np.ones_like(x))).all()
    if name != "step":
        assert np.isnan(network.forward(np.full((1, 2), np.nan, dtype=np.float32))).any()


@pytest.mark.parametrize("name", ["BatchNorm", "LayerNorm"])
@pytest.mark.parametrize("replicas", REPLICAS)
def test_normalization_is_pytorchs(name, replicas, device):
    """Values, gradients, running statistics after two batches, and the prediction by them."""
    golden = GOLDEN["normalization"][name]
    layer = LAYERS[name](3)
    network = Sequential([layer], replicas=replicas, dtype="float64", device=device)
    layer.gamma[...] = device.asarray(np.array(golden["start"]["weight"]))
    layer.beta[...] = device.asarray(np.array(golden["start"]["bias"]))

    def check(ours, theirs):
        ours = device.to_host(ours)
        np.testing.assert_allclose(ours, np.broadcast_to(theirs, ours.shape), rtol=1e-10, atol=1e-12)

    for step in golden["steps"]:
        check(network.forward(device.asarray(np.array(step["x"])), train=True), step["y"])
        check(layer.backward(device.asarray(np.array(step["dy"]))), step["dx"])
        check(layer.grads["gamma"], step["gradients"]["weight"])
        check(layer.grads["beta"], step["gradients"]["bias"])
    for slot in network.buffer_layout.slots:
        name = slot.parameter.torch_name
        check(slot.parameter.to_torch(device.to_host(slot.view(network.buffers))), np.array(golden["end"][name]))
    check(network.forward(device.asarray(np.array(golden["x"]))), golden["y"])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_linear_layer_in_front_of_batch_normalization_has_no_bias(batch_norm):
    model = MLP([3, 4, 5, 2], batch_norm=batch_norm)
    linear = [layer for layer in model.network.layers if isinstance(layer, Linear)]
    assert [layer.bias for layer in linear] == [not batch_norm, not batch_norm, True]
    assert [hasattr(layer, "b") for layer in linear] == [not batch_norm, not batch_norm, True]


def test_a_layer_without_bias():
    network = Sequential([Linear(2, 3, bias=False), Linear(3, 2)], seed=0)
    with_bias = Sequential([Linear(2, 3), Linear(3, 2)], seed=0)
    first = network.layers[0]
    assert [slot.name for slot in network.layout.slots] == ["0.W", "1.W", "1.b"]
    np.testing.assert_array_equal(first.W, with_bias.layers[0].W)
    assert repr(first) == "Linear(in_features=2, out_features=3, init='he', bias=False)"
    with pytest.raises(AttributeError, match="layer 0, Linear, has no b: its shapes"):
        _ = first.b
    with pytest.raises(AttributeError, match=r"bias=False\) has no b"):
        first.b = 0.0
    assert not hasattr(copy.deepcopy(network).layers[0], "b")
    with pytest.raises(TypeError, match="bias must be True or False, not 'no'"):
        Linear(2, 3, bias="no")


def test_batch_normalization_needs_two_rows(rng):
    network = Sequential([BatchNorm(3)])
    with pytest.raises(ValueError, match="cannot train on a batch of one row"):
        network.forward(np.ones((1, 3), dtype=np.float32), train=True)
    assert network.forward(np.ones((1, 3), dtype=np.float32)).shape == (1, 3)
    # In training, a trailing batch of one row is joined to the one before.
    history = Trainer(MLP([3, 4, 2], batch_norm=True), batch_size=4).fit(
        rng.normal(size=(9, 3)), [0, 1, 0] * 3, epochs=2
    )
    assert history[-1]["step"] == 4


def dropout(rate, replicas=None, device="cpu"):
    return Sequential([Dropout(rate)], replicas=replicas, device=device)


def test_dropout_by_its_statistics():
    """A share of the rate is dropped, what is left is scaled so that the mean stays, and masks are not correlated."""
    layer = Dropout(0.3)
    network = Sequential([layer])
    x = np.ones((400, 500), dtype=np.float32)
    masks = []
    for key in mask_keys(0, 0, 3):
        y = network.forward(x, train=True, keys=layer_keys([key], 1))
        assert (y == 0).mean() == pytest.approx(0.3, abs=0.005)
        assert set(np.unique(y)) == {0.0, np.float32(1 / 0.7)}
        masks.append(y != 0)
    assert (masks[0] & masks[1]).mean() == pytest.approx(0.49, abs=0.005)
    for axis in (0, 1):  # neighbours in a row and in a column
        moved = np.roll(masks[0], 1, axis=axis)
        assert (masks[0] & moved).mean() == pytest.approx(0.49, abs=0.005)
        assert abs(masks[0].mean(axis=axis) - 0.7).max() < 0.15
    assert (network.forward(x) == x).all(), "predicting must not drop anything"


def test_dropout_masks_are_the_same_on_every_device(device):
    key = layer_keys(mask_keys(5, 7, 1), 1)
    here = dropout(0.5).forward(np.ones((20, 30), np.float32), train=True, keys=key)
    there = dropout(0.5, device=device).forward(
        device.asarray(np.ones((20, 30), np.float32)), train=True, keys=device.asarray(key)
    )
    assert (device.to_host(there) == here).all()


def test_layers_and_steps_draw_different_masks():
    network = Sequential([Dropout(0.5), Dropout(0.5)], dtype="float64")
    x = np.ones((50, 50))
    network.forward(x, train=True, keys=layer_keys([1], 2))
    first, second = (layer.mask.copy() for layer in network.layers)
    assert (first != second).mean() == pytest.approx(0.5, abs=0.05)
    network.forward(x, train=True, keys=layer_keys([2], 2))
    assert (network.layers[0].mask != first).mean() == pytest.approx(0.5, abs=0.05)
    keys = mask_keys(3, 0, 100)
    assert len(set(keys.tolist())) == 100
    assert (mask_keys(3, 40, 60) == keys[40:]).all(), "a key depends on the step alone"


def test_dropout_rates_of_replicas():
    network = dropout([0.0, 0.5], replicas=2)
    y = network.forward(np.ones((40, 50), np.float32), train=True)
    assert (y[0] == 1.0).all()
    assert (y[1] == 0).mean() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="rate has 2 numbers, and the network has no replicas"):
        dropout([0.1, 0.2])


@pytest.mark.parametrize(
    ("rate", "error"),
    [(1.0, ValueError), (-0.1, ValueError), (float("nan"), ValueError), (True, TypeError), ("a", TypeError)],
)
def test_bad_dropout(rate, error):
    with pytest.raises(error, match="rate must be"):
        Dropout(rate)


def test_step_warns_that_nothing_is_learnt(blobs):
    x, y = blobs
    with pytest.warns(UserWarning, match=r"layer 1, Step\(\), has a derivative of zero everywhere: nothing below it"):
        trainer = Trainer(MLP([4, 8, 3], activation="step"), SGD(0.1))
    before = trainer.model.network.layers[0].W.copy()
    trainer.fit(x, y)
    after = trainer.model.network.layers[0].W
    assert (after == before).all()
