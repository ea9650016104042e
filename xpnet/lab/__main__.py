"""python -m xpnet.lab: list the experiments, and run one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..commands import cli

EXPERIMENTS = {
    "descent": "walking down the gradient: rates that creep, arrive and diverge",
    "surface": "the loss as a curve and as a surface, with minima and a saddle",
    "line": "a line fitted to points by descent on slope and intercept",
    "guessing": "how many combinations of weights there are; guessing against SGD",
    "zigzag": "wasted steps of plain descent in a long valley, and other rules",
    "minima": "local minima and a saddle: many starts, restarts, kicked rates",
    "gradients": "the numerical gradient against backpropagation, by layer",
    "neuron": "one neuron; AND, OR and NAND, and XOR, which needs two layers",
    "activations": "every activation and its derivative; step, and units that die",
    "growth": "the logistic curve of a population, and the cost of its exp",
    "vanishing": "deep networks by activation, initial weights, batch normalization",
    "drift": "weights and outputs of a deep network, drifting as it trains",
    "batchnorm": "batch normalization: inputs of activations, and training",
    "depth": "shallow against deep, narrow against wide",
    "logistic": "logistic regression: its boundary, and its graph by hand",
    "race": "SGD, Momentum, AdaGrad, RMSprop and Adam on the same batches",
    "minibatch": "the four steps of stochastic gradient descent, number by number",
    "outputs": "each kind of output layer, on data that it suits",
}
TOOLS = {
    "all": "every experiment above, and a page that shows them",
    "rates": "which learning rates work: many at once, and a picture",
    "search": "many networks: python -m xpnet.search",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment that `arguments` begin with, or list them; return the exit code."""
    purposes = EXPERIMENTS | TOOLS
    modules = {name: f"xpnet.lab.{name}" for name in purposes} | {"search": "xpnet.commands.search"}
    return cli.dispatch("xpnet.lab", "NAME", purposes, modules, arguments)


if __name__ == "__main__":
    sys.exit(main())
