"""A plan on a GPU: a kernel for each loop, a product of cuBLASLt for each product, and all of them in one CUDA graph.

Nothing of a step comes from the host. The number of the step is on the device, as are the inputs that each step has its
own of, and the graph's first kernel fetches them. So a run of many steps is as many launches of the graph, and the host
never waits.

The first step on given memory is launched kernel by kernel, which loads what CUDA loads lazily. The second one is
captured.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.device import ALIGNMENT, Array, Device
from ...core.errors import one_line
from ..executable import check_arrays, run_inputs
from ..ir import Input, Operation, Source, Trace, View, matrix_layout
from ..llvm.values import Entry, Pointer, Rows
from ..passes.describe import describe
from ..passes.instructions import Barrier, Instruction, Product
from ..passes.memory import Access, accessed, plan_memory
from ..passes.plan import Plan, make_plan
from . import blas
from .compiler import kernels
from .mapping import Grid, Kernel
from .position import THREADS, Advance, Fetch, Start
from .target import COSTS, KINDS

GRAPHS = 4  # graphs that are kept, each for other memory
ALONE = 4096  # elements up to which one block fetches a step's inputs


def gpu_plan(trace: Trace) -> Plan:
    """Return the plan of a trace for a GPU, with the memory of its results."""
    plan = make_plan(trace, COSTS, KINDS)
    uses = {one: [Access(*access) for access in accessed(one, plan.inlining)] for one in instructions(plan)}
    plan.offsets, plan.size = plan_memory(plan.instructions, uses)
    return plan


def instructions(plan: Plan) -> list[Instruction]:
    """Return the instructions of a plan for one worker, which has no barriers."""
    return [one for one in plan.instructions if not isinstance(one, Barrier)]


@dataclass(frozen=True)
class Launch:
    """A kernel and its arguments."""

    function: Any
    grid: Grid
    table: Sequence[int]

    def __call__(self) -> None:
        """Launch the kernel on the current stream."""
        words = np.array(self.table, np.int64)
        self.function(self.grid.blocks, self.grid.threads, (words.view(f"V{words.nbytes}")[0],))


class Program:
    """An executable on a GPU; arguments and errors are those of `Executable`.

    Attributes:
        plan: its plan.
        why_no_graph: the reason why kernels are launched one by one; None where they are one graph.
    """

    compiled = True
    asynchronous = True

    def __init__(self, trace: Trace, device: Device) -> None:
        self.plan = gpu_plan(trace)
        self.why_no_graph: str | None = None
        self._device = device
        self._inputs = run_inputs(self.plan.trace)
        self._own = [one for one in self._inputs if one.per_step]
        self._workspace = device.zeros((max(self.plan.size, 1),), "uint8")
        self._position = device.zeros((1 + len(self._own),), "int64")
        self._fixed: dict[Source, Array] = {one: device.zeros(one.shape, one.dtype) for one in self._own}
        for one in self.plan.trace.inputs:
            if one.constant is not None:
                self._fixed[one] = device.asarray(one.constant)
        self._lock = threading.Lock()
        self._graphs: dict[Any, Any] = {}  # by the memory of the inputs; None before the capture
        with device.activate():
            self._kernels = {
                one: Kernel(one, self.plan.inlining) for one in instructions(self.plan) if not isinstance(one, Product)
            }
            functions = kernels(device)
            self._functions = {one: functions.function(kernel.text) for one, kernel in self._kernels.items()}
            self._start = functions.function(Start(2 + len(self._own)).kernel)
            self._fetch = functions.function(Fetch([one.dtype.itemsize for one in self._own]).kernel)
            self._advance = functions.function(Advance(1).kernel)
            self._products = self._find_products()

    def _find_products(self) -> dict[Product, blas.Product]:
        """Return the products by cuBLASLt; none where one cannot be had."""
        products = [one for one in instructions(self.plan) if isinstance(one, Product)]
        try:
            library = blas.find(self._device.index or 0)
            found = {one: library.product(one.operation.dtype, *shapes_of(one)) for one in products}
        except Exception as error:
            self.why_no_graph = f"products are CuPy's, which no graph can hold: {one_line(error)}"
            return {}
        self._scratch = self._device.zeros((blas.WORKSPACE,), "uint8") if found else self._workspace
        return found

    def run(self, arrays: Mapping[str, Array], steps: int = 1) -> None:
        """Run the plan `steps` times."""
        with self._lock, self._device.activate():
            check_arrays(self._inputs, arrays, steps)
            memory = self._fixed | {one: arrays[one.name] for one in self._inputs if not one.per_step}
            key = tuple((array.data.ptr, array.shape) for array in memory.values())
            if key not in self._graphs:
                self._check_alignment(memory)
            stacked = [arrays[one.name].data.ptr for one in self._own]
            Launch(self._start, Grid((1, 1), (1, 1)), [self._position.data.ptr, 0, *stacked])()
            for _ in range(steps):
                if key not in self._graphs or self.why_no_graph is not None:
                    self._graphs = dict([*self._graphs.items(), (key, None)][-GRAPHS:])
                    self._launch_all(memory)
                    continue
                if self._graphs[key] is None:
                    self._graphs[key] = self._capture(memory), memory  # which must stay as long as the graph
                self._graphs[key][0].launch()

    def _check_alignment(self, memory: Mapping[Source, Array]) -> None:
        """Raise ValueError for a factor or result of a product that begins where cuBLASLt was not told."""
        for product in self._products:
            for view in product.matrices:
                if isinstance(view.source, Input) and memory[view.source].data.ptr % ALIGNMENT:
                    raise ValueError(f"{view.source.name} must begin at a multiple of {ALIGNMENT} bytes")

    def _capture(self, memory: Mapping[Source, Array]) -> Any:
        """Return the graph of a step."""
        stream = self._device.xp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                self._launch_all(memory)
            finally:
                graph = stream.end_capture()
        return graph

    def _launch_all(self, memory: Mapping[Source, Array]) -> None:
        """Launch a step's kernels and products on the current stream."""
        self._launch_fetch()
        stream = self._device.xp.cuda.get_current_stream().ptr
        for instruction in instructions(self.plan):
            if isinstance(instruction, Product):
                self._multiply(instruction, memory, stream)
            else:
                kernel = self._kernels[instruction]
                table = [self._number(entry, memory) for entry in kernel.table]
                Launch(self._functions[instruction], kernel.grid, table)()
        Launch(self._advance, Grid((1, 1), (1, 1)), [self._position.data.ptr])()

    def _launch_fetch(self) -> None:
        """Launch the kernel that copies the step's own inputs."""
        if self._own:
            sizes = [math.prod(one.shape) for one in self._own]
            table = [self._position.data.ptr]
            for one, size in zip(self._own, sizes, strict=True):
                table += [self._fixed[one].data.ptr, size]
            blocks = -(-max(sizes) // ALONE)
            Launch(self._fetch, Grid((blocks, 1), (THREADS, 1)), table)()

    def _multiply(self, product: Product, memory: Mapping[Source, Array], stream: int) -> None:
        a, b, c = product.matrices
        if self.why_no_graph is not None:
            xp = self._device.xp
            xp.matmul(self._array(a, memory), self._array(b, memory), out=self._array(c, memory))
            return
        a_at, b_at, c_at = (self._address(one.source, memory) + one.offset * one.dtype.itemsize for one in (a, b, c))
        self._products[product].launch(a_at, b_at, c_at, self._scratch.data.ptr, stream)

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
        self._graphs.clear()

    def __str__(self) -> str:
        return describe(self.plan, self._device.name)


def shapes_of(product: Product) -> tuple[int, blas.Matrix, blas.Matrix, blas.Matrix]:
    """Return the number of replicas of a product, and its matrices as cuBLASLt takes them."""
    replicas = product.operation.shape[0] if len(product.operation.shape) == 3 else 1
    a, b, c = (_matrix(view) for view in product.matrices)
    return replicas, a, b, c


def _matrix(view: View) -> blas.Matrix:
    layout = matrix_layout(view)
    assert layout is not None
    transposed, leading = layout
    size = view.dtype.itemsize
    stride = view.strides[0] if view.ndim == 3 and view.shape[0] > 1 else 0
    # Inputs and results begin at multiples of ALIGNMENT.
    alignment = math.gcd(ALIGNMENT, view.offset * size, stride * size)
    return blas.Matrix(view.shape[-2], view.shape[-1], leading, transposed, stride, alignment)
