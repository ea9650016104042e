"""Layers, losses and networks against central differences, in float64, on every device, at R = none, 1 and 3."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.nn import ACTIVATIONS, LAYERS, LOSSES, Linear, ReLU, Sequential, SoftmaxCrossEntropy, numerical_gradient

B, I, O = 5, 4, 3  # noqa: E741 (the axis alphabet)
REPLICAS = [None, 1, 3]

# How each layer is made for these tests; a new layer has to be added here, or test_every_layer_is_checked fails.
MAKE = {"Linear": lambda: Linear(I, O), "ReLU": ReLU}
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
    assert set(MAKE) == set(LAYERS)
    assert set(ACTIVATIONS.values()) <= set(LAYERS.values())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("replicas", REPLICAS)
@pytest.mark.parametrize("name", MAKE)
def test_layer_gradients(name, replicas, layout, device, rng):
    """For a random direction v, d(sum v y)/dx and d(sum v y)/d(parameters) are what backward says."""
    layer = MAKE[name]()
    network = Sequential([layer], replicas=replicas, dtype="float64", device=device)
    network.values = rng.normal(size=network.values.shape)
    x_host = rng.normal(size=(*lead(replicas), B, I))
    x = put(device, x_host, layout)
    y = layer.forward(x, train=True)
    v = put(device, rng.normal(size=y.shape), layout)
    v_host = device.to_host(v).copy()

    dx = layer.backward(v)
    analytic = network.gradients.copy()

    def f():
        return float((layer.forward(x, train=False) * v).sum())

    np.testing.assert_allclose(device.to_host(dx), device.to_host(numerical_gradient(f, x)), atol=1e-8)
    if name == "Linear":
        numeric = device.to_host(numerical_gradient(f, network.values))
        np.testing.assert_allclose(device.to_host(analytic), numeric, atol=1e-8)
    assert (device.to_host(x) == x_host).all(), "forward or backward has changed its input"
    assert (device.to_host(v) == v_host).all(), "backward has changed its input"
    assert y.dtype == dx.dtype == "float64"


@pytest.mark.parametrize("weights", ["none", "shared", "per replica"])
@pytest.mark.parametrize("replicas", REPLICAS)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients(name, replicas, weights, device, rng):
    loss = LOSSES[name]()
    if weights == "per replica" and replicas is None:
        pytest.skip("one network has no replica axis")
    z_host = rng.normal(size=(*lead(replicas), B, O))
    z, t = device.asarray(z_host), device.asarray(np.arange(B) % O)
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
    assert (device.to_host(z) == z_host).all()


@pytest.mark.parametrize("replicas", REPLICAS)
def test_network_gradients(replicas, device, rng):
    """The whole network with its loss, and the gradient with respect to its input."""
    network = Sequential([Linear(I, 6), ReLU(), Linear(6, O)], replicas=replicas, dtype="float64", device=device)
    network.values = rng.normal(size=network.values.shape)
    x, t = device.asarray(rng.normal(size=(B, I))), device.asarray(np.arange(B) % O)
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
        ((0, 3), ValueError, "inputs"),
        ((3, -1), ValueError, "outputs"),
        ((3, 2.0), TypeError, "outputs"),
        ((3, True), TypeError, "outputs"),
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
    with pytest.raises(TypeError, match="int64"):
        numerical_gradient(f, np.array([1, 2]))
