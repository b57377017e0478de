#!/usr/bin/env bash
# Everything that must hold: lint, types, tests. Arguments go to pytest.
. "$(dirname "$0")/environment.sh" dev
ruff check .
ruff format --check .
mypy
python -m pytest "$@"
