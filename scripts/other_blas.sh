#!/usr/bin/env bash
# The tests that a BLAS can touch, with each of several behind NumPy, and the threads that a training then uses.
#
#   scripts/other_blas.sh FOLDER [--only REGEX] [PYTEST ARGUMENTS]
#
# FOLDER keeps what is built: NumPy from source, on netlib's interface, as conda and Debian build it, so that the
# libraries to load decide on the BLAS. That takes ten minutes of a core, once. --only: those whose names match. PYTHON
# names the interpreter. For Linux on x86-64, with a compiler, pkg-config and Debian's apt-get, which needs not be root's:
# packages are unpacked, not installed.
# Ends with a table, and with status 1 if a test failed, or a training did not keep to one thread where it was given one.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "$1") && shift
only=.
if [ "${1:-}" = --only ]; then only=$2 && shift 2; fi
export SCIPY_ARRAY_API=1 XPNET_STRICT=1
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS OMP_NUM_THREADS MKL_NUM_THREADS BLIS_NUM_THREADS

python=$folder/venv/bin/python
debian=$folder/debian/usr/lib/x86_64-linux-gnu

fetch() { # the libraries
    mkdir -p "$folder/packages" "$folder/mkl"
    (cd "$folder/packages" && apt-get download libblas3 libblas-dev liblapack3 libopenblas0-openmp libblis4-openmp \
        libgfortran5 libquadmath0 libgomp1)
    for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/debian"; done
    "${PYTHON:-python3}" -m venv "$folder/venv"
    "$python" -m pip install --quiet mkl
    for name in blas lapack; do ln -sf "$(echo "$folder"/venv/lib/libmkl_rt.so.*)" "$folder/mkl/lib$name.so.3"; done
}

build() { # NumPy's wheel
    mkdir -p "$folder/link"
    cp "$folder"/debian/usr/include/x86_64-linux-gnu/cblas*.h "$folder/link"
    ln -sf cblas-netlib.h "$folder/link/cblas.h"
    for name in blas lapack; do
        ln -sf "$debian/$name/lib$name.so.3" "$folder/link/lib$name.so"
        printf 'Name: %s\nDescription: netlib\nVersion: 3\nLibs: -L%s -l%s\nCflags: -I%s\n' \
            $name "$folder/link" $name "$folder/link" >"$folder/link/$name.pc"
    done
    PKG_CONFIG_PATH=$folder/link LDFLAGS="-Wl,-rpath-link,$debian/blas:$debian" LD_LIBRARY_PATH=$debian/blas:$debian \
        "$python" -m pip wheel --quiet --no-deps --no-binary numpy -w "$folder/wheel" numpy \
        -Csetup-args=-Dblas=blas -Csetup-args=-Dlapack=lapack -Csetup-args=-Dallow-noblas=false
}

[ -e "$folder/mkl/liblapack.so.3" ] || fetch
compgen -G "$folder/wheel/numpy-*.whl" >/dev/null || build
"$python" -m pip install --quiet "$folder"/wheel/numpy-*.whl -e ".[sklearn,test]"

threads_of() { # NUMBER: whether a training with --threads NUMBER works on one thread, or on several
    "$python" - "$1" <<'PY'
import subprocess, sys, time
from pathlib import Path
command = ["-m", "xpnet.train", "--dataset", "digits", "--hidden", "512", "512", "--steps", "1500", "--quiet"]
training = subprocess.Popen([sys.executable, *command, "--device", "cpu", "--threads", sys.argv[1]], stdout=sys.stderr)
def ticks(path):
    return sum(map(int, path.read_text().rpartition(")")[2].split()[11:13]))
process = Path(f"/proc/{training.pid}")
work = main = 0
while training.poll() is None:
    try:
        work, main = ticks(process / "stat"), ticks(process / "task" / process.name / "stat")
    except OSError:  # it has ended
        pass
    time.sleep(0.02)
print("failed" if training.returncode else "one" if work - main < 0.05 * work else "several")
PY
}

tests=(tests/test_compile_{blas,dense,helpers,programs,ranks,robust,runs,training}.py tests/test_commands_{device,train}.py
    tests/test_{device,predictor,replicas,search,trainer,tutorial,watch}.py tests/test_sklearn_{device,pipelines,steps}.py)
table=$(printf '%-16s %-34s %7s %7s %8s   %s' BLAS "as NumPy has it" passed failed seconds "--threads 1, --threads 2")
status=0
check() { # NAME FOLDERS
    [[ $1 =~ $only ]] || return 0
    export LD_LIBRARY_PATH=$2
    local log=$folder/$1.log started=$SECONDS failed used found
    echo "--- $1"
    found=$("$python" -c 'from xpnet.core.device import blas_kernels; print(*(" ".join(x) for x in blas_kernels().items()))')
    used="$(threads_of 1) $(threads_of 2)"
    "$python" -m pytest -q -p no:cacheprovider -m "not cuda" "${tests[@]}" "${arguments[@]}" >"$log" 2>&1 || {
        status=1
        grep -E '^(FAILED|ERROR|E  )' "$log" || tail -20 "$log"
    }
    [ "${used%% *}" = one ] || status=1  # of two, a step uses one where the other processor is busy
    count() { tail -1 "$log" | grep -oE "[0-9]+ $1" | cut -d ' ' -f 1 || echo 0; }
    failed=$(($(count failed) + $(count error)))
    table+=$'\n'$(printf '%-16s %-34s %7s %7s %8s   %s' "$1" "$found" "$(count passed)" "$failed" $((SECONDS - started)) "$used")
    unset LD_LIBRARY_PATH
}
arguments=("$@")

check mkl "$folder/mkl:$folder/venv/lib"
check openblas-openmp "$debian/openblas-openmp:$debian"
check blis "$debian/blis-openmp:$debian/lapack:$debian"
check netlib "$debian/blas:$debian/lapack:$debian"

printf '\n%s\n' "$table"
exit $status
