"""Models as ONNX graphs: rows as they come go in, and what `MLP.predict` returns comes out.

    input (N, *input_shape); of a table, each column by its name: (N, 1), float64, with NaN for a hole (dates in
                             seconds since 1970), or strings, "" for a hole
    label (N,), probabilities (N, C)    of classification
    probabilities (N, O)                of several labels at once
    predictions (N, O), float64         of regression, in the targets' units

Opset 13 and IR version 7 are those of ONNX 1.8 (2020). The tests pass with onnxruntime 1.19 and 1.32, and 1.15 reads
the files. The network's arrays keep their type. The input has it, too, or float64 where each feature has a shift and
scale of its own: in float32, a column with a mean much larger than its deviation would lose the latter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..core.device import HostArray
from ..core.version import __version__
from ..data.preparation import CYCLES, Encoding
from ..nn import (
    ELU,
    GELU,
    SELU,
    BatchNorm,
    BinaryCrossEntropy,
    Dropout,
    GELUTanh,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    Loss,
    Poisson,
    ReLU,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
    Softplus,
    Step,
    Swish,
    Tanh,
)
from ..nn.losses import loss_name
from .model_file import check_replica
from .tasks import Classification, Regression

OPSET, ML = 13, "ai.onnx.ml"
OPSETS = {"": OPSET, ML: 2}  # by their domains; the second one numbers words
IR_VERSION = 7
MOST_BYTES = 2**31 - 2**20  # of constants: protobuf holds 2 GiB, with names and nodes


class Graph:
    """Nodes and constants of an ONNX graph. Calling it adds a node, and returns the name of the node's output.

    Args:
        dtype: type of the network's arrays, and of Python floats among the inputs of nodes.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.scope = ""  # in front of the names of nodes and constants
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(
        self,
        op: str,
        *inputs: str | float | HostArray,
        to: str | None = None,
        output: str | None = None,
        **settings: Any,
    ) -> str:
        """Add a node.

        Args:
            op: an operator of ONNX.
            inputs: names of outputs, numbers, and arrays.
            to: type of the result, for Cast.
            output: name of the output; by default the node's own.
            settings: other attributes of the operator.
        """
        from onnx import helper

        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        name = output or f"{self.scope}/{op}_{len(self.nodes)}"
        if to is not None:
            settings["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(to))
        self.nodes.append(helper.make_node(op, names, [name], name=name, **settings))
        return name

    def _constant(self, value: float | HostArray) -> str:
        from onnx import numpy_helper

        array = np.asarray(value, dtype=self.dtype if isinstance(value, float) else None, order="C")
        name = f"{self.scope}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name


# The formulas of the layers in prediction: g is the graph, p has the layer's arrays, x and the result are names.


def _linear(g: Graph, layer: Any, p: Any, x: str) -> str:
    y = g("MatMul", x, p.W)
    return g("Add", y, p.b) if layer.bias else y


def _batch_norm(g: Graph, layer: Any, p: Any, x: str) -> str:
    scale = p.gamma / np.sqrt(p.running_variance + layer.eps)
    return g("Add", g("Mul", g("Sub", x, p.running_mean), scale), p.beta)


def _layer_norm(g: Graph, layer: Any, p: Any, x: str) -> str:
    centred = g("Sub", x, g("ReduceMean", x, axes=[-1]))
    variance = g("ReduceMean", g("Mul", centred, centred), axes=[-1])
    x_hat = g("Div", centred, g("Sqrt", g("Add", variance, layer.eps)))
    return g("Add", g("Mul", x_hat, p.gamma), p.beta)


def _same(g: Graph, layer: Any, p: Any, x: str) -> str:
    return x


def _step(g: Graph, layer: Any, p: Any, x: str) -> str:
    return g("Where", g("IsNaN", x), x, g("Cast", g("Greater", x, 0.0), to=g.dtype))


def _leaky_relu(g: Graph, layer: Any, p: Any, x: str) -> str:
    return g("Where", g("Greater", x, 0.0), x, g("Mul", x, layer.slope))


def _elu(g: Graph, layer: Any, p: Any, x: str) -> str:
    below = g("Sub", g("Exp", g("Min", x, 0.0)), 1.0)
    return g("Where", g("Greater", x, 0.0), x, g("Mul", below, layer.alpha))


def _selu(g: Graph, layer: Any, p: Any, x: str) -> str:
    return g("Mul", _elu(g, layer, p, x), layer.scale)


def _gelu(g: Graph, layer: Any, p: Any, x: str) -> str:
    u = g("Cast", g("Mul", x, math.sqrt(0.5)), to="float32")  # onnxruntime has no Erf in float64
    erf = g("Cast", g("Erf", u), to=g.dtype)
    return g("Mul", g("Mul", x, 0.5), g("Add", erf, 1.0))


def _gelu_tanh(g: Graph, layer: Any, p: Any, x: str) -> str:
    cube = g("Mul", x, g("Mul", x, x))
    u = g("Mul", g("Add", x, g("Mul", cube, 0.044715)), layer.rate)
    return g("Mul", g("Mul", x, 0.5), g("Add", g("Tanh", u), 1.0))


def _softplus(g: Graph, layer: Any, p: Any, x: str) -> str:
    tail = g("Log", g("Add", g("Exp", g("Neg", g("Abs", x))), 1.0))
    return g("Add", g("Max", x, 0.0), tail)


def _swish(g: Graph, layer: Any, p: Any, x: str) -> str:
    sigmoid = g("Mul", g("Add", g("Tanh", g("Mul", x, 0.5)), 1.0), 0.5)  # x Sigmoid(x) would be fused into a node that
    return g("Mul", x, sigmoid)  # onnxruntime 1.19 has in float32 alone


LAYERS: dict[type, Callable[[Graph, Any, Any, str], str]] = {
    Linear: _linear,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    Dropout: _same,
    Identity: _same,
    Step: _step,
    Sigmoid: lambda g, layer, p, x: g("Sigmoid", x),
    Tanh: lambda g, layer, p, x: g("Tanh", x),
    ReLU: lambda g, layer, p, x: g("Relu", x),
    LeakyReLU: _leaky_relu,
    ELU: _elu,
    SELU: _selu,
    GELU: _gelu,
    GELUTanh: _gelu_tanh,
    Softplus: _softplus,
    Swish: _swish,
    Softmax: lambda g, layer, p, x: g("Softmax", x, axis=-1),
}
"""Nodes of a layer, by the class that defines its `forward`."""

OUTPUTS: dict[type, Callable[[Graph, str], str]] = {
    Loss: lambda g, z: z,
    SoftmaxCrossEntropy: lambda g, z: g("Softmax", z, axis=-1),
    BinaryCrossEntropy: lambda g, z: g("Sigmoid", z),
    Poisson: lambda g, z: g("Exp", z),
}
"""Nodes of a loss's output activation, by the class that defines its `output`."""


def onnx_model(model: Any, *, replica: int | None = None, classes: HostArray | None = None) -> Any:
    """Make the ONNX model, a `ModelProto`, of an `MLP`.

    Args:
        model: the `MLP`. An ensemble predicts by the mean of those members that did not diverge.
        replica: make the model of this replica alone.
        classes: values of the output `label`, numbers or strings; by default the numbers of the classes.
    """
    try:
        from onnx import helper
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ONNX files need the package onnx ({error}): pip install 'xpnet[onnx]'", name=error.name
        ) from None

    arrays, mean = _arrays(model, replica)
    size = sum(array.nbytes for of_layer in arrays for array in vars(of_layer).values())
    if size > MOST_BYTES:
        raise ValueError(f"the model has {size / 2**30:.3g} GiB, and an ONNX file holds 2 GiB at most")
    g = Graph(model.network.dtype)
    with np.errstate(all="ignore"):  # of a model that diverged
        p = _predictions(g, model, _layers(g, model, arrays, _inputs(g, model)), mean)
    width, numbers = len(model.class_names) or model.out_features, isinstance(model.task, Regression)
    results: list[tuple[str, str, Any, tuple[int, ...]]] = []
    if isinstance(model.task, Classification):
        table = _label_table(np.arange(width) if classes is None else classes, width)
        results.append(("label", _label(g, p, table), table.dtype, ()))
    results.append(("predictions" if numbers else "probabilities", p, model.task.decoded or g.dtype, (width,)))
    for name, result, _, shape in results:  # reduced by onnxruntime up to 1.24, no rows have the wrong shape
        g("Reshape", result, np.array([-1, *shape]), output=name)

    def described(name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["N", *shape])

    inputs = [described(*one) for one in _described_inputs(model)]
    outputs = [described(name, dtype, shape) for name, _, dtype, shape in results]
    made = helper.make_model(
        helper.make_graph(g.nodes, "xpnet", inputs, outputs, g.constants),
        opset_imports=[
            helper.make_opsetid(domain, OPSETS[domain]) for domain in sorted({one.domain for one in g.nodes})
        ],
        ir_version=IR_VERSION,
        producer_name="xpnet",
        producer_version=__version__,
    )
    about = {"task": model.task.name}
    if model.class_names:
        about["class_names"] = json.dumps(model.class_names, ensure_ascii=False)
    helper.set_model_props(made, about)
    return made


def _arrays(model: Any, replica: int | None) -> tuple[list[SimpleNamespace], bool]:
    """Arrays of each layer by their names, and whether they have an axis of members, (M, ...)."""
    network = model.network
    chosen: Any = ...
    if replica is not None:
        check_replica(replica, network.replicas)
        chosen = replica
    elif model.ensemble:
        chosen = model.members()
    elif network.replicas is not None:
        raise ValueError(f"the model has {network.replicas} replicas: choose one, replica=0 to {network.replicas - 1}")
    vectors = [network.device.to_host(vector)[chosen] for vector in network.snapshot()]
    arrays = [SimpleNamespace() for _ in network.layers]
    for slot, array in network.arrays(*vectors):
        setattr(arrays[slot.layer], slot.parameter.name, array)
    return arrays, model.ensemble and replica is None


def _described_inputs(model: Any) -> list[tuple[str, Any, tuple[int, ...]]]:
    """Name, type and shape of a row of each input: of a table, its columns; of words, strings."""
    if model.preparation is None:
        return [("input", model.input_dtype, model.input_shape)]
    return [(one.name, object if one.kind == "words" else "float64", (1,)) for one in model.preparation.columns]


def _inputs(g: Graph, model: Any) -> str:
    """Inputs of the network, (N, I), from rows as they come."""
    g.scope, x = "input", "input"
    if model.preparation is not None:
        names = {"label", "probabilities", "predictions"} & {one.name for one in model.preparation.columns}
        if names:
            raise ValueError(f"column {min(names)!r} is called as an output of ONNX files: rename it, and train again")
        features = [_features(g, encoding) for encoding in model.preparation.encodings]
        return g("Cast", g("Cast", g("Concat", *features, axis=1), to="float32"), to=g.dtype)
    if len(model.input_shape) != 1:
        x = g("Flatten", x)
    shift, scale = (np.asarray(value, dtype=model.input_dtype) for value in (model.input_shift, model.input_scale))
    x = g("Sub", x, shift) if (shift != 0.0).any() else x
    x = g("Div", x, scale) if (scale != 1.0).any() else x
    return x if model.input_dtype == g.dtype else g("Cast", x, to=g.dtype)


def _features(g: Graph, encoding: Encoding) -> str:
    """Features of a column, float64, (N, names), as `Encoding.features` makes them."""
    column = encoding.column
    g.scope = f"column {column.name}"
    if column.kind == "words":
        return _features_of_words(g, encoding)
    x, shift, scale = column.name, np.array(encoding.shift), np.array(encoding.scale)
    missing = g("IsNaN", x)
    scored = _interpolated(g, x, *map(np.array, encoding.knots)) if encoding.knots else x
    found = [g("Where", missing, np.array(0.0), g("Div", g("Sub", scored, shift), scale))]
    for cycle in encoding.cycles:
        angle = g("Mul", x, np.array(2.0 * math.pi / CYCLES[cycle]))
        both = angle, g("Add", angle, np.array(math.pi / 2.0))  # of float64, onnxruntime has no cosine
        found += [g("Where", missing, np.array(0.0), g("Sin", one)) for one in both]
    found += [g("Cast", missing, to="float64")] if encoding.holes else []
    return g("Concat", *found, axis=1)


def _features_of_words(g: Graph, encoding: Encoding) -> str:
    """Features of a column of words, in which a hole is the empty string."""
    levels = list(encoding.column.levels)
    unseen, hole = len(levels), len(levels) + 1
    keys = levels if "" in levels else [*levels, ""]
    numbers = [*range(len(levels)), hole][: len(keys)]
    settings: dict[str, Any] = {"keys_strings": keys, "values_int64s": numbers, "default_int64": unseen, "domain": ML}
    x = g("LabelEncoder", encoding.column.name, **settings)  # (N, 1)
    if encoding.kind == "one-hot":
        found = [g("Cast", g("Equal", x, np.arange(len(levels))[None]), to="float64")]
    else:
        table = (np.array(encoding.means) - encoding.shift) / encoding.scale
        table = np.concatenate([table, np.zeros((1, table.shape[1]))])
        found = [g("Gather", table, g("Squeeze", x, np.array([1])))]
    found += [g("Cast", g("Equal", x, np.array(hole)), to="float64")] if encoding.holes else []
    return g("Concat", *found, axis=1)


def _interpolated(g: Graph, x: str, knots: HostArray, scores: HostArray) -> str:
    """Linear interpolation between knots, (N, 1), as `numpy.interp`."""
    passed = g("ReduceSum", g("Cast", g("GreaterOrEqual", x, knots[None]), to="int64"), np.array([1]))
    place = g("Clip", g("Sub", passed, np.array(1)), np.array(0), np.array(len(knots) - 2))
    begin, width = g("Gather", knots[:-1], place), g("Gather", np.diff(knots), place)
    share = g("Clip", g("Div", g("Sub", x, begin), width), np.array(0.0), np.array(1.0))
    return g("Add", g("Gather", scores[:-1], place), g("Mul", share, g("Gather", np.diff(scores), place)))


def _layers(g: Graph, model: Any, arrays: list[SimpleNamespace], x: str) -> str:
    """Outputs of the last layer, (N, O), or (M, N, O) of members."""
    for index, (layer, p) in enumerate(zip(model.network.layers, arrays, strict=True)):
        emit = LAYERS.get(_defining(layer, "forward"))
        if emit is None:
            raise ValueError(f"layer {index}, {layer!r}, has no ONNX form: only xpnet's own layers have one")
        g.scope = f"{index}.{type(layer).__name__}"
        x = emit(g, layer, p, x)
    return x


def _predictions(g: Graph, model: Any, z: str, mean: bool) -> str:
    """Predictions, (N, C), from the outputs of the last layer; with `mean`, the mean over members."""
    g.scope = "output"
    activation = OUTPUTS.get(_defining(model.loss, "output"))
    if activation is None:
        raise ValueError(f"the loss {loss_name(model.loss)} has an output of its own, which has no ONNX form")
    p = _step(g, None, None, z) if model.step else activation(g, z)
    if isinstance(model.task, Regression):
        p = g("Add", g("Mul", g("Cast", p, to="float64"), np.array(model.task.scale)), np.array(model.task.shift))
    elif isinstance(model.task, Classification) and model.task.single:
        p = g("Concat", g("Sub", 1.0, p), p, axis=-1)
    return g("ReduceMean", p, axes=[0], keepdims=0) if mean else p


def _label(g: Graph, p: str, table: HostArray) -> str:
    """Most probable class of each row, (N,); the last of the table where there is none, as in `most_probable`."""
    lost = g(
        "Or",
        g("IsNaN", g("ReduceSum", p, np.array([-1]), keepdims=0)),
        g("IsInf", g("ReduceMax", p, axes=[-1], keepdims=0)),
    )
    best = g("Where", lost, np.array(len(table) - 1), g("ArgMax", p, axis=-1, keepdims=0))
    return g("Gather", table, best)


def _label_table(classes: HostArray, width: int) -> HostArray:
    """Values of the output `label`: `width` classes, and one for rows without a class.

    The latter is the empty string, NaN, or, of whole numbers, -1, or one below the least where that is less.
    """
    values = classes.tolist()
    values += values[-1:] * (width - len(values))  # an estimator that saw one class only
    if all(isinstance(one, str) for one in values):
        return np.array([*values, ""], dtype=object)
    if all(isinstance(one, int) for one in values):
        return np.array([*values, min(-1, min(values) - 1)], dtype=np.int64)
    if all(isinstance(one, float) for one in values):
        return np.array([*values, math.nan])
    raise ValueError(f"an ONNX file holds classes that are numbers or strings, not {classes!r}")


def _defining(one: object, method: str) -> type:
    """Class that defines a method of an object."""
    return next(kind for kind in type(one).__mro__ if method in vars(kind))
