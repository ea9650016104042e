#!/usr/bin/env bash
# What a person with an NVIDIA GPU runs, in under nine minutes, to see whether xpnet works there and how fast it is:
#
#     scripts/gpu_check.sh [FOLDER]           (default: gpu-check)
#
# PYTHON names the interpreter (default: python), XPNET_DATA_DIR the folder with MNIST (default: cache, download,
# bundled digits). Everything it finds is written to FOLDER as text and JSON; summary.txt says what passed.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
out=${1:-gpu-check}
mkdir -p "$out" || exit 2
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export PYTHONUNBUFFERED=1
failed=0
: >"$out/summary.txt"

# check NAME SECONDS FILE COMMAND...: run it under a time limit, standard output into FILE, the rest into NAME.log.
check() {
    local name=$1 limit=$2 file=$3 start=$SECONDS
    shift 3
    timeout "$limit" "$@" >"$out/$file" 2>"$out/$name.log"
    local code=$?
    [ $code -eq 0 ] || failed=1
    printf '%-16s %-6s %4d s   %s\n' "$name" "$([ $code -eq 0 ] && echo passed || echo "rc $code")" \
        $((SECONDS - start)) "$file" | tee -a "$out/summary.txt"
}

nvidia-smi >"$out/nvidia-smi.txt" 2>&1
git log -1 --format='%H %cI' >"$out/commit.txt" 2>/dev/null
check doctor 30 doctor.json "$python" -m xpnet.doctor --json
check tests 120 tests.txt "$python" -m pytest -m cuda -rs -p no:cacheprovider
for device in cpu cuda; do
    check "mnist-$device" 60 "mnist-$device.json" "$python" -m xpnet.train \
        --device $device --require-device --seed 0 --json --out "$out/run-$device" --overwrite
done
check same-run 60 same-run.json "$python" scripts/compare_runs.py "$out/run-cpu" "$out/run-cuda"
check bench 120 bench.txt "$python" -m pytest bench -m cuda --benchmark-max-time=2 --benchmark-json="$out/bench.json" \
    --benchmark-columns=median,iqr,rounds
if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    check torch 240 torch.jsonl "$python" bench/peers/torch_steps.py --device cuda
else
    echo "torch            left out: PyTorch with CUDA is not installed" | tee -a "$out/summary.txt"
fi
exit $failed
