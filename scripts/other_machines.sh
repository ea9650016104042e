#!/usr/bin/env bash
# The suite as other machines would run it: on each kernel of OpenBLAS, with the vectors of older processors in NumPy and
# in compiled steps, on one thread and on two, and without compiling. For Linux on x86-64, with NumPy's own wheel.
#
#   scripts/other_machines.sh [--short] [--only REGEX] [PYTEST ARGUMENTS]
#
# --short: the tests that rounding touches most, under four configurations (for .ci/run). --only: the configurations
# whose names match. PYTHON names the interpreter.
# Ends with a table, and with status 1 if a test failed in any configuration. One that needs what this processor lacks
# is left out, and said so.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export SCIPY_ARRAY_API=1
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS NPY_DISABLE_CPU_FEATURES XPNET_LLVM_CPU

short= only=.
while :; do
    case ${1:-} in
        --short) short=1 && shift ;;
        --only) only=$2 && shift 2 ;;
        *) break ;;
    esac
done
if [ -n "$short" ]; then
    compiled=(tests/test_compile_{functions,programs,runs,sparse,split,training}.py)
    set -- tests/test_search.py tests/test_commands_{train,device}.py "${compiled[@]}" "$@"
fi

# The vector features that NumPy was built with, has found here, and that begin with one of these names: those of 2.0 to
# 2.3 are single ones (AVX2, AVX512F), those of 2.4 are levels (X86_V3).
numpy_features() {
    "$python" - "$@" <<'PY'
import sys
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
print(*(name for name in __cpu_dispatch__ if __cpu_features__[name] and name.startswith(tuple(sys.argv[1:]))))
PY
}
cores=$("$python" -c 'import os; print(*sorted(os.sched_getaffinity(0)))')
first=${cores%% *}
second=$(echo "$cores" | cut -d ' ' -f 1-2 | tr ' ' ,)
table=$(printf '%-28s %8s %8s %8s %9s' configuration passed failed skipped seconds)
status=0

wanted() {
    [[ $1 =~ $only ]]
}

leave_out() { # NAME FEATURE
    wanted "$1" || return
    table+=$'\n'$(printf '%-28s left out: this processor has no %s' "$1" "$2")
}

has() { # FEATURE
    grep -qw "$1" /proc/cpuinfo
}

check() { # NAME, then a command that runs what follows it
    local name=$1 log=$logs/${1// /-}.log started=$SECONDS code
    wanted "$name" || return
    shift
    echo "--- $name"
    "$@" "$python" -m pytest -q -p no:cacheprovider -m "not cuda" "${arguments[@]}" >"$log" 2>&1
    code=$?
    [ $code -eq 0 ] || { status=1; grep -E '^(FAILED|ERROR|E  )' "$log" || tail -20 "$log"; }
    count() { grep -oE "[0-9]+ $1" <(tail -1 "$log") | cut -d ' ' -f 1; }
    local failed=$(($(count failed || echo 0) + $(count error || echo 0)))
    [ $code -eq 0 ] || [ $failed -gt 0 ] || failed="exit $code"
    table+=$'\n'$(printf '%-28s %8s %8s %8s %9s' "$name" "$(count passed || echo 0)" "$failed" \
        "$(count skipped || echo 0)" $((SECONDS - started)))
    echo "$table" | tail -1
}
arguments=("$@")

kernel() { # NAME: one of OpenBLAS. What another name has run already is left out: builds of NumPy have few kernels
    local found
    wanted "OpenBLAS $1" || return
    found=$(OPENBLAS_CORETYPE=$1 "$python" -c 'import numpy, threadpoolctl
print(*{one.get("architecture") for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"})')
    case " $seen " in
        *" $found "*) table+=$'\n'$(printf '%-28s left out: here it is the kernel %s' "OpenBLAS $1" "$found") ;;
        *) seen+=" $found"; check "OpenBLAS $1" env "OPENBLAS_CORETYPE=$1" ;;
    esac
}
seen=

without() { # NAME FEATURES
    if [ -n "$2" ]; then check "NumPy without $1" env "NPY_DISABLE_CPU_FEATURES=$2"; else leave_out "NumPy without $1" "$1"; fi
}

if [ -n "$short" ]; then
    kernels="Haswell Nehalem" levels="x86-64"
else
    kernels="SkylakeX Haswell Zen Sandybridge Nehalem Prescott" levels="x86-64 x86-64-v3 x86-64-v4"
fi

for one in $kernels; do
    case $one in
        SkylakeX) needs=avx512f ;;
        Haswell | Zen) needs=avx2 ;;
        Sandybridge) needs=avx ;;
        *) needs=sse2 ;;
    esac
    if has $needs; then kernel "$one"; else leave_out "OpenBLAS $one" $needs; fi
done
if [ -z "$short" ]; then
    without AVX-512 "$(numpy_features AVX512 X86_V4)"
    without AVX2 "$(numpy_features AVX2 FMA3 X86_V3 AVX512 X86_V4)"
fi
for one in $levels; do
    case $one in
        *-v4) needs=avx512f ;;
        *-v3) needs=avx2 ;;
        *) needs=sse2 ;;
    esac
    if has $needs; then
        # A target that is refused would leave all steps to NumPy, and pass.
        XPNET_LLVM_CPU=$one "$python" -c 'from xpnet.compile.cpu.compiler import compiler; compiler()' || status=1
        check "LLVM for $one" env "XPNET_LLVM_CPU=$one"
    else
        leave_out "LLVM for $one" $needs
    fi
done
check "one thread" taskset -c "$first"
if [ -z "$short" ]; then
    [ "$second" = "$first" ] || check "two threads" taskset -c "$second"
    arguments+=(--eager)
    check "eager alone" env
fi

printf '\n%s\n' "$table"
exit $status
