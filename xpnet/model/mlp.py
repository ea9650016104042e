"""The model: a network with its loss, its task, and the scaling of its inputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core import html
from ..core.checks import check_floats, check_int, elements, flag, float_type, path_of, shown
from ..core.device import Array, Device
from ..core.errors import did_you_mean
from ..core.files import write_atomically
from ..core.shard import WHOLE, Shard
from ..data.arrays import check_features
from ..data.batches import Rows
from ..data.columns import columns_of, rows_with_targets_of, values_of
from ..data.frames import frame_of
from ..data.preparation import Features, Preparation
from ..data.scaling import check_scaling, standard_scaling
from ..data.targets import encode, guess_task
from ..nn import ACTIVATIONS, BatchNorm, Dropout, Layer, Linear, Loss, Sequential
from ..nn.activations import unit_step
from ..nn.initializers import suitable
from ..nn.losses import loss_name
from .compiled import CANNOT_TRACE
from .model_file import (
    MOST_AXES,
    HostArrays,
    build_network,
    building,
    path_of_model,
    read_model_file,
    read_replica,
    tensors_in,
    write_model_file,
)
from .onnx_file import onnx_model
from .prediction import Forward, Predictor, joint, predict_in_pieces
from .tasks import choose_loss, make_task

MODEL_OPTIONS = (
    "task",
    "input_shape",
    "input_shift",
    "input_scale",
    "class_names",
    "target_shift",
    "target_scale",
    "ensemble",
    "preparation",
    "pictures",
)
"""Arguments of `MLP.of` that model files hold."""
PICTURES = ("digits", "plain")

SUMMARY = ("layer", "type", "output", "parameters")  # columns


class MLP:
    """A multilayer perceptron: Linear layers, an activation between them, a loss, and a task.

    By default it classifies, by softmax. Other tasks are several labels at once, and regression.

    >>> model = MLP([784, 100, 10], seed=0)
    >>> print(model.summary())
    layer  type    output  parameters
    0      Linear  100     78500
    1      ReLU    100     0
    2      Linear  10      1010
    79510 parameters, float32, on cpu; input (784,); classification by softmax-cross-entropy

    Args:
        sizes: number of inputs, units of each hidden layer, and number of outputs: classes, labels or numbers. Two
            classes may be one output, the logit of the second.
        task: "classification", "multilabel" or "regression".
        loss: a name in `xpnet.nn.LOSSES`, or a `Loss`; None for the one that suits task and output: cross entropy, or
            the mean squared error for numbers.
        output: the activation after the last layer, where it is not the task's own: "identity", "sigmoid", "tanh",
            "softmax", or "step" for predictions of 0 and 1.
        activation: after each hidden layer, a name in `xpnet.nn.ACTIVATIONS`, or a sequence with one per layer.
        batch_norm: whether to normalize before each activation; the Linear layer before it then has no bias.
        dropout: rate of dropout after each activation; 0 for none; a sequence has one rate per replica.
        init: initializer of all layers, a name in `xpnet.nn.INITIALIZERS`, or a standard deviation; None for the one
            that suits each (`xpnet.nn.initializers.suitable`), such as He's between hidden layers of ReLU.
        replicas: R, for R models trained at once, each with its own values; None for one model.
        seed: seed of the weights; replica r is drawn as the single model with seed + r. A sequence has one seed per
            replica; None draws one, which is then in `network.seeds`.
        dtype: "float32" or "float64", or NumPy's type of the name, such as an array's `dtype`.
        device: the model's device: "auto", "cpu", "cuda", "cuda:N", or a `Device`.
        input_shape: shape of a row of inputs, such as (28, 28), or a number of features; its product is sizes[0].
        input_shift, input_scale: the network sees (x - shift) / scale: numbers, such as 0 and 255 for bytes, or
            sequences with one per feature.
        class_names: names of the classes or labels; by default "0", "1", ...
        target_shift, target_scale: for regression: the loss sees (t - shift) / scale, and predictions are scaled back;
            numbers, or sequences with one per output.
        ensemble: whether the replicas are members of an ensemble, which predicts and is evaluated as one model: by the
            mean of their probabilities, or numbers.
        preparation: how features are made of a table's columns, a `Preparation` or its settings: the model then takes
            data frames; arrays are features already.
        pictures: how the pictures among its rows were made: "digits" as MNIST's makers, or the UCI digits', made theirs
            (`xpnet.data.handwriting`); "plain" otherwise; None where it is not known. `xpnet predict` prepares others
            likewise.

    Attributes:
        network: the layers.
        loss: the loss that training minimizes.
        task: meaning of the outputs, and the metric: a `Classification`, `Multilabel` or `Regression`.
    """

    ensemble = False  # in pickles of earlier versions
    preparation: Preparation | None = None
    pictures: str | None = None

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        task: str = "classification",
        loss: str | Loss | None = None,
        output: str | None = None,
        activation: str | Sequence[str] = "relu",
        batch_norm: bool = False,
        dropout: float | Sequence[float] = 0.0,
        init: str | float | None = None,
        replicas: int | None = None,
        seed: int | Sequence[int] | None = 0,
        dtype: Any = "float32",
        device: str | Device = "cpu",
        input_shape: int | Sequence[int] | None = None,
        input_shift: float | Sequence[float] = 0.0,
        input_scale: float | Sequence[float] = 1.0,
        class_names: Sequence[str] | None = None,
        target_shift: float | Sequence[float] = 0.0,
        target_scale: float | Sequence[float] = 1.0,
        ensemble: bool = False,
        preparation: Preparation | Mapping[str, Any] | None = None,
        pictures: str | None = None,
    ) -> None:
        given = elements(sizes)
        if given is None or len(given) < 2:
            raise ValueError(f"sizes must be the inputs, the hidden layers' units and the outputs, not {shown(sizes)}")
        sizes = [check_int(f"sizes[{i}]", size) for i, size in enumerate(given)]
        chosen, output_layer = choose_loss(task, loss, output, single=sizes[-1] == 1)
        names = [activation] * (len(sizes) - 2) if isinstance(activation, str) else elements(activation)
        if names is None:
            raise TypeError(f"activation must be a name, or a sequence of names, not {shown(activation)}")
        if len(names) != len(sizes) - 2:
            raise ValueError(f"activation has {len(names)} names, and there are {len(sizes) - 2} hidden layers")
        for name in names or ([activation] if isinstance(activation, str) else []):
            if not isinstance(name, str) or name not in ACTIVATIONS:
                raise ValueError(f"unknown activation {name!r}: {did_you_mean(str(name), ACTIVATIONS)}")
        batch_norm = flag("batch_norm", batch_norm)
        rates = check_floats("dropout", dropout, least=0.0, below=1.0)
        layers: list[Layer] = []
        inits = suitable(names) if init is None else [init] * (len(sizes) - 1)
        for inputs, outputs, name, drawn in zip(sizes, sizes[1:-1], names, inits, strict=False):
            layers.append(Linear(inputs, outputs, drawn, bias=not batch_norm))
            layers += [BatchNorm(outputs)] if batch_norm else []
            layers.append(ACTIVATIONS[name]())
            layers += [Dropout(rates)] if np.any(rates) else []
        layers.append(Linear(sizes[-2], sizes[-1], inits[-1]))
        layers += [] if output_layer is None else [ACTIVATIONS[output_layer]()]
        network = Sequential(layers, replicas=replicas, seed=seed, dtype=dtype, device=device)
        self._set(
            network,
            task,
            chosen,
            step=output == "step",
            input_shape=input_shape,
            input_shift=input_shift,
            input_scale=input_scale,
            class_names=class_names,
            target_shift=target_shift,
            target_scale=target_scale,
            ensemble=ensemble,
            preparation=preparation,
            pictures=pictures,
        )

    @classmethod
    def for_table(
        cls,
        frame: Any,
        target: str | None = None,
        *,
        hidden: Sequence[int] = (100,),
        task: str = "auto",
        drop: Sequence[str] = (),
        categorical: Sequence[str] = (),
        **options: Any,
    ) -> MLP:
        """Make a model for the rows of a data frame, which `Trainer.fit(frame)` trains.

        Its preparation is fitted to these rows: give it those to train on alone.

        Args:
            frame: of pandas, polars or Arrow; a mapping of columns, or a list of rows as mappings.
            target: the column to predict; by default the last one.
            hidden: units of each hidden layer.
            task: "classification", "multilabel" or "regression"; "auto" infers it from the targets.
            drop: columns to leave out.
            categorical: columns whose numbers are names.
            options: as for a new model.

        Raises:
            TypeError: `frame` is no data frame.
            ValueError: a column cannot be used; the message names it.
        """
        table = frame_of(frame)
        if table is None:
            raise TypeError(f"frame must be a data frame, and not {shown(frame)}")
        kept, y, name = rows_with_targets_of(table, target, drop)
        columns = columns_of(kept, categorical)
        task = guess_task(y) if task == "auto" else task
        (t,), class_names = encode([y], task)
        preparation = Preparation.fit(columns, values_of(columns, kept), t, name)
        outputs = t.shape[1] if t.ndim == 2 else len(class_names) - (len(class_names) == 2)
        if task == "regression":
            shift, scale = standard_scaling(t)
            options = {"target_shift": shift, "target_scale": scale} | options
        else:
            options = {"class_names": class_names} | options
        return cls([len(preparation.names), *hidden, outputs], task=task, preparation=preparation, **options)

    @classmethod
    def of(
        cls,
        network: Sequential,
        *,
        task: str = "classification",
        loss: str | Loss | None = None,
        output: str | None = None,
        **options: Any,
    ) -> MLP:
        """Make a model of a network of any layers, whose outputs are the inputs of the loss.

        Args:
            network: the layers; where the loss has softmax or sigmoid built in, the last outputs are logits.
            task, loss: as for a new model.
            output: None, or "step" for predictions of 0 and 1; other activations are layers of the network.
            options: `input_shape`, `input_shift`, `input_scale`, `class_names`, `target_shift`, `target_scale`,
                `ensemble`, `preparation` and `pictures`, as for a new model.
        """
        if not isinstance(network, Sequential):
            raise TypeError(f"network must be a Sequential, not {network!r}")
        chosen, output_layer = choose_loss(task, loss, output, single=network.out_features == 1)
        if output_layer is not None:
            raise ValueError(f"the output {output_layer} must be a layer of the network, its last one")
        model = cls.__new__(cls)
        model._set(network, task, chosen, step=output == "step", **options)
        return model

    def _set(
        self,
        network: Sequential,
        task: str,
        loss: Loss,
        *,
        step: bool,
        input_shape: int | Sequence[int] | None = None,
        input_shift: float | Sequence[float] = 0.0,
        input_scale: float | Sequence[float] = 1.0,
        class_names: Sequence[str] | None = None,
        target_shift: float | Sequence[float] = 0.0,
        target_scale: float | Sequence[float] = 1.0,
        ensemble: bool = False,
        preparation: Preparation | Mapping[str, Any] | None = None,
        pictures: str | None = None,
    ) -> None:
        if flag("ensemble", ensemble) and network.replicas is None:
            raise ValueError("an ensemble needs members: give replicas=R with ensemble=True")
        if ensemble and step:
            raise ValueError("an ensemble has no output step: a mean of 0 and 1 is neither; leave it out")
        if input_shape is None and network.in_features is None:
            raise ValueError("input_shape must be given: the network's layers do not say how many features come in")
        given = [network.in_features] if input_shape is None else input_shape
        every = elements(given)
        if every is not None and len(every) > MOST_AXES:
            raise ValueError(f"input_shape must have at most {MOST_AXES} axes, not {len(every)}")
        shape = tuple(check_int("input_shape", size) for size in ([given] if every is None else every))
        self.in_features = math.prod(shape)
        if network.in_features not in (None, self.in_features):
            raise ValueError(f"input_shape {shape} does not make {network.in_features} features")
        self.out_features = out_features = network.check_widths(self.in_features)
        self.network = network
        self.loss = copy.copy(loss)  # bound to this model's device
        self.step = step
        self.preparation = Preparation.of(preparation) if isinstance(preparation, Mapping) else preparation
        if self.preparation is not None and len(self.preparation.names) != self.in_features:
            made = len(self.preparation.names)
            raise ValueError(f"preparation makes {made} features, and the network takes {self.in_features}")
        if pictures not in (None, *PICTURES):
            raise ValueError(f"pictures must be {' or '.join(map(repr, PICTURES))}, not {shown(pictures)}")
        self.pictures = pictures
        self.ensemble = bool(ensemble)
        self.running: dict[int, object] = {}  # the fit in progress
        self.forwards: dict[Any, Forward] = {}  # compiled ones
        self.input_shape = shape
        self.input_shift = check_scaling("input_shift", input_shift, self.in_features, "features")
        self.input_scale = check_scaling("input_scale", input_scale, self.in_features, "features", above=0.0)
        self.task = make_task(task, out_features, loss, class_names, target_shift, target_scale)
        with network.device.activate():
            self.loss.bind(network.xp, network.dtype, out_features)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes or labels; empty for regression."""
        return getattr(self.task, "class_names", ())

    @property
    def input_dtype(self) -> str:
        """Type in which inputs must be finite: the network's, or float64 where they are standardized."""
        per_feature = isinstance(self.input_shift, tuple) or isinstance(self.input_scale, tuple)
        return "float64" if per_feature else self.network.dtype

    takes = input_dtype  # its earlier name

    @property
    def device(self) -> Device:
        """Device of the model."""
        return self.network.device

    @property
    def replicas(self) -> int | None:
        """R, or None for a single model."""
        return self.network.replicas

    def rows(self, x: Array, t: Array, w: Array | None = None) -> Rows:
        """Put checked rows, targets and weights on the device; batches of them are scaled for this model."""
        device, dtype = self.device, self.network.dtype
        weights = None if w is None else device.asarray(w, dtype=dtype)
        x, shift, scale = self.scaled(x)
        kept = x if x.dtype == np.uint8 else x.astype(dtype, copy=False)
        t = t.astype(dtype) if t.dtype.kind == "f" else t
        return Rows(device.asarray(kept), device.asarray(t), weights, shift, scale, dtype)

    def scaled(self, x: Array) -> tuple[Array, float, float]:
        """Apply a scaling per feature to rows; also return the shift and scale that remain for their batches.

        A scaling per feature is applied here, in float64: in float32, a column with a mean much larger than its
        deviation would lose the latter.
        """
        if not isinstance(self.input_shift, tuple) and not isinstance(self.input_scale, tuple):
            return x, self.input_shift, self.input_scale
        xp = np if isinstance(x, np.ndarray) else self.device.xp
        shift, scale = (xp.asarray(value, dtype="float64") for value in (self.input_shift, self.input_scale))
        return ((x.astype("float64") - shift) / scale).astype(self.network.dtype), 0.0, 1.0

    def features(self, x: Any) -> Any:
        """Return the features of a data frame, (N, I), as the model's preparation makes them.

        Without a preparation, and where they are features already, x is returned. Raises TypeError for other rows.
        """
        if self.preparation is None or isinstance(x, Features):
            return x
        frame = frame_of(x)
        if frame is None:
            raise TypeError("the model was made for a table: give it a data frame with the columns, and no array")
        return self.preparation.features(frame)

    def forward(self, x: Array, train: bool = False) -> Array:
        """Outputs of the last layer, (B, O) or (R, B, O), for scaled inputs, (B, I), an array of the model's device."""
        return self.network.forward(x, train)

    def members(self) -> list[int]:
        """Numbers of the replicas that predict as an ensemble: those whose weights are finite; all where none are."""
        with np.errstate(all="ignore"):
            finite = self.network.finite()
        return np.flatnonzero(finite if finite.any() else ~finite).tolist()

    def combine(self, z: Array) -> Array:
        """Outputs of the ensemble, (B, O), from the last outputs of its replicas, (R, B, O), for loss and metric."""
        return self.loss.combine(self.network.xp, z.take(self.device.asarray(self.members()), axis=0))

    def predict(self, x: Any, *, deviation: bool = False) -> Any:
        """Predict for unscaled rows: pictures, lists, bytes.

        The result holds the probability of each class (or label), (N, C), or, for regression, numbers in the targets'
        units, float64, (N, O); for replicas, (R, N, C); for an ensemble, their mean, (N, C). Inputs are scaled as in
        training. The result is an array of this model's device if x is one, else a NumPy array; for no rows it is
        empty. Where training diverged, or a row is too large for the network's type, it is NaN, which is no prediction:
        `argmax` would turn it into a class, `xpnet.model.metrics.most_probable` does not. Members of an ensemble that
        diverged, so that their weights are not finite, are left out, unless all did.

        Args:
            x: the rows, (N, ...).
            deviation: return a pair: the predictions of an ensemble, and their standard deviation over its R members,
                (N, C), the root of the mean squared difference.
        """
        deviation = flag("deviation", deviation)
        if deviation and not self.ensemble:
            raise ValueError("deviation is that of an ensemble's members: make the model with replicas, ensemble=True")
        device = self.device
        with device.activate(), np.errstate(all="ignore"):
            rows = check_features(self.features(x), device, features=self.in_features, dtype=self.input_dtype)
            stays = device.index is not None and not isinstance(rows, np.ndarray)
            members = self.members() if self.ensemble else None
            pieces = []
            for p in predict_in_pieces(self, rows):
                p = p if members is None else joint(self, p, members, deviation=deviation)
                pieces.append(p if stays else device.to_host(p))
            xp = device.xp if stays else np
            width = len(self.class_names) or self.out_features
            dtype = self.task.decoded or self.network.dtype
            lead = self.network.values.shape[:-1] if members is None else (2,) * deviation
            joined = xp.concatenate([xp.zeros((*lead, 0, width), dtype=dtype), *pieces], axis=-2)
            return (joined[0], joined[1]) if deviation else joined

    def predictor(self, rows: int = 1) -> Predictor:
        """Make a function like `predict` that is fast for few rows at a time, in buffers that it holds.

        It follows the weights of this model; other settings are those of now. See `Predictor`.

        Args:
            rows: the number of rows that it has buffers for. Fewer take the time of all; more go through `predict`.
        """
        return Predictor(self, rows)

    def output(self, z: Array) -> Array:
        """Predictions, (..., B, C), from the network's last outputs, (..., B, O)."""
        xp = self.network.xp
        return self.task.decode(xp, unit_step(xp, z) if self.step else self.loss.output(xp, z))

    def over(self, xp: Any, values: Array, gradients: Array, buffers: Array, shard: Shard = WHOLE) -> MLP:
        """Return the same model over other vectors, of the array module `xp`, for a shard of batches."""
        copied = object.__new__(MLP)
        vars(copied).update(vars(self))
        copied.network = self.network.over(xp, values, gradients, buffers, shard)
        copied.loss = copy.copy(self.loss)
        copied.loss.bind(xp, self.network.dtype, self.out_features)
        return copied

    def why_untraceable(self) -> str | None:
        """Reason why no step of this model can be traced, as far as is known before it is; None where it may be."""
        for owner, known in ((self, MLP), (self.network, Sequential)):
            if type(owner) is not known:
                return f"{CANNOT_TRACE}{type(owner).__name__}: only MLP and Sequential are supported"
        for layer in self.network.layers:
            for name, value in vars(layer).items():
                if callable(value) and hasattr(type(layer), name):
                    return f"{CANNOT_TRACE}layer {layer.index}: its {name} was replaced, for this layer alone"
        return None

    def save(self, path: Path | str, *, replica: int | None = None) -> None:
        """Write the model to a safetensors file that PyTorch's `nn.Sequential` of the same layers can load.

        Args:
            path: the file; it is replaced as a whole, or not at all.
            replica: write only this replica, as a single model.
        """
        write_model_file(path_of(path), self.network, self.loss, self.settings(), replica=replica)

    def to_onnx(self, path: Path | str, *, replica: int | None = None) -> None:
        """Write the model to an ONNX file (opset 13), which onnxruntime and other runtimes predict with.

        Its input is `input`, `(N, *input_shape)`: rows as `predict` takes them, float32, or float64 where the model is
        of that type, or has a shift or scale per feature. Its outputs are those of `predict`: `probabilities`, (N, C),
        after `label`, the number of the most probable class, int64, (N,), -1 where there is none; or `predictions`,
        float64, (N, O), of a regression. The metadata has `class_names`, as JSON. Needs the extra `onnx`.

        Args:
            path: the file; it is replaced as a whole, or not at all.
            replica: write only this replica; required for replicas that are no ensemble.

        Raises:
            ValueError: a layer, or the output function of a loss, is not xpnet's, or there are 2 GiB of weights.
        """
        path = path_of(path)
        write_atomically(path, onnx_model(self, replica=replica).SerializeToString())

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str | Device = "cpu",
        layers: Mapping[str, type[Layer]] | Iterable[type[Layer]] = (),
        losses: Mapping[str, type[Loss]] | Iterable[type[Loss]] = (),
        replica: int | None = None,
    ) -> MLP:
        """Load a model that `save` wrote, or that of a run's folder.

        Args:
            path: the file, or the folder of a run (`train --out`).
            device: device of the model.
            layers, losses: classes of your own, or a mapping from their names to them; `settings()` must hold their
                arguments.
            replica: load only this replica, as a single model.

        Raises:
            ModelFileError: the file is damaged, or the folder holds no model; the message names it.
            ValueError: the model has no such replica.
        """
        path = path_of_model(path_of(path))
        found = read_model_file(path) if replica is None else read_replica(path, replica)
        return build_model(path, *found, device, _by_name(layers), _by_name(losses))

    def settings(self) -> dict[str, Any]:
        """Arguments of `MLP.of` besides network and loss, as JSON values."""
        return {
            "input_shape": list(self.input_shape),
            "input_shift": self.input_shift,
            "input_scale": self.input_scale,
            "step": self.step,
            **({"ensemble": True} if self.ensemble else {}),
            **({} if self.preparation is None else {"preparation": self.preparation.settings()}),
            **({} if self.pictures is None else {"pictures": self.pictures}),
        } | self.task.settings()

    def summary(self) -> str:
        """Table of the layers and their sizes."""
        lines = [SUMMARY, *self._layer_sizes()]
        columns = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = ["  ".join(cell.ljust(n) for cell, n in zip(row, columns, strict=True)).rstrip() for row in lines]
        return "\n".join([*rows, self._totals()])

    def _repr_html_(self) -> str:
        return html.table(SUMMARY, self._layer_sizes(), self._totals())

    def _layer_sizes(self) -> list[tuple[str, ...]]:
        """Return index, type, output and number of parameters of each layer."""
        rows: list[tuple[str, ...]] = []
        width = self.in_features
        for index, layer in enumerate(self.network.layers):
            width = layer.out_features_for(width)
            count = sum(slot.size for slot in self.network.layout.slots if slot.layer == index)
            rows.append((str(index), type(layer).__name__, str(width), str(count)))
        return rows

    def _totals(self) -> str:
        """Return the line below the layers."""
        total = sum(slot.size for slot in self.network.layout.slots)
        name = "members" if self.ensemble else "replicas"
        each = "" if self.replicas is None else f" in each of {self.replicas} {name}"
        if isinstance(self.input_scale, tuple) or isinstance(self.input_shift, tuple):
            scale = " standardized"
        else:
            scale = "" if self.input_scale == 1.0 else f" divided by {self.input_scale:g}"
        return (
            f"{total} parameters{each}, {self.network.dtype}, on {self.device.name}; input {self.input_shape}{scale};"
            f" {self.task.name} by {loss_name(self.loss)}"
        )

    def __copy__(self) -> MLP:  # deep, as for the network: copies share no parameters
        return copy.deepcopy(self)

    def __repr__(self) -> str:
        ensemble = ", ensemble=True" if self.ensemble else ""
        return f"MLP.of({self.network!r}, task={self.task.name!r}, loss={self.loss!r}{ensemble})"

    # The loss of a copy or a pickle is bound on the device of its network.
    def __getstate__(self) -> dict[str, Any]:
        loss = type(self.loss), self.loss.settings()
        return vars(self) | {"loss": loss, "forwards": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        kind, settings = state.pop("loss")
        vars(self).update(state | {"running": {}, "forwards": {}})
        self.loss = kind(**settings)
        with self.device.activate():
            self.loss.bind(self.network.xp, self.network.dtype, self.out_features)


def _by_name(classes: Any) -> dict[str, Any]:
    """Classes by their names."""
    return dict(classes or {}) if isinstance(classes, Mapping | None) else {one.__name__: one for one in classes}


def build_model(
    path: Path,
    metadata: dict[str, Any],
    tensors: HostArrays,
    device: str | Device,
    layers: Mapping[str, type[Layer]],
    losses: Mapping[str, type[Loss]],
) -> MLP:
    """Build the model that `read_model_file` has read from `path`; raise `ModelFileError` where it describes none."""
    with building(path, "a model"):
        network, loss = build_network(metadata, tensors, device, layers, losses)
        options = {name: metadata[name] for name in MODEL_OPTIONS if name in metadata}
        return MLP.of(network, loss=loss, output="step" if metadata["step"] else None, **options)


def model_of_vectors(
    path: Path, metadata: dict[str, Any], vectors: HostArrays, device: str | Device, layers: Any, losses: Any
) -> MLP:
    """Build a model from its description in the file `path`, and the vectors `values` and `buffers` of its network."""
    with building(path, "a model"):
        classes = _by_name(layers)
        tensors = tensors_in(metadata, vectors, classes, float_type("dtype", metadata["dtype"]))
        return build_model(path, metadata, tensors, device, classes, _by_name(losses))
