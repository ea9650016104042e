"""A stand-in for CuPy, for machines without a GPU: NumPy behind a wall.

Its arrays are no NumPy arrays, and raise wherever CuPy's would have to copy between host and device unasked, so that
code which runs on it crosses the border only where it says so. It is stricter than CuPy on purpose: CuPy lets
`if array` and iteration pass, at the price of a synchronisation. Crossings and waits are counted. An array belongs to
the device that was current when it was made, and takes part in nothing while another one is.

What it cannot find: errors in kernels, races, index wrap-around, and running out of memory.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

# What each function takes besides its arrays, as in CuPy 14 (`test_architecture.py` holds it against the wheel).
# It has no `where=` or `initial=` in reductions, and no `out=` in where() and take_along_axis().
REDUCTION = {"axis", "out", "keepdims"}
UFUNC = {"out", "dtype", "casting"}
FUNCTIONS = {
    **dict.fromkeys(
        ("abs", "add", "divide", "equal", "exp", "expm1", "floor", "greater", "isfinite", "isnan", "log"), UFUNC
    ),
    **dict.fromkeys(("log1p", "maximum", "minimum", "multiply", "negative", "sign", "sqrt", "subtract", "tanh"), UFUNC),
    **dict.fromkeys(("cos", "sin"), UFUNC),
    "matmul": {"out", "dtype", "casting"},
    "sum": REDUCTION | {"dtype"},
    "mean": REDUCTION | {"dtype"},
    "max": REDUCTION,
    "min": REDUCTION,
    "argmax": REDUCTION | {"dtype"},
    "all": REDUCTION,
    "any": REDUCTION,
    "where": {"x", "y"},
    "take": {"indices", "axis", "out"},
    "take_along_axis": {"indices", "axis"},
    "concatenate": {"axis", "out", "dtype", "casting"},
    "stack": {"axis", "out", "dtype", "casting"},
    "broadcast_to": {"shape"},
    "reshape": set(),
    "swapaxes": set(),
    "zeros_like": {"dtype"},
}
REDUCTIONS = {"sum", "mean", "max", "min", "argmax", "all", "any", "amax", "amin"}  # NumPy calls max amax
TAKE_TUPLES = {"concatenate", "stack", "broadcast_to", "reshape", "zeros", "empty", "ones", "full"} | REDUCTIONS
VIEWS = {"reshape", "swapaxes"}  # they launch nothing, and work whatever device is current
CREATION = {"zeros": {"shape", "dtype"}, "empty": {"shape", "dtype"}, "ones": {"shape", "dtype"}}
CREATION |= {"full": {"shape", "fill_value", "dtype"}, "arange": {"start", "stop", "step", "dtype"}}
METHODS = {
    **{name: FUNCTIONS[name] for name in ("sum", "mean", "max", "min", "argmax", "all", "any", "take", "swapaxes")},
    "astype": {"dtype", "copy"},
    "reshape": set(),
    "copy": set(),
    "ravel": set(),
    "fill": {"value"},
}


class Array:
    """An array behind the wall. `_memory` is for the stand-in alone."""

    __array_ufunc__ = None  # NumPy's operators give way to ours, and its functions raise

    def __init__(self, module, memory):
        self._module = module
        self._memory = memory
        self._device = module.current

    def __deepcopy__(self, memo):
        return Array(self._module, self._memory.copy())

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion to a NumPy array")

    def __array_function__(self, *args):
        raise TypeError("a NumPy function was given an array of the device")

    def _refuse(self, *args):
        raise TypeError("an array of the device cannot be used so without a synchronisation")

    __bool__ = __index__ = __iter__ = __complex__ = __contains__ = __format__ = _refuse

    def __float__(self):
        return float(self._module.asnumpy(self))

    def __int__(self):
        return int(self._module.asnumpy(self))

    def item(self):
        return self._module.asnumpy(self).item()

    def get(self):
        return self._module.asnumpy(self)

    def tolist(self):
        return self._module.asnumpy(self).tolist()

    def __len__(self):
        return len(self._memory)

    shape = property(lambda self: self._memory.shape)
    dtype = property(lambda self: self._memory.dtype)
    ndim = property(lambda self: self._memory.ndim)
    size = property(lambda self: self._memory.size)
    nbytes = property(lambda self: self._memory.nbytes)
    strides = property(lambda self: self._memory.strides)

    def __getitem__(self, key):
        key = self._module._key(key)
        key = key if isinstance(key, tuple) else (key,)
        whole = key if any(one is ... for one in key) else (*key, ...)  # a 0-d view, as in CuPy, and no number
        return self._module._wrap(self._memory[whole], like=self)

    def __setitem__(self, key, value):
        self._module._check_device(self)
        self._memory[self._module._key(key)] = self._module._unwrap(value)

    def __repr__(self):
        return f"<stand-in array {self.shape} {self.dtype}>"


def _operator(name):
    def apply(self, other):
        return self._module._call(getattr(np.ndarray, name), self, other)

    return apply


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
):
    for _prefix in ("", "r", "i"):
        if (_prefix, _name) != ("i", "matmul"):
            setattr(Array, f"__{_prefix}{_name}__", _operator(f"__{_prefix}{_name}__"))
for _name in ("lt", "le", "eq", "ne", "gt", "ge"):
    setattr(Array, f"__{_name}__", _operator(f"__{_name}__"))
for _name in ("neg", "abs", "invert"):

    def _unary(self, _name=_name):
        return self._module._call(getattr(np.ndarray, f"__{_name}__"), self)

    setattr(Array, f"__{_name}__", _unary)
for _name, _taken in METHODS.items():

    def _method(self, *args, _name=_name, _taken=_taken, **kwargs):
        if _name in VIEWS:
            view = getattr(self._memory, _name)(*args)
            if np.may_share_memory(view, self._memory):
                return self._module._wrap(view, like=self)
        return self._module._call(getattr(np.ndarray, _name), self, *args, _taken=_taken, **kwargs)

    setattr(Array, _name, _method)


class StandIn:
    """The module: `xp = StandIn()`. `counts` has copies to the device, copies to the host, waits and calls."""

    __name__ = "stand_in"
    ndarray = Array
    uint8, int32, int64, float32, float64, bool_ = np.uint8, np.int32, np.int64, np.float32, np.float64, np.bool_
    newaxis = None
    inf = np.inf

    def __init__(self):
        self.current = 0  # the device that is current, on which arrays are made
        self.counts = Counter(to_device=0, to_host=0, waits=0, calls=0)
        self.cuda = Cuda(self)

    def _wrap(self, value, like=None):
        if not isinstance(value, np.ndarray | np.generic):
            raise TypeError(f"this would give {type(value).__name__}, and no array")
        array = Array(self, np.asarray(value))
        array._device = self.current if like is None else like._device
        return array

    def _check_device(self, array):
        if array._device != self.current:
            raise ValueError(f"an array of device {array._device} is used while device {self.current} is current")

    def _unwrap(self, value):
        if isinstance(value, Array):
            self._check_device(value)
            return value._memory
        if isinstance(value, np.ndarray | np.generic):
            raise TypeError(f"a NumPy value was given to the device: {value!r}")
        if isinstance(value, list):
            raise TypeError(f"a list was given to the device: {value!r}")
        return value

    def _key(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(one, Array) and one.dtype == bool for one in keys):
            raise TypeError("how many elements a mask selects is known only after a synchronisation")
        return tuple(self._memory_of(one) for one in keys) if isinstance(key, tuple) else self._memory_of(key)

    def _memory_of(self, key):
        return key._memory if isinstance(key, Array) else self._unwrap(key)

    def _call(self, function, *args, _taken=UFUNC, **kwargs):
        name = getattr(function, "__name__", str(function))
        refused = set(kwargs) - set(_taken)
        if refused:
            raise TypeError(f"{name}: unexpected argument {', '.join(refused)}")
        if name in REDUCTIONS and len(args) > 2:
            raise TypeError(f"{name}: all arguments but the axis must be given by name")
        if name in REDUCTIONS and args[0].dtype == bool:
            raise TypeError(f"{name} of bool takes NVRTC seconds to compile: sum a cast")
        self.counts["calls"] += 1
        takes_tuples = name in TAKE_TUPLES
        if any(isinstance(arg, tuple) for arg in args) and not takes_tuples:
            raise TypeError(f"{name}: a tuple was given to the device")
        args = [tuple(map(self._unwrap, arg)) if isinstance(arg, tuple) else self._unwrap(arg) for arg in args]
        out = kwargs.get("out")
        result = function(*args, **{name: self._unwrap(value) for name, value in kwargs.items()})
        if result is NotImplemented:
            raise TypeError(f"{function.__name__} is not implemented for {args}")
        return out if out is not None else self._wrap(result)

    def asarray(self, value, dtype=None):
        if isinstance(value, Array):
            self._check_device(value)
            return value if dtype is None else self._wrap(value._memory.astype(dtype, copy=False))
        self.counts["to_device"] += 1
        return self._wrap(np.array(value, dtype=dtype))

    array = asarray

    def asnumpy(self, value):
        if not isinstance(value, Array):
            return np.asarray(value)
        self.counts["to_host"] += 1
        self.counts["waits"] += 1
        return value._memory.copy()


for _name, _taken in FUNCTIONS.items():

    def _function(self, first, *args, _name=_name, _taken=_taken, **kwargs):
        first = tuple(first) if _name in ("concatenate", "stack") else first
        return self._call(getattr(np, _name), first, *args, _taken=_taken, **kwargs)

    setattr(StandIn, _name, _function)
for _name, _taken in CREATION.items():

    def _creation(self, *args, _name=_name, _taken=_taken, **kwargs):
        return self._call(getattr(np, _name), *args, _taken=_taken, **kwargs)

    setattr(StandIn, _name, _creation)


class Cuda:
    """The parts of cupy.cuda that are used: the current device, and one stream."""

    def __init__(self, module):
        self._module = module
        self.runtime = Runtime()

    def is_available(self):
        return True

    def Device(self, index):
        return CurrentDevice(self._module, index)

    def get_current_stream(self):
        return self

    def synchronize(self):
        self._module.counts["waits"] += 1


class CurrentDevice:
    """cupy.cuda.Device: current in a `with` block, or from `use` on."""

    def __init__(self, module, index):
        self._module, self._index = module, index

    def use(self):
        self._module.current = self._index

    def __enter__(self):
        self._before = self._module.current
        self.use()

    def __exit__(self, *error):
        self._module.current = self._before


class Runtime:
    """The parts of cupy.cuda.runtime that are used."""

    def getDeviceProperties(self, index):
        return {"name": b"stand-in", "totalGlobalMem": 2**30, "major": 0, "minor": 0}

    def driverGetVersion(self):
        return 0

    def runtimeGetVersion(self):
        return 0

    def getDeviceCount(self):
        return 1
