# Sourced by the other scripts: a virtual environment in .venv with this checkout installed.
# Usage: . scripts/environment.sh EXTRAS        (PYTHON names another interpreter)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "shardinit needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON." >&2
  exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[cli,$1]"
PATH="$PWD/.venv/bin:$PATH"
