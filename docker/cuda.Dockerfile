# shardinit on NVIDIA GPUs. CUDA comes from wheels; the host needs a driver for it and NVIDIA's container toolkit.
#
#   docker build --file docker/cuda.Dockerfile --tag shardinit:cuda .
#   docker run --rm --gpus all --read-only --tmpfs /tmp --network none --shm-size 1g \
#     shardinit:cuda run examples/mlp96.py:build --axis-size 64
#
# Where there is no GPU, JAX prints an error and goes on with the CPU.
# What to edit: nothing, or by --build-arg
#   JAX=0.11.2               another version of jax and jaxlib; default: the newest that shardinit supports
#   DEBIAN=bookworm          an older Debian, so an older Python; default: trixie, with Python 3.13
#   EXTRAS=cli,cuda12,examples   extras of pyproject.toml, with commas between them; cli must be there, and cuda12 or 13
ARG DEBIAN=trixie
FROM debian:${DEBIAN}-slim AS build
ARG JAX=""
ARG EXTRAS="cli,cuda12"
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends binutils python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/shardinit
# Dependencies come before the source, so that an edit of the source does not install them again.
RUN --mount=type=bind,source=pyproject.toml,target=/tmp/pyproject.toml \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -c 'import sys, tomllib; project = tomllib.load(open("/tmp/pyproject.toml", "rb"))["project"]; \
extras = [project["optional-dependencies"][name] for name in sys.argv[1].split(",") if name]; \
print(*project["dependencies"], *sum(extras, []), sep="\n")' "$EXTRAS" > /tmp/needed \
 && /opt/shardinit/bin/pip install --quiet --disable-pip-version-check -r /tmp/needed ${JAX:+"jax==$JAX" "jaxlib==$JAX"}
# What no program reads: XLA's symbols for a debugger, which are a third of it, and scipy's tests.
RUN strip --strip-unneeded /opt/shardinit/lib/python3*/site-packages/jaxlib/libjax_common.so \
 && find /opt/shardinit/lib/python3*/site-packages/scipy -type d -name tests -prune -exec rm -rf {} +
COPY pyproject.toml README.md LICENSE /source/
COPY shardinit /source/shardinit
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/shardinit/bin/pip install --quiet --disable-pip-version-check --no-deps /source \
 && /opt/shardinit/bin/pip uninstall --quiet --yes pip setuptools

FROM debian:${DEBIAN}-slim
# tini is process 1, which ignores signals that it has no handler for, as Python does while it starts.
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends python3 tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=build /opt/shardinit /opt/shardinit
COPY --chmod=755 docker/healthy /usr/local/bin/healthy
COPY examples /app/examples
# Whatever wants a home or a cache finds the tmpfs.
ENV PATH=/opt/shardinit/bin:$PATH \
    HOME=/tmp \
    BRAINEVENT_CACHE_DIR=/tmp/brainevent \
    RUN_FOLDER=/tmp/run \
    PYTHONDONTWRITEBYTECODE=1
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
USER 1000:1000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["healthy"]
ENTRYPOINT ["tini", "--", "shardinit"]
CMD ["--help"]
