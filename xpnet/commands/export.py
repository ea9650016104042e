"""python -m xpnet.export: a trained model as an ONNX file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ..core.checks import path_of
from ..core.files import write_atomically
from ..model.onnx_file import OPSET, onnx_model
from . import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.file.suffix != ".onnx":
        parser.error(f"{options.file} must end in .onnx: the model comes first, and then the file to write")
    parser.check_writable(options.file)
    model = cli.load_model(options.model, replica=options.replica)
    try:
        made = onnx_model(model)
    except (ModuleNotFoundError, ValueError) as error:
        raise cli.UsageError(f"{options.model}: {error}") from None
    content = made.SerializeToString()
    write_atomically(options.file, content)
    inputs, outputs = (", ".join(map(_described, values)) for values in (made.graph.input, made.graph.output))
    print(f"{cli.one_sentence(options.file)}: {inputs} -> {outputs}; opset {OPSET}, {len(content):,} bytes")
    return 0


def _described(value: Any) -> str:
    """Name, type and shape of an input or output, such as "input float32 (N, 784)"."""
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    shape = ", ".join(axis.dim_param or str(axis.dim_value) for axis in tensor.shape.dim)
    return f"{value.name} {tensor_dtype_to_np_dtype(tensor.elem_type)} ({shape})"


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "export",
        description="Write a trained model as an ONNX file, which takes rows as they come and gives its predictions.",
        epilog="Exit codes: 0; 1 the run failed; 2 arguments or models; 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("model", type=path_of, metavar="MODEL", help="a model file, or the folder of a run")
    add("file", type=path_of, metavar="FILE.onnx", help="the file to write; one that is there is replaced")
    add("--replica", type=cli.whole_number, metavar="N", help="write this replica alone, counted from 0")
    return parser


if __name__ == "__main__":
    sys.exit(main())
