"""python -m xpnet.lab: list the experiments, and run one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..commands import cli

EXPERIMENTS = {
    "descent": "the gradient, and walking down it: rates that creep, arrive and diverge",
    "surface": "the loss as a curve and as a surface, with its minima and its saddle",
    "line": "a line fitted to points by descent on slope and intercept",
    "guessing": "the number of combinations of parameters, and random weights against SGD",
    "zigzag": "wasted steps of plain descent in a long valley, and other rules",
    "minima": "local minima and a saddle: many starts at once, restarts and kicks of the rate",
    "gradients": "the numerical gradient against backpropagation, by layer",
    "neuron": "one neuron; AND, OR and NAND, and XOR, which needs two layers",
    "activations": "every activation with its derivative; why step cannot learn; units that die",
    "growth": "the logistic curve of a growing population, and the cost of its exp",
    "vanishing": "a deep network by activation and initialization, with and without batch normalization",
    "drift": "weights and outputs of a deep network, drifting as it trains",
    "batchnorm": "the effect of batch normalization on inputs of activations, and on training",
    "depth": "shallow against deep, narrow against wide",
    "logistic": "logistic regression, the smallest network: its boundary, and its graph by hand",
    "race": "SGD, Momentum, AdaGrad, RMSprop and Adam from the same weights on the same batches",
    "minibatch": "the four steps of stochastic gradient descent, number by number",
    "outputs": "each kind of output layer, on data that it suits",
}
TOOLS = {
    "all": "every experiment above, and a page that shows them",
    "rates": "which learning rates work: many at once, and a picture of the results",
    "search": "many networks: python -m xpnet.search",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment that `arguments` begin with, or list them; return the exit code."""
    purposes = EXPERIMENTS | TOOLS
    modules = {name: f"xpnet.lab.{name}" for name in purposes} | {"search": "xpnet.commands.search"}
    return cli.dispatch("xpnet.lab", "NAME", purposes, modules, arguments)


if __name__ == "__main__":
    sys.exit(main())
