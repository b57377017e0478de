#!/usr/bin/env bash
# Compare programs that a machine writes with eager brainstate: fuzz.sh MINUTES [SEED]. Exit code 1: a difference.
. "$(dirname "$0")/environment.sh" dev
python -m tests.fuzz "$@"
