"""python -m xpnet.draw: a page to draw on, with a trained model inside."""

from __future__ import annotations

import dataclasses
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from ..core.checks import path_of
from ..core.files import write_atomically
from ..data import Dataset
from ..draw import Examples, choose_examples, drawing_page
from ..draw.content import network_content
from ..model import MLP
from ..model.model_file import path_of_model
from ..model.pictures import white_level
from ..training.config import Config, read_options
from . import cli
from .options import load_data, named_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.out.suffix.lower() not in (".html", ".htm"):
        parser.error(f"--out {options.out} must end in .html")
    parser.check_writable(options.out, "--out")
    model = cli.load_model(options.model, replica=options.replica)
    try:
        network_content(model, 1.0)  # fails early, before data are read
    except ValueError as error:
        raise cli.UsageError(f"{options.model}: {error}") from None
    path = path_of_model(options.model)
    data = _data_of_run(path, model, options.data_dir)
    white = white_level(model, data)
    if data is None and white == 255.0 != model.input_scale:
        cli.tell(f"{path}: the model does not hold its white level, and 255 is assumed")
    examples = None if data is None else choose_examples(model, data, white)
    page = drawing_page(model, examples, white)
    write_atomically(options.out, page)
    print(f"{cli.one_sentence(options.out)}: {_described(model, examples)}; {len(page.encode()):,} bytes")
    if options.open:
        webbrowser.open(options.out.resolve().as_uri())
    return 0


def _data_of_run(model_path: Path, model: MLP, data_dir: str | None) -> Dataset | None:
    """Load the data set of the run that a model file is of; where it cannot be, tell why and return None."""
    config_path = model_path.with_name("config.json")
    try:
        if not config_path.is_file():
            raise ValueError(f"there is no {config_path.name} of a run beside {model_path}")
        config = Config(**read_options(config_path))
        folder = named_folder(data_dir or config.data_dir)
        config = dataclasses.replace(config, data_dir=None if folder is None else str(folder))
        data = load_data(config, offline=True, quiet=True)
        if (data.input_shape, data.class_names) != (model.input_shape, model.class_names):
            raise ValueError(f"{data.source} holds other data than the model was trained on")
    except (OSError, TypeError, ValueError) as error:
        cli.tell(f"no test pictures are in the page: {error}")
        return None
    return data


def _described(model: MLP, examples: Examples | None) -> str:
    """Sizes of a network, and how many examples there are."""
    sizes = [model.in_features, *(layer.out_features for layer in model.network.layers if layer.out_features)]
    network = "-".join(map(str, sizes))
    if examples is None:
        return network
    mistakes = int((~examples.right).sum())
    return f"{network}, {len(examples.right)} test pictures, {mistakes} of them mistakes"


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "draw",
        description="Write a page to draw on: one HTML file, with a trained model of square pictures inside, that works"
        " in any browser, without network.",
        epilog="Exit codes: 0; 1 the run failed; 2 arguments or models; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("model", type=path_of, metavar="MODEL", help="a model file, or the folder of a run")
    add(
        "--out",
        type=path_of,
        required=True,
        metavar="FILE.html",
        help="file to write (an existing one is replaced)",
    )
    add("--replica", type=cli.whole_number, metavar="N", help="take this replica, counted from 0")
    add("--data-dir", metavar="DIR", help="folder of the run's data set, for test pictures (default: the run's)")
    add("--open", action="store_true", help="open the page in a browser")
    return parser


if __name__ == "__main__":
    sys.exit(main())
