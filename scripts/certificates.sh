#!/usr/bin/env bash
# Remake docs/certificates: the examples, certified for four topologies, and initialized on 8 emulated devices.
. "$(dirname "$0")/environment.sh" examples
jax=$(python -c 'import importlib.metadata as m; print(m.version("jax"))')
[ -d .targets/libtpu ] || python -m pip install --quiet --disable-pip-version-check --no-deps --target .targets \
  'libtpu==0.0.42.*' "jax-cuda12-plugin==$jax" "jax-cuda12-pjrt==$jax" nvidia-cuda-nvcc-cu12
export JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3 COLUMNS=120
mkdir -p docs/certificates
for example in mlp96 deep_rnn ei_network; do
  for target in cpu:8=64 h100:4x8=256 v5e:4x8=256 v5p:8x16x16=16384; do
    topology=${target%=*} lanes=${target#*=}
    file=docs/certificates/$example-${topology//:/-}.txt
    command="shardinit plan examples/$example.py:build --axis-size $lanes --topology $topology --certify"
    echo "$file"
    { echo "\$ $command"; PYTHONPATH="$PWD/.targets" $command 2>/dev/null; } > "$file"
  done
  file=docs/certificates/$example-run.txt
  command="shardinit run examples/$example.py:build --axis-size 64 --devices 8"
  echo "$file"
  { echo "\$ $command"; $command 2>/dev/null; } > "$file"
done
