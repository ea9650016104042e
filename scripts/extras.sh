#!/usr/bin/env bash
# Each extra of pyproject.toml alone in a clean environment, with commands that need all that it brings, and what is said
# where it is missing. Ends at the first that does not work.
#
#   scripts/extras.sh            (PYTHON names the interpreter)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

with() { # EXTRA, or "" for none
    echo "--- ${1:-no extra}"
    rm -rf "$work/venv"
    "$python" -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet ".${1:+[$1]}"
    run="$work/venv/bin/python"
}

train() {
    "$run" -m xpnet.train --dataset digits --steps 300 --quiet "$@"
}

names() { # EXTRA, then a command that must fail, or go without, and name it
    local extra=$1 said
    shift
    said=$("$@" 2>&1) || true
    [[ $said == *"pip install 'xpnet[$extra]'"* ]] || { echo "not named: $extra, by: $*: $said"; exit 1; }
}

with ""
names fast train --json
names plot "$run" -m xpnet.train --dataset digits --steps 30 --out "$work/run"
names plot "$run" -m xpnet.lab line --out "$work/pictures"
printf 'no picture' >"$work/three.png"
printf 'a,b\n1,2\n' >"$work/three.csv"
names plot "$run" -m xpnet.predict "$work/run" "$work/three.png"
names sklearn "$run" -c "import xpnet.sklearn"
names sklearn "$run" scripts/compare_sklearn.py
names sklearn "$run" -m xpnet.train --dataset digits --steps 30 --metrics
names bench "$run" bench/peers/estimators.py
names bench "$run" bench/peers/race.py --picture "$work/race.png"
names dask "$run" -m xpnet.search --dataset digits --dask tcp://127.0.0.1:9
names mpi env PMI_SIZE=2 "$run" -m xpnet.search --dataset digits
names mpi env PMI_SIZE=2 "$run" -m xpnet.train --dataset digits
names onnx "$run" -m xpnet.export "$work/run" "$work/run.onnx"
names tensorboard train --tensorboard "$work/board"
names tables "$run" -m xpnet.train --dataset "$work/three.csv"
names docs env PYTHON="$run" scripts/build_docs.sh

with fast
train --json | grep -q '"compiled": true'

with plot
train --out "$work/drawn"
test -s "$work/drawn/curves.png"
"$run" -c "from PIL import Image; Image.new('L', (8, 8)).save('$work/three.png')"
"$run" -m xpnet.predict "$work/drawn" "$work/three.png"

with sklearn
"$run" -W error::RuntimeWarning -c "
from sklearn.datasets import load_iris
from xpnet.sklearn import MLPClassifier
print(MLPClassifier(max_iter=1000, random_state=0).fit(*load_iris(return_X_y=True)))"

with onnx
train --out "$work/exported"
"$run" -m xpnet.export "$work/exported" "$work/exported.onnx"

with tensorboard
train --tensorboard "$work/board" --watch
test -s "$work"/board/events.out.tfevents.*

with bench
"$run" bench/peers/estimators.py --problems "table of 50,000 x 30, float64" --rounds 1 --epochs 1
"$run" bench/peers/race.py --networks "30-100-2 batch 200" --optimizers adam --rounds 1 --seconds 0.1 --picture "$work/race.png"
"$run" -m pytest bench --benchmark-disable -q -m "not cuda" -p no:cacheprovider

with docs
PYTHON=$run scripts/build_docs.sh
