"""The options of a run on the command line, for every command that trains."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.checks import path_of
from ..core.device import Device
from ..data import DATASETS, TASKS, Dataset, load_named
from ..data.augmentation import DIGITS
from ..model.tasks import OUTPUTS
from ..nn import ACTIVATIONS, INITIALIZERS, LOSSES
from ..nn.network import DTYPES
from ..optim import OPTIMIZERS, SCHEDULES
from ..training import Config, Trainer
from ..training.build import build, prepare
from ..training.config import SEVERAL, read_options
from ..training.ranks import Ranks
from . import cli

STRENGTHS = " ".join(f"{name}={value:g}" for name, value in DIGITS.items())
AUGMENT = f"distort training pictures at random; alone as digits, of 28x28 {STRENGTHS}"


def add_options(parser: cli.Parser, without: Collection[str] = ()) -> None:
    """Add an option for each attribute of `Config`, except those in `without`.

    The parser must have `argument_default=argparse.SUPPRESS`: an option that is absent unless given overrides --config,
    which overrides Config's defaults.
    """

    def group(title: str) -> Callable[..., None]:
        add_argument = parser.add_argument_group(title).add_argument

        def add(option: str, **how: Any) -> None:
            if option.removeprefix("--").replace("-", "_") not in without:
                add_argument(option, **how)

        return add

    add = group("data")
    names = "|".join((*DATASETS, "FILE.npz", "FILE.csv", "FOLDER"))
    add("--dataset", metavar=names, help="(default: mnist, or digits where MNIST cannot be had)")
    add("--task", metavar="|".join(("auto", *TASKS)), help="(default: auto, by the targets)")
    flag = argparse.BooleanOptionalAction
    add("--standardize", action=flag, help="give each feature mean 0 and deviation 1, by the training rows")
    add("--data-dir", metavar="DIR", help="look for the data in DIR alone (default: $XPNET_DATA_DIR, cache, download)")
    add("--offline", action="store_true", default=False, help="do not download")

    add = group("tables (.csv, .tsv, .parquet, .feather, .npy)")
    add("--target", metavar="COLUMN", help="the column to predict (default: the last one)")
    add("--drop", nargs="+", metavar="COLUMN", help="columns to leave out")
    add("--categorical", nargs="+", metavar="COLUMN", help="columns whose numbers are names")
    add("--weight", metavar="COLUMN", help="the column with the weights of training rows")
    add("--test", metavar="FILE", help="a table with the test rows (default: a fifth of the rows, stratified)")
    add("--split-by", metavar="COLUMN", help="test rows are whole groups of it; of a date, the latest rows")

    add = group("model")
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
        type=init_of,
        metavar="NAME",
        help=f"of weights (default: by activation): a deviation, or {_names(INITIALIZERS)}",
    )
    add(
        "--output",
        metavar="NAME",
        help=f"behind the last layer (default: the task's own): {_names(OUTPUTS)} (which is for predictions alone)",
    )
    add("--dtype", metavar="|".join(DTYPES), help="(default: float32)")
    add("--precision", metavar="fp32|tf32|bf16|fp64", help="of products on a GPU (default: fp32); fp64 is float64")

    add = group("training")
    add("--loss", metavar="NAME", help=f"(default: by task and output): {_names(LOSSES)}")
    add("--label-smoothing", type=cli.number, metavar="SHARE", help="of softmax cross entropy (default: 0)")
    add("--class-weight", metavar="balanced", help="rare classes count as much as frequent ones")
    add("--optimizer", metavar="NAME", help=f"(default: adam): {_names(OPTIMIZERS)}")
    add(
        "--lr",
        type=cli.number,
        metavar="RATE",
        help="learning rate, or a schedule's peak (default: the optimizer's own)",
    )
    add("--schedule", metavar="NAME", help=f"of the learning rate (default: constant): {_names(SCHEDULES)}")
    add("--warmup", type=cli.whole_number, metavar="STEPS", help="steps of the linear rise at the start (default: 0)")
    add("--momentum", type=cli.number, metavar="SHARE", help="of the optimizers momentum and nesterov (default: 0.9)")
    add("--weight-decay", type=cli.number, metavar="DECAY", help="L2, on weights alone (default: adamw 0.01, others 0)")
    add("--l1", type=cli.number, metavar="DECAY", help="L1, on weights alone (default: 0)")
    add("--clip-norm", type=cli.number, metavar="NORM", help="bound of the gradient's norm (default: none)")
    add("--clip-value", type=cli.number, metavar="VALUE", help="bound of the gradient's elements (default: none)")
    add("--batch-size", type=cli.whole_number, metavar="ROWS", help="(default: 128)")
    add("--augment", nargs="*", action=_Augment, metavar="NAME=NUMBER", help=AUGMENT)
    add("--epochs", type=cli.whole_number, metavar="N", help="(default: 5, or as many as make 2,000 steps)")
    add("--steps", type=cli.whole_number, metavar="N", help="train for N steps instead")
    add("--validation", type=cli.number, metavar="SHARE", help="hold out a share of the training rows (default: none)")
    add("--early-stop", type=cli.whole_number, metavar="N", help="stop after N epochs without a lower validation loss")
    add("--calibrate", action=flag, help="after the training, calibrate probabilities by the rows held out")
    add("--on-divergence", metavar="stop|lower", help="lower: go back an epoch and halve the rate (default: stop)")
    add("--seed", type=cli.whole_number, metavar="N", help="of weights and order of rows (default: 0)")
    add("--ensemble", type=cli.whole_number, metavar="N", help="train N networks at once, which predict as one")
    add("--replicas", type=cli.whole_number, metavar="N", help="train N seeds at once: mean and deviation of results")
    add("--seeds", nargs="+", action=_Seeds, metavar="0-7", help="the same, of these seeds, on the batches of --seed")

    add = group("machine")
    cli.add_device_options(add, default=argparse.SUPPRESS)
    add(
        "--threads",
        type=cli.whole_number,
        metavar="N",
        help="(default: one a processor, where the network is worth it)",
    )
    add("--compile", action=flag, help="compile the training step, on the CPU (default: where that can be done)")

    add = group("options from a file")
    add("--config", type=path_of, metavar="FILE", help="a TOML file, or a run's config.json; options given here win")


def folder(text: str) -> Path:
    """Return the path of a folder, which must have a name."""
    if not text:
        raise argparse.ArgumentTypeError("a folder must have a name")
    return path_of(text)


def named_folder(data_dir: str | None) -> Path | None:
    """Folder of data, by the option, else by XPNET_DATA_DIR; None for cache and download."""
    named = data_dir or os.environ.get("XPNET_DATA_DIR")
    return path_of(named) if named else None


def config_of(
    parser: cli.Parser,
    options: argparse.Namespace,
    kept: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
) -> Config:
    """Make the config of a command's options, but those in `without`, and its --config; errors end the command.

    With `kept` options of a run, those are in place of --config.
    """
    try:
        names = [field.name for field in dataclasses.fields(Config) if field.name not in without]
        given = {name: getattr(options, name) for name in names if name in options}
        chosen = read_options(options.config) if "config" in options else dict(kept or {})
        for alternatives in (("steps", "epochs"), SEVERAL):
            if any(name in given for name in alternatives):  # a given option overrides its alternatives in the file
                chosen = {name: value for name, value in chosen.items() if name not in alternatives}
        config = Config(**(chosen | given))
        named = named_folder(config.data_dir)
        return dataclasses.replace(config, data_dir=None if named is None else str(named))
    except (TypeError, ValueError) as error:
        parser.error(str(error))


def load_data(config: Config, *, offline: bool, quiet: bool) -> Dataset:
    """Load the data set of a config; tell the user where the bundled digits replace MNIST."""
    folder = None if config.data_dir is None else path_of(config.data_dir)
    data, note = load_named(
        config.dataset,
        folder,
        task=config.task,
        seed=config.seed,
        offline=offline,
        progress=not quiet,
        table=config.table,
    )
    if note:
        cli.tell(note)
    return data


def prepare_data(config: Config, data: Dataset) -> Dataset:
    """Divide, scale and check the data set; errors end the command."""
    try:
        return prepare(config, data)
    except (TypeError, ValueError) as error:
        raise cli.UsageError(f"{data.source}: {error}") from error


def build_trainer(
    configs: Sequence[Config], data: Dataset, device: Device, ranks: Ranks | None = None
) -> tuple[Trainer, dict[str, Any]]:
    """Call `build`; options that do not go together, or not with the data, end the command."""
    try:
        return build(configs, data, device, ranks)
    except (TypeError, ValueError) as error:
        raise cli.UsageError(str(error)) from error


def command_line(config: Config) -> str:
    """Options that make `config`, as typed on the command line, without those at their defaults."""
    pairs = ((field, getattr(config, field.name)) for field in dataclasses.fields(Config))
    return " ".join(words_of(field.name, value) for field, value in pairs if value != field.default)


def words_of(name: str, value: Any) -> str:
    """An option and its value, as typed on the command line; "no --lr" where it has none."""
    option = "--" + name.replace("_", "-")
    if value is None:
        return f"no {option}"
    if isinstance(value, bool):
        return option if value else f"--no-{option[2:]}"
    values = (value or ("",)) if isinstance(value, tuple) else (value,)
    return " ".join((option, *(shlex.quote(str(one)) for one in values)))


def sentence(config: Config, data: Dataset) -> str:
    """Sentence about the data and the task of a run."""
    shape = " x ".join(map(str, data.x_train.shape))
    scaled = "standardized" if config.standardize else "as they are"
    if data.preparation is not None:
        columns = len(data.preparation.encodings)
        scaled = f"made of {columns} column{'s' * (columns > 1)}"
    if isinstance(data.input_scale, float) and data.input_scale != 1.0:
        scaled = f"divided by {data.input_scale:g}"
    if data.task == "regression":
        aim = f"regression, {data.y_train.shape[1]} number{'s' * (data.y_train.shape[1] > 1)}"
    else:
        aim = f"{data.task}, {len(data.class_names)} {'labels' if data.task == 'multilabel' else 'classes'}"
    how = f"features {scaled}" if data.preparation is not None else f"flattened and {scaled}, from {data.source}"
    notes = "".join(f"; {note}" for note in data.notes)
    return f"{data.name}: {shape}, {how}; {aim}{notes}"


def units_of(words: list[str]) -> list[int]:
    """Return the units of hidden layers, as typed."""
    return [cli.whole_number(word) for word in re.split(r"[\s,]+", " ".join(words)) if word]


def seeds_of(words: Iterable[str]) -> list[int]:
    """Return the seeds of words: each is one, or from one to another, 0-7; raise ValueError for others."""
    seeds: list[int] = []
    for word in words:
        found = re.fullmatch(r"(\d{1,20})(?:-(\d{1,20}))?", word, re.ASCII)
        if found is None:
            raise ValueError(f"seeds must be whole numbers, or from one to another such as 0-4, not {word!r}")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < first + 10**6:
            raise ValueError(f"seeds must rise, and be at most a million, and {word} do not")
        seeds += range(first, last + 1)
    return seeds


def init_of(text: str) -> str | float:
    """Return the name of an initializer, or a standard deviation."""
    return text if text in INITIALIZERS or not re.match(r"[+-.\d]", text) else cli.number(text)


def _names(table: Iterable[str]) -> str:
    return ", ".join(table)


class _Seeds(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            setattr(namespace, self.dest, seeds_of(values))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None


class _Augment(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values or ["digits"])


class _Hidden(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            setattr(namespace, self.dest, units_of(values))
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from None
