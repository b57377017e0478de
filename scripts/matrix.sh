#!/usr/bin/env bash
# The default tests on every supported stack: an environment per combination in .matrix, and a table.
#
#   bash scripts/matrix.sh                     every combination
#   bash scripts/matrix.sh py311 py313         some of them
#   bash scripts/matrix.sh newest              the newest that this machine has an interpreter for
#   MATRIX_ARGS="tests/plan -x" bash scripts/matrix.sh py312      other arguments for pytest
#   MATRIX_TABLE=table.md bash scripts/matrix.sh                  the table in a file as well
#
# Interpreters are looked for on PATH and in pyenv's and uv's folders. One that is missing is a row of its own.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

# Name, Python, and what pip is asked for beside this checkout; the newest last. What begins with "!" is installed
# afterwards whatever the others want: brainpy 2.8 asks for brainstate 0.5.1 or newer.
combinations() {
  cat << 'END'
py311-oldest 3.11 jax==0.10.0 jaxlib==0.10.0 brainpy==2.8.* !brainstate==0.5.0
py311 3.11 jax==0.10.2 jaxlib==0.10.2 brainstate==0.5.4 brainpy==2.8.*
py312-older 3.12 jax==0.11.0 jaxlib==0.11.0 brainstate==0.6.0 brainpy==2.9.0 braintools==0.4.0
py312 3.12 jax==0.11.2 jaxlib==0.11.2 brainstate==0.6.0 brainpy==2.9.0 braintools==0.4.0
py313 3.13 jax brainstate brainpy braintools
END
}

interpreter() {
  local found
  for found in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python \
    "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-"$1".*/bin/python; do
    # A name on PATH may be a shim that leads to no interpreter.
    if "$found" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" > /dev/null 2>&1; then
      echo "$found"
      return
    fi
  done
}

wanted=("$@")
if [ $# = 0 ]; then mapfile -t wanted < <(combinations | cut -d' ' -f1); fi
if [ "${wanted[*]}" = newest ]; then
  wanted=()
  while read -r name python _; do
    if [ -n "$(interpreter "$python")" ]; then wanted=("$name"); fi
  done < <(combinations)
fi

rows=("| combination | Python | jax | brainstate | brainpy | passed | failed | seconds |" "|---|---|---|---|---|---|---|---|")
status=0
for name in "${wanted[@]}"; do
  read -r _ python requirements < <(combinations | grep "^$name " || echo "$name - -")
  if [ "$python" = - ]; then
    echo "There is no combination $name. Use some of: $(combinations | cut -d' ' -f1 | tr '\n' ' ')" >&2
    exit 2
  fi
  found=$(interpreter "$python")
  if [ -z "$found" ]; then
    rows+=("| $name | not tested: no python$python | | | | | | |")
    status=1
    continue
  fi
  folder=.matrix/$name
  [ -x "$folder/bin/python" ] || "$found" -m venv "$folder" || exit 1
  pip=("$folder/bin/python" -m pip install --quiet --disable-pip-version-check)
  read -ra words <<< "$requirements"
  mapfile -t asked < <(printf '%s\n' "${words[@]}" | grep -v '^!')
  mapfile -t forced < <(printf '%s\n' "${words[@]}" | sed -n 's/^!//p')
  if ! "${pip[@]}" --editable ".[cli,dev]" "${asked[@]}" || { ((${#forced[@]})) && ! "${pip[@]}" --no-deps "${forced[@]}"; }; then
    rows+=("| $name | $python | not installed, see above | | | | | |")
    status=1
    continue
  fi
  log=.matrix/$name.log
  started=$SECONDS
  # shellcheck disable=SC2086
  PATH="$PWD/$folder/bin:$PATH" "$folder/bin/python" -m pytest ${MATRIX_ARGS:-} 2>&1 | tee "$log"
  [ "${PIPESTATUS[0]}" = 0 ] || status=1
  count() { grep -oE "[0-9]+ $1" "$log" | tail -1 | cut -d' ' -f1; }
  version() { "$folder/bin/python" -c "import importlib.metadata as m; print(m.version('$1'))" 2> /dev/null || echo -; }
  failed=$(count failed)
  errors=$(count errors?)
  rows+=("| $name | $("$folder/bin/python" -c 'import platform; print(platform.python_version())') | $(version jax) | \
$(version brainstate) | $(version brainpy) | $(count passed) | $((${failed:-0} + ${errors:-0})) | $((SECONDS - started)) |")
done
printf '%s\n' "${rows[@]}" | tee "${MATRIX_TABLE:-/dev/null}"
exit $status
