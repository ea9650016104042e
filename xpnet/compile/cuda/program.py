"""A plan on a GPU: a kernel for each loop, a product of cuBLASLt for each product, and all of them in one CUDA graph.

Nothing of a step comes from the host. The number of the step is on the device, as are the inputs that each step has its
own of, and the graph's first kernel fetches them. So a run of many steps is a number of launches, and the
host never waits.

The first step on given memory is launched kernel by kernel, which loads what CUDA loads lazily. The second one is
captured.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...core.device import ALIGNMENT, Array, Device
from ...core.errors import DeviceError, one_line
from ..executable import check_arrays, run_inputs
from ..ir import Input, Operation, Source, Trace, View, matrix_layout
from ..llvm.values import Entry, Pointer, Rows
from ..passes.instructions import Loop, Product
from ..passes.memory import accessed
from . import blas
from .compiler import kernels
from .describe import describe_launches
from .mapping import Grid, Kernel, lanes_of
from .plan import launch_plan
from .position import THREADS, Advance, Fetch, Start

GRAPHS = 4  # graphs that are kept, each for other memory
STEPS = 8  # steps of a graph, where there are as many: a launch has a fixed cost, and so has its capture
ONE_THREAD = Grid(1, (1, 1))
ALONE = 4096  # elements up to which one block fetches a step's inputs


@dataclass(frozen=True)
class Launch:
    """A kernel and its arguments."""

    function: Any
    grid: Grid
    table: Sequence[int]

    def __call__(self) -> None:
        """Launch the kernel on the current stream."""
        words = np.array(self.table, np.int64)
        self.function((self.grid.blocks,), self.grid.threads, (words.view(f"V{words.nbytes}")[0],))


@dataclass
class Graphs:
    """The graphs of a step on given memory.

    Attributes:
        memory: the inputs, which must stay as long as the graphs.
        loaded: whether the kernels have been launched one by one: CUDA loads them then, which no capture allows.
        by_steps: the graphs, by their number of steps.
    """

    memory: Mapping[Source, Array]
    loaded: bool = False
    by_steps: dict[int, Any] = field(default_factory=dict)


class Program:
    """An executable on a GPU; arguments and errors are those of `Executable`.

    Attributes:
        plan: its plan.
        why_no_graph: the reason why kernels are launched one by one; None where they are one graph.

    Args:
        trace: the trace.
        device: the GPU.
        precision: of products, one of `PRECISIONS`.
    """

    compiled = True
    asynchronous = True

    def __init__(self, trace: Trace, device: Device, precision: str = "fp32") -> None:
        self._device, self._precision = device, precision
        self.why_no_graph: str | None = None
        self._products: dict[Product, blas.Product] = {}
        with device.activate():
            self.plan = launch_plan(trace, self._supports)
            self._find_products()
            if self.why_no_graph is not None:  # CuPy's products have no epilogues
                self.plan = launch_plan(trace, lambda product: False)
            self._kernels = {
                one[0]: Kernel([loop for loop in one if isinstance(loop, Loop)], self.plan.inlining)
                for one in self.plan.launches
                if isinstance(one[0], Loop)
            }
            self._inputs = run_inputs(self.plan.trace)
            self._aligned = self._aligned_inputs()
            self._own = [one for one in self._inputs if one.per_step]
            self._workspace = device.zeros((max(self.plan.size, 1),), "uint8")
            scratch = max((one.workspace for one in self._products.values()), default=0)
            self._scratch = device.zeros((max(scratch, 1),), "uint8")
            self._masks = {
                one: device.zeros((made.mask,), "uint8") for one, made in self._products.items() if made.mask
            }
            self._position = device.zeros((1 + len(self._own),), "int64")
            self._fixed: dict[Source, Array] = {one: device.zeros(one.shape, one.dtype) for one in self._own}
            for one in self.plan.trace.inputs:
                if one.constant is not None:
                    self._fixed[one] = device.asarray(one.constant)
            functions = kernels(device)
            self._functions = {one: functions.function(kernel.text) for one, kernel in self._kernels.items()}
            self._fetch_blocks = -(-max((math.prod(one.shape) for one in self._own), default=1) // ALONE)
            sizes = [one.dtype.itemsize for one in self._own]
            self._start = functions.function(Start(2 + len(self._own)).kernel)
            self._fetch = functions.function(Fetch(sizes, advances=self._fetch_blocks == 1).kernel)
            self._advance = functions.function(Advance(1).kernel)
        self._lock = threading.Lock()
        self._graphs: dict[Any, Graphs] = {}  # by the addresses of the inputs

    def _supports(self, product: Product) -> bool:
        """Whether cuBLASLt has a product with its epilogue; keep it then."""
        try:
            self._products[product] = blas.find(self._device.index or 0).product(self._precision, *shapes_of(product))
        except Exception:
            return False
        return True

    def _find_products(self) -> None:
        """Make the products of cuBLASLt that have no epilogue; where one cannot be made, all products are CuPy's."""
        for one in self.plan.instructions:
            if isinstance(one, Product) and one not in self._products:
                try:
                    self._products[one] = blas.find(self._device.index or 0).product(self._precision, *shapes_of(one))
                except Exception as error:
                    if self._precision != "fp32":
                        reason = f"has no products in {self._precision}: {one_line(error)}"
                        raise DeviceError(f"{self._device.name} {reason}") from error
                    self.why_no_graph = f"products are CuPy's, which no graph can hold: {one_line(error)}"
                    self._products = {}
                    return

    def run(self, arrays: Mapping[str, Array], steps: int = 1) -> None:
        """Run the plan `steps` times."""
        with self._lock, self._device.activate():
            check_arrays(self._inputs, arrays, steps)
            graphs = self._graphs_on(self._fixed | {one: arrays[one.name] for one in self._inputs if not one.per_step})
            stacked = [arrays[one.name].data.ptr for one in self._own]
            Launch(self._start, ONE_THREAD, [self._position.data.ptr, 0, *stacked])()
            while steps:
                steps -= self._launch_some(graphs, steps)

    def _graphs_on(self, memory: Mapping[Source, Array]) -> Graphs:
        """Return the graphs for this memory, which there may be none of yet."""
        key = tuple((array.data.ptr, array.shape) for array in memory.values())
        if key not in self._graphs:
            self._check_alignment(memory)
            self._graphs = dict([*self._graphs.items(), (key, Graphs(memory))][-GRAPHS:])
        return self._graphs[key]

    def _launch_some(self, graphs: Graphs, steps: int) -> int:
        """Launch up to `steps` steps, and return how many."""
        if self.why_no_graph is not None or not graphs.loaded:
            self._launch_all(graphs.memory)
            graphs.loaded = True
            return 1
        count = STEPS if steps >= STEPS else 1
        if count not in graphs.by_steps:
            graphs.by_steps[count] = self._capture(graphs.memory, count)
        graphs.by_steps[count].launch()
        return count

    def _check_alignment(self, memory: Mapping[Source, Array]) -> None:
        """Raise ValueError for an array that begins where a product or a vector in memory must not."""
        for source in self._aligned:
            if memory[source].data.ptr % ALIGNMENT:
                raise ValueError(f"{source.name} must begin at a multiple of {ALIGNMENT} bytes")

    def _aligned_inputs(self) -> list[Input]:
        """The inputs that products read or write, or loops in vectors."""
        views = [view for product in self._products for view in product.matrices]
        for one in self.plan.instructions:
            if isinstance(one, Loop) and lanes_of(one, self.plan.inlining) > 1:
                views += [view for view, _ in accessed(one, self.plan.inlining)]
        return list(dict.fromkeys(view.source for view in views if isinstance(view.source, Input)))

    def _capture(self, memory: Mapping[Source, Array], steps: int) -> Any:
        """Return the graph of some steps."""
        stream = self._device.xp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                for _ in range(steps):
                    self._launch_all(memory)
            except BaseException:
                with suppress(Exception):  # the capture is void
                    stream.end_capture()
                raise
            return stream.end_capture()

    def _launch_all(self, memory: Mapping[Source, Array]) -> None:
        """Launch a step's kernels and products on the current stream."""
        self._launch_fetch()
        stream = self._device.xp.cuda.get_current_stream().ptr
        for first, *_ in self.plan.launches:
            if isinstance(first, Product):
                self._multiply(first, memory, stream)
            else:
                kernel = self._kernels[first]
                Launch(self._functions[first], kernel.grid, [self._number(one, memory) for one in kernel.table])()
        if self._fetch_blocks > 1:
            Launch(self._advance, ONE_THREAD, [self._position.data.ptr])()

    def _launch_fetch(self) -> None:
        """Launch the kernel that copies the step's own inputs."""
        table = [self._position.data.ptr]
        for one in self._own:
            table += [self._fixed[one].data.ptr, math.prod(one.shape)]
        Launch(self._fetch, Grid(self._fetch_blocks, (THREADS, 1)), table)()

    def _multiply(self, product: Product, memory: Mapping[Source, Array], stream: int) -> None:
        if self.why_no_graph is not None:
            a, b, c = (self._array(view, memory) for view in product.matrices)
            self._device.xp.matmul(a, b, out=c)
            return
        a_at, b_at, c_at = (self._start_of(view, memory) for view in product.matrices)
        epilogue, bias, mask = product.epilogue, None, None
        if epilogue is not None:
            bias = None if epilogue.bias is None else self._start_of(epilogue.bias, memory)
            kept = self._masks.get(product if epilogue.relu_of is None else epilogue.relu_of)
            mask = None if kept is None else kept.data.ptr
        self._products[product].launch(a_at, b_at, c_at, self._scratch.data.ptr, stream, bias, mask)

    def _start_of(self, view: View, memory: Mapping[Source, Array]) -> int:
        return self._address(view.source, memory) + view.offset * view.dtype.itemsize

    def _address(self, source: Source, memory: Mapping[Source, Array]) -> int:
        if isinstance(source, Operation):
            return int(self._workspace.data.ptr) + self.plan.offsets[source]
        return int(memory[source].data.ptr)

    def _number(self, entry: Entry, memory: Mapping[Source, Array]) -> int:
        if isinstance(entry, Pointer):
            return self._address(entry.source, memory)
        if isinstance(entry, Rows):
            return len(memory[entry.source])
        if isinstance(entry, float):
            return int(struct.unpack("<q", struct.pack("<d", entry))[0])
        return entry

    def _array(self, view: View, memory: Mapping[Source, Array]) -> Array:
        """A view as an array of CuPy."""
        xp, source = self._device.xp, view.source
        start = view.offset * view.dtype.itemsize
        if isinstance(source, Operation):
            pointer = self._workspace.data + (self.plan.offsets[source] + start)
        else:
            pointer = memory[source].data + start
        return xp.ndarray(view.shape, view.dtype, pointer, [stride * view.dtype.itemsize for stride in view.strides])

    def wait(self) -> None:
        """Wait until all work has been done."""
        self._device.synchronize()

    def release(self) -> None:
        """Keep none of the arrays that it ran on."""
        with self._lock:
            self._graphs.clear()

    def __str__(self) -> str:
        return describe_launches(self.plan, self._device.name, self.why_no_graph)


def shapes_of(product: Product) -> tuple[np.dtype[Any], int, blas.Matrix, blas.Matrix, blas.Matrix, blas.Epilogue]:
    """Return a product as cuBLASLt takes it: type, number of replicas, matrices, and what its epilogue does."""
    operation, epilogue = product.operation, product.epilogue
    replicas = operation.shape[0] if len(operation.shape) == 3 else 1
    own = blas.Epilogue(blas.EPILOGUE_DEFAULT)
    if epilogue is not None and epilogue.relu_of is not None:
        own = blas.Epilogue(blas.EPILOGUE_DRELU, mask=True)
    elif epilogue is not None and epilogue.bias is not None:
        code = blas.EPILOGUE_BIAS
        if epilogue.relu:
            code = blas.EPILOGUE_RELU_AUX_BIAS if epilogue.kept else blas.EPILOGUE_RELU_BIAS
        own = blas.Epilogue(code, _replica_stride(epilogue.bias), epilogue.kept)
    a, b, c = (_matrix(view) for view in product.matrices)
    return operation.dtype, replicas, a, b, c, own


def _matrix(view: View) -> blas.Matrix:
    layout = matrix_layout(view)
    assert layout is not None
    transposed, leading = layout
    size, stride = view.dtype.itemsize, _replica_stride(view)
    # Inputs and results begin at multiples of ALIGNMENT.
    alignment = math.gcd(ALIGNMENT, view.offset * size, stride * size)
    return blas.Matrix(view.shape[-2], view.shape[-1], leading, transposed, stride, alignment)


def _replica_stride(view: View) -> int:
    return view.strides[0] if view.ndim == 3 and view.shape[0] > 1 else 0
