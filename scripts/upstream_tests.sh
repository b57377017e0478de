#!/usr/bin/env bash
# brainstate's own tests of vmap2_new_states, pmap2_new_states and nn.Map, with ours in their place.
# Usage: upstream_tests.sh [FOLDER]     FOLDER of the package brainstate with its tests; the installed one otherwise.
# PYTHON names another interpreter, one that has shardinit's dependencies and pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD python=${PYTHON:-python3}
folder=${1:-$("$python" -c 'import importlib.util as u; print(u.find_spec("brainstate").submodule_search_locations[0])')}
mapfile -t files < <(grep -lE --include='*_test.py' -r '[vp]map2_new_states|\bMap\(' "$folder/transform" "$folder/nn" | sort)
if [ ${#files[@]} = 0 ]; then
  echo "no tests in $folder: this brainstate was packed without. Pass the folder of a source checkout." >&2
  exit 2
fi
cd "$(dirname "$folder")"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$PWD:$root:$root/scripts" exec "$python" -m pytest -p upstream_tests \
  -p no:cacheprovider -q --tb=short --import-mode=importlib "${files[@]}"
