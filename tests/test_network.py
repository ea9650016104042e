"""The network's flat vectors: layout, views that survive copying, pickling and assignment, and its checks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from stand_in import Array

from xpnet import MLP, Trainer
from xpnet.nn import INITIALIZERS, Layer, Linear, Parameter, ReLU, Sequential


def network(**options):
    return Sequential([Linear(4, 5), ReLU(), Linear(5, 3)], **options)


def shares_memory(net):
    """Whether every parameter and gradient is a view of the flat vectors."""
    return all(
        np.shares_memory(layer.params[name], net.values) and np.shares_memory(layer.grads[name], net.gradients)
        for layer in net.layers
        for name in layer.params
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("replicas", [None, 3])
def test_layout(replicas, dtype):
    net = network(replicas=replicas, dtype=dtype)
    addresses = [layer.params[name].ctypes.data for layer in net.layers for name in layer.params]
    assert all(address % 64 == 0 for address in addresses)
    assert net.values.strides[0] % 64 == 0 or replicas is None
    weights = [slot for slot in net.layout.slots if slot.parameter.matrix]
    biases = [slot for slot in net.layout.slots if not slot.parameter.matrix]
    assert max(slot.offset + 15 for slot in weights) <= net.layout.decayed <= min(slot.offset for slot in biases)
    # Each element belongs to one parameter, or to a gap that stays zero.
    net.values[...] = 0
    for slot in net.layout.slots:
        slot.view(net.values)[...] += 1
    assert set(np.unique(net.values)) <= {0, 1}
    assert net.values.sum() == (replicas or 1) * (4 * 5 + 5 + 5 * 3 + 3)


@pytest.mark.parametrize("replicas", [None, 3])
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), lambda net: net.to("cpu")]
)
def test_copies_are_whole_and_apart(duplicate, replicas):
    net = network(replicas=replicas)
    net.forward(np.ones((2, 4), dtype=np.float32), train=True)
    twin = duplicate(net)
    assert (twin.values == net.values).all()
    assert shares_memory(twin)
    assert not np.shares_memory(twin.values, net.values)
    assert twin.values.ctypes.data % 64 == 0
    before = net.values.copy()
    twin.layers[0].W += 1.0
    assert (net.values == before).all()
    assert not (twin.values == before).all()
    assert "x" not in vars(twin.layers[0]), "a copy must not hold on to the last batch"


def test_a_copied_layer_belongs_to_no_network():
    net = network()
    layer = copy.deepcopy(net.layers[0])
    with pytest.raises(AttributeError, match="belongs to no network"):
        layer.W  # noqa: B018
    assert Sequential([layer]).out_features == 5


def test_assigning_writes_through(device):
    net = network(device=device)
    layer = net.layers[0]
    view = layer.W
    layer.W = np.full((4, 5), 2.0)
    layer.params["b"] = np.full((1, 5), 3.0)
    layer.W *= 2.0
    layer.params["b"] -= 1.0
    assert layer.W is view
    flat = device.to_host(net.values)
    assert flat.sum() == pytest.approx(20 * 4.0 + 5 * 2.0 + device.to_host(net.layers[2].W).sum(), rel=1e-6)
    net.values = np.zeros_like(flat)
    assert not device.to_host(layer.W).any()


def test_assigning_a_wrong_shape():
    net = network(replicas=2)
    with pytest.raises(ValueError, match=r"W has the shape \(2, 4, 5\), .* \(4, 5\)"):
        net.layers[0].W = np.zeros((4, 5))
    with pytest.raises(ValueError, match="values has the shape"):
        net.values = np.zeros(3)
    with pytest.raises(KeyError):
        net.layers[0].params["Q"] = 1.0


def test_replicas_are_drawn_as_single_networks():
    three = network(replicas=3, seed=7)
    for r in range(3):
        assert (three.values[r] == network(seed=7 + r).values).all()
    chosen = network(replicas=3, seed=[5, 5, 9])
    assert (chosen.values[0] == chosen.values[1]).all()
    assert (chosen.values[2] == network(seed=9).values).all()


def test_layers_are_drawn_apart():
    net = Sequential([Linear(6, 6), Linear(6, 6)])
    assert not np.isclose(net.layers[0].W, net.layers[1].W).any()


def test_float32_and_float64_are_drawn_alike(device):
    single, double = network(device=device), network(dtype="float64", device=device)
    np.testing.assert_allclose(
        device.to_host(single.layers[0].W), device.to_host(double.layers[0].W), rtol=1e-7, atol=1e-9
    )


def test_values_are_the_same_on_every_device(device):
    assert (device.to_host(network(device=device).values) == network().values).all()


def test_moving_between_devices(stand_in):
    net = network(replicas=2)
    there = net.to(stand_in)
    assert isinstance(there.values, Array)
    assert (there.to("cpu").values == net.values).all()


class Scale(Layer):
    """A layer as a stranger would write it: y = k g x, with one parameter g, a row."""

    g = Parameter("weight", matrix=False)

    def __init__(self, k):
        self.k = k

    def shapes(self):
        return {"g": (1, 4)}

    def draw(self, generator):
        return {"g": 1.0}

    def forward(self, x, train):
        self.x = x
        return self.k * self.g * x

    def backward(self, dy):
        self.grads["g"][...] = (self.k * self.x * dy).sum(axis=-2, keepdims=True)
        return self.k * self.g * dy


def test_a_layer_of_ones_own():
    net = Sequential([Scale(2.0), Linear(4, 3)], dtype="float64", replicas=2)
    net.forward(np.ones((5, 4)), train=True)
    net.backward(np.ones((2, 5, 3)))
    assert net.layout.decayed == 16
    twin = pickle.loads(pickle.dumps(net))
    assert twin.layers[0].k == 2.0
    assert "x" not in vars(twin.layers[0])
    assert (twin.values == net.values).all()
    assert (copy.deepcopy(net).layers[0].g == 1.0).all()


class Twice(Layer):
    """A layer that changes the width, and takes any: (x, -x)."""

    def out_features_for(self, in_features):
        return 2 * in_features

    def forward(self, x, train):
        return self.xp.concatenate([x, -x], axis=-1)

    def backward(self, dy):
        half = dy.shape[-1] // 2
        return dy[..., :half] - dy[..., half:]


def test_a_first_layer_that_changes_the_width():
    net = Sequential([Twice(), Linear(8, 3)])
    assert net.in_features is None
    model = MLP.of(net, input_shape=(4,))
    assert model.predict(np.ones((2, 4))).shape == (2, 3)
    assert model.summary().splitlines()[1].split() == ["0", "Twice", "8", "0"]
    with pytest.raises(ValueError, match="input_shape must be given"):
        MLP.of(Sequential([Twice(), Linear(8, 3)]))
    with pytest.raises(ValueError, match="takes 8 features, and would get 10"):
        MLP.of(Sequential([Twice(), Linear(8, 3)]), input_shape=(5,))


class Pool(Layer):
    """A layer that changes the width, and does not say so."""

    def forward(self, x, train):
        return x[..., ::2]

    def backward(self, dy):
        return dy


class NoShapes(Layer):
    """A layer that forgot `shapes`."""

    g = Parameter("weight", matrix=False)

    def forward(self, x, train):
        return self.g * x

    def backward(self, dy):
        return self.g * dy


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        (Pool, ValueError, r"layer 1, Pool\(\), returned 3 features, expected 6: set out_features"),
        (NoShapes, AttributeError, r"layer 1, NoShapes, has no g: its shapes\(\) returns no shape for it"),
    ],
)
@pytest.mark.parametrize("strict", ["1", "0"])
def test_a_mistake_in_a_layer_names_the_layer(layer, error, words, strict, monkeypatch):
    """In prediction and in training, which does not warn first that compiling failed."""
    monkeypatch.setenv("XPNET_STRICT", strict)
    model = MLP.of(Sequential([Linear(4, 6), layer(), Linear(6, 3)]))
    x, y = np.ones((8, 4)), np.zeros(8, dtype=int)
    with pytest.raises(error, match=words):
        model.predict(x)
    with pytest.raises(error, match=words):
        Trainer(model).fit(x, y, steps=2000)


class Doubled(Layer):
    """A layer whose two parameters would have one name in a model file."""

    u = Parameter("weight", matrix=False)
    v = Parameter("weight", matrix=False)

    def shapes(self):
        return {"u": (1, 2), "v": (1, 2)}


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Sequential([Doubled()]), ValueError, "layer 0 has two arrays called 'weight' in model files"),
        (lambda: Sequential([]), ValueError, "at least one layer"),
        (lambda: Sequential([Linear(4, 5), Linear(6, 3)]), ValueError, "layer 1.*takes 6 features, and would get 5"),
        (lambda: Sequential(["relu"]), TypeError, "layer 0 must be a Layer, not 'relu'"),
        (lambda: Sequential([ReLU] * 2), TypeError, "layer 0 must be a Layer"),
        (lambda: network(replicas=0), ValueError, "replicas must be at least 1"),
        (lambda: network(replicas=2.0), TypeError, "replicas.*2.0"),
        (lambda: network(dtype="float16"), ValueError, "dtype.*'float16'"),
        (lambda: network(dtype=np.int8), ValueError, "dtype"),
        (lambda: network(seed=-1), ValueError, "seed.*-1"),
        (lambda: network(seed=2**64), ValueError, "seed"),
        (lambda: network(seed=1.5), TypeError, "seed.*1.5"),
        (lambda: network(seed=[1, 2]), ValueError, "seed"),
        (lambda: network(device="gpu"), ValueError, "device.*'gpu'"),
    ],
)
def test_bad_networks(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_layers_belong_to_one_network():
    layer = Linear(2, 2)
    Sequential([layer])
    with pytest.raises(ValueError, match="already belongs to a network"):
        Sequential([layer])
    with pytest.raises(ValueError, match="already belongs to a network"):
        Sequential([ReLU()] * 2)


@pytest.mark.parametrize("shape", [(4,), (2, 5), (3, 2, 4), (0,)])
def test_bad_input_shapes(shape):
    with pytest.raises(ValueError, match=r"shape \(rows, 4\)"):
        network(replicas=2).forward(np.zeros(shape, dtype=np.float32))


# The variance of each initializer for I = 400 and O = 200, and whether it is uniform.
VARIANCES = {
    "he": (2 / 400, False),
    "he-uniform": (2 / 400, True),
    "xavier": (2 / 600, False),
    "xavier-uniform": (2 / 600, True),
    "lecun": (1 / 400, False),
    "lecun-uniform": (1 / 400, True),
    0.03: (0.03**2, False),
}


def test_every_initializer_is_checked():
    assert set(VARIANCES) - {0.03} == set(INITIALIZERS) - {"zeros"}
    assert not Sequential([Linear(4, 3, "zeros")]).values.any()


@pytest.mark.parametrize("init", VARIANCES)
def test_initializers_by_their_statistics(init):
    """Over 80,000 draws the mean's error is 0.4 % of the deviation, the variance's 0.5 %."""
    variance, uniform = VARIANCES[init]
    W = Sequential([Linear(400, 200, init)], dtype="float64").layers[0].W
    assert abs(W.mean()) < 0.015 * np.sqrt(variance)
    assert W.var() == pytest.approx(variance, rel=0.02)
    beyond = (np.abs(W) > 1.7320509 * np.sqrt(variance)).mean()
    assert beyond == (0.0 if uniform else pytest.approx(0.0833, rel=0.05))


@pytest.mark.parametrize("activation", ["relu", "tanh", "selu"])
def test_activations_keep_their_variance(activation):
    """What the initializers are for: after ten layers the signal has neither died nor exploded."""
    x = np.random.default_rng(0).normal(size=(200, 300))
    y = MLP([300] * 11 + [2], activation=activation, dtype="float64").network
    for layer in y.layers[:-1]:
        x = layer.forward(x, train=False)
    assert 0.1 < x.std() < 3.0


def test_init_is_chosen_by_the_activation():
    def inits(activation, **options):
        return [layer.init for layer in MLP([4, 5, 6, 3], activation=activation, **options).network.layers[::2]]

    assert inits("relu") == ["xavier", "he", "xavier"], "He's between layers of ReLU alone"
    assert inits("relu", init="he") == ["he", "he", "he"]
    assert inits("tanh") == ["xavier", "xavier", "xavier"]
    assert inits(["selu", "gelu"]) == ["lecun", "he", "xavier"]
    assert inits("tanh", init=0.01) == [0.01, 0.01, 0.01]


def test_no_seed_draws_one():
    """Weights of zero could not learn: all units would stay alike."""
    one, other = (Sequential([Linear(5, 16), Linear(16, 2)], seed=None, replicas=2) for _ in range(2))
    assert one.seeds != other.seeds
    assert (one.values != other.values).any(axis=-1).all()
    same = Sequential([Linear(5, 16), Linear(16, 2)], seed=one.seeds, replicas=2)
    assert (same.values == one.values).all()
    model = MLP([5, 16, 2], seed=None)
    assert all(layer.W.any() for layer in model.network.layers[::2])
    assert (MLP([5, 16, 2], seed=model.network.seeds).network.values == model.network.values).all()


def test_what_is_not_drawn_is_zero():
    network = Sequential([Linear(5, 16)], seed=3, draw=False)
    assert not network.values.any()
    assert network.seeds == [3]
