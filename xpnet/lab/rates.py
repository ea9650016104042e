"""python -m xpnet.lab rates: which learning rates work.

Networks that are alike but for their rate train side by side, as replicas, for a few hundred steps each; so every point
of the picture is a training of its own, and none has been shaped by the rates before it, as it is in the test with a
rising rate (Smith, "Cyclical learning rates for training neural networks", 2017). It is a form of `xpnet.search`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from ..commands import cli
from ..commands.options import add_options, command_line, config_of, folder, load_data, sentence
from ..core.errors import printable
from ..core.files import write_atomically
from ..model.metrics import TITLES
from ..search.search import Results, search
from ..search.space import Range
from ..training.config import SEVERAL
from ..training.run_folder import finite
from .experiment import make_folder

STEPS = 200
LEAST, MOST, COUNT = 1e-5, 1.0, 21


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    base = config_of(parser, options)
    if base.steps is None and base.epochs is None:
        base = replace(base, steps=STEPS)
    try:
        points = [{"lr": rate} for rate in rates(options.between[0], options.between[1], options.count)]
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    if options.out is not None:
        make_folder(options.out)
        if (options.out / "rates.json").exists() and not options.overwrite:
            raise cli.UsageError(
                f"{options.out / 'rates.json'} is there already: choose another folder, or give --overwrite"
            )
    device = cli.choose_device(base.device, require=options.require_device)
    data = load_data(base, offline=options.offline, quiet=options.quiet)

    def begin(results: Results) -> None:
        if not options.quiet:
            cli.tell(sentence(base, data))

    try:
        found = search(points, data, base, device=device, threads=base.threads, on_begin=begin)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    return _report(found, options)


def rates(least: float, most: float, count: int) -> list[float]:
    """Space `count` rates evenly in their logarithm, from `least` to `most`."""
    if not 0.0 < least < most:
        raise ValueError(f"the rates must rise from above 0, not from {least} to {most}")
    if count < 2:
        raise ValueError(f"count must be at least 2, not {count}")
    between = Range(least, most, logarithmic=True)
    return [float(between.at(k / (count - 1))) for k in range(count)]


def _report(found: Results, options: argparse.Namespace) -> int:
    """Print the rates, and write what --out asks for; return the exit code."""
    content = finite({"best": found.best, "trials": found.trials})
    print(json.dumps(content) if options.json else _table(found))
    if options.out is not None:
        write_atomically(options.out / "rates.json", json.dumps(content, indent=2) + "\n")
        note = _draw(found, options)
        if not options.quiet:
            cli.tell(f"{options.out / 'rates.json'}{note}")
    if found.interruption is not None:
        raise found.interruption
    return 0 if found.best else 1


def _draw(found: Results, options: argparse.Namespace) -> str:
    """Draw the rates; return a note about the picture."""
    try:
        from ..plots import draw_search
    except ImportError:
        return "; rates.png was not drawn: matplotlib is missing; pip install 'xpnet[plot]'"
    if found.best is None:
        return ""
    picture = draw_search(found.trials, ["lr"], found.importance(), ("lr",))
    write_atomically(options.out / "rates.png", picture)
    return " and rates.png"


def _table(found: Results) -> str:
    """Table with a line for each rate, the best one marked, and the command that trains with it."""
    best = min(found.ranked, key=lambda trial: float(trial["validation_loss"]), default=None)
    metric = next((name for name in TITLES if best is not None and f"validation_{name}" in best), "accuracy")
    lines = [f"{'rate':>10}  {'train loss':>10}  {'validation loss':>15}  {'validation ' + metric:>19}"]
    for trial in found.trials:
        mark = "  <- lowest validation loss" if best is not None and trial["trial"] == best["trial"] else ""
        lines.append(
            f"{trial['lr']:10.3g}  {trial['train_loss']:10.4f}  {trial['validation_loss']:15.4f}"
            f"  {trial['score']:19.4f}{mark}"
        )
    if best is None:
        lines.append("no rate gave a finite loss: scale the inputs, or try lower ones (--between)")
    else:
        if best["trial"] in (0, len(found.configs) - 1):
            lines.append("the best rate is at an end of what was tried: move the end (--between)")
        config = replace(found.configs[best["trial"]], steps=None)
        lines.append(printable(f"python -m xpnet.train {command_line(config)}"))
    return "\n".join(lines)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "lab.rates",
        argument_default=argparse.SUPPRESS,
        description="Try many learning rates at once, for a few hundred steps, and show the results of each.",
        epilog=f"It trains for {STEPS} steps unless --steps or --epochs is given, and holds out a tenth of the training"
        " rows to judge by unless --validation is.",
    )
    add = parser.add_argument_group("rates").add_argument
    add(
        "--between",
        nargs=2,
        type=cli.number,
        default=(LEAST, MOST),
        metavar=("LEAST", "MOST"),
        help=f"(default: {LEAST:g} {MOST:g})",
    )
    add("--count", type=cli.whole_number, default=COUNT, metavar="N", help=f"how many rates (default: {COUNT})")
    add_options(parser, without=("lr", "early_stop", *SEVERAL))
    add = parser.add_argument_group("output").add_argument
    add("--out", type=folder, default=None, metavar="DIR", help="write rates.json and rates.png into DIR")
    add("--overwrite", action="store_true", default=False, help="replace the files of an earlier search in DIR")
    add("--json", action="store_true", default=False, help="print one JSON object on stdout: best, and trials")
    add("--quiet", action="store_true", default=False, help="no progress on stderr")
    return parser


if __name__ == "__main__":
    sys.exit(main())
