#!/usr/bin/env bash
# Build the wheel, install it into a folder of its own, and use it from an empty folder, away from the sources.
# usage: scripts/check_wheel.sh PYTHON    (an interpreter that has the dependencies)
set -euo pipefail
python="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
cd "$(dirname "$0")/.."

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work/dist" .
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/site" "$work"/dist/*.whl

mkdir "$work/empty"
cd "$work/empty"
export PYTHONPATH="$work/site"
found="$("$python" -c 'import cl_powerprop; print(cl_powerprop.__file__)')"
[ "$found" = "$work/site/cl_powerprop/__init__.py" ] || { echo "not the installed wheel: $found" >&2; exit 1; }
"$python" -m cl_powerprop list
"$python" -m cl_powerprop run benchmark.n_tasks=2 train.epochs=2 strategy.retrain_epochs=1 run_dir=run \
    'logger=[wandb,tensorboard]' logger.wandb.mode=offline
for file in run.json config.yaml accuracy_matrix.csv curves.csv capacity.csv reuse.csv model.safetensors; do
    [ -s "run/$file" ] || { echo "the run left no $file" >&2; exit 1; }
done
ls run/events.out.tfevents.* runs/wandb/offline-run-*/*.wandb >/dev/null
"$python" -m cl_powerprop dashboard --dry-run >/dev/null
"$python" -m cl_powerprop compare run --out comparison
[ -s comparison/report.html ] || { echo "the comparison left no report" >&2; exit 1; }
echo "the installed wheel works"
