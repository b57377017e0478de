# Sourced by other scripts: the TPU and CUDA compilers that belong to this jax, which need no device. They lie in a
# folder of their own, .targets: the default tests see the environment of a user who has no accelerator.
# CUDA=13 takes the plugin of CUDA 13 instead of 12.
mapfile -t compilers < <(python - "${CUDA:-12}" << 'END'
import importlib.metadata
import sys

cuda, jax = sys.argv[1], importlib.metadata.version("jax")
(libtpu,) = (r.split(";")[0] for r in importlib.metadata.requires("jax") if r.startswith("libtpu"))
nvcc = "nvidia-cuda-nvcc-cu12" if cuda == "12" else f"nvidia-cuda-nvcc=={cuda}.*"
print(libtpu, f"jax-cuda{cuda}-plugin=={jax}", f"jax-cuda{cuda}-pjrt=={jax}", nvcc, sep="\n")
END
)
if [ "$(cat .targets/compilers.txt 2> /dev/null)" != "${compilers[*]}" ]; then
  rm -rf .targets
  python -m pip install --quiet --disable-pip-version-check --no-deps --target .targets "${compilers[@]}"
  echo "${compilers[*]}" > .targets/compilers.txt
fi
