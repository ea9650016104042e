"""The floor: the matrix products of a step, and nothing else, done in two ways of which the faster counts.

- divided: as a compiled step of xpnet does them, by functions of its own. Each product's rows are divided among as many
  threads as there are processors, with no interpreter between the products.
- numpy: `numpy.matmul` into arrays that are there already, one product after the other, with all of the BLAS's threads.

The products are y = x W and dW = x^T dy for every layer, and dx = dy W^T for all but the first, on a chain: y is the
next layer's x, and the last y is the first dy. Zeros are multiplied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from contest import Array, LeftOut, Problem, main
from threadpoolctl import threadpool_limits
from xpnet_steps import keep_zeros

from xpnet.compile import compile_step, why_not_compiled
from xpnet.compile.cpu.program import Program
from xpnet.compile.passes.instructions import Barrier, Product
from xpnet.core.device import usable_processors


class Divided:
    """The products as a program of xpnet's."""

    def __init__(self, problem: Problem) -> None:
        threadpool_limits(usable_processors(), user_api="blas")
        keep_zeros()
        self.layers = len(problem.weights)
        self.arrays = {"x": problem.typed_inputs(slice(problem.batch_size))}
        for k, (w, *_) in enumerate(problem.weights):
            self.arrays |= {f"W{k}": w.copy(), f"dW{k}": np.zeros_like(w)}
        self.program = compile_step(self._products, self.arrays)
        if not isinstance(self.program, Program):
            raise LeftOut(f"the products are not compiled: {why_not_compiled()}")
        instructions = [one for one in self.program.plan.instructions if not isinstance(one, Barrier)]
        products = sum(isinstance(one, Product) for one in instructions)
        if products != 3 * self.layers - 1 or len(instructions) != products:
            raise RuntimeError(f"{len(instructions)} instructions, {products} of them products: not those of a step")

    def _products(self, xp: Any, a: dict[str, Any]) -> None:
        xs = [a["x"]]
        for k in range(self.layers):
            xs.append(xs[-1] @ a[f"W{k}"])
        dy = xs.pop()
        for k in reversed(range(self.layers)):
            a[f"dW{k}"][...] = xs[k].T @ dy
            if k:
                dy = dy @ a[f"W{k}"].T

    def take(self, batches: Array) -> None:
        self.program.run(self.arrays, len(batches))

    def weights(self) -> None:
        return None


class WithNumPy:
    """The products by NumPy's matmul."""

    def __init__(self, problem: Problem) -> None:
        threadpool_limits(usable_processors(), user_api="blas")
        self.calls: list[tuple[Array, Array, Array]] = []
        xs = [problem.typed_inputs(slice(problem.batch_size))]
        for w, *_ in problem.weights:
            xs.append(self._call(xs[-1], w))
        dy = xs.pop()
        for x, (w, *_) in zip(xs[::-1], problem.weights[::-1], strict=True):
            self._call(x.T, dy)
            if x is not xs[0]:
                dy = self._call(dy, w.T)

    def _call(self, a: Array, b: Array) -> Array:
        out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
        self.calls.append((a, b, out))
        return out

    def take(self, batches: Array) -> None:
        for _ in range(len(batches)):
            for a, b, out in self.calls:
                np.matmul(a, b, out=out)

    def weights(self) -> None:
        return None


if __name__ == "__main__":
    main({"divided": Divided, "numpy": WithNumPy})
