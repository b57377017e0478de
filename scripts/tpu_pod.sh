#!/usr/bin/env bash
# Initialize an ensemble on a slice of Cloud TPU, one process per host, from a machine with gcloud:
#
#   bash scripts/tpu_pod.sh create      ask for the slice (queued resource), wait for it, copy and install shardinit
#   bash scripts/tpu_pod.sh run [TARGET --axis-size N and other options of `shardinit run`]
#   bash scripts/tpu_pod.sh stop        SIGTERM to every host's process, which ends the run with code 13
#   bash scripts/tpu_pod.sh delete      give the slice back
#   DRY_RUN=1 bash scripts/tpu_pod.sh create       prints the commands
#
# What to edit: these, here or in the environment.
name=${NAME:-shardinit}
project=${PROJECT:-my-project}
zone=${ZONE:-us-west4-a}
type=${ACCELERATOR_TYPE:-v5litepod-16}
runtime=${RUNTIME_VERSION:-v2-alpha-tpuv5-lite}
read -ra create_options <<< "${CREATE_OPTIONS:-}" # such as --spot, or --reserved
# Read by JAX and libtpu when they start, so set before: flags of the TPU compiler, and where programs are kept.
libtpu_init_args=${LIBTPU_INIT_ARGS:-}
compilation_cache=${JAX_COMPILATION_CACHE_DIR:-/tmp/jax-cache} # or gs://BUCKET/FOLDER, which all hosts share
set -euo pipefail

call() {
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

place=(--project "$project" --zone "$zone")
on_all_hosts() { call gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all --command "$1"; }

create() {
  call gcloud compute tpus queued-resources create "$name" --node-id "$name" "${place[@]}" \
    --accelerator-type "$type" --runtime-version "$runtime" "${create_options[@]}"
  local state=""
  until [ "$state" = ACTIVE ] || [ -n "${DRY_RUN:-}" ]; do
    sleep 30
    state=$(gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format 'value(state.state)')
    echo "$name is $state"
    [ "$state" != FAILED ] && [ "$state" != SUSPENDED ] || exit 1
  done
  call git archive --output /tmp/shardinit.tar.gz HEAD
  call gcloud compute tpus tpu-vm scp /tmp/shardinit.tar.gz "$name:" "${place[@]}" --worker=all
  on_all_hosts 'set -e; mkdir -p shardinit; tar -xzf shardinit.tar.gz -C shardinit; cd shardinit
python3 -m venv .venv && .venv/bin/pip install --quiet ".[cli,tpu]"'
}

# What each host runs. Which host of how many it is, only the VM's metadata says; shardinit reads variables alone.
read -r -d '' on_host <<'END' || true
set -eu
cd shardinit
attribute() {
  curl --silent --show-error --fail --retry 5 --header 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
TPU_WORKER_ID=$(attribute agent-worker-number)
TPU_WORKER_HOSTNAMES=$(attribute worker-network-endpoints | tr ',' '\n' | cut -d : -f 3 | paste -s -d , -)
export TPU_WORKER_ID TPU_WORKER_HOSTNAMES
echo $$ > run.pid
END

run() {
  [ $# -gt 0 ] || set -- examples/mlp96.py:build --axis-size 64
  local line
  printf -v line '%q ' exec .venv/bin/shardinit run "$@"
  on_all_hosts "export LIBTPU_INIT_ARGS=${libtpu_init_args@Q} JAX_COMPILATION_CACHE_DIR=${compilation_cache@Q}
$on_host
$line"
}

case ${1:-} in
create) create ;;
run) shift && run "$@" ;;
stop) on_all_hosts "kill -TERM \$(cat shardinit/run.pid)" ;;
delete) call gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet ;;
*) sed -n '2,/^# What to edit/p' "$0" && exit 2 ;;
esac
