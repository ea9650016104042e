"""python -m xpnet.predict: predictions of a trained model for pictures or arrays."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unicodedata import combining, east_asian_width

import numpy as np

from ..core.checks import path_of
from ..core.device import CPU, HostArray
from ..core.errors import DataError, printable
from ..core.files import write_atomically
from ..data.arrays import check_targets
from ..data.columns import check_names, columns_of, targets_of, values_of
from ..data.files import open_regular, read_npz
from ..data.frames import is_table, read_frame
from ..data.idx import read_idx
from ..data.pictures import read_picture
from ..data.targets import guess_task
from ..model import MLP, metrics
from ..training.run_folder import finite
from . import cli

TOP = 5  # classes of top-k accuracy, reported where there are more
MOST_COLUMNS = 1000  # of a confusion matrix, which has their square in memory
MISTAKES = 40  # maximum in a picture
LEAST_PIXELS = 5  # per side; smaller arrays are rows of a table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.mistakes is not None and options.labels is None:
        parser.error("--mistakes needs --labels: without them there are none")
    if options.mistakes is not None and not cli.can_write(options.mistakes):
        text = "it must be a file, in a folder that is there and can be written"
        parser.error(f"--mistakes {options.mistakes} cannot be written: {text}")
    device = cli.choose_device(options.device, require=options.require_device)
    path = cli.model_file(options.model)
    model = MLP.load(path, device=device)
    cli.tell_of_diverged(model)
    size = None if options.mistakes is None else _mistakes_size(options.mistakes, model)
    rows = [_read_rows(model, source, options.invert) for source in options.input]
    predictions = np.concatenate(
        [_predict(model, part, source) for part, source in zip(rows, options.input, strict=True)]
    )
    targets = None if options.labels is None else _read_targets(options.labels, model, len(predictions))
    wrong = int((~np.isfinite(predictions).all(axis=-1)).sum())
    if wrong:
        cli.tell(
            f"{path}: predictions of {wrong} of {len(predictions)} rows are not finite, and count as none: its training"
            " had diverged, or these rows are far too large"
        )
    show = {"classification": _classes, "multilabel": _labels, "regression": _numbers}[model.task.name]
    for index, (answer, line) in enumerate(show(predictions, model.class_names)):
        print(json.dumps({"index": index} | answer) if options.json else f"{index}\t{line}")
    if targets is not None and not len(targets):
        cli.tell("there are no rows to compare with their targets")
    elif targets is not None:
        report = {"classification": _report_classes, "multilabel": _report_labels, "regression": _report_numbers}
        names = [printable(name) for name in model.class_names]
        with np.errstate(over="ignore", invalid="ignore"):  # targets beyond 1e154: squares are infinite
            lines = report[model.task.name](targets, predictions, names)
        print("\n".join(lines), file=sys.stderr)
    if size is not None and targets is not None:
        pictures = [np.asarray(row).reshape(size) for part in rows for row in part]
        _draw_mistakes(options.mistakes, pictures, targets, predictions, model.class_names)
    return 0


Answers = Iterator[tuple[dict[str, Any], str]]


def _classes(predictions: HostArray, names: Sequence[str]) -> Answers:
    """Yield the most probable class of each row: for JSON, and for a line; null and nan where there is none."""
    for row, best in zip(predictions, metrics.most_probable(np, predictions).tolist(), strict=True):
        there = best >= 0
        yield (
            {"label": names[best] if there else None, "probabilities": finite(row.tolist())},
            f"{printable(names[best])}\t{row[best]:.6f}" if there else "nan\tnan",
        )


def _labels(predictions: HostArray, names: Sequence[str]) -> Answers:
    """Yield the labels of each row that are more probable than not; null and nan where a probability is NaN."""
    for row in predictions:
        if np.isnan(row).any():
            yield {"labels": None, "probabilities": finite(row.tolist())}, "nan\tnan"
            continue
        yes = np.flatnonzero(row > 0.5).tolist()
        yield (
            {"labels": [names[i] for i in yes], "probabilities": finite(row.tolist())},
            ",".join(printable(names[i]) for i in yes) + "\t" + ",".join(f"{row[i]:.6f}" for i in yes),
        )


def _numbers(predictions: HostArray, names: Sequence[str]) -> Answers:
    """Yield the numbers predicted for each row."""
    for row in predictions:
        yield {"values": finite(row.tolist())}, "\t".join(f"{value:.9g}" for value in row)


def _predict(model: MLP, rows: HostArray, source: Path) -> HostArray:
    """Predict for the rows of the file `source`: (N, C), or, for regression, (N, O)."""
    try:
        predictions: HostArray = model.predict(rows)
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: {error}") from error
    if model.replicas is not None and not model.ensemble:
        cli.tell(f"the model has {model.replicas} replicas: predictions are their mean")
        return np.asarray(predictions.mean(axis=0))
    return predictions


def _read_rows(model: MLP, source: Path, invert: bool | None) -> HostArray:
    if is_table(source):
        frame = read_frame(source)
        try:
            if model.preparation is not None:
                return model.preparation.features(frame)
            return values_of(columns_of(frame), frame)
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
    kind = _kind(source)
    if kind == "npz":
        return _choose(read_npz(source), ("x", "x_test"), source)
    if kind == "idx":
        return read_idx(source)
    pixels, inverted = read_picture(source, _picture_size(source, model), invert=invert)
    if inverted and invert is None:
        cli.tell(f"{source}: its border is light, so it was inverted to light on dark (--no-invert leaves it)")
    # In the units of the training data: a scale of 16 means levels from 0 to 16. Without a scale, or with one per
    # feature, levels are those of bytes.
    if isinstance(model.input_scale, tuple):
        cli.tell(f"{source}: the model's inputs were standardized; its pixels are taken to have been from 0 to 255")
    levels = model.input_scale if isinstance(model.input_scale, float) and model.input_scale != 1.0 else 255.0
    return pixels[None] * (levels / 255.0)


def _kind(source: Path) -> str:
    """Kind of a file by its first bytes: "npz", "idx" or "picture"."""
    with open_regular(source) as (file, _):
        start = file.peek(4)[:4]
    if start.startswith(b"PK"):
        return "npz"
    return "idx" if start.startswith((b"\x1f\x8b", b"\0\0")) else "picture"


def _picture_size(path: Path, model: MLP) -> tuple[int, int]:
    """Height and width of a model's training pictures; raises, naming a picture, where they were none."""
    shape = model.input_shape
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        return math.isqrt(shape[0]), math.isqrt(shape[0])
    if len(shape) != 2:
        raise DataError(f"{path}: the model takes rows of shape {shape}, and no grey pictures")
    return shape[0], shape[1]


def _choose(arrays: dict[str, HostArray], names: tuple[str, ...], source: Path) -> HostArray:
    for name in names:
        if name in arrays:
            return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise DataError(f"{source} has the arrays {', '.join(arrays) or '(none)'}, and none called {' or '.join(names)}")


def _read_targets(source: Path, model: MLP, rows: int) -> HostArray:
    """Read and check the true targets in a file: class numbers, (N,), or labels or numbers, (N, O)."""
    try:
        if is_table(source):
            targets = _targets_in_table(source, model)
        else:
            targets = _choose(read_npz(source), ("y", "y_test"), source) if _kind(source) == "npz" else read_idx(source)
        if model.task.name == "classification":
            return _class_numbers(targets, rows, model.class_names)
        checked = check_targets(targets, CPU, rows, model.out_features, "float64")
        if model.task.name == "multilabel" and not ((checked == 0) | (checked == 1)).all():
            raise ValueError("several labels at once must be rows of 0 and 1")
        return checked
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: {error}") from error


def _targets_in_table(source: Path, model: MLP) -> HostArray:
    """Return the targets in a table: of the column that the model predicts, or of its only column."""
    frame = read_frame(source)
    names = frame.column_names
    target = names[0] if len(names) == 1 or model.preparation is None else model.preparation.target
    check_names(frame, [target], None)
    targets, there = targets_of(frame.column(target), target)
    if not there.all():
        raise ValueError(f"column {target!r} has no target in row {int(np.argmin(there))}")
    return targets


def _class_numbers(labels: HostArray, rows: int, names: Sequence[str]) -> HostArray:
    """Convert names or numbers of classes, or one-hot rows, to class numbers, (N,)."""
    if labels.ndim == 2 and labels.shape[1] > 1 and guess_task(labels) == "classification":
        labels = labels.argmax(axis=1)
    labels = np.strings.decode(labels, "utf-8") if labels.dtype.kind == "S" else labels
    if labels.shape not in ((rows,), (rows, 1)):
        raise ValueError(f"it has labels of shape {labels.shape}, and there are {rows} rows")
    labels = labels.reshape(rows)
    if labels.dtype.kind == "b" or (
        labels.dtype.kind == "f"
        and (labels == np.floor(labels)).all()
        and (np.abs(labels.astype(np.float64)) < 2.0**53).all()
    ):
        labels = labels.astype(np.int64)
    codes = {name: code for code, name in enumerate(names)}
    if labels.dtype.kind in "ui" and not any(re.fullmatch(r"-?[0-9]+", name) for name in names):
        codes = {str(code): code for code in range(len(names))}
        cli.tell(f"the labels are numbers: they are taken for the places of the classes, of which 0 is {names[0]}")
    called = [str(label) for label in labels]
    for row, name in enumerate(called):
        if name not in codes:
            raise ValueError(f"it has the label {name} in row {row}, which is none of {', '.join(codes)}")
    return np.array([codes[name] for name in called], dtype=np.int64)


def _report_classes(labels: HostArray, predictions: HostArray, names: list[str]) -> list[str]:
    """Lines of a report: accuracy, top-5 accuracy, the confusion matrix, and accuracy by class."""
    predicted = metrics.most_probable(np, predictions)
    right = int((labels == predicted).sum())
    lines = [f"accuracy {metrics.accuracy(labels, predicted):.4f} ({right} of {len(labels)})"]
    if len(names) > TOP:
        among = metrics.top_k_accuracy(labels, predictions, TOP)
        lines.append(f"top-{TOP} accuracy {among:.4f}: the true class is among the {TOP} most probable")
    if len(names) > MOST_COLUMNS:
        return [*lines, f"no confusion matrix is shown of more than {MOST_COLUMNS} classes, and there are {len(names)}"]
    confusion = metrics.confusion_matrix(labels, predicted, len(names))
    rows = np.bincount(labels, minlength=len(names))
    hits = confusion.diagonal()
    columns = names
    if (predicted < 0).any():
        columns = [*names, "(none)"]
        confusion = np.column_stack([confusion, rows - confusion.sum(axis=1)])
    width = max(map(_cells, [*columns, str(confusion.max(initial=0)), "accuracy"])) + 2
    lines += ["true \\ predicted", " " * width + "".join(_right(name, width) for name in [*columns, "accuracy"])]
    for name, row, hit, count in zip(names, confusion, hits, rows, strict=True):
        share = f"{hit / count:.4f}" if count else "-"
        lines.append("".join(_right(str(cell), width) for cell in (name, *row, share)))
    return lines


def _report_labels(targets: HostArray, predictions: HostArray, names: list[str]) -> list[str]:
    """Lines of a report: rows with all labels right; accuracy, precision and recall of each label."""
    answers, truth = metrics.yes_or_no(np, predictions), targets > 0.5
    yes, hits = answers == 1, answers == truth
    right = int(hits.all(axis=1).sum())
    lines = [f"accuracy {right / len(truth):.4f} ({right} of {len(truth)} rows have all labels right)"]
    width = max(map(_cells, [*names, "label"])) + 2
    lines.append("label".rjust(width) + "  accuracy  precision    recall      rows")
    for name, given, true, hit in zip(names, yes.T, truth.T, hits.T, strict=True):
        both = (given & true).sum()
        precision, recall = (f"{both / part.sum():.4f}" if part.any() else "-" for part in (given, true))
        lines.append(f"{_right(name, width)}{hit.mean():10.4f}{precision:>11}{recall:>10}{true.sum():>10}")
    return lines


def _report_numbers(targets: HostArray, predictions: HostArray, names: list[str]) -> list[str]:
    """Lines of a report: R2, and, in the targets' units, the root mean squared and the mean absolute error."""
    errors = predictions - targets
    lines = [
        f"R2 {metrics.r2(targets, predictions):.4f} ({len(targets)} rows)",
        "output        R2          RMSE           MAE",
    ]
    for i, error in enumerate(errors.T):
        rmse, mae = math.sqrt((error**2).mean()), np.abs(error).mean()
        lines.append(f"{i:>6}{metrics.r2(targets[:, i], predictions[:, i]):10.4f}{rmse:14.6g}{mae:14.6g}")
    return lines


def _cells(text: str) -> int:
    """Width of a text on a terminal: an East Asian letter has two cells, and a combining mark none."""
    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in text)


def _right(text: str, width: int) -> str:
    """Text aligned to the right of a number of cells."""
    return " " * (width - _cells(text)) + text


def _mistakes_size(path: Path, model: MLP) -> tuple[int, int]:
    """Height and width of the pictures of mistakes; raises where the inputs are no pictures."""
    if model.task.name != "classification":
        raise DataError(f"{path}: mistakes are drawn of classes, and the model's task is {model.task.name}")
    size = _picture_size(path, model)
    if min(size) < LEAST_PIXELS:
        takes = f"rows of {model.in_features} numbers"
        raise DataError(f"{path}: mistakes are drawn of pictures, and the model takes {takes}")
    if importlib.util.find_spec("matplotlib") is None:
        raise DataError(f"{path} cannot be drawn: matplotlib is missing; pip install 'xpnet[plot]'")
    return size


def worst(labels: HostArray, predictions: HostArray) -> HostArray:
    """Rows with wrong predictions, ordered by the probability of the true class, the lowest first."""
    wrong = np.flatnonzero(metrics.most_probable(np, predictions) != labels)
    return wrong[np.argsort(predictions[wrong, labels[wrong]], kind="stable")]


def _draw_mistakes(
    path: Path, pictures: list[HostArray], labels: HostArray, predictions: HostArray, names: Sequence[str]
) -> None:
    """Draw the worst mistakes, (H, W) each, into a PNG file, with true and predicted classes."""
    from ..plots import draw_mistakes

    wrong = worst(labels, predictions)
    taken = metrics.most_probable(np, predictions)
    drawn = [
        (
            pictures[i],
            f"row {i}: {names[labels[i]]} ({predictions[i, labels[i]]:.1%})",
            f"taken for {names[taken[i]]} ({predictions[i, taken[i]]:.1%})" if taken[i] >= 0 else "no prediction",
        )
        for i in wrong[:MISTAKES]
    ]
    write_atomically(path, draw_mistakes(drawn, len(wrong), len(labels)))


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "predict",
        description="Predict the rows of files with a trained model: a line a row, INDEX<TAB>LABEL<TAB>PROBABILITY"
        " (of several labels at once, with commas between them; of regression, INDEX<TAB>VALUE...; nan where there is"
        " none, of a model that diverged).",
        epilog="Exit codes: 0; 1 the run failed; 2 arguments, data, models or devices; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("model", type=path_of, metavar="MODEL", help="a model file, or the folder of a run")
    add(
        "input",
        type=path_of,
        nargs="+",
        metavar="INPUT",
        help="IDX files, npz files (array x or x_test), tables, or pictures",
    )
    add(
        "--labels",
        type=path_of,
        metavar="FILE",
        help="true targets (IDX, npz or a table): how good predictions are, on stderr",
    )
    add("--mistakes", type=path_of, metavar="FILE.png", help="draw the worst mistakes (needs --labels)")
    add("--json", action="store_true", help="print a JSON object a row: index, label(s) and probabilities, or values")
    add(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="turn dark-on-light pictures round (default: where the border is light)",
    )
    cli.add_device_options(add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
