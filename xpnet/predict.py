"""python -m xpnet.predict: label pictures or arrays with a trained model."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import cli
from .data.files import open_regular, read_npz
from .data.idx import read_idx
from .data.pictures import read_picture
from .errors import DataError
from .training import MLP
from .training.run_folder import finite

HostArray = np.ndarray[Any, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    device = cli.choose_device(options.device, require=options.require_device)
    # os.path.isdir, because Path.is_dir raises where it may not look; load then says so.
    path = options.model / "model.safetensors" if os.path.isdir(options.model) else options.model  # noqa: PTH112
    model = MLP.load(path, device=device)
    probabilities = np.concatenate([_predict(model, source, options.invert) for source in options.input])
    labels = None if options.labels is None else _read_labels(options.labels, len(probabilities), model.class_names)
    if not np.isfinite(probabilities).all():
        cli.tell(f"{path} gives probabilities that are not finite: its training had diverged")
    names = [" ".join(name.split()) for name in model.class_names]  # a name must not break a line, or a column
    best = probabilities.argmax(axis=-1)
    for index, (row, label) in enumerate(zip(probabilities, best, strict=True)):
        if options.json:
            answer = {"index": index, "label": model.class_names[label], "probabilities": finite(row.tolist())}
            print(json.dumps(answer))
        else:
            print(f"{index}\t{names[label]}\t{row[label]:.6f}")
    if labels is not None:
        _report(labels, best, names)
    return 0


def _predict(model: MLP, source: Path, invert: bool | None) -> HostArray:
    """Return the probabilities of each class, (N, C), for the rows in the file `source`."""
    rows = _read_rows(model, source, invert)
    try:
        probabilities: HostArray = model.predict(rows)
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: {error}") from error
    if model.replicas is not None:
        cli.tell(f"the model has {model.replicas} replicas: probabilities are their mean")
        return np.asarray(probabilities.mean(axis=0))
    return probabilities


def _read_rows(model: MLP, source: Path, invert: bool | None) -> HostArray:
    kind = _kind(source)
    if kind == "npz":
        return _choose(read_npz(source), ("x", "x_test"), source)
    if kind == "idx":
        return read_idx(source)
    pixels, inverted = read_picture(source, _picture_size(model), invert=invert)
    if inverted and invert is None:
        cli.tell(f"{source}: its border is light, so it was inverted to light on dark (--no-invert leaves it)")
    # In the units that the model was trained in: a scale of 16 stands for levels from 0 to 16. Where there is none, or
    # one for each feature, bytes are taken to be what they are.
    if isinstance(model.input_scale, tuple):
        cli.tell(f"{source}: the model's inputs were standardized; its pixels are taken to have been from 0 to 255")
    levels = model.input_scale if isinstance(model.input_scale, float) and model.input_scale != 1.0 else 255.0
    return pixels[None] * (levels / 255.0)


def _kind(source: Path) -> str:
    """Return "npz", "idx" or "picture", by the first bytes of the file."""
    with open_regular(source) as (file, _):
        start = file.peek(4)[:4]
    if start.startswith(b"PK"):
        return "npz"
    return "idx" if start.startswith((b"\x1f\x8b", b"\0\0")) else "picture"


def _picture_size(model: MLP) -> tuple[int, int]:
    """Return height and width of the pictures that a model was trained on."""
    shape = model.input_shape
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        return math.isqrt(shape[0]), math.isqrt(shape[0])
    if len(shape) != 2:
        raise DataError(f"the model takes rows of shape {shape}, and no grey pictures")
    return shape[0], shape[1]


def _choose(arrays: dict[str, HostArray], names: tuple[str, ...], source: Path) -> HostArray:
    for name in names:
        if name in arrays:
            return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise DataError(f"{source} has the arrays {', '.join(arrays) or '(none)'}, and none called {' or '.join(names)}")


def _read_labels(source: Path, rows: int, names: tuple[str, ...]) -> HostArray:
    """Return true labels as numbers of classes, (N,), from a file that holds their names or their numbers."""
    labels = _choose(read_npz(source), ("y", "y_test"), source) if _kind(source) == "npz" else read_idx(source)
    labels = np.strings.decode(labels, "utf-8") if labels.dtype.kind == "S" else labels
    if labels.shape != (rows,):
        raise DataError(f"{source} has labels of shape {labels.shape}, and there are {rows} rows")
    codes = {name: code for code, name in enumerate(names)}
    if labels.dtype.kind in "ui" and not {str(label) for label in labels} <= set(codes):
        codes = {str(code): code for code in range(len(names))}  # numbers of classes that have other names
    called = [str(label) for label in labels]
    for row, name in enumerate(called):
        if name not in codes:
            raise DataError(f"{source} has the label {name} in row {row}, which is none of {', '.join(codes)}")
    return np.array([codes[name] for name in called], dtype=np.int64)


def _report(labels: HostArray, best: HostArray, names: list[str]) -> None:
    """Print accuracy and the confusion matrix on stderr."""
    confusion = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(confusion, (labels, best), 1)
    right = int((labels == best).sum())
    width = max(map(len, [*names, str(confusion.max(initial=0))])) + 2
    lines = [f"accuracy {right / max(len(labels), 1):.4f} ({right} of {len(labels)})", "true \\ predicted"]
    lines.append(" " * width + "".join(name.rjust(width) for name in names))
    lines += [
        name.rjust(width) + "".join(str(count).rjust(width) for count in row)
        for name, row in zip(names, confusion, strict=True)
    ]
    print("\n".join(lines), file=sys.stderr)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "predict",
        description="Label the rows of files with a trained model: a line a row, INDEX<TAB>LABEL<TAB>PROBABILITY.",
        epilog="Exit codes: 0; 1 the run failed; 2 arguments, data, models or devices; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a model file, or the folder of a run")
    add("input", type=Path, nargs="+", metavar="INPUT", help="IDX files, npz files (array x or x_test), or pictures")
    add("--labels", type=Path, metavar="FILE", help="true labels (IDX or npz): accuracy and confusion matrix on stderr")
    add("--json", action="store_true", help="print a JSON object a row: index, label, probabilities")
    add(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="turn dark-on-light pictures round (default: where the border is light)",
    )
    cli.add_device_options(add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
