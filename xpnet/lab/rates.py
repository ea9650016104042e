"""python -m xpnet.lab rates: which learning rates work.

Networks that are alike but for their rate train side by side, as replicas, for a few hundred steps each; so every point
of the picture is a training of its own, and none has been shaped by the rates before it, as it is in the test with a
rising rate (Smith, "Cyclical learning rates for training neural networks", 2017).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace

from ..commands import cli
from ..commands.options import add_options, config_of
from ..search.groups import Trial
from .trials import Trials, add_output_options, metric_of, run_trials

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
    least, most = options.between
    try:
        configs = [replace(base, lr=rate) for rate in rates(least, most, options.count)]
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    found = run_trials(configs, [{"lr": config.lr} for config in configs], options, "rates")
    return found.report(options, "rates", _table)


def rates(least: float, most: float, count: int) -> list[float]:
    """Space `count` rates evenly in their logarithm, from `least` to `most`."""
    if not 0.0 < least < most:
        raise ValueError(f"the rates must rise from above 0, not from {least} to {most}")
    if count < 2:
        raise ValueError(f"count must be at least 2, not {count}")
    step = math.log(most / least) / (count - 1)
    return [float(f"{least * math.exp(i * step):.3g}") for i in range(count)]


def _table(found: Trials, ranked: list[Trial]) -> str:
    """Table with a line for each rate, the best one marked, and the command that trains with it."""
    best = ranked[0] if ranked else None
    metric = metric_of(found.trials)
    lines = [f"{'rate':>10}  {'train loss':>10}  {'validation loss':>15}  {'validation ' + metric:>19}"]
    for trial in found.trials:
        mark = "  <- lowest validation loss" if trial is best else ""
        lines.append(
            f"{trial['lr']:10.3g}  {trial['train_loss']:10.4f}  {trial['validation_loss']:15.4f}"
            f"  {trial['validation_' + metric]:19.4f}{mark}"
        )
    if best is None:
        lines.append("no rate gave a finite loss: scale the inputs, or try lower ones (--between)")
    else:
        if best in (found.trials[0], found.trials[-1]):
            lines.append("the best rate is at an end of what was tried: move the end (--between)")
        lines.append(found.train_command(best, steps=None))
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
    add_options(parser, without=("lr", "early_stop"))
    add_output_options(parser, "rates.json and rates.png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
