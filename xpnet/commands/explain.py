"""python -m xpnet.explain: which columns of its inputs a trained model depends on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.checks import check_int, path_of
from ..core.errors import DataError, printable
from ..core.files import write_atomically
from ..core.rng import check_seed
from ..model import MLP
from ..model.explanation import attributions, permutation_importance, task_metric
from ..model.metrics import TITLES
from ..training.run_folder import finite
from . import cli
from .inputs import LEAST_PIXELS, check_drawable, read_rows, read_targets


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    _check_options(parser, options)
    device = cli.choose_device(options.device, require=options.require_device)
    model = cli.load_model(options.model, device, options.replica)
    result = _explain(model, options)
    if options.json:
        print(json.dumps(finite(result)))
    else:
        print("\n".join(_table(result["columns"])))
    if options.out is not None:
        write_atomically(options.out, _picture(model, result["columns"]))
    return 0


def _explain(model: MLP, options: argparse.Namespace) -> dict[str, Any]:
    """Explain a model: its metric on the rows, and the figures of each column, the most important one first."""
    x = read_rows(model, options.data)
    pictures = _takes_pictures(model)
    found: dict[str, Any] = {"rows": len(x)}
    importance: Mapping[str, tuple[float, float]] = {}
    try:
        if pictures:
            cli.tell("pixels are not permuted, since those beside them say the same: there are attributions alone")
        else:
            y = read_targets(options.data if options.labels is None else options.labels, model, len(x))
            importance = permutation_importance(model, x, y, repeats=options.repeats, seed=options.seed)
            found |= {"metric": model.task.metric, model.task.metric: task_metric(model, x, y)}
            cli.tell(f"{TITLES[model.task.metric]} {found[model.task.metric]:.4f} on {len(x)} rows")
        attribution = attributions(model, x)
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise DataError(f"{options.data}: {error}") from error
    columns = []
    for name, value in attribution.items():
        column: dict[str, Any] = {"name": name}
        if name in importance:
            column["importance"], column["deviation"] = importance[name]
        columns.append(column | {"attribution": value})
    by = "attribution" if pictures else "importance"
    return found | {"columns": sorted(columns, key=lambda column: -column[by])}


def _takes_pictures(model: MLP) -> bool:
    """Whether the model's rows are pictures."""
    return len(model.input_shape) == 2 and min(model.input_shape) >= LEAST_PIXELS


def _table(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table of the columns."""
    titles = [title for title in ("importance", "deviation", "attribution") if title in columns[0]]
    rows = [["column", *titles]]
    rows += [[printable(one["name"]), *(f"{one[title]:.5g}" for title in titles)] for one in columns]
    width = max(cli.cells(row[0]) for row in rows) + 2
    return [cli.align_right(name, width) + "".join(cell.rjust(13) for cell in cells) for name, *cells in rows]


def _picture(model: MLP, columns: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw the figures of columns, or a map of pixels, as PNG."""
    from ..plots import draw_importance, draw_pixels

    if not _takes_pictures(model):
        return draw_importance(columns, TITLES[model.task.metric])
    pixels = np.zeros(model.in_features)
    for column in columns:
        pixels[int(column["name"])] = column["attribution"]
    return draw_pixels(pixels.reshape(model.input_shape))


def _check_options(parser: cli.Parser, options: argparse.Namespace) -> None:
    """End the command where an option is wrong, or the picture cannot be drawn."""
    try:
        check_int("--repeats", options.repeats)
        check_seed(options.seed, "--seed")
    except ValueError as error:
        parser.error(str(error))
    if options.out is not None:
        parser.check_writable(options.out, "--out")
        check_drawable(options.out)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "explain",
        description="Say which columns of its inputs a model depends on: by how much accuracy (or R2) drops where the"
        " values of a column are permuted among rows, and by the mean of |gradient x input|.",
        epilog="Exit codes: 0; 1 the run failed; 2 arguments, data, models or devices; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("model", type=path_of, metavar="MODEL", help="a model file, or the folder of a run")
    add("data", type=path_of, metavar="DATA", help="rows: an IDX file, an npz file (array x or x_test), or a table")
    add("--labels", type=path_of, metavar="FILE", help="true targets (IDX, npz or a table; default: those in DATA)")
    add("--replica", type=cli.whole_number, metavar="N", help="explain this replica alone, counted from 0")
    add("--repeats", type=cli.whole_number, default=5, metavar="N", help="permutations of each column (default: 5)")
    add("--seed", type=cli.whole_number, default=0, metavar="N", help="of the permutations (default: 0)")
    add("--json", action="store_true", help="print one JSON object")
    add("--out", type=path_of, metavar="FILE.png", help="draw the table")
    cli.add_device_options(add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
