#!/usr/bin/env bash
# On a machine with NVIDIA GPUs, without a network: values, memory and speed there, into benchmarks/results/gpu.md.
#
#   bash scripts/gpu.sh
#   PYTHON=/path/to/python bash scripts/gpu.sh      an interpreter that has jax with its CUDA plugin
#   WHEELS=folder bash scripts/gpu.sh               wheels of brainstate and whatever else is missing there
#   GPU_ARGS="--gib 10" bash scripts/gpu.sh         arguments of benchmarks/gpu.py
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
# shellcheck disable=SC2086  # arguments are several words
case " ${GPU_ARGS:-} " in
  *" cpu "*) ;;
  *) command -v nvidia-smi > /dev/null || {
    echo "There is no nvidia-smi, so no NVIDIA GPU. GPU_ARGS='--platform cpu --gib 0.1' tries the script itself." >&2
    exit 2
  } ;;
esac
if ! "$python" -c 'import shardinit, jax_smi, pytest' 2> /dev/null; then
  "$python" -m venv --system-site-packages .gpu
  python=.gpu/bin/python
  "$python" -m pip install --quiet --disable-pip-version-check --no-index ${WHEELS:+--find-links "$WHEELS"} \
    --no-build-isolation --editable '.[cli,examples]'
fi
PATH=$("$python" -c 'import os, sys; print(os.path.dirname(sys.executable))'):$PATH
shardinit doctor || echo "doctor found something, see above"
# shellcheck disable=SC2086
"$python" benchmarks/gpu.py ${GPU_ARGS:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
shardinit run examples/deep_rnn.py:build --axis-size 64 --run-folder "$folder/run" --smi > /dev/null
shardinit top "$folder/run" --once
"$python" benchmarks/peers.py --sections device --works w1:12,w1:96 --rounds 3 --output benchmarks/results/peers-gpu
