"""Time of an answer: class probabilities for 1, 100 and 100,000 rows, by xpnet and its peers, on the CPU.

    python bench/peers/answers.py [--networks NAME ...] [--rows N ...] [--rounds 7] [--seconds 0.5] [--json FILE]
        [--picture FILE]

All have the same weights, take the same float32 rows as a NumPy array, and return a NumPy array. Each contender has a
process of its own, with its own defaults for threads. In each round every one has a turn; a ratio is the median over
rounds of two times of the same round. Where an answer is not that of NumPy in float64, to 1e-4, the exit code is 1.

The products are those of the network's layers and nothing else, by `numpy.matmul` into arrays that are there already:
all rows at once, or 1,024 at a time, whichever is faster.

onnxruntime and PyTorch take part where they are installed: pip install onnx onnxruntime torch
"""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import sys
import textwrap
import time
import timeit
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from contest import Array, Weights, Worker, he_normal, libraries
from host import (
    Entry,
    FailedError,
    LeftOutError,
    Remote,
    check_modules,
    markdown,
    missing,
    scratch,
)
from surroundings import in_words, noted, surroundings, write_results

NETWORKS = {"784-100-10": (784, 100, 10), "30-100-2": (30, 100, 2)}
ROWS = (1, 100, 100_000)
HELD = 100  # rows that a predictor has buffers for, at most
PIECE = 1024  # rows of a product
TOLERANCE = 1e-4
PAUSE = 0.2  # seconds behind a turn: threads spin a while before they sleep

BASE, FLOOR = "xpnet, predictor", "matrix products alone"
ENTRIES = (
    Entry(BASE, "answers.py", "predictor", "numpy"),
    Entry("xpnet, predict", "answers.py", "predict", "numpy"),
    Entry("onnxruntime", "answers.py", "onnxruntime", "onnxruntime"),
    Entry("PyTorch, eager", "answers.py", "torch", "torch"),
    Entry("scikit-learn", "answers.py", "sklearn", "sklearn"),
    Entry(FLOOR, "answers.py", "products", "numpy"),
)

Answer = Callable[[Array], Array]
Result = dict[str, Any]


def made_rows(features: int, count: int) -> Array:
    """Return random rows from 0 to 1, float32, (N, I)."""
    return np.random.default_rng(0).random((count, features), np.float32)


def probabilities(weights: Weights, x: Array) -> Array:
    """Return the softmax of the network's outputs, in float64."""
    y = x.astype(np.float64)
    for layer, (w, b) in enumerate(weights):
        y = (y if layer == 0 else np.maximum(y, 0.0)) @ w + b
    e = np.exp(y - y.max(axis=1, keepdims=True))
    found: Array = e / e.sum(axis=1, keepdims=True)
    return found


def sizes_of(weights: Weights) -> list[int]:
    """Return the sizes of the layers."""
    return [len(weights[0][0]), *(w.shape[1] for w, _ in weights)]


def _xpnet(weights: Weights) -> Any:
    from xpnet import MLP, Linear

    model = MLP(sizes_of(weights))
    linear = [layer for layer in model.network.layers if isinstance(layer, Linear)]
    for layer, (w, b) in zip(linear, weights, strict=True):
        layer.W, layer.b = w, b[None]
    return model


def by_predictor(weights: Weights, rows: int) -> Answer:
    """Return xpnet's predictor."""
    predictor: Answer = _xpnet(weights).predictor(min(rows, HELD))
    return predictor


def by_predict(weights: Weights, rows: int) -> Answer:
    """Return xpnet's `predict`."""
    predict: Answer = _xpnet(weights).predict
    return predict


def by_sklearn(weights: Weights, rows: int) -> Answer:
    """Return scikit-learn's `predict_proba`; its two classes are one output, the difference of the two logits."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    *hidden, classes = sizes_of(weights)[1:]
    model = MLPClassifier(hidden, max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        model.fit(made_rows(len(weights[0][0]), 10 * classes), np.arange(10 * classes) % classes)
    if classes == 2:
        w, b = weights[-1]
        weights = [*weights[:-1], (w[:, 1:] - w[:, :1], b[1:] - b[:1])]
    model.coefs_, model.intercepts_ = map(list, zip(*weights, strict=True))
    answer: Answer = model.predict_proba
    return answer


def by_onnxruntime(weights: Weights, rows: int) -> Answer:
    """Return a session of onnxruntime."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, name = [], [], "x"
    for layer, (w, b) in enumerate(weights):
        tensors += [numpy_helper.from_array(w, f"w{layer}"), numpy_helper.from_array(b, f"b{layer}")]
        nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [f"z{layer}"]))
        kind, name = ("Relu", f"y{layer}") if layer < len(weights) - 1 else ("Softmax", "p")
        nodes.append(helper.make_node(kind, [f"z{layer}"], [name]))
    sizes = sizes_of(weights)
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", m]) for n, m in (("x", sizes[0]), ("p", sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def by_torch(weights: Weights, rows: int) -> Answer:
    """Return PyTorch's layers, without gradients."""
    import torch

    layers: list[Any] = []
    for w, b in weights:
        linear = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1], torch.nn.Softmax(dim=1)).eval()

    def answer(x: Array) -> Array:
        with torch.no_grad():
            found: Array = network(torch.from_numpy(x)).numpy()
        return found

    return answer


def by_products(weights: Weights, rows: int) -> Answer:
    """Return the products alone, in the faster of two ways; they answer nothing."""
    held: dict[int, list[Array]] = {}

    def products(x: Array, piece: int) -> Array:
        for start in range(0, rows, piece):
            y = x[start : start + piece]
            outs = held.setdefault(len(y), [np.empty((len(y), w.shape[1]), np.float32) for w, _ in weights])
            for (w, _), out in zip(weights, outs, strict=True):
                y = np.matmul(y, w, out=out)
        return y

    def seconds(piece: int) -> float:
        return min(timeit.repeat(lambda: products(x, piece), number=1, repeat=5))

    x = made_rows(len(weights[0][0]), rows)
    fastest = min({rows, min(rows, PIECE)}, key=seconds)
    return lambda x: products(x, fastest)


MAKE: dict[str, Callable[[Weights, int], Answer]] = {
    "predictor": by_predictor,
    "predict": by_predict,
    "sklearn": by_sklearn,
    "onnxruntime": by_onnxruntime,
    "torch": by_torch,
    "products": by_products,
}


class AnswerWorker(Worker):
    """Answers when it is told to; each method is a command, and returns its answer."""

    def __init__(self, name: str) -> None:
        self.name = name

    def begin_on(self, sizes: Sequence[int], rows: int) -> dict[str, Any]:
        """Make the network and rows, answer once, and return how far off the answers are, and the libraries."""
        weights = he_normal(sizes)
        x = made_rows(sizes[0], max(rows, min(64 * rows, 6400)))
        self.pieces = itertools.cycle([x[k : k + rows] for k in range(0, len(x), rows)])
        self.answer = MAKE[self.name](weights, rows)
        found = self.answer(x[:rows])
        off = np.abs(found - probabilities(weights, x[:rows])).max() if self.name != "products" else 0.0
        return {"off": float(off), "libraries": libraries()}

    def turn(self, seconds: float, piece: int = 1) -> dict[str, Any]:
        """Answer for so long; return the time of an answer."""
        answers, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            self.answer(next(self.pieces))
            answers += piece
        return {"microseconds": spent / answers * 1e6}


def contest(network: str, rows: int, rounds: int, seconds: float) -> Result:
    """Let all contenders answer in turn; return the medians."""
    result: Result = {"network": network, "rows": rows, "left_out": {}, "failed": {}, "wrong": {}, "libraries": {}}
    times: list[dict[str, float]] = []
    with scratch() as folder, ExitStack() as stack:
        workers: dict[str, Remote] = {}
        for entry in ENTRIES:
            try:
                worker = Remote(entry, folder)
                stack.callback(worker.close)
                begun = worker.ask("begin_on", sizes=NETWORKS[network], rows=rows)
            except LeftOutError as reason:
                result["left_out"][entry.name] = str(reason)
                continue
            except FailedError as reason:
                result["failed"][entry.name] = str(reason)
                continue
            workers[entry.name] = worker
            result["libraries"][entry.name] = begun["libraries"]
            if not begun["off"] <= TOLERANCE:
                result["wrong"][entry.name] = f"off by {begun['off']:.2g}"
        names = list(workers)
        for number in range(rounds + 1):
            turn = {}
            for name in names[number % len(names) :] + names[: number % len(names)]:
                turn[name] = workers[name].ask("turn", seconds=seconds)["microseconds"]
                time.sleep(PAUSE)
            if number:  # the first round is to warm up
                times.append(turn)
    result["microseconds"] = {name: statistics.median(turn[name] for turn in times) for name in names}
    ratios = {name: [turn[name] / turn[BASE] for turn in times] for name in names}
    result["ratio"] = {name: statistics.median(ratios[name]) for name in names}
    result["ratio_range"] = {name: (min(ratios[name]), max(ratios[name])) for name in names}
    result["rounds"] = times
    return result


def table(results: list[Result]) -> str:
    """Return the table of microseconds, in brackets the time relative to xpnet's predictor, and its range."""
    titles = [
        f"{result['network']}, {result['rows']:,} {'row' if result['rows'] == 1 else 'rows'}" for result in results
    ]
    lines = []
    for entry in ENTRIES:
        cells = [entry.name]
        for result in results:
            if entry.name in result["microseconds"]:
                low, high = result["ratio_range"][entry.name]
                spread = f" ({result['ratio'][entry.name]:.2f}, {low:.2f} to {high:.2f})"
                ratio = "" if entry.name == BASE else spread
                found = result["microseconds"][entry.name]
                cells.append(f"{found:,.{0 if found >= 100 else 1}f}{ratio}")
            else:
                cells.append("")
        lines.append(cells)
    return markdown(["microseconds", *titles], lines)


def draw(results: list[Result], words: str) -> bytes:
    """Return a picture: a panel for each network and number of rows, a bar a contender."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    from xpnet.plots import PALETTE, new_figure

    networks = list(dict.fromkeys(result["network"] for result in results))
    rows = list(dict.fromkeys(result["rows"] for result in results))
    figure, axes = new_figure(len(networks), len(rows), width=4.2, height=2.6)
    colors = {"xpnet": PALETTE[0], "PyTorch": PALETTE[1], "onnxruntime": PALETTE[2], "scikit-learn": PALETTE[3]}
    for result in results:
        one = axes[networks.index(result["network"]), rows.index(result["rows"])]
        spent = result["microseconds"]
        names = [name for name in spent if name != FLOOR][::-1]
        one.barh(names, [spent[name] for name in names], color=[colors[name.partition(",")[0]] for name in names])
        for row, name in enumerate(names):
            one.annotate(
                f"{spent[name]:,.{0 if spent[name] >= 100 else 1}f} µs, {result['ratio'][name]:.1f} times",
                (spent[name], row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        if FLOOR in spent:
            one.axvline(spent[FLOOR], color="black", linestyle="--", linewidth=1)
        one.set_xlim(0, 1.7 * max(spent[name] for name in names))  # room for the last bar's text
        one.xaxis.set_major_locator(MaxNLocator(4))
        one.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        one.tick_params(labelsize=8)
        one.grid(visible=False, axis="y")
        count = f"{result['rows']:,} {'row' if result['rows'] == 1 else 'rows'}"
        one.set_title(f"{result['network']}, {count}", fontsize=10)
        one.set_xlabel("µs; dashed: the products alone", fontsize=8)
    figure.supxlabel(textwrap.fill(words, 60 * len(rows)), fontsize=7)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def main() -> int:
    """Compare, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a picture (needs matplotlib)")
    parser.add_argument("--serve", metavar="NAME", choices=MAKE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        AnswerWorker(options.serve).serve()
        return 0
    if min(options.rounds, *options.rows) < 1:
        parser.error("--rounds and --rows must be at least 1")
    if options.picture:
        check_modules(parser, "matplotlib")
    found, results = surroundings(), []
    for network in options.networks:
        for rows in options.rows:
            print(f"{network}, {rows:,} rows ...", file=sys.stderr, flush=True)
            results.append(contest(network, rows, options.rounds, options.seconds))
            if options.json:
                content = {"rounds": options.rounds, "seconds": options.seconds, "results": results}
                write_results(options.json, found, content)
    words = in_words(noted(found))
    print(words, table(results), missing(*results), sep="\n\n")
    if options.picture:
        options.picture.write_bytes(draw(results, words))
    return int(any(result["failed"] or result["wrong"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
