"""The posts' names: their programs run, and what can be worked out by hand comes out."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from programs import needs_llvm
from stand_in import Array

import xpnet
import xpnet.lab
import xpnet.tutorial as t
from xpnet.core.device import CPU

PROGRAMS = Path(__file__).with_name("tutorials")


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.setattr(t, "_chosen", None)
    monkeypatch.delenv("XPNET_DEVICE", raising=False)


def run_program(name, monkeypatch, **replace):
    """Run a program of the posts as it stands, but for constants that make it long; give its names."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    text = (PROGRAMS / f"{name}.py").read_text(encoding="utf-8")
    for old, new in replace.items():
        assert text.count(f"{old} = ") == 1
        start = text.index(f"{old} = ")
        text = f"{text[:start]}{old} = {new}{text[text.index(chr(10), start) :]}"
    names = {}
    exec(compile(text, name, "exec"), names)
    figures = [pyplot.figure(number).axes[0] for number in pyplot.get_fignums()]
    pyplot.close("all")
    return names, figures


def test_post_000(monkeypatch):
    """x0^2 + x1^2: the gradient is 2x; a step of rate 0.1 is a factor of 0.8; 10 diverges, and 1e-10 stays."""
    names, _ = run_program("post_000_gradient_descent", monkeypatch)
    np.testing.assert_allclose(names["gradient"], [-6.0, 8.0], atol=1e-8)
    np.testing.assert_allclose(names["found"], np.array([-3.0, 4.0]) * 0.8**100, atol=1e-13)
    assert np.abs(names["too_large"]).min() > 1e10
    np.testing.assert_allclose(names["too_small"], [-3.0, 4.0], atol=1e-6)
    assert names["init_x"].tolist() == [-3.0, 4.0], "unlike the book's, the start is kept"


def test_post_001(monkeypatch):
    names, figures = run_program("post_001_parabola", monkeypatch)
    factors = [0.98**5, (-1.4) ** 5, 0.8**5, 0.8**50, 0.98**500]
    np.testing.assert_allclose(names["ends"], 4.0 * np.array(factors), rtol=1e-10)
    assert len(figures) == 5


def test_post_002(monkeypatch, mnist_dir, capsys):
    """All four rules learn; the smoothed curves are as long as the losses."""
    np.random.seed(0)  # noqa: NPY002 (the program's own generator)
    names, figures = run_program("post_002_optimizers", monkeypatch, max_iterations=101)
    for key, losses in names["train_loss"].items():
        assert len(losses) == 101
        assert isinstance(losses[0], float)
        assert np.mean(losses[-10:]) < np.mean(losses[:10]), key
    assert np.mean(names["train_loss"]["AdaGrad"][-10:]) < 0.5
    assert [len(line.get_xdata()) for line in figures[0].lines] == [101] * 4
    assert "iteration:100" in capsys.readouterr().out


def test_the_star_import():
    names = {}
    exec("from xpnet.tutorial import *", names)
    assert names["np"] is np
    assert set(t.__all__) <= set(names)


# ---- numerical gradients


@pytest.mark.parametrize("start", [[3, 4], [3.0, 4.0], np.array([3, 4]), np.float32([3, 4])])
def test_starts_of_any_type(start):
    """In the naive form, a step of 1e-4 on whole numbers is lost, and the gradient is nonsense."""
    gradient = t.numerical_gradient(lambda x: (np.asarray(x, dtype=float) ** 2).sum(), start)
    np.testing.assert_allclose(gradient, [6.0, 8.0], rtol=1e-2 if getattr(start, "dtype", None) == np.float32 else 1e-8)
    end = t.gradient_descent(lambda x: (x**2).sum(), start, lr=0.5, step_num=1)
    np.testing.assert_allclose(end, [0.0, 0.0], atol=1e-2)
    assert list(start) == [3, 4]


def test_functions_that_read_what_is_moved():
    """As the book does with a network: f ignores its argument, and reads the array that is moved."""
    w = np.array([[1.0, -2.0], [0.5, 3.0]])
    gradient = t.numerical_gradient(lambda _: (w**3).sum(), w)
    np.testing.assert_allclose(gradient, 3.0 * w**2, atol=1e-6)
    assert w.tolist() == [[1.0, -2.0], [0.5, 3.0]]


@pytest.mark.parametrize("start", [np.array([3, 4]), np.array([True, False]), [3.0, 4.0], (3.0, 4.0), np.float64(3.0)])
def test_functions_that_read_what_had_to_be_copied(start):
    """Their gradient would be zero: what they read stays where it is."""
    with pytest.raises(ValueError, match="f ignores its argument, and x, of the shape .*, was copied"):
        t.numerical_gradient(lambda _: float((np.asarray(start) ** 2).sum()), start)
    with pytest.raises(ValueError, match="f ignores its argument"):
        t.gradient_descent(lambda _: float((np.asarray(start) ** 2).sum()), start)


def test_flat_functions_of_what_was_copied():
    for flat in (lambda x: np.maximum(x, 0).sum(), lambda x: np.floor(x).sum()):
        assert t.numerical_gradient(flat, [-3.5, -2.5]).tolist()[1] == 0.0
    assert t.numerical_gradient(lambda x: 1.0 if x > 0 else 0.0, -3) == 0.0
    assert t.numerical_gradient(lambda _: 1.0, np.array([1.0])).tolist() == [0.0]


def test_numbers_are_points_too():
    """Post 001 starts from 4."""
    for start in (3, 3.0, np.float64(3.0), np.array(3)):
        assert t.numerical_gradient(lambda x: x**2, start) == pytest.approx(6.0)
        assert t.gradient_descent(lambda x: x**2, start, lr=0.1, step_num=5) == pytest.approx(3.0 * 0.8**5)


def test_bad_functions():
    with pytest.raises(ValueError, match="what f returns must be finite, not nan"):
        t.numerical_gradient(lambda x: np.nan, [1.0])
    for bad in (lambda x: x, lambda x: "1", lambda x: None, lambda x: 1j):
        with pytest.raises(ValueError, match="f must return one number, not"):
            t.numerical_gradient(bad, [1.0, 2.0])
    with pytest.raises(TypeError, match="not float16"):
        t.numerical_gradient(lambda x: 0.0, np.float16([1.0]))
    with pytest.raises(ValueError, match="h must be finite and above 0"):
        t.numerical_gradient(lambda x: 0.0, [1.0], h=0)
    with pytest.raises(TypeError, match="x must hold numbers"):
        t.numerical_gradient(lambda x: 0.0, ["a"])
    with pytest.raises(ValueError, match="lr must be finite and above 0"):
        t.gradient_descent(lambda x: 0.0, [1.0], lr=0)
    with pytest.raises(ValueError, match="step_num must be at least 0"):
        t.gradient_descent(lambda x: 0.0, [1.0], step_num=-1)


# ---- functions


def test_functions_by_hand():
    x = np.array([-1.0, 0.0, 2.0])
    assert t.step_function(x).tolist() == [0, 0, 1]
    assert t.relu(x).tolist() == [0.0, 0.0, 2.0]
    np.testing.assert_allclose(t.sigmoid(x), 1.0 / (1.0 + np.exp(-x)), rtol=1e-14)
    np.testing.assert_allclose(t.tanh(x), 2.0 * t.sigmoid(2.0 * x) - 1.0, rtol=1e-14)
    np.testing.assert_allclose(t.softmax([0.3, 2.9, 4.0]), [0.01821127, 0.24519181, 0.73659691], atol=1e-8)
    assert t.softmax([[1e4, 0.0], [0.0, 0.0]]).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert t.identity_function(x) is x
    y = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])  # the book's example
    assert t.sum_squared_error(y, np.eye(10)[2]) == pytest.approx(0.0975)
    assert t.cross_entropy_error(y, np.eye(10)[2]) == pytest.approx(0.510825457099338)
    assert t.cross_entropy_error(np.stack([y, y]), np.array([2, 2])) == pytest.approx(0.510825457099338)


def test_bad_labels_of_a_cross_entropy():
    y = np.full((2, 3), 1 / 3)
    for labels in ([3, 5], [-1, 0], [1]):
        with pytest.raises(ValueError, match="t (must hold whole numbers|has 1 labels)"):
            t.cross_entropy_error(y, labels)
    with pytest.raises(ValueError, match="y must be rows of probabilities"):
        t.cross_entropy_error(0.5, 0)


def test_smooth_curve():
    rng = np.random.default_rng(0)
    flat, noisy = t.smooth_curve([3.0] * 40), t.smooth_curve(rng.normal(size=500))
    np.testing.assert_allclose(flat, 3.0)
    assert (len(flat), len(noisy)) == (40, 500)
    assert noisy.std() < 0.4, "eleven points averaged: about 1 over the root of 11"
    line = t.smooth_curve(np.arange(40.0))
    np.testing.assert_allclose(line[10:30], np.arange(10.0, 30.0), rtol=1e-12), "it does not shift"
    with pytest.raises(ValueError, match="a curve of 5 points is too short"):
        t.smooth_curve([1.0] * 5)


# ---- update rules

FIRST = {  # x = 1, gradient 2, lr 0.1: by hand
    "SGD": 1.0 - 0.1 * 2.0,
    "Momentum": 1.0 - 0.1 * 2.0,
    "Nesterov": 1.0 - 0.1 * (2.0 + 0.9 * 2.0),
    "AdaGrad": 1.0 - 0.1 * 2.0 / (2.0 + 1e-7),
    "RMSprop": 1.0 - 0.1 * 2.0 / (0.2 + 1e-7),  # h = 0.01 * 4
    "Adam": 1.0 - 0.1 * 2.0 / (2.0 + 1e-8),
}


@pytest.mark.parametrize("name", FIRST)
def test_first_updates(name):
    params, grads = {"x": np.array([1.0])}, {"x": np.array([2.0])}
    kept = params["x"]
    rule = getattr(t, name)(lr=0.1)
    rule.update(params, grads)
    assert params["x"][0] == pytest.approx(FIRST[name], rel=1e-12)
    assert params["x"] is kept, "changed in place"
    assert grads["x"].tolist() == [2.0]
    if name == "Momentum":
        rule.update(params, grads)
        assert params["x"][0] == pytest.approx(0.8 - 0.1 * (2.0 + 0.9 * 2.0))
        rule.lr = 1e-300  # as programs do
        before = params["x"][0]
        rule.update(params, grads)
        assert params["x"][0] == before


def test_settings_can_be_read_and_changed():
    """As with lr: after a step at momentum 0.9 comes one without."""
    rule, params = t.Momentum(0.1), {"x": np.array([0.0])}
    assert (rule.lr, rule.momentum, t.Adam().beta1, t.RMSprop().decay_rate) == (0.1, 0.9, 0.9, 0.99)
    rule.update(params, {"x": np.array([1.0])})
    rule.momentum = 0.0
    rule.update(params, {"x": [1.0]})
    assert params["x"][0] == pytest.approx(-0.2)
    rule.momentum = 1.0
    with pytest.raises(ValueError, match="momentum must be finite and at least 0 and below 1"):
        rule.update(params, {"x": np.array([1.0])})


def test_a_refused_update_changes_nothing():
    params = {"a": np.ones(2), "b": np.ones(2)}
    rule = t.Momentum(0.1)
    for grads, words in (({"a": np.ones(2), "b": np.ones(3)}, "shape"), ({"a": np.ones(2)}, "grads has no 'b'")):
        with pytest.raises((KeyError, ValueError), match=words):
            rule.update(params, grads)
        assert params["a"].tolist() == [1.0, 1.0]
    rule.update(params, {"a": np.ones(2), "b": np.ones(2)})
    with pytest.raises(ValueError, match=r"params\['a'\] has the shape \(3,\), and had \(2,\): use a new optimizer"):
        rule.update({"a": np.ones(3)}, {"a": np.ones(3)})
    for scalar in (1.0, [1.0], np.float64(1.0)):
        with pytest.raises(TypeError, match=r"params\['x'\] must be an array of floats"):
            t.SGD().update({"x": scalar}, {"x": 1.0})


def test_bad_updates():
    with pytest.raises(TypeError, match=r"params\['x'\] must be an array of floats, not array"):
        t.SGD().update({"x": np.array([1])}, {"x": np.array([1.0])})
    with pytest.raises(ValueError, match=r"grads\['x'\] has the shape \(2,\)"):
        t.SGD().update({"x": np.array([1.0])}, {"x": np.array([1.0, 2.0])})
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="finite and above 0"):
            t.SGD(lr=bad)


# ---- networks


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "sigmoid", "weight_init_std": "xavier"},
        {"weight_decay_lambda": 0.3},
        {"use_batchnorm": True, "activation": "tanh"},
        {"use_dropout": True, "dropout_ration": 0.4, "activation": "tanh"},
    ],
)
def test_backpropagation_against_numerical_gradients(options, rng):
    net = t.MultiLayerNet(4, [5, 6], 3, seed=1, **options)
    x, labels = rng.normal(size=(7, 4)), np.arange(7) % 3
    before = net.network.snapshot()
    numeric, exact = net.numerical_gradient(x, labels), net.gradient(x, labels)
    assert list(exact) == list(net.params) == list(numeric)
    for name in exact:
        np.testing.assert_allclose(exact[name], numeric[name], atol=1e-6, err_msg=name)
    assert (net.network.values == before[0]).all()


def test_names_and_views():
    net = t.MultiLayerNet(4, [5], 3, use_batchnorm=True, seed=0)
    assert {name: view.shape for name, view in net.params.items()} == {
        "W1": (4, 5), "b1": (5,), "gamma1": (5,), "beta1": (5,), "W2": (5, 3), "b2": (3,),
    }  # fmt: skip
    net.params["b1"] += 1.0
    net.params["W2"] = np.ones((5, 3))
    net.params["b2"] -= 2.0 * np.ones(3)
    assert net.network.layers[0].b.tolist() == [[1.0] * 5]
    assert net.network.layers[3].W.tolist() == [[1.0] * 3] * 5
    assert net.predict(np.zeros(4)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"params\['b1'\] has the shape \(5,\), and what is assigned \(1, 5\)"):
        net.params["b1"] = np.zeros((1, 5))
    with pytest.raises(KeyError, match="there is no parameter 'w1': did you mean 'W1'?"):
        net.params["w1"] = 0.0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_train(duplicate, rng):
    """What was learnt goes along; the copy's parameters are its own, and are those that it trains."""
    x, labels = rng.normal(size=(30, 4)), np.arange(30) % 3
    net = t.MultiLayerNet(4, [9], 3, seed=0, use_batchnorm=True)
    twin = duplicate(net)
    before = net.loss(x, labels)
    assert twin.loss(x, labels) == before
    rule = t.Adam(0.05)
    for _ in range(50):
        rule.update(twin.params, twin.gradient(x, labels))
    assert twin.loss(x, labels) < 0.8 * before
    assert net.loss(x, labels) == before
    net.params = twin.params.copy()
    net.network.buffers = twin.network.buffers
    assert net.loss(x, labels) == twin.loss(x, labels)
    with pytest.raises(ValueError, match="params must have W1, b1, gamma1, beta1, W2, b2, and what is assigned has W1"):
        net.params = {"W1": net.params["W1"]}
    assert repr(net.params).startswith("Params(W1 (4, 9), b1 (9,)")


def test_a_single_example(rng):
    net = t.MultiLayerNet(4, [5], 3, seed=0)
    x = rng.normal(size=4)
    assert net.loss(x, np.eye(3)[1]) == net.loss(x, 1) == net.loss(x[None], [1])
    assert net.accuracy(x, np.eye(3)[1]) in (0.0, 1.0)


def test_initial_deviations_and_seeds():
    for std, expected in (("relu", (2 / 500) ** 0.5), ("sigmoid", (1 / 500) ** 0.5), (0.01, 0.01)):
        net = t.MultiLayerNet(500, [400], 3, weight_init_std=std, seed=0)
        assert net.params["W1"].std() == pytest.approx(expected, rel=0.02)
    np.random.seed(5)  # noqa: NPY002
    one, other = t.MultiLayerNet(4, [5], 3), t.MultiLayerNet(4, [5], 3)
    np.random.seed(5)  # noqa: NPY002
    again = t.MultiLayerNet(4, [5], 3)
    assert (one.params["W1"] == again.params["W1"]).all()
    assert (one.params["W1"] != other.params["W1"]).any()


def test_loss_and_accuracy(rng):
    net = t.MultiLayerNet(4, [5], 3, weight_decay_lambda=0.5, seed=0)
    x, labels = rng.normal(size=(6, 4)), np.arange(6) % 3
    p = t.softmax(net.predict(x))
    decay = 0.25 * sum((net.params[name] ** 2).sum() for name in ("W1", "W2"))
    assert net.loss(x, labels) == pytest.approx(-np.log(p[np.arange(6), labels]).mean() + decay, rel=1e-12)
    assert net.loss(x, np.eye(3)[labels]) == pytest.approx(net.loss(x, labels), rel=1e-12)
    assert net.accuracy(x, labels) == net.accuracy(x, np.eye(3)[labels]) == (p.argmax(axis=1) == labels).mean()
    with pytest.raises(ValueError, match="t must hold whole numbers from 0 to 2: row 0 is 3"):
        net.loss(x, labels + 3)


def test_dropout_draws_anew_for_each_gradient_alone(rng):
    net = t.MultiLayerNet(4, [50], 3, use_dropout=True, seed=0)
    x, labels = rng.normal(size=(6, 4)), np.arange(6) % 3
    assert (net.predict(x, train_flg=True) == net.predict(x, train_flg=True)).all()
    one, other = net.gradient(x, labels), net.gradient(x, labels)
    assert (one["W2"] != other["W2"]).any()
    assert net.loss(x, labels) == net.loss(x, labels)


@needs_llvm
def test_compiled_and_eager_calls_agree(monkeypatch, rng):
    """Losses, gradients, masks and running statistics of a batch, for rows and targets of each type."""
    options = {"use_batchnorm": True, "use_dropout": True, "weight_decay_lambda": 0.1, "seed": 3}
    x, labels = rng.normal(size=(20, 6)), np.arange(20) % 3
    nets = {"compiled": t.MultiLayerNet(6, [9, 7], 3, **options), "eager": t.MultiLayerNet(6, [9, 7], 3, **options)}
    for rows, targets in ((x, labels), (x.astype(np.float32), np.eye(3)[labels]), ((x > 0).astype(np.uint8), labels)):
        found = {}
        for name, net in nets.items():
            with monkeypatch.context() as patch:
                if name == "eager":
                    patch.setattr(t, "why_not_compiled", lambda: "it was switched off")
                    patch.setattr(t, "SEVERAL_THREADS", 0)
                found[name] = net.loss(rows, targets), net.gradient(rows, targets).flat, net.network.buffers.copy()
        for one, other in zip(*found.values(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
    assert all(one is not None and one.compiled for one in nets["compiled"]._compiled._executables.values())
    assert len(nets["compiled"]._compiled._executables) == 4
    assert not nets["eager"]._compiled._executables


def test_settings_of_compiled_calls_can_be_changed(rng):
    x, labels = rng.normal(size=(20, 4)), np.arange(20) % 3
    net = t.MultiLayerNet(4, [9], 3, use_dropout=True, weight_decay_lambda=0.1, seed=0)
    before = net.gradient(x, labels)["W1"]
    net.weight_decay_lambda = 0.0
    net._steps = 0
    assert np.abs(before - net.gradient(x, labels)["W1"] - 0.1 * net.params["W1"]).max() < 1e-12
    net.network.layers[2].rate, net._steps = 0.9, 0
    assert np.abs(before - net.gradient(x, labels)["W1"] - 0.1 * net.params["W1"]).max() > 1e-3


@pytest.mark.parametrize("name", FIRST)
def test_updates_of_a_network_and_of_its_arrays_agree(name, monkeypatch, rng):
    """One vector compiled, arrays compiled one by one, and eagerly; and a rule may go over from one to the other."""
    x, labels = rng.normal(size=(20, 4)), np.arange(20) % 3
    ends = []
    for how in ("vector", "arrays", "eager", "first vector, then arrays", "first arrays, then vector"):
        net, rule = t.MultiLayerNet(4, [9], 3, seed=0), getattr(t, name)(0.01)
        monkeypatch.setattr(t.runner, "BREAK_EVEN_ELEMENTS", 10**9 if how == "eager" else 0)
        for i in range(6):
            grads = net.gradient(x, labels)
            apart = how in ("arrays", "eager") or ((how.startswith("first")) and (i >= 3) is how.endswith("arrays"))
            rule.update(dict(net.params) if apart else net.params, dict(grads) if apart else grads)
        ends.append(net.network.values)
    for end in ends:
        np.testing.assert_allclose(end, ends[2], rtol=1e-11, atol=1e-14)
    assert (net.network.values != t.MultiLayerNet(4, [9], 3, seed=0).network.values).any()
    twin = copy.deepcopy(rule)
    twin.update(net.params, net.gradient(x, labels))
    if name == "SGD":  # it has no state
        return
    other = t.MultiLayerNet(5, [9], 3)
    with pytest.raises(ValueError, match=r"params\['W1'\] has the shape \(5, 9\), and had \(4, 9\): use a new"):
        rule.update(other.params, other.gradient(rng.normal(size=(2, 5)), [0, 1]))


def test_a_network_as_a_model_of_the_library(tmp_path, rng):
    net = t.MultiLayerNet(4, [9, 8], 3, seed=0, use_batchnorm=True, dtype="float32")
    x, labels = rng.normal(size=(20, 4)).astype(np.float32), np.arange(20) % 3
    net.gradient(x, labels)
    net.save(tmp_path / "net.safetensors", class_names=["a", "b", "c"])
    model = xpnet.MLP.load(tmp_path / "net.safetensors")
    assert model.class_names == ("a", "b", "c")
    np.testing.assert_allclose(model.predict(x), t.softmax(net.predict(x)), rtol=1e-5)
    twin = net.to_mlp(input_scale=2.0)
    np.testing.assert_allclose(twin.predict(2.0 * x), model.predict(x), rtol=1e-5)
    before = net.network.values.copy()
    xpnet.Trainer(twin, xpnet.Adam()).fit(x, labels, epochs=2)
    assert (net.network.values == before).all(), "a copy"
    assert repr(net) == ("MultiLayerNet(4, [9, 8], 3): Linear BatchNorm ReLU; 186 parameters, float32, on cpu")


def test_the_librarys_trainer_says_which_rule_and_model_are_meant():
    for rule, words in (
        (t.Adam(), "xpnet.optim.Adam(learning_rate=0.001, beta1=0.9, beta2=0.999)"),
        (t.RMSprop(0.1), "xpnet.optim.RMSprop(learning_rate=0.1, alpha=0.99)"),
        (t.SGD(), "xpnet.optim.SGD(learning_rate=0.01)"),
    ):
        with pytest.raises(TypeError) as error:
            xpnet.Trainer(xpnet.MLP([2, 2]), rule)
        message = f"not {rule!r} of xpnet.tutorial, which updates dictionaries of arrays: use {words}"
        assert str(error.value) == f"optimizer must be an Optimizer, {message}"
        with pytest.raises(TypeError, match="updates dictionaries of arrays: use xpnet"):
            xpnet.lab.descend(lambda points: points[..., 0] ** 2, [1.0], rule, 1)
        xpnet.Trainer(xpnet.MLP([2, 2]), eval(words))
        with pytest.raises(TypeError, match="params must be a dictionary of arrays") as error:
            rule.update(xpnet.MLP([2, 2]), {})
        assert str(error.value).endswith(f": xpnet.Trainer trains an MLP, with {words}")
    with pytest.raises(
        TypeError, match=r"model must be an MLP, not MultiLayerNet\(2, \[3\], 2\).*: pass what its to_mlp\(\) returns"
    ):
        xpnet.Trainer(t.MultiLayerNet(2, [3], 2))


# ---- the book's layers, its small network and its trainer


def test_layers_against_numerical_gradients(rng):
    """Affine, Relu and SoftmaxWithLoss in a row, as in the book's fifth chapter, for labels and one-hot rows."""
    params = {
        "W1": rng.normal(size=(12, 5)),
        "b1": rng.normal(size=5),
        "W2": rng.normal(size=(5, 3)),
        "b2": np.zeros(3),
    }
    affine1, relu = t.Affine(params["W1"], params["b1"]), t.Relu()
    affine2, last = t.Affine(params["W2"], params["b2"]), t.SoftmaxWithLoss()
    x, labels = rng.normal(size=(4, 3, 2, 2)), np.array([0, 2, 1, 1])
    for targets in (labels, np.eye(3)[labels]):

        def loss(_=None, targets=targets):
            return last.forward(affine2.forward(relu.forward(affine1.forward(x))), targets)

        assert loss() == last.loss == pytest.approx(t.cross_entropy_error(last.y, labels), rel=1e-4)
        dx = affine1.backward(relu.backward(affine2.backward(last.backward())))
        assert dx.shape == x.shape
        np.testing.assert_allclose(dx, t.numerical_gradient(loss, x), atol=1e-6)
        for name, exact in (("W1", affine1.dW), ("b1", affine1.db), ("W2", affine2.dW), ("b2", affine2.db)):
            np.testing.assert_allclose(exact, t.numerical_gradient(loss, params[name]), atol=1e-6, err_msg=name)
    single = t.SoftmaxWithLoss()
    assert single.forward([0.3, 2.9, 4.0], 2) == pytest.approx(-np.log(0.73659691 + 1e-7))
    np.testing.assert_allclose(single.backward(), [0.01821127, 0.24519181, 0.73659691 - 1.0], atol=1e-8)
    dout = np.ones((1, 2))
    relu.forward(np.array([[-1.0, 2.0]]))
    assert relu.backward(dout).tolist() == [[0.0, 1.0]]
    assert dout.tolist() == [[1.0, 1.0]], "unlike the book's, it is left unchanged"


def test_layers_say_what_they_miss():
    affine = t.Affine(np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="x must have 3 features in each row, not 4"):
        affine.forward(np.ones((5, 4)))
    for backward in (affine.backward, t.Relu().backward, t.SoftmaxWithLoss().backward):
        with pytest.raises(ValueError, match=r"^\w+: call forward before backward$"):
            backward(np.ones((5, 2)))


def test_two_layers_and_the_books_loop(rng):
    """The loop of the fifth chapter: gradient, and `network.params[key] -= rate * grad[key]`."""
    x = rng.normal(size=(200, 4))
    labels = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    net = t.TwoLayerNet(input_size=4, hidden_size=20, output_size=3, seed=0)
    assert list(net.params) == ["W1", "b1", "W2", "b2"]
    assert t.TwoLayerNet(500, 400, 3).params["W1"].std() == pytest.approx(0.01, rel=0.02)
    before = net.loss(x, labels)
    for _ in range(300):
        grad = net.gradient(x, labels)
        for key in ("W1", "b1", "W2", "b2"):
            net.params[key] -= 0.5 * grad[key]
    assert net.loss(x, labels) < 0.3 * before
    assert net.accuracy(x, labels) > 0.9
    old = t.TwoLayerNet(4, 5, 3, 1.0, activation="sigmoid", seed=0)
    hidden = t.sigmoid(x @ old.params["W1"] + old.params["b1"])
    np.testing.assert_allclose(old.predict(x), hidden @ old.params["W2"] + old.params["b2"], rtol=1e-12)
    assert repr(old).startswith("TwoLayerNet(4, [5], 3): Linear Sigmoid; ")


def test_the_books_trainer(rng, capsys):
    x = rng.normal(size=(300, 4))
    labels = (x[:, 0] > 0).astype(int)
    net = t.MultiLayerNet(4, [20], 2, seed=0)
    np.random.seed(0)  # noqa: NPY002
    trainer = t.Trainer(
        net, x[:200], labels[:200], x[200:], labels[200:], epochs=8, mini_batch_size=20, optimizer="adam",
        optimizer_param={"lr": 0.01}, evaluate_sample_num_per_epoch=50, verbose=True,
    )  # fmt: skip
    trainer.train()
    assert len(trainer.train_loss_list) == trainer.current_iter == 80
    assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == 9
    assert trainer.test_acc_list[-1] == net.accuracy(x[200:250], labels[200:250]) > 0.9
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-2].startswith("epoch 8/8: train loss 0.")
    assert lines[-1] == f"final test accuracy {net.accuracy(x[200:], labels[200:]):.4f}"
    trainer.train()
    assert trainer.current_iter == 80, "all epochs are done"


def test_bad_trainers():
    x, labels = np.zeros((4, 2)), np.zeros(4, int)
    with pytest.raises(ValueError, match="optimizer must be the name of a rule, not 'Adan': did you mean 'Adam'"):
        t.Trainer(t.TwoLayerNet(2, 3, 2), x, labels, x, labels, optimizer="Adan")
    with pytest.raises(ValueError, match="optimizer must be the name of a rule, not Adam"):
        t.Trainer(t.TwoLayerNet(2, 3, 2), x, labels, x, labels, optimizer=t.Adam())
    with pytest.raises(
        TypeError, match="network must be a MultiLayerNet or TwoLayerNet, not MLP.*: xpnet.Trainer trains"
    ):
        t.Trainer(xpnet.MLP([2, 2]), x, labels, x, labels)
    with pytest.raises(ValueError, match="x_test has 4 rows, and t_test 3"):
        t.Trainer(t.TwoLayerNet(2, 3, 2), x, labels, x, labels[:3])


def test_bad_networks():
    with pytest.raises(ValueError, match="x must have 4 features in each row, not 5"):
        t.MultiLayerNet(4, [5], 3).gradient(np.zeros((2, 5)), [0, 1])
    with pytest.raises(ValueError, match="unknown activation 'rellu': did you mean 'relu'"):
        t.MultiLayerNet(4, [5], 3, activation="rellu")
    with pytest.raises(ValueError, match="weight_init_std must be a number, or one of relu, he, sigmoid, xavier"):
        t.MultiLayerNet(4, [5], 3, weight_init_std="xaver")
    with pytest.raises(ValueError, match="dropout_ration|rate must be"):
        t.MultiLayerNet(4, [5], 3, use_dropout=True, dropout_ration=1.0)


# ---- devices and data


def test_the_device_is_chosen_once(second, monkeypatch, rng):
    """Networks follow it, arrays of the host go in, losses are floats; and the numbers are NumPy's."""
    x, labels = rng.normal(size=(6, 4)), np.arange(6) % 3
    here = t.MultiLayerNet(4, [5], 3, seed=0, use_batchnorm=True)
    monkeypatch.setattr(t, "get_device", lambda name: CPU if name == "cpu" else second)
    assert t.use("cuda") is second
    there = t.MultiLayerNet(4, [5], 3, seed=0, use_batchnorm=True)
    assert isinstance(there.params["W1"], Array)
    for rows, truth in ((x, labels), (second.asarray(x), second.asarray(labels))):
        for net, rule in ((here, t.Adam()), (there, t.Adam())):
            rule.update(net.params, net.gradient(x if net is here else rows, labels if net is here else truth))
        assert isinstance(there.loss(rows, truth), float)
        assert there.loss(rows, truth) == pytest.approx(here.loss(x, labels), rel=1e-9), "compiled here, eager there"
        assert there.accuracy(rows, truth) == here.accuracy(x, labels)
    np.testing.assert_allclose(second.to_host(there.params["W1"]), here.params["W1"], atol=1e-9)
    there.params["b1"] = np.ones(5)
    assert second.to_host(there.params["b1"]).tolist() == [1.0] * 5
    start = second.asarray(np.array([3.0, 4.0]))
    end = t.gradient_descent(lambda v: float((v * v).sum()), start, lr=0.1, step_num=3)
    assert isinstance(end, Array)
    np.testing.assert_allclose(second.to_host(end), np.array([3.0, 4.0]) * 0.8**3, atol=1e-9)


def test_the_environment_chooses_too(monkeypatch):
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    assert t.MultiLayerNet(2, [], 2).network.device.name == "cpu"
    monkeypatch.setattr(t, "_chosen", None)
    monkeypatch.setenv("XPNET_DEVICE", "gpu")
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N, not 'gpu'"):
        t.MultiLayerNet(2, [], 2)


def test_load_mnist(mnist_dir, stand_in, monkeypatch):
    (x_train, t_train), (x_test, t_test) = t.load_mnist()
    assert (x_train.shape, x_train.dtype, float(x_train.max())) == ((60000, 784), np.float32, 1.0)
    assert (t_train.shape, x_test.shape) == ((60000,), (10000, 784))
    (raw, onehot), _ = t.load_mnist(normalize=False, flatten=False, one_hot_label=True)
    assert (raw.shape, raw.dtype, onehot.shape) == ((60000, 1, 28, 28), np.uint8, (60000, 10))
    assert (onehot.argmax(axis=1) == t_train).all()
    monkeypatch.setattr(t, "_chosen", stand_in)
    (there, _), _ = t.load_mnist()
    assert isinstance(there, Array)
    assert t_test[0] == 7
