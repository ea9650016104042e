"""Model files: exact, equal for equal models, open in PyTorch, and no damage passes."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from limits import limited
from old_files import OLD, OLD_P, OLD_X
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from xpnet import MLP, Adam, Layer, Linear, ModelFileError, ReLU, Sequential, Trainer, XpnetError, evaluate, load_digits


def trained(replicas=None, **options):
    digits = load_digits()
    model = MLP([64, 12, 10], replicas=replicas, input_shape=(8, 8), input_scale=16, **options)
    Trainer(model, Adam(0.003)).fit(digits.x_train, digits.y_train, steps=20)
    return model, digits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("replicas", [None, 1, 3])
def test_round_trip(tmp_path, replicas, dtype):
    model, digits = trained(replicas, dtype=dtype, class_names=[f"숫자 {i}" for i in range(10)])
    model.save(tmp_path / "모델.safetensors")
    again = MLP.load(tmp_path / "모델.safetensors")
    assert (again.network.values == model.network.values).all()
    assert (again.predict(digits.x_test) == model.predict(digits.x_test)).all()
    assert again.class_names == model.class_names
    assert again.summary() == model.summary()


def test_the_same_on_every_device(tmp_path, device):
    model = MLP([4, 3, 2], replicas=2, device=device)
    model.save(tmp_path / "there")
    MLP([4, 3, 2], replicas=2).save(tmp_path / "here")
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()
    again = MLP.load(tmp_path / "here", device=device)
    assert type(again.network.values) is type(model.network.values)


def test_names_and_orientation_are_pytorchs(tmp_path):
    model, _ = trained()
    model.save(tmp_path / "m")
    tensors = load_file(tmp_path / "m")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "0.weight": (12, 64),
        "0.bias": (12,),
        "2.weight": (10, 12),
        "2.bias": (10,),
    }
    np.testing.assert_array_equal(tensors["0.weight"], model.network.layers[0].W.T)
    np.testing.assert_array_equal(tensors["2.bias"], model.network.layers[2].b[0])


def test_one_replica_is_a_model_of_its_own(tmp_path):
    model, digits = trained(3)
    model.save(tmp_path / "one", replica=1)
    one = MLP.load(tmp_path / "one")
    assert one.replicas is None
    np.testing.assert_allclose(one.predict(digits.x_test), model.predict(digits.x_test)[1], atol=1e-6)
    for wrong in (3, -1):
        with pytest.raises(ValueError, match="replica"):
            model.save(tmp_path / "no", replica=wrong)
    with pytest.raises(ValueError, match="replica"):
        one.save(tmp_path / "no", replica=0)
    assert not (tmp_path / "no").exists()

    model.save(tmp_path / "all")
    MLP.load(tmp_path / "all", replica=1).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "one").read_bytes()
    for name, wrong in (("all", 3), ("all", -1), ("one", 0)):
        with pytest.raises(ValueError, match="replica") as caught:
            MLP.load(tmp_path / name, replica=wrong)
        assert not isinstance(caught.value, ModelFileError)
    with pytest.raises(TypeError, match="replica must be a whole number, not 1.5"):
        MLP.load(tmp_path / "all", replica=1.5)


def test_the_folder_of_a_run_is_its_model(tmp_path):
    for path in (tmp_path, str(tmp_path)):
        with pytest.raises(ModelFileError) as caught:
            MLP.load(path)
        assert str(caught.value) == f"{path} is a folder without model.safetensors, which a run writes at its end"
    model = MLP([2, 2])
    for name in ("checkpoint.safetensors", "best.safetensors"):
        model.save(tmp_path / name)
    with pytest.raises(ModelFileError, match="at its end; there is best.safetensors, checkpoint.safetensors$"):
        MLP.load(tmp_path)
    model.save(tmp_path / "model.safetensors")
    for path in (tmp_path, str(tmp_path), f"{tmp_path}/"):
        assert (MLP.load(path).network.values == model.network.values).all()


def test_opens_in_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_torch

    model, digits = trained()
    model.save(tmp_path / "m")
    theirs = torch.nn.Sequential(torch.nn.Linear(64, 12), torch.nn.ReLU(), torch.nn.Linear(12, 10))
    theirs.load_state_dict(load_torch(tmp_path / "m"), strict=True)
    x = torch.tensor(digits.x_test.reshape(-1, 64) / 16.0, dtype=torch.float32)
    with torch.no_grad():
        p = torch.softmax(theirs(x), dim=1).numpy()
    np.testing.assert_allclose(model.predict(digits.x_test), p, atol=1e-6)
    accuracy = (p.argmax(axis=1) == digits.y_test).mean()
    assert evaluate(model, digits.x_test, digits.y_test)[1] == accuracy


def test_equal_models_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        trained()[0].save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_flipped_bit_passes(tmp_path):
    path = tmp_path / "m"
    MLP([2, 3, 2], seed=1).save(path)
    content = bytearray(path.read_bytes())
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="m "):
            MLP.load(path)
        content[bit // 8] ^= 1 << bit % 8


def test_no_cut_passes(tmp_path):
    path = tmp_path / "m"
    MLP([2, 3, 2]).save(path)
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(ModelFileError):
            MLP.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ModelFileError):
        MLP.load(path)


def rewritten(path, change):
    """Save a model whose description `change` has altered, with a digest that fits."""
    from xpnet.model.model_file import _digest, _json

    MLP([2, 3, 2]).save(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    metadata = json.loads(header["__metadata__"]["xpnet"])
    tensors = load_file(path)
    change(metadata, tensors)
    metadata["sha256"] = _digest(metadata, tensors)
    save_file(tensors, path, metadata={"xpnet": _json(metadata)})


CHANGES = {
    "format": (lambda m, t: m.update(format=99), "has the format 99, and this version reads 2"),
    "unknown layer": (
        lambda m, t: m["layers"].__setitem__(1, {"type": "Conv"}),
        "has 'Conv', which is none of xpnet's layers",
    ),
    "layers do not fit": (
        lambda m, t: (m["layers"][2].update(in_features=4), t.update({"2.weight": np.zeros((2, 4), np.float32)})),
        "takes 4 features, and would get 3",
    ),
    "other shape": (lambda m, t: m["layers"][2].update(out_features=5), r"2.weight .* \(2, 3\), and .* \(5, 3\)"),
    "tensor missing": (lambda m, t: t.pop("2.bias"), "its layers and its tensors differ in 2.bias"),
    "tensor of other shape": (lambda m, t: t.update({"0.bias": np.zeros(4, np.float32)}), "0.bias is float32 of shape"),
    "tensor of other type": (lambda m, t: t.update({"0.bias": np.zeros(3)}), "0.bias is float64 .* have float32"),
    "a tensor of one number": (lambda m, t: t.update({"0.bias": np.zeros((), np.float32)}), r"0.bias .* shape \(\),"),
    "a type that is no name": (lambda m, t: m["layers"][1].update(type=[1]), "does not describe a model"),
    "no layers": (lambda m, t: m.pop("layers"), "does not describe a model"),
    "dtype": (lambda m, t: m.update(dtype="float16"), "dtype must be float32 or float64"),
    "names": (lambda m, t: m.update(class_names=["a"]), "class_names has 1 names"),
    "scale": (lambda m, t: m.update(input_scale=-1), "input_scale"),
    "layers are text": (lambda m, t: m.update(layers="Linear"), "does not describe a model"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_does_not_fit_together(kind, tmp_path):
    change, words = CHANGES[kind]
    rewritten(tmp_path / "m", change)
    with pytest.raises(ModelFileError, match=words):
        MLP.load(tmp_path / "m")


def without_parameters(m, t, **changes):
    t.clear()
    m.update({"layers": [{"type": "ReLU"}], "input_shape": [2], **changes})


def wide(size):
    return lambda m, t: (m["layers"][0].update(out_features=size), m["layers"][2].update(in_features=size))


HOSTILE = {  # what a description claims, with the digest that fits, and no tensor bears out
    "replicas": lambda m, t: m.update(replicas=2**63),
    "replicas without parameters": lambda m, t: without_parameters(m, t, replicas=2**40),
    "terabytes of weights": wide(2**40),
    "more than there are addresses": wide(2**62),
    "4,001 digits": wide(10**4000),
    "features without parameters": lambda m, t: without_parameters(m, t, input_shape=[2**20, 2**20], class_names=None),
    "a product of long numbers": lambda m, t: m.update(input_shape=[10**4000] * 1000),
    "100,000 layers": lambda m, t: m.update(layers=[m["layers"][0]] * 100_000),
    "a name that is no text": lambda m, t: m.update(class_names=["\ud800", "b"]),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_description_costs_no_more_than_its_file(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("xpnet.model.model_file._digest", lambda metadata, tensors: "fits")
    path = tmp_path / "m"
    MLP([2, 3, 2]).save(path)
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()["xpnet"])
    HOSTILE[kind](metadata, tensors)
    save_file(tensors, path, metadata={"xpnet": json.dumps(metadata)})
    # Old versions of safetensors read no file without tensors.
    with limited(), pytest.raises(ModelFileError, match="does not describe|cannot be read as") as caught:
        MLP.load(path)
    assert len(str(caught.value)) < 1500


def test_many_layers_of_many_replicas(tmp_path):
    """Memory is that of layers and of replicas, and not of their product."""
    layers = [Linear(1, 1), *(ReLU() for _ in range(10_000))]
    MLP.of(Sequential(layers, replicas=10_000, draw=False), loss="binary-cross-entropy").save(tmp_path / "m")
    with limited():
        assert MLP.load(tmp_path / "m").replicas == 10_000


def test_class_names_that_no_file_can_hold():
    """They are refused before a training."""
    with pytest.raises(ValueError, match="class_names must be text, and '.ud800' holds half of a surrogate pair"):
        MLP([2, 3, 2], class_names=["\ud800", "b"])


def test_what_is_no_model_file(tmp_path):
    missing, empty, text, other = (tmp_path / name for name in ("missing", "empty", "text", "other"))
    empty.write_bytes(b"")
    text.write_text("hello " * 100)
    save_file({"a": np.zeros(3)}, other)
    for path, words in (
        (missing, "does not exist"),
        (empty, "cannot be read as a model"),
        (text, "cannot be read as a model"),
        (other, "none that xpnet wrote"),
        (tmp_path, "is a folder without model.safetensors, which a run writes at its end"),
    ):
        with pytest.raises(ModelFileError, match=words) as caught:
            MLP.load(path)
        assert str(path) in str(caught.value)
    assert issubclass(ModelFileError, ValueError)
    assert issubclass(ModelFileError, XpnetError)


def test_a_header_nested_too_deeply(tmp_path):
    header = json.dumps({"__metadata__": {"xpnet": "[" * 100_000}}).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ModelFileError, match="cannot be read"):
        MLP.load(tmp_path / "m")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m"
    MLP([2, 3, 2], seed=1).save(path)
    old = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        MLP([2, 3, 2], seed=2).save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path], "a temporary file was left behind"


class Scale(Layer):
    """A layer of a stranger's: y = k x."""

    def __init__(self, k):
        self.k = k

    def settings(self):
        return {"k": self.k}

    def forward(self, x, train):
        return self.k * x

    def backward(self, dy):
        return self.k * dy


def test_a_layer_of_ones_own(tmp_path):
    model = MLP.of(Sequential([Linear(4, 5), Scale(3.0), Linear(5, 2)]))
    model.save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="has 'Scale', which is none of xpnet's layers: give load its class"):
        MLP.load(tmp_path / "m")
    again = MLP.load(tmp_path / "m", layers={"Scale": Scale})
    assert (again.predict(np.eye(4)) == model.predict(np.eye(4))).all()


def test_a_layer_must_not_pass_for_one_of_ours(tmp_path):
    leaky = type("ReLU", (Scale,), {})
    with pytest.raises(ValueError, match="called like a layer of xpnet"):
        MLP.of(Sequential([Linear(4, 5), leaky(0.5), Linear(5, 2)])).save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("replicas", [None, 2])
def test_buffers_and_rates_are_kept(tmp_path, replicas):
    """Running statistics, counts, and a dropout rate for each replica; and one replica taken out."""
    digits = load_digits()
    rates = 0.2 if replicas is None else [0.1, 0.3]
    model = MLP([64, 12, 10], batch_norm=True, dropout=rates, replicas=replicas, input_scale=16)
    Trainer(model, Adam(0.003)).fit(digits.x_train, digits.y_train, steps=20)
    model.save(tmp_path / "m")
    again = MLP.load(tmp_path / "m")
    assert (again.predict(digits.x_test) == model.predict(digits.x_test)).all()
    assert repr(again) == repr(model)
    tensors = load_file(tmp_path / "m")
    normalization = ("1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert set(tensors) == {"0.weight", *normalization, "4.weight", "4.bias"}
    assert tensors["1.num_batches_tracked"].dtype == np.int64
    assert (tensors["1.num_batches_tracked"] == 20).all()
    assert tensors["1.num_batches_tracked"].shape == (() if replicas is None else (2,))
    if replicas is not None:
        model.save(tmp_path / "one", replica=1)
        for one in (MLP.load(tmp_path / "one"), MLP.load(tmp_path / "m", replica=1)):
            np.testing.assert_allclose(one.predict(digits.x_test), model.predict(digits.x_test)[1], atol=1e-6)
            assert one.network.layers[3].rate == 0.3


def test_a_file_with_biases_in_front_of_batch_normalization(tmp_path):
    """It predicts what it did, is written as it was read, and can be trained on: the bias changes nothing."""
    model = MLP.load(OLD)
    np.testing.assert_allclose(model.predict(OLD_X)[:3, 1], OLD_P, rtol=1e-12)
    assert model.network.layers[0].bias
    assert model.network.layers[0].b.any()
    model.save(tmp_path / "again")
    old, again = load_file(OLD), load_file(tmp_path / "again")
    assert all((again[name] == old[name]).all() for name in old)

    without = MLP([3, 4, 1], batch_norm=True, dtype="float64")
    for theirs, ours in zip(model.network.layers, without.network.layers, strict=True):
        for name in (*ours.params, *ours.buffers):
            setattr(ours, name, getattr(theirs, name))
    without.network.layers[1].running_mean -= model.network.layers[0].b
    np.testing.assert_allclose(without.predict(OLD_X), model.predict(OLD_X), atol=1e-12)
    for one in (model, without):
        Trainer(one, Adam(0.01), batch_size=10).fit(OLD_X, (OLD_X.sum(axis=1) > 0).astype(int), epochs=60)
    np.testing.assert_allclose(model.predict(OLD_X), without.predict(OLD_X), atol=1e-6)


def test_batch_norm_opens_in_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_torch

    digits = load_digits()
    model = MLP([64, 12, 10], batch_norm=True, dropout=0.2, input_scale=16)
    Trainer(model, Adam(0.003)).fit(digits.x_train, digits.y_train, steps=20)
    model.save(tmp_path / "m")
    between = [torch.nn.BatchNorm1d(12), torch.nn.ReLU(), torch.nn.Dropout(0.2)]
    theirs = torch.nn.Sequential(torch.nn.Linear(64, 12, bias=False), *between, torch.nn.Linear(12, 10))
    theirs.load_state_dict(load_torch(tmp_path / "m"), strict=True)
    theirs.eval()
    with torch.no_grad():
        z = theirs(torch.tensor(digits.x_test.reshape(-1, 64) / 16.0, dtype=torch.float32))
    np.testing.assert_allclose(model.predict(digits.x_test), torch.softmax(z, dim=1).numpy(), atol=1e-5)
