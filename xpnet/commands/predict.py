"""python -m xpnet.predict: predictions of a trained model for pictures or arrays."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import check_float, path_of
from ..core.device import HostArray
from ..core.errors import DataError, printable
from ..core.files import write_atomically
from ..data.handwriting import shrink
from ..data.pictures import read_colours
from ..model import MLP, metrics
from ..model.scores import (
    NEEDS_SKLEARN,
    best_threshold,
    calibration_bins,
    calibration_error,
    check_two_classes,
    decisions,
    has_threshold,
    score_sentence,
    scores_of,
)
from ..training.run_folder import finite
from . import cli
from .inputs import LEAST_PIXELS, check_drawable, is_picture, picture_size, read_rows, read_targets

TOP = 5  # classes of top-k accuracy, reported where there are more
MOST_COLUMNS = 1000  # of a confusion matrix, which has their square in memory
MISTAKES = 40  # maximum in a picture
GIVEN = 300  # pixels of the longer side of a picture in that of `--show`


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    _check_options(parser, options)
    device = cli.choose_device(options.device, require=options.require_device)
    model = cli.load_model(options.model, device, options.replica)
    _check_threshold(options.threshold, model)
    for drawn in (options.plot, options.show):
        if drawn is not None:
            check_drawable(drawn)
    size = None if options.mistakes is None else _mistakes_size(options.mistakes, model)
    rows = [read_rows(model, source, options.invert, options.prepare) for source in options.input]
    predictions = np.concatenate(
        [_predict(model, part, source) for part, source in zip(rows, options.input, strict=True)]
    )
    targets = None if options.labels is None else read_targets(options.labels, model, len(predictions))
    wrong = int((~np.isfinite(predictions).all(axis=-1)).sum())
    if wrong:
        cli.tell(
            f"{options.model}: predictions of {wrong} of {len(predictions)} rows are not finite, and count as none: its"
            " training had diverged, or these rows are far too large"
        )
    task = model.task.name
    answers = predictions if task == "regression" else decisions(task, predictions, options.threshold)
    show = {"classification": _classes, "multilabel": _labels, "regression": _numbers}[task]
    for index, (answer, line) in enumerate(show(predictions, answers, model.class_names)):
        print(json.dumps({"index": index} | answer) if options.json else f"{index}\t{line}")
    if targets is not None and not len(targets):
        cli.tell("there are no rows to compare with their targets")
    elif targets is not None:
        report = {"classification": _report_classes, "multilabel": _report_labels, "regression": _report_numbers}
        names = [printable(name) for name in model.class_names]
        with np.errstate(over="ignore", invalid="ignore"):  # targets beyond 1e154: squares are infinite
            lines = report[task](targets, predictions, answers, names)
        print("\n".join(lines), file=sys.stderr)
        if options.metrics is not None:
            _report_scores(options.metrics, model, targets, predictions, options.threshold)
        if options.plot is not None:
            _draw_errors(options.plot, task, targets, predictions)
    if size is not None and targets is not None:
        pictures = [np.asarray(row).reshape(size) for part in rows for row in part]
        _draw_mistakes(options.mistakes, pictures, targets, predictions, answers, model.class_names)
    if options.show is not None:
        firsts = np.cumsum([0, *map(len, rows)]).tolist()
        seen = [
            (one, part[0], row) for one, part, row in zip(options.input, rows, firsts, strict=False) if is_picture(one)
        ]
        _draw_seen(options.show, seen, model, predictions, answers)
    return 0


def _check_options(parser: cli.Parser, options: argparse.Namespace) -> None:
    """End the command where options do not go together, or files cannot be written."""
    if isinstance(options.metrics, Path) and options.metrics.suffix != ".json":
        parser.error(f"--metrics {options.metrics}: the file of metrics must end in .json; MODEL and INPUT come first")
    for name in ("metrics", "plot", "mistakes", "show"):
        path = getattr(options, name)
        if path is not None and options.labels is None and name != "show":
            parser.error(f"--{name} needs --labels, the true targets")
        if isinstance(path, Path):
            parser.check_writable(path, f"--{name}")


def _check_threshold(threshold: float | None, model: MLP) -> None:
    """Raise UsageError for a threshold that is no probability, or that the model has no use for."""
    if threshold is None:
        return
    try:
        check_float("--threshold", threshold, above=0.0, below=1.0)
        if model.task.name == "classification":
            check_two_classes(len(model.class_names))
    except ValueError as error:
        raise cli.UsageError(str(error)) from None
    if model.task.name == "regression":
        raise cli.UsageError("--threshold goes with two classes, or several labels, and the task is regression")


Answers = Iterator[tuple[dict[str, Any], str]]


def _classes(predictions: HostArray, answers: HostArray, names: Sequence[str]) -> Answers:
    """Yield the class of each row: for JSON, and for a line; null and nan where there is none."""
    for row, best in zip(predictions, answers.tolist(), strict=True):
        there = best >= 0
        yield (
            {"label": names[best] if there else None, "probabilities": finite(row.tolist())},
            f"{printable(names[best])}\t{row[best]:.6f}" if there else "nan\tnan",
        )


def _labels(predictions: HostArray, answers: HostArray, names: Sequence[str]) -> Answers:
    """Yield the labels of each row; null and nan where a probability is NaN."""
    for row, answer in zip(predictions, answers, strict=True):
        if np.isnan(row).any():
            yield {"labels": None, "probabilities": finite(row.tolist())}, "nan\tnan"
            continue
        yes = np.flatnonzero(answer == 1).tolist()
        yield (
            {"labels": [names[i] for i in yes], "probabilities": finite(row.tolist())},
            ",".join(printable(names[i]) for i in yes) + "\t" + ",".join(f"{row[i]:.6f}" for i in yes),
        )


def _numbers(predictions: HostArray, answers: HostArray, names: Sequence[str]) -> Answers:
    """Yield the numbers predicted for each row."""
    for row in predictions:
        yield {"values": finite(row.tolist())}, "\t".join(f"{value:.9g}" for value in row)


def _predict(model: MLP, rows: HostArray, source: Path) -> HostArray:
    """Predict for the rows of the file `source`: (N, C), or, for regression, (N, O)."""
    try:
        return np.asarray(model.predict(rows))
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: {error}") from error


def _report_classes(labels: HostArray, predictions: HostArray, predicted: HostArray, names: list[str]) -> list[str]:
    """Lines of a report: accuracy, top-5 accuracy, the confusion matrix, and accuracy by class."""
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
    width = max(map(cli.cells, [*columns, str(confusion.max(initial=0)), "accuracy"])) + 2
    lines += [
        "true \\ predicted",
        " " * width + "".join(cli.align_right(name, width) for name in [*columns, "accuracy"]),
    ]
    for name, row, hit, count in zip(names, confusion, hits, rows, strict=True):
        share = f"{hit / count:.4f}" if count else "-"
        lines.append("".join(cli.align_right(str(cell), width) for cell in (name, *row, share)))
    return lines


def _report_labels(targets: HostArray, predictions: HostArray, answers: HostArray, names: list[str]) -> list[str]:
    """Lines of a report: rows with all labels right; accuracy, precision and recall of each label."""
    truth = targets > 0.5
    yes, hits = answers == 1, answers == truth
    right = int(hits.all(axis=1).sum())
    lines = [f"accuracy {right / len(truth):.4f} ({right} of {len(truth)} rows have all labels right)"]
    width = max(map(cli.cells, [*names, "label"])) + 2
    lines.append("label".rjust(width) + "  accuracy  precision    recall      rows")
    for name, given, true, hit in zip(names, yes.T, truth.T, hits.T, strict=True):
        both = (given & true).sum()
        precision, recall = (f"{both / part.sum():.4f}" if part.any() else "-" for part in (given, true))
        lines.append(f"{cli.align_right(name, width)}{hit.mean():10.4f}{precision:>11}{recall:>10}{true.sum():>10}")
    return lines


def _report_numbers(targets: HostArray, predictions: HostArray, answers: HostArray, names: list[str]) -> list[str]:
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


def _report_scores(
    path: Path | bool, model: MLP, targets: HostArray, predictions: HostArray, threshold: float | None
) -> None:
    """Print the scores of predictions on stderr, and write them to a file, where `path` is one."""
    task = model.task.name
    found = scores_of(task, targets, predictions, threshold)
    cli.tell(score_sentence(found))
    if task == "regression":
        quantiles = found["residual_quantiles"]
        for output in range(targets.shape[1]):
            shares = ", ".join(f"{float(share):.0%} below {values[output]:.4g}" for share, values in quantiles.items())
            cli.tell(f"residuals (target - prediction) of output {output}: {shares}")
    elif "f1" not in found:
        cli.tell(NEEDS_SKLEARN)
    elif has_threshold(task, predictions, found):
        limit, f1 = best_threshold(task, targets, predictions)
        found |= {"best_threshold": limit, "best_threshold_f1": f1}
        which = "of all labels" if task == "multilabel" else f"of {model.class_names[1]}"
        cli.tell(
            f"F1 {which} is highest, {f1:.4g}, at the threshold {limit:.6g}, which was chosen by these very rows: on"
            f" others it will be lower; try it there, with --threshold {limit:.6g}"
        )
    if isinstance(path, Path):
        write_atomically(path, json.dumps(finite({"rows": len(targets)} | found), indent=2) + "\n")


def _draw_errors(path: Path, task: str, targets: HostArray, predictions: HostArray) -> None:
    """Draw how reliable probabilities are, or the residuals of numbers, into a PNG file."""
    from ..plots import draw_reliability, draw_residuals

    if task == "regression":
        write_atomically(path, draw_residuals(predictions, targets - predictions))
    else:
        error = calibration_error(task, targets, predictions)
        write_atomically(path, draw_reliability(*calibration_bins(task, targets, predictions), error))


def _mistakes_size(path: Path, model: MLP) -> tuple[int, int]:
    """Height and width of the pictures of mistakes; raises where the inputs are no pictures."""
    if model.task.name != "classification":
        raise DataError(f"{path}: mistakes are drawn of classes, and the model's task is {model.task.name}")
    size = picture_size(path, model)
    if min(size) < LEAST_PIXELS:
        takes = f"rows of {model.in_features} numbers"
        raise DataError(f"{path}: mistakes are drawn of pictures, and the model takes {takes}")
    check_drawable(path)
    return size


def worst(labels: HostArray, predictions: HostArray, taken: HostArray) -> HostArray:
    """Rows that were taken for wrong classes, ordered by the probability of the true one, the lowest first."""
    wrong = np.flatnonzero(taken != labels)
    return wrong[np.argsort(predictions[wrong, labels[wrong]], kind="stable")]


def _draw_mistakes(
    path: Path,
    pictures: list[HostArray],
    labels: HostArray,
    predictions: HostArray,
    taken: HostArray,
    names: Sequence[str],
) -> None:
    """Draw the worst mistakes, (H, W) each, into a PNG file, with true and predicted classes."""
    from ..plots import draw_mistakes

    wrong = worst(labels, predictions, taken)
    drawn = [
        (
            pictures[i],
            f"row {i}: {names[labels[i]]} ({predictions[i, labels[i]]:.1%})",
            f"taken for {names[taken[i]]} ({predictions[i, taken[i]]:.1%})" if taken[i] >= 0 else "no prediction",
        )
        for i in wrong[:MISTAKES]
    ]
    write_atomically(path, draw_mistakes(drawn, len(wrong), len(labels)))


def _draw_seen(
    path: Path, seen: list[tuple[Path, HostArray, int]], model: MLP, predictions: HostArray, answers: HostArray
) -> None:
    """Draw the first pictures, each with what the network saw of it and its answer, into a PNG file.

    Args:
        path: the file to write.
        seen: of each picture its file, its pixels as the network sees them, and its row of the predictions.
        model: the model.
        predictions, answers: of all rows.
    """
    from ..plots import draw_seen

    if not seen:
        raise DataError(f"--show {path}: it draws pictures, and none was given")
    drawn = []
    for source, pixels, row in seen[:MISTAKES]:
        answer = ""
        if model.task.name == "classification" and answers[row] >= 0:
            answer = f"{model.class_names[answers[row]]} ({predictions[row, answers[row]]:.1%})"
        given = shrink(read_colours(source), GIVEN).round().astype(np.uint8)
        drawn.append((given, pixels.reshape(picture_size(source, model)), source.name, answer))
    write_atomically(path, draw_seen(drawn))


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
    add(
        "--metrics",
        nargs="?",
        type=path_of,
        const=True,
        metavar="FILE.json",
        help="log loss, AUC, F1, ..., or RMSE, MAE, ..., on stderr, and into a file (needs --labels)",
    )
    add(
        "--plot",
        type=path_of,
        metavar="FILE.png",
        help="draw how reliable probabilities are, or the residuals of numbers (needs --labels)",
    )
    add("--mistakes", type=path_of, metavar="FILE.png", help="draw the worst mistakes (needs --labels)")
    add(
        "--threshold",
        type=cli.number,
        metavar="P",
        help="probability above which the second of two classes, or a label, is predicted (default: 0.5)",
    )
    add("--replica", type=cli.whole_number, metavar="N", help="predict with this replica alone, counted from 0")
    add("--json", action="store_true", help="print a JSON object a row: index, label(s) and probabilities, or values")
    add(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="invert pictures, dark on light (default: where the border is light)",
    )
    add(
        "--prepare",
        choices=("auto", "digits", "plain"),
        default="auto",
        help="how to prepare pictures: as handwritten digits for MNIST, or in grey and resized (default: auto, as the"
        " training pictures were)",
    )
    add("--show", type=path_of, metavar="FILE.png", help="draw each picture next to what the network saw of it")
    cli.add_device_options(add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
