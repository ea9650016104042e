"""python -m xpnet.train: train a multilayer perceptron on MNIST, and say how well it does."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import cli
from .data import DATASETS, TASKS, Dataset, load_named
from .device import limit_threads
from .errors import DivergedError
from .nn import ACTIVATIONS, INITIALIZERS, LOSSES
from .nn.network import DTYPES
from .optim import OPTIMIZERS, SCHEDULES
from .training import MLP, Config, Trainer
from .training.build import build, fit_options, network_sizes, prepare
from .training.config import default_threads, read_options
from .training.metrics import TITLES
from .training.run_folder import RunFolder, finite
from .training.tasks import OUTPUTS

NOT_COMPILED = "every step of this version runs eagerly"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    started = time.perf_counter()
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    try:
        file = options.pop("config", None)
        named = {field.name for field in dataclasses.fields(Config)}
        chosen = read_options(file) if file is not None else {}
        given = {name: value for name, value in options.items() if name in named}
        for name, other in (("steps", "epochs"), ("epochs", "steps")):
            if name in given and other not in given:  # what is given overrides the file's other way to say it
                chosen.pop(other, None)
        chosen |= given
        config = Config(**chosen)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    return _train(config, argparse.Namespace(**options), started)


def _train(config: Config, options: argparse.Namespace, started: float) -> int:
    device = cli.choose_device(config.device, require=options.require_device)
    folder = None if options.out is None else RunFolder(options.out, overwrite=options.overwrite)
    if config.data_dir is None and os.environ.get("XPNET_DATA_DIR"):
        config = dataclasses.replace(config, data_dir=os.environ["XPNET_DATA_DIR"])
    loaded = _load(config, options)
    with folder or contextlib.nullcontext():
        # All that can be wrong with the data is found before the folder's old run makes way.
        try:
            data = prepare(config, loaded)
        except (TypeError, ValueError) as error:
            raise cli.UsageError(f"{loaded.source}: {error}") from error
        try:
            trainer, total = build([config], data, device)
        except (TypeError, ValueError) as error:
            raise cli.UsageError(str(error)) from error
        threads = config.threads or default_threads(network_sizes(config, data), config.batch_size)
        if folder is not None:
            folder.start(config, device, threads, loaded)
        if not options.quiet:
            shape = " x ".join(map(str, data.x_train.shape))
            scaled = "standardized" if config.standardize else f"divided by {data.input_scale:g}"
            cli.tell(f"{data.name}: {shape}, flattened and {scaled}, from {data.source}")
            threads_too = f", BLAS threads: {threads}" if device.index is None else ""
            cli.tell(f"{_aim(trainer.model)}, on {device.name}{threads_too}, {total} steps")
        with limit_threads(threads):
            _fit(trainer, data, total, fit_options(config, data), folder, quiet=options.quiet)

    result = _result(config, data, trainer, folder, time.perf_counter() - started)
    print(json.dumps(finite(result)) if options.json else _sentence(result))
    return 0


def _aim(model: MLP) -> str:
    """Say what a model is trained for."""
    if model.task.name == "regression":
        return f"regression, {model.n_outputs} number{'s' * (model.n_outputs > 1)}"
    return f"{model.task.name}, {len(model.class_names)} {'labels' if model.task.name == 'multilabel' else 'classes'}"


def _fit(
    trainer: Trainer,
    data: Dataset,
    total: int,
    options: dict[str, Any],
    folder: RunFolder | None,
    *,
    quiet: bool,
) -> None:
    """Train for `total` steps, showing progress and writing the run folder; whatever ends it, the folder is whole."""
    with Progress(trainer, len(data.x_train), total, quiet=quiet) as progress, cli.Interruptions() as interruptions:

        def on_step(step: int) -> None:
            interruptions.check()
            progress.step()

        def on_epoch(row: dict[str, Any]) -> None:
            progress.epoch(row)
            if folder is not None:
                folder.add(row)

        try:
            trainer.fit(data.x_train, data.y_train, steps=total, on_epoch=on_epoch, on_step=on_step, **options)
        except (DivergedError, KeyboardInterrupt) as error:
            if folder is None:
                raise
            folder.finish(trainer.model, trainer.history)
            state = str(error) or f"the model is as after epoch {trainer.epoch}"
            raise type(error)(f"{state}, and in {folder.model_path}") from None
        except OSError as error:  # the history could not be written; perhaps the model can
            if folder is None:
                raise
            trainer.model.save(folder.model_path)
            reason = f"{error.strerror}; {folder.model_path} holds the model as after epoch {trainer.epoch}"
            raise OSError(error.errno, reason, error.filename) from None
    note = None if folder is None else folder.finish(trainer.model, trainer.history)
    if note and not quiet:
        cli.tell(note)


def _load(config: Config, options: argparse.Namespace) -> Dataset:
    folder = None if config.data_dir is None else Path(config.data_dir)
    data, note = load_named(
        config.dataset,
        folder,
        task=config.task,
        seed=config.seed,
        offline=options.offline,
        progress=not options.quiet,
    )
    if note:
        cli.tell(note)
    return data


def _result(
    config: Config, data: Dataset, trainer: Trainer, folder: RunFolder | None, total_seconds: float
) -> dict[str, Any]:
    # Of the model that is kept: the last one, or early stopping's best.
    kept = next(row for row in reversed(trainer.history) if trainer.best_epoch in (None, row["epoch"]))
    seconds = sum(row["seconds"] for row in trainer.history)
    whole, part = divmod(trainer.step, trainer.steps_in_epoch(len(data.x_train)))
    samples = whole * len(data.x_train) + part * config.batch_size
    return {
        "device": trainer.model.device.name,
        "requested_device": config.device,
        "dataset": data.name,
        "task": data.task,
        "epochs": trainer.epoch,
        "steps": trainer.step,
        "seconds": seconds,
        "total_seconds": total_seconds,
        "samples_per_second": samples / seconds,
        "best_epoch": trainer.best_epoch,
        **{name: kept[name] for name in kept if name.endswith(("_loss", trainer.model.task.metric))},
        "model": None if folder is None else str(folder.model_path),
        "compiled": NOT_COMPILED,
    }


def _sentence(result: dict[str, Any]) -> str:
    best = f", of epoch {result['best_epoch']}, the best" if result["best_epoch"] is not None else ""
    kept = f"; the run is in {Path(result['model']).parent}" if result["model"] else ""
    metric = next(name for name in TITLES if f"test_{name}" in result)
    return (
        f"test {TITLES[metric]} {result[f'test_{metric}']:.4f}, test loss {result['test_loss']:.4f}"
        f" on {result['dataset']}, after {result['steps']} steps in {result['seconds']:.1f} s"
        f" on {result['device']}{best}{kept}"
    )


class Progress:
    """Progress on stderr: a live line on a terminal, one plain line an epoch elsewhere, nothing where `quiet`."""

    def __init__(self, trainer: Trainer, rows: int, total: int, *, quiet: bool) -> None:
        self.epochs = -(-total // trainer.steps_in_epoch(rows))
        self.plain = not quiet and not sys.stderr.isatty()
        self.bar: Any = None
        if not quiet and not self.plain:
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit=" steps", desc=f"epoch 1/{self.epochs}", dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def step(self) -> None:
        """Show that a step was taken."""
        if self.bar is not None:
            self.bar.update()

    def epoch(self, row: dict[str, Any]) -> None:
        """Show an epoch's row."""
        metric = next(name for name in TITLES if f"train_{name}" in row)
        figures = f"loss {row['train_loss']:.4f}, {TITLES[metric]} {row[f'train_{metric}']:.4f}"
        if "validation_loss" in row:
            figures += f", validation loss {row['validation_loss']:.4f}"
        figures += f", test {TITLES[metric]} {row[f'test_{metric}']:.4f}"
        if self.bar is not None:
            self.bar.set_description(f"epoch {min(row['epoch'] + 1, self.epochs)}/{self.epochs}", refresh=False)
            self.bar.set_postfix_str(figures, refresh=False)
        elif self.plain:
            cli.tell(f"epoch {row['epoch']}/{self.epochs}: {figures}, {row['seconds']:.2f} s")


def _units(words: list[str]) -> list[int]:
    return [cli.whole_number(word) for word in re.split(r"[\s,]+", " ".join(words)) if word]


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a folder must have a name")
    return Path(text)


def _init(text: str) -> str | float:
    return text if text in INITIALIZERS or not re.match(r"[+-.\d]", text) else cli.number(text)


def _names(table: Iterable[str]) -> str:
    return ", ".join(table)


class _Hidden(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            setattr(namespace, self.dest, _units(values))
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from None


def _parser() -> cli.Parser:
    # Options without a default here are absent unless given: what is given overrides --config, which overrides
    # Config's defaults.
    parser = cli.Parser(
        "train",
        argument_default=argparse.SUPPRESS,
        description="Train a multilayer perceptron, on pictures of handwritten digits or on data of your own.",
        epilog="Exit codes: 0; 1 the run failed; 2 arguments, data or devices; 130 Ctrl-C.",
    )
    add = parser.add_argument_group("data").add_argument
    names = "|".join((*DATASETS, "FILE.npz", "FOLDER"))
    add("--dataset", metavar=names, help="(default: mnist, or digits where MNIST cannot be had)")
    add("--task", metavar="|".join(("auto", *TASKS)), help="(default: auto, by the targets)")
    flag = argparse.BooleanOptionalAction
    add("--standardize", action=flag, help="give each feature mean 0 and deviation 1, by the training rows")
    add("--data-dir", metavar="DIR", help="look for the data in DIR alone (default: $XPNET_DATA_DIR, cache, download)")
    add("--offline", action="store_true", default=False, help="do not download")

    add = parser.add_argument_group("model").add_argument
    add(
        "--hidden", nargs="*", action=_Hidden, metavar="UNITS", help='of each layer; "" none (default: 100 100 100 100)'
    )
    add(
        "--activation",
        nargs="+",
        metavar="NAME",
        help=f"of all hidden layers, or of each (default: relu): {_names(ACTIVATIONS)}",
    )
    add("--batch-norm", action=flag, help="batch normalization before each activation")
    add("--dropout", type=cli.number, metavar="RATE", help="behind each activation (default: 0)")
    add(
        "--init",
        type=_init,
        metavar="NAME",
        help=f"of weights (default: by activation): a deviation, or {_names(INITIALIZERS)}",
    )
    add(
        "--output",
        metavar="NAME",
        help=f"behind the last layer (default: the task's own): {_names(OUTPUTS)} (which is for predictions alone)",
    )
    add("--dtype", metavar="|".join(DTYPES), help="(default: float32)")

    add = parser.add_argument_group("training").add_argument
    add("--loss", metavar="NAME", help=f"(default: by task and output): {_names(LOSSES)}")
    add("--label-smoothing", type=cli.number, metavar="SHARE", help="of softmax cross entropy (default: 0)")
    add(
        "--class-weight",
        metavar="balanced",
        help="rare classes count as much as frequent ones",
    )
    add("--optimizer", metavar="NAME", help=f"(default: adam): {_names(OPTIMIZERS)}")
    add(
        "--lr",
        type=cli.number,
        metavar="RATE",
        help="learning rate, or a schedule's peak (default: the optimizer's own)",
    )
    add("--schedule", metavar="NAME", help=f"of the learning rate (default: constant): {_names(SCHEDULES)}")
    add("--warmup", type=cli.whole_number, metavar="STEPS", help="rise to the schedule's start in so many (default: 0)")
    add("--momentum", type=cli.number, metavar="SHARE", help="of the optimizers momentum and nesterov (default: 0.9)")
    add("--weight-decay", type=cli.number, metavar="DECAY", help="L2, on weights alone (default: adamw 0.01, others 0)")
    add("--l1", type=cli.number, metavar="DECAY", help="L1, on weights alone (default: 0)")
    add("--clip-norm", type=cli.number, metavar="NORM", help="bound of the gradient's norm (default: none)")
    add("--clip-value", type=cli.number, metavar="VALUE", help="bound of the gradient's elements (default: none)")
    add("--batch-size", type=cli.whole_number, metavar="ROWS", help="(default: 128)")
    add("--epochs", type=cli.whole_number, metavar="N", help="(default: 5, or as many as make 2,000 steps)")
    add("--steps", type=cli.whole_number, metavar="N", help="train for N steps instead")
    add("--validation", type=cli.number, metavar="SHARE", help="hold out a share of the training rows (default: none)")
    add("--early-stop", type=cli.whole_number, metavar="N", help="stop after N epochs without a lower validation loss")
    add("--seed", type=cli.whole_number, metavar="N", help="of weights and order of rows (default: 0)")

    add = parser.add_argument_group("machine").add_argument
    cli.add_device_options(add, default=argparse.SUPPRESS)
    add(
        "--threads",
        type=cli.whole_number,
        metavar="N",
        help="BLAS threads (default: 1, for large networks one a processor)",
    )

    add = parser.add_argument_group("output").add_argument
    add("--out", type=_folder, default=None, metavar="DIR", help="write config, history, model and curves into DIR")
    add("--overwrite", action="store_true", default=False, help="let DIR hold a run already, and replace it")
    add("--config", type=Path, metavar="FILE", help="read options from a TOML file, or a run's config.json")
    add("--json", action="store_true", default=False, help="print one JSON object on stdout")
    add("--quiet", action="store_true", default=False, help="no progress on stderr")
    return parser


if __name__ == "__main__":
    sys.exit(main())
