#!/usr/bin/env bash
# Certificates by the real TPU and CUDA compilers, which need no device: about 1.3 GB of wheels, 3 minutes.
. "$(dirname "$0")/environment.sh" dev
jax=$(python -c 'import importlib.metadata as m; print(m.version("jax"))')
# In a folder of their own: the default tests see the environment of a user who has no accelerator.
[ -d .targets/libtpu ] || python -m pip install --quiet --disable-pip-version-check --no-deps --target .targets \
  'libtpu==0.0.42.*' "jax-cuda12-plugin==$jax" "jax-cuda12-pjrt==$jax" nvidia-cuda-nvcc-cu12
PYTHONPATH="$PWD/.targets" JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3 timeout 1800 python -m pytest tests/targets
