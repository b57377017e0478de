#!/usr/bin/env bash
# Certificates by the real TPU and CUDA compilers, which need no device: about 1.3 GB of wheels, 3 minutes.
. "$(dirname "$0")/environment.sh" dev
. scripts/compilers.sh
PYTHONPATH="$PWD/.targets" JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3 timeout 1800 python -m pytest tests/targets
