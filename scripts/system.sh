#!/usr/bin/env bash
# tests/multiprocess and tests/system: many processes on this machine, on a real SLURM and on a real Docker engine.
# As root on Debian it installs what it needs; elsewhere the tests of SLURM and Docker are skipped, and it says so.
#
#   bash scripts/system.sh [arguments of pytest]
#   DRY_RUN=1 bash scripts/system.sh       prints the commands
#
# What to edit: nothing. BASE_IMAGE=pull takes Debian's image from its registry; by default it is made of packages.
set -euo pipefail
call() { if [ -n "${DRY_RUN:-}" ]; then { printf '%q ' "$@" && echo; } >&2; else "$@"; fi; }

# Program, and the Debian package that it is in.
packages=()
while read -r program package; do
  PATH="$PATH:/usr/sbin" command -v "$program" > /dev/null || packages+=("$package")
done << 'END'
slurmctld slurm-wlm
munged munge
dockerd docker.io
runc runc
docker-compose docker-compose
mmdebstrap mmdebstrap
END
if [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  call apt-get update -qq
  call env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" > /dev/null
fi
[ -n "${DRY_RUN:-}" ] || . "$(dirname "$0")/environment.sh" dev,system
call timeout --kill-after=60 3000 python -m pytest --numprocesses=0 -rs --durations=10 tests/multiprocess tests/system "$@"
