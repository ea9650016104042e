#!/usr/bin/env bash
# Run the races behind docs/benchmarks.md, and make its tables and charts: bench/results/race-*.json. Needs MNIST (in
# XPNET_DATA_DIR, or to be downloaded), PyTorch, JAX and the extra `bench`, and 20 minutes of an idle machine.
#
#   scripts/run_races.sh [RACE ...] [-- OPTIONS OF race.py]      (RACE: standardized batch-norm plain random float64)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}

races=()
while (($#)) && [[ $1 != -- ]]; do
    races+=("$1")
    shift
done
shift || true
((${#races[@]})) || races=(standardized batch-norm plain random float64)
narrow=("784-100x4-10 batch 128" "784-512x2-10 batch 128")
pictures=("${narrow[@]}" "784-2048x3-10 batch 1024")
few=("xpnet, compiled" "xpnet, zeros not left out" "PyTorch, eager" "JAX, scan" "scikit-learn" "products, divided")

for race in "${races[@]}"; do
    case $race in
    standardized) what=(--variants standardized) ;;
    batch-norm) what=(--variants batch-norm --contenders "${few[@]}") ;;
    plain) what=(--variants plain --contenders "${few[@]}" --networks "${pictures[@]}") ;;
    random) what=(--variants plain --contenders "${few[@]}" --networks "${pictures[@]}" --data random) ;;
    float64) what=(--variants standardized --contenders "${few[@]}" --networks "${narrow[@]}" "30-100-2 batch 200"
        --dtype float64) ;;
    *) echo "no such race: $race" && exit 2 ;;
    esac
    "$python" bench/peers/race.py "${what[@]}" --rounds 5 --seconds 0.2 --json "bench/results/race-$race.json" "$@"
done
"$python" scripts/make_speed_chart.py
