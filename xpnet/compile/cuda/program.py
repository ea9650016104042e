"""A plan on a GPU: a kernel for each loop, a product of cuBLASLt for each product, and all of them in one CUDA graph.

Nothing of a step comes from the host. The number of the step is on the device, as are the inputs that each step has its
own of, and the graph's first kernel fetches them. So a run of many steps is a number of launches, and the host never
waits.

The first step on given memory is launched kernel by kernel, which loads what CUDA loads lazily. The next ones are
captured.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from ...core.device import ALIGNMENT, Array, Device
from ..executable import AllReduceCall, check_arrays, run_inputs
from ..ir import Input, Operation, Source, Trace, View
from ..llvm.values import Entry, Pointer, Rows
from ..passes.instructions import AllReduce, Loop, Product
from ..passes.memory import accessed
from .compiler import kernels
from .describe import describe_launches
from .mapping import Grid, Kernel, lanes_of
from .plan import launch_plan
from .position import THREADS, Advance, Fetch, Start
from .products import Products

GRAPHS = 4  # graphs that are kept, each for other memory
STEPS = 8  # steps of a graph, where there are as many: a launch has a fixed cost, and so has its capture
Call = Callable[[], object]
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
        parameter = words.view(f"V{words.nbytes}")  # an array of one: as a scalar, CuPy 14.0 takes 32 bytes at most
        self.function((self.grid.blocks,), self.grid.threads, (parameter,))


@dataclass
class Graphs:
    """The graphs of a step on given memory.

    Attributes:
        memory: the inputs, which must stay as long as the graphs.
        loaded: whether the kernels have been launched one by one: CUDA loads them then, which no capture allows.
        by_steps: for a number of steps, what runs them: a graph, or several with all-reduces between them.
    """

    memory: Mapping[Source, Array]
    loaded: bool = False
    by_steps: dict[int, list[Call]] = field(default_factory=dict)


class Program:
    """An executable on a GPU; arguments and errors are those of `Executable`.

    Attributes:
        plan: its plan.

    Args:
        trace: the trace.
        device: the GPU.
        precision: of products of float32, one of `PRECISIONS`.
        all_reduce: sums arrays over ranks, where the step does: between graphs, in the order of the current stream.
    """

    compiled = True
    asynchronous = True

    def __init__(
        self, trace: Trace, device: Device, precision: str = "fp32", all_reduce: AllReduceCall | None = None
    ) -> None:
        self._device, self._all_reduce = device, all_reduce
        self._lock = threading.Lock()
        self._graphs: dict[Any, Graphs] = {}  # by the addresses of the inputs
        with device.activate():
            self._products = Products(device, precision)
            self.plan = launch_plan(trace, self._products.supports)
            self._products.complete(one for one in self.plan.instructions if isinstance(one, Product))
            if self._products.why_cupys is not None:
                self.plan = launch_plan(trace, lambda product: False)
            self._inputs = run_inputs(self.plan.trace)
            self._own = [one for one in self._inputs if one.per_step]
            self._aligned = self._aligned_inputs()
            self._make_memory()
            self._make_kernels()

    def _make_memory(self) -> None:
        """Make the memory of results, of a step's own inputs, of constants, and of the position."""
        zeros = self._device.zeros
        self._workspace = zeros((max(self.plan.size, 1),), "uint8")
        self._position = zeros((1 + len(self._own),), "int64")
        self._fixed: dict[Source, Array] = {one: zeros(one.shape, one.dtype) for one in self._own}
        for one in self.plan.trace.inputs:
            if one.constant is not None:
                self._fixed[one] = self._device.asarray(one.constant)

    def _make_kernels(self) -> None:
        """Compile the kernels of loops, and those that go from step to step."""
        function = kernels(self._device).function
        self._kernels = {}
        for launch in self.plan.launches:
            if loops := [one for one in launch if isinstance(one, Loop)]:
                kernel = Kernel(loops, self.plan.inlining)
                self._kernels[launch[0]] = kernel, function(kernel.text)
        self._fetch_blocks = -(-max((math.prod(one.shape) for one in self._own), default=1) // ALONE)
        sizes = [one.dtype.itemsize for one in self._own]
        self._start = function(Start(2 + len(self._own)).kernel)
        self._fetch = function(Fetch(sizes, advances=self._fetch_blocks == 1).kernel)
        self._advance = function(Advance(1).kernel)

    def run(self, arrays: Mapping[str, Array], steps: int = 1) -> None:
        """Run the plan `steps` times."""
        with self._lock, self._device.activate():
            check_arrays(self._inputs, arrays, steps)
            graphs = self._graphs_on(self._fixed | {one: arrays[one.name] for one in self._inputs if not one.per_step})
            stacked = [arrays[one.name].data.ptr for one in self._own]
            Launch(self._start, ONE_THREAD, [self._position.data.ptr, 0, *stacked])()
            while steps:
                steps -= self._launch_some(graphs, steps)

    def bind(self, arrays: Mapping[str, Array], steps: int = 1) -> Call:
        """Return the call that runs the plan on these arrays."""
        return partial(self.run, arrays, steps)

    def _graphs_on(self, memory: Mapping[Source, Array]) -> Graphs:
        """Return the graphs for this memory, which there may be none of yet."""
        key = tuple((array.data.ptr, array.shape) for array in memory.values())
        if key not in self._graphs:
            self._check_alignment(memory)
            self._graphs = dict([*self._graphs.items(), (key, Graphs(memory))][-GRAPHS:])
        return self._graphs[key]

    def _launch_some(self, graphs: Graphs, steps: int) -> int:
        """Launch up to `steps` steps, and return how many."""
        if self._products.why_cupys is not None or not graphs.loaded:
            for _, launch in self._launches(graphs.memory):
                launch()
            graphs.loaded = True
            return 1
        count = STEPS if steps >= STEPS else 1
        if count not in graphs.by_steps:
            graphs.by_steps[count] = self._graphs_of(graphs.memory, count)
        for launch in graphs.by_steps[count]:
            launch()
        return count

    def _graphs_of(self, memory: Mapping[Source, Array], steps: int) -> list[Call]:
        """Return the launches of some steps as graphs, and what cannot be captured between them."""
        launches = [one for _ in range(steps) for one in self._launches(memory)]
        found: list[Call] = []
        for captured, group in groupby(launches, key=itemgetter(0)):
            calls = [launch for _, launch in group]
            found += [self._capture(calls).launch] if captured else calls
        return found

    def _check_alignment(self, memory: Mapping[Source, Array]) -> None:
        """Raise ValueError for an array that begins where a product or a vector in memory must not."""
        for source in self._aligned:
            if memory[source].data.ptr % ALIGNMENT:
                raise ValueError(f"{source.name} must begin at a multiple of {ALIGNMENT} bytes")

    def _aligned_inputs(self) -> list[Input]:
        """The inputs that products read or write, or loops in vectors."""
        views: list[View] = []
        for one in (one for launch in self.plan.launches for one in launch):
            if isinstance(one, Product) or (isinstance(one, Loop) and lanes_of(one, self.plan.inlining) > 1):
                views += [view for view, _ in accessed(one, self.plan.inlining)]
        return list(dict.fromkeys(view.source for view in views if isinstance(view.source, Input)))

    def _capture(self, launches: Sequence[Call]) -> Any:
        """Return the graph of some launches."""
        stream = self._device.xp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                for launch in launches:
                    launch()
            except BaseException:
                with suppress(Exception):  # the capture is void
                    stream.end_capture()
                raise
            return stream.end_capture()

    def _launches(self, memory: Mapping[Source, Array]) -> Iterator[tuple[bool, Call]]:
        """Yield a step's launches on the current stream, each with whether a graph can hold it."""
        yield True, self._launch_of_fetch()
        for first, *_ in self.plan.launches:
            if isinstance(first, Product):
                where = partial(self._start_of, memory), partial(self._array, memory)
                yield True, partial(self._products.launch, first, *where)
            elif isinstance(first, AllReduce):
                assert self._all_reduce is not None
                views = first.source, first.operation.result
                yield False, partial(self._all_reduce, *(self._array(memory, view) for view in views))
            else:
                kernel, function = self._kernels[first]
                yield True, Launch(function, kernel.grid, [self._number(one, memory) for one in kernel.table])
        if self._fetch_blocks > 1:
            yield True, Launch(self._advance, ONE_THREAD, [self._position.data.ptr])

    def _launch_of_fetch(self) -> Launch:
        """The kernel that copies the step's own inputs."""
        table = [self._position.data.ptr]
        for one in self._own:
            table += [self._fixed[one].data.ptr, math.prod(one.shape)]
        return Launch(self._fetch, Grid(self._fetch_blocks, (THREADS, 1)), table)

    def _start_of(self, memory: Mapping[Source, Array], view: View) -> int:
        """Address of a view's first element."""
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
        assert isinstance(entry, int)  # a float is there by its bits
        return entry

    def _array(self, memory: Mapping[Source, Array], view: View) -> Array:
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
        return describe_launches(self.plan, self._device.name, self._products.why_cupys)
