#!/usr/bin/env bash
# The check of xpnet on an NVIDIA GPU: does it work there, and how fast is it? In at most eight minutes:
#
#     scripts/gpu_check.sh [--quick] [FOLDER]           (default: gpu-check; --quick: in under three minutes)
#
# It needs Python with NumPy and CuPy, and no network; xpnet need not be installed. PYTHON names the interpreter.
# XPNET_DATA_DIR names a folder with MNIST; without it, and without MNIST in the cache, the bundled digits are used.
# What else is missing (PyTorch, JAX, pytest) is left out, and named. FOLDER then holds report.md, and the numbers behind
# it as JSON and text.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
needed='import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, ("numpy", "cupy")))'
candidates=(python python3 "$root/.venv/bin/python")
[ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
for python in "${candidates[@]}"; do
    if "$python" -c "$needed" 2>/dev/null; then
        exec "$python" "$root/bench/gpu_check.py" "$@"
    fi
done
echo "gpu_check: none of these is a Python with NumPy and CuPy: ${candidates[*]}; see docs/gpu.md, or set PYTHON" >&2
exit 2
