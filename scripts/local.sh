#!/usr/bin/env bash
# Initialize an ensemble in several processes of this machine: environment, install, run.
#
#   bash scripts/local.sh [TARGET --axis-size N and other options of `shardinit run`]
#   DRY_RUN=1 bash scripts/local.sh       prints the command
#
# What to edit: these, here or in the environment.
processes=${PROCESSES:-4}
devices=${DEVICES_PER_PROCESS:-2} # emulated CPU devices of each; 0: one process per GPU instead
run_folder=${RUN_FOLDER:-}        # logs and status of each rank; default: shardinit-runs/DATE-PID
extras=${EXTRAS:-examples}        # of pyproject.toml: examples is for the examples, cuda12 for GPUs
set -euo pipefail
[ $# -gt 0 ] || set -- examples/ei_network.py:build --axis-size 64
command=(shardinit launch)
if [ "$devices" = 0 ]; then
  command+=(--per-gpu)
else
  command+=(--processes "$processes" --devices-per-process "$devices")
fi
[ -z "$run_folder" ] || command+=(--run-folder "$run_folder")
if [ -n "${DRY_RUN:-}" ]; then
  printf '%q ' "${command[@]}" "$@"
  exit
fi
. "$(dirname "$0")/environment.sh" "$extras"
exec "${command[@]}" "$@"
