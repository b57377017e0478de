#!/usr/bin/env bash
# Initialize 64 lanes of a spiking network on 8 emulated CPU devices: environment, install, run.
. "$(dirname "$0")/environment.sh" examples
shardinit run examples/ei_network.py:build --axis-size 64 --devices 8 "$@"
