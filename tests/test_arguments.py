"""Arguments as people pass them: whatever holds numbers, names, pairs and paths will do, and the answer is the same."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import xpnet
from xpnet import (
    MLP,
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Buffer,
    Config,
    Dataset,
    Dropout,
    Linear,
    Loss,
    Momentum,
    Optimizer,
    Parameter,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Trainer,
    evaluate,
    get_device,
    load_digits,
    metrics,
    schedules,
    standard_scaling,
    tutorial,
)
from xpnet.core.checks import check_float, check_floats, check_int, elements, float_type, path_of
from xpnet.core.errors import did_you_mean
from xpnet.model.model_file import description
from xpnet.nn import ACTIVATIONS, BinaryCrossEntropy, Huber, numerical_gradient
from xpnet.optim import OPTIMIZERS, SCHEDULES


def with_pandas(kind):
    return lambda values: getattr(pytest.importorskip("pandas"), kind)(list(values))


def with_polars(kind):
    return lambda values: getattr(pytest.importorskip("polars"), kind)(list(values))


SEQUENCES = {
    "list": list,
    "tuple": tuple,
    "array": lambda values: np.array(list(values)),
    "object array": lambda values: np.array(list(values), dtype=object),
    "generator": lambda values: (value for value in values),
    "dictionary's values": lambda values: dict(enumerate(values)).values(),
    "dictionary's keys": lambda values: dict.fromkeys(values).keys(),
    "pandas Series": with_pandas("Series"),
    "pandas Index": with_pandas("Index"),
    "Polars Series": with_polars("Series"),
}
TABLES = {
    "lists": lambda x: [list(row) for row in x],
    "tuples": lambda x: tuple(tuple(row) for row in x),
    "array": lambda x: x,
    "other order": np.asfortranarray,
    "big-endian": lambda x: x.astype(">f8"),
    "objects": lambda x: x.astype(object),
    "pandas": with_pandas("DataFrame"),
    "Polars": lambda x: pytest.importorskip("polars").DataFrame(x),
}
INTEGERS = [3, np.int64(3), np.uint8(3), np.array(3)]
NUMBERS = [0.5, np.float32(0.5), np.float16(0.5), np.array(0.5), np.float64(0.5), Fraction(1, 2), Decimal("0.5")]
TYPES = ["float32", np.float32, np.dtype("float32"), np.zeros(1, "float32").dtype, "f4", np.dtype(">f4")]

sequence = pytest.mark.parametrize("make", SEQUENCES.values(), ids=SEQUENCES)
table = pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)


# --- checks


@sequence
def test_elements(make):
    assert elements(make([1, 2])) == [1, 2]
    assert elements(make(["no", "yes"])) == ["no", "yes"]


@pytest.mark.parametrize("value", ["12", b"12", 12, 1.5, None, {1: 2}, {1, 2}, np.array(1), np.float32(1), Linear, len])
def test_what_has_no_elements(value):
    assert elements(value) is None


@pytest.mark.parametrize("value", INTEGERS, ids=repr)
def test_whole(value):
    assert check_int("n", value) == 3
    assert type(check_int("n", value)) is int


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_number(value):
    assert check_float("n", value) == 0.5
    assert type(check_float("n", value)) is float


@pytest.mark.parametrize(
    "value",
    ["1", b"1", True, np.True_, None, 1j, np.complex64(1), np.array("1"), np.array([1]), [1], np.datetime64(1, "D")],
)
def test_no_numbers(value):
    with pytest.raises(TypeError, match="^n must be a number, not "):
        check_float("n", value)
    with pytest.raises(TypeError, match="^n must be a whole number, not "):
        check_int("n", value)


def test_a_long_value_is_cut_off():
    with pytest.raises(TypeError) as caught:
        check_int("n", np.zeros((20, 20)))
    assert len(str(caught.value)) < 120
    assert "\n" not in str(caught.value)


@sequence
def test_numbers(make):
    assert check_floats("n", make([1.0, 2.5])) == [1.0, 2.5]


@pytest.mark.parametrize("value", TYPES, ids=repr)
def test_types(value):
    assert float_type("dtype", value) == "float32"
    assert MLP([2, 2], dtype=value).network.dtype == "float32"
    assert Sequential([Linear(2, 2)], dtype=value).dtype == "float32"
    assert Config(dtype=value) == Config(dtype="float32")


@pytest.mark.parametrize("value", ["Float32", "float16", "int", int, None, 32, [np.float32], np.dtype("i4")], ids=repr)
def test_no_types(value):
    for make in (lambda: MLP([2, 2], dtype=value), lambda: Config(dtype=value)):
        with pytest.raises(ValueError, match="^dtype must be float32 or float64, not "):
            make()


def test_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert path_of("~/a") == tmp_path / "a"
    assert path_of("~no-such-user.npz").name == "~no-such-user.npz"
    assert path_of(tmp_path) == tmp_path
    model = MLP([2, 2])
    model.save("~/model")
    assert (MLP.load("~/model").network.values == model.network.values).all()
    assert Config(dataset=tmp_path / "x", data_dir=tmp_path) == Config(dataset=f"{tmp_path}/x", data_dir=str(tmp_path))


# --- names


KNOWN = {"activation": ACTIVATIONS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}


@pytest.mark.parametrize("change", [str.upper, str.title, lambda name: name.replace("-", "_").swapcase()])
@pytest.mark.parametrize("option", KNOWN)
def test_names_are_found_in_any_case(option, change):
    for name in KNOWN[option]:
        if change(name) != name:
            with pytest.raises(ValueError, match=f"^unknown {option} '{change(name)}': did you mean '{name}'"):
                Config(**{option: change(name)})


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [("ReLU", ACTIVATIONS, "relu"), ("MNIST", ("mnist", "digits"), "mnist"), ("w1", ("W1", "b1"), "W1")],
)
def test_suggestions_are_spelt_as_they_are_known(word, known, found):
    assert did_you_mean(word, known) == f"did you mean {found!r}?"


@sequence
def test_class_names(make):
    for names in (["no", "yes"], [0, 1]):
        model = MLP([3, 2], class_names=make(names))
        assert model.class_names == tuple(map(str, names))
        assert all(type(name) is str for name in model.class_names)
    assert MLP([3, 2], task="multilabel", class_names=make(["a", "b"])).class_names == ("a", "b")
    assert MLP.of(Sequential([Linear(3, 2)]), class_names=make(["a", "b"])).class_names == ("a", "b")


def test_class_names_as_bytes():
    assert MLP([3, 2], class_names=np.array([b"no", "네".encode()])).class_names == ("no", "네")


@pytest.mark.parametrize("names", ["ab", 3, {"a", "b"}, {"a": 1, "b": 2}, np.array("ab")])
def test_no_class_names(names):
    with pytest.raises(TypeError, match="^class_names must be a sequence of names, not "):
        MLP([3, 2], class_names=names)


# --- models


def described(model):
    return description(model.network, model.loss) | model.settings()


@sequence
@pytest.mark.parametrize(
    "argument",
    [
        {"sizes": [4, 8, 5, 3]},
        {"sizes": [4, 8, 5, 3], "activation": ["relu", "tanh"]},
        {"sizes": [4, 3], "input_shape": [4, 1]},
        {"sizes": [4, 3], "input_shift": [1.0, 2.0, 3.0, 4.5], "input_scale": [1.5, 2.0, 3.0, 4.0]},
        {"sizes": [4, 2], "task": "regression", "target_shift": [1.0, 2.5], "target_scale": [1.5, 2.0]},
        {"sizes": [4, 5, 3], "replicas": 2, "seed": [3, 5], "dropout": [0.5, 0.25]},
    ],
    ids=lambda argument: " ".join(argument),
)
def test_sequences_of_a_model(make, argument):
    usual = MLP(**argument)
    model = MLP(**{name: make(value) if isinstance(value, list) else value for name, value in argument.items()})
    assert described(model) == described(usual)
    assert (model.network.values == usual.network.values).all()


@pytest.mark.parametrize("value", INTEGERS, ids=repr)
def test_whole_numbers_of_a_model(value):
    usual = MLP([3, 3, 3], replicas=3, seed=3, input_shape=3)
    model = MLP([value] * 3, replicas=value, seed=value, input_shape=value)
    assert described(model) == described(usual)
    assert (model.network.values == usual.network.values).all()
    assert repr(Linear(value, value)) == repr(Linear(3, 3))
    assert repr(BatchNorm(value)) == repr(BatchNorm(3))


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_numbers_of_a_model(value):
    options = ("dropout", "init", "input_scale", "input_shift")
    model, usual = (MLP([3, 3, 3], **dict.fromkeys(options, one)) for one in (value, 0.5))
    assert described(model) == described(usual)
    assert repr(Dropout(value)) == repr(Dropout(0.5))
    assert repr(Huber(value)) == repr(Huber(0.5))
    assert repr(BinaryCrossEntropy(value)) == repr(BinaryCrossEntropy(0.5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLP(784), "sizes must be the inputs, .* not 784"),
        (lambda: MLP({3, 4, 5}), "sizes must be the inputs, .* not {3, 4, 5}"),
        (lambda: MLP([3, "4", 5]), r"sizes\[1\] must be a whole number, not '4'"),
        (lambda: MLP([3, 4, 5], activation=ReLU), "activation must be a name, or a sequence of names, not <class"),
        (lambda: MLP([3, 4, 5], activation=[ReLU()]), r"unknown activation ReLU\(\): "),
        (lambda: MLP([3, 4, 5], activation=None), "activation must be a name, or a sequence of names, not None"),
        (lambda: MLP([3, 4, 5], dropout="0.5"), "dropout must be a number, not '0.5'"),
        (lambda: MLP([3, 4, 5], dropout=None), "dropout must be a number, not None"),
        (lambda: Sequential(Linear(3, 4)), "layers must be a sequence of at least one layer, not Linear"),
        (lambda: Sequential([Linear(3, 4), ReLU]), "layer 1 must be a Layer, not <class"),
        (lambda: Trainer(MLP([3, 4]), Adam), "optimizer must be an Optimizer, not <class"),
        (lambda: Trainer(MLP([3, 4]), schedule="cosine"), "schedule must be a function of steps, .* not 'cosine'"),
        (lambda: MLP([3, 4], batch_norm="no"), "batch_norm must be True or False, not 'no'"),
        (
            lambda: MLP([3, 4], init=abs),
            "init must be the name of an initializer, or a standard deviation, not <built-in",
        ),
        (lambda: Trainer(MLP([3, 4]), compile=2), "compile must be True or False, not 2"),
        (lambda: evaluate(Sequential([Linear(3, 4)]), [[1, 2, 3]], [0]), "model must be an MLP, not Sequential"),
        (lambda: schedules.warmup(3, 0.5), "then must be a schedule, such as cosine.1000., not 0.5"),
        (lambda: schedules.join([3], abs), r"parts\[0\] must be a number of steps and a schedule, not 3"),
        (lambda: schedules.join([(3, "cosine")], abs), r"parts\[0\]\[1\] must be a schedule, .*, not 'cosine'"),
        (lambda: schedules.join(3, abs), "parts must be a sequence of pairs, .steps, schedule., not 3"),
        (
            lambda: standard_scaling(np.zeros((0, 3))),
            r"x must be rows of numbers, \(N, ...\), and has the shape \(0, 3\)",
        ),
        (lambda: tutorial.MultiLayerNet(3, 4, 2, activation=["relu"]), r"unknown activation \['relu'\]: "),
        (lambda: tutorial.smooth_curve(3), "x must be a sequence of numbers, not 3"),
        (lambda: get_device("CPU"), "device must be auto, cpu, cuda or cuda:N, not 'CPU'"),
    ],
)
def test_what_a_model_cannot_be_made_of(make, words):
    with pytest.raises((TypeError, ValueError), match=f"^{words}") as caught:
        make()
    assert "\n" not in str(caught.value)


# --- training


@pytest.fixture
def rows(rng):
    """Rows of three classes."""
    y = np.arange(30) % 3
    return rng.normal(size=(30, 4)) + np.eye(4)[y], y


def trained(x, y, **options):
    trainer = Trainer(MLP([4, 3]), Adam(0.1), batch_size=10, compile=False)
    trainer.fit(x, y, epochs=2, **options)
    return trainer


@table
def test_rows_of_any_kind(make, rows):
    x, y = rows
    usual, other = trained(x, y), trained(make(x), y)
    np.testing.assert_allclose(other.model.network.values, usual.model.network.values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(evaluate(usual.model, make(x), y), evaluate(usual.model, x, y), rtol=1e-5)
    np.testing.assert_allclose(usual.model.predict(make(x)), usual.model.predict(x), rtol=1e-5)
    np.testing.assert_allclose(standard_scaling(make(x)), standard_scaling(x), rtol=1e-12)


@sequence
def test_targets_and_weights_of_any_kind(make, rows):
    x, y = rows
    x, y = (x[:3], y[:3]) if make is SEQUENCES["dictionary's keys"] else (x, y)  # each but once
    weights = {"sample_weight": 1.0 + y, "class_weight": [1.0, 2.0, 1.5]}
    usual = trained(x, y, **weights)
    other = trained(x, make(y), **{name: make(value) for name, value in weights.items()})
    assert (other.model.network.values == usual.model.network.values).all()
    if hasattr(make(y), "__array__"):
        assert metrics.accuracy(make(y), make(y)) == 1.0
        assert metrics.confusion_matrix(make(y), make(y), 3).tolist() == np.diag([10, 10, 10]).tolist()
        assert metrics.top_k_accuracy(make(y), np.eye(3)[y], 1) == 1.0


@pytest.mark.parametrize("pair", [tuple, list])
def test_pairs(pair, rows):
    history = trained(*rows, validation=pair(rows), test=pair(rows), early_stop=np.int64(3)).history
    assert history[-1]["validation_loss"] == history[-1]["test_loss"]


@pytest.mark.parametrize("pair", ["xy", ([[1.0]], [0], [1]), np.zeros((2, 4)), 3, {"x": 1, "y": 2}], ids=type)
def test_no_pairs(pair, rows):
    with pytest.raises(TypeError, match=r"^validation must be a pair of rows and targets, \(x, y\), not "):
        trained(*rows, validation=pair)


def test_what_cannot_be_trained_on(rows):
    x, y = rows
    names = np.array(["a", "b", "c"])[y]
    hint = "classes are whole numbers from 0 to 2: np.unique"
    for labels in (names, names.astype(object)):
        with pytest.raises(ValueError, match="y has no such class as 'a' in row 0: choose from: 0, 1, 2"):
            trained(x, labels)
        with pytest.raises(TypeError, match=hint):
            metrics.confusion_matrix(labels, labels, 3)
    with pytest.raises(TypeError, match=hint):
        metrics.top_k_accuracy(names, np.eye(3)[y], 1)
    with pytest.raises(ValueError, match="must both be numbers, or both names: <U1, int64"):
        metrics.accuracy(names, y)
    for name in ("on_epoch", "on_step", "on_progress"):
        with pytest.raises(TypeError, match=f"^{name} must be a function, not 'print'"):
            trained(x, y, **{name: "print"})


def test_classes_of_ones_own_for_loading(tmp_path):
    class Mine(ReLU):
        """A layer."""

    MLP.of(Sequential([Linear(2, 2), Mine()])).save(tmp_path / "m")
    for layers in ([Mine], (Mine,), {"Mine": Mine}):
        assert repr(MLP.load(tmp_path / "m", layers=layers).network.layers[1]) == "Mine()"


@sequence
def test_rates_of_replicas(make):
    assert SGD(make([0.5, 0.25]), weight_decay=make([0.0, 1.5])).learning_rate == (0.5, 0.25)
    assert BinaryCrossEntropy(make([0.5, 2.0])).positive_weight == [0.5, 2.0]
    Trainer(MLP([2, 2], replicas=2), Adam(make([0.5, 0.25])))


def test_scalars_of_numpy_in_training(rows):
    trainer = Trainer(
        MLP([4, 3]),
        Adam(np.float32(0.5), beta1=np.float64(0.5), clip_norm=np.array(1.5)),
        schedule=schedules.cosine(np.int64(4), np.float32(0.5)),
        batch_size=np.int32(10),
        seed=np.uint64(3),
    )
    history = trainer.fit(*rows, epochs=np.int8(1))
    assert len(history) == 1
    assert all(type(value) in (int, float) for value in history[0].values())


# --- options of a run


@sequence
def test_sequences_of_a_config(make):
    assert Config(hidden=make([20, 10]), activation=make(["relu", "tanh"])) == Config(
        hidden=(20, 10), activation=("relu", "tanh")
    )


@pytest.mark.parametrize("value", INTEGERS, ids=repr)
def test_whole_numbers_of_a_config(value):
    names = ("hidden", "batch_size", "epochs", "warmup", "seed", "threads", "early_stop")
    config, usual = (Config(**dict.fromkeys(names, one)) for one in (value, 3))
    assert config == usual
    assert repr(config) == repr(usual)


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_numbers_of_a_config(value):
    names = ("lr", "dropout", "init", "weight_decay", "validation", "clip_norm")
    config, usual = (Config(**dict.fromkeys(names, one)) for one in (value, 0.5))
    assert repr(config) == repr(usual)


def test_flags_of_a_config():
    assert Config(batch_norm=np.True_) == Config(batch_norm=True)


def test_a_gradient_of_a_step_of_numpy():
    x = np.ones(2)
    assert numerical_gradient(lambda: (x * x).sum(), x, np.float32(1e-3)) == pytest.approx([2.0, 2.0])


# --- what can be read and compared

READABLE = [
    (SGD, "SGD()"),
    (lambda: Adam(0.001), "Adam()"),
    (lambda: Adam(np.float64(0.25)), "Adam(learning_rate=0.25)"),
    (lambda: AdamW([0.5, 0.25], weight_decay=0, l1=1), "AdamW(learning_rate=(0.5, 0.25), weight_decay=0.0, l1=1.0)"),
    (lambda: Momentum(momentum=0.5, clip_norm=2), "Momentum(momentum=0.5, clip_norm=2.0)"),
    (lambda: schedules.cosine(np.int64(9)), "cosine(9, 0.0)"),
    (lambda: schedules.constant(), "constant()"),
    (lambda: schedules.step(3, Fraction(1, 2)), "step(3, 0.5)"),
    (lambda: schedules.warmup(4, schedules.one_cycle(9)), "warmup(4, one_cycle(9, 0.3, 0.04, 4e-06))"),
    (
        lambda: schedules.join([[2, schedules.constant()], (3, schedules.step(5))], schedules.exponential(5, 0.5)),
        "join(((2, constant()), (3, step(5, 0.1))), exponential(5, 0.5))",
    ),
    (lambda: SoftmaxCrossEntropy(0.5), "SoftmaxCrossEntropy(label_smoothing=0.5)"),
    (lambda: BinaryCrossEntropy(np.array([1, 2])), "BinaryCrossEntropy(positive_weight=[1.0, 2.0])"),
    (Huber, "Huber(delta=1.0)"),
    (lambda: get_device("cpu"), "get_device('cpu')"),
    (lambda: Parameter("weight", matrix=True), "Parameter('weight', matrix=True)"),
    (lambda: Buffer("running_mean"), "Buffer('running_mean', count=False)"),
    (lambda: Config(lr=1), None),
    (load_digits, None),
]


@pytest.mark.parametrize(("make", "text"), READABLE, ids=[str(text) for _, text in READABLE])
def test_what_is_made_alike_reads_and_compares_alike(make, text):
    one, other = make(), make()
    assert repr(one) == repr(other) == (text or repr(one))
    assert " at 0x" not in repr(one)
    if not isinstance(one, Parameter | Buffer):  # which are places in a class
        assert one == other == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)
        assert all(one != unlike() for unlike, _ in READABLE if unlike is not make)
    if isinstance(one, Optimizer | Loss) or callable(one):
        assert hash(one) == hash(other)
        assert len({one, other}) == 1
    if isinstance(one, Optimizer):
        assert eval(text, vars(xpnet)) == one
    elif callable(one) and not isinstance(one, Loss):
        assert eval(text, vars(schedules)) == one


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rules_differ_by_each_setting(name):
    rule = OPTIMIZERS[name]
    usual = rule()
    assert repr(usual) == f"{rule.__name__}()"
    for setting, value in usual.settings().items():
        other = rule(**{setting: 0.25 if value is None else (value + 1.0) / 8.0})
        assert other != usual, setting
        assert f"{setting}=" in repr(other)
        setattr(other, setting, value)  # rates can be changed
        assert (other == usual, hash(other) == hash(usual)) == (True, True)


@pytest.mark.parametrize("name", SCHEDULES)
def test_named_schedules_are_equal(name):
    assert SCHEDULES[name](100) == SCHEDULES[name](100)
    assert (SCHEDULES[name](100) == SCHEDULES[name](200)) is (name == "constant")


def test_rules_of_a_users_own():
    class Lazy(Optimizer):
        """Has an argument that is not kept, and one that is an array."""

        def __init__(self, pace, mask=None, **common):
            super().__init__(0.5, **common)
            self.mask = mask

    assert repr(Lazy(3, l1=0.5)) == "Lazy(learning_rate=0.5, l1=0.5)"
    assert "mask=array([1., 1.])" in repr(Lazy(3, np.ones(2)))


def test_networks_and_trainers_can_be_read():
    model = MLP([2, 3, 2])
    trainer = Trainer(model, Adam(0.5), schedule=schedules.cosine(3), batch_size=4)
    options = "schedule=cosine(3, 0.0), batch_size=4, seed=0, compile=True, precision='fp32'"
    assert repr(trainer) == f"Trainer({model!r}, Adam(learning_rate=0.5), {options})"
    assert " at 0x" not in repr(trainer)
    assert "x_train=uint8[1437, 8, 8]" in repr(load_digits())
    for one in (tutorial.Adam(), tutorial.MultiLayerNet(3, 4, 2), trainer.model.network.layout):
        assert " at 0x" not in repr(one)


def test_every_public_object_can_be_read():
    """None of those that a default constructor makes has an address in its repr."""
    for module in (xpnet, xpnet.nn, xpnet.optim, xpnet.data, xpnet.training, tutorial):
        for name in module.__all__:
            kind = getattr(module, name)
            try:
                one = kind() if isinstance(kind, type) else None
            except TypeError:  # it has arguments without defaults
                continue
            assert " at 0x" not in repr(one), name


def test_a_data_set_of_lists(rows):
    x, y = rows
    data = Dataset("a", x.tolist(), y.tolist(), x.tolist(), y.tolist(), np.array(["a", "b", "c"]), 1.0, "here")
    assert data == Dataset("a", x, y, x, y, ("a", "b", "c"), 1.0, "here")
    assert data.hold_out(0.2, 0) != data
    assert data.input_shape == (4,)


def test_the_tutorials_network_of_one_layer():
    one, other = (tutorial.MultiLayerNet(784, hidden, 10, seed=0) for hidden in (30, [30]))
    assert repr(one) == repr(other)
    assert repr(one) == repr(tutorial.MultiLayerNet(784, np.array([30]), 10, seed=0))
    with pytest.raises(TypeError, match="must be a whole number, not '30'"):
        tutorial.MultiLayerNet(784, "30", 10)
