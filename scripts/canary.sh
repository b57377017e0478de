#!/usr/bin/env bash
# The default tests on the newest releases of everything, upper bounds ignored: what will break, and when.
#
#   bash scripts/canary.sh           the newest releases
#   bash scripts/canary.sh --pre     pre-releases too
#   PYTHON=python3.13 CANARY_ARGS="tests/plan" bash scripts/canary.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x .canary/bin/python ] || "$python" -m venv .canary
pip=(.canary/bin/python -m pip install --quiet --disable-pip-version-check --upgrade)
if [ "${1:-}" = --pre ]; then pip+=(--pre); fi

# What the project asks for, without its upper bounds.
mapfile -t requirements < <("$python" - << 'END'
import re
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
for line in [*project["dependencies"], *extras["cli"], *extras["dev"]]:
    print(re.sub(r",?<=?[0-9.]+", "", line))
END
)
"${pip[@]}" "${requirements[@]}"
"${pip[@]}" --no-deps --editable .
.canary/bin/python -m pip list --disable-pip-version-check 2> /dev/null | grep -iE '^(jax|jaxlib|brain[a-z]*|numpy|pydantic|typer|rich) '
# shellcheck disable=SC2086  # arguments are several words
PATH="$PWD/.canary/bin:$PATH" SHARDINIT_ANY_VERSION=1 .canary/bin/python -m pytest ${CANARY_ARGS:-} || {
  code=$?
  echo "Above is what breaks on the newest releases." >&2
  exit $code
}
