#!/usr/bin/env bash
# Remake docs/certificates: the examples, certified for four topologies, and initialized on 8 emulated devices.
. "$(dirname "$0")/environment.sh" examples
. scripts/compilers.sh
export JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3 COLUMNS=120
mkdir -p docs/certificates
for example in mlp96 deep_rnn ei_network; do
  for target in cpu:8=64 h100:4x8=256 v5e:4x8=256 v5p:8x16x16=16384; do
    topology=${target%=*} lanes=${target#*=}
    file=docs/certificates/$example-${topology//:/-}.txt
    command="shardinit plan examples/$example.py:build --axis-size $lanes --topology $topology --certify"
    echo "$file"
    { echo "\$ $command"; PYTHONPATH="$PWD/.targets" $command 2>/dev/null; } > "$file"
  done
  file=docs/certificates/$example-run.txt
  command="shardinit run examples/$example.py:build --axis-size 64 --devices 8"
  echo "$file"
  { echo "\$ $command"; $command 2>/dev/null; } > "$file"
done
# The list of them: verdict and peak as each file says.
{
  echo "# Certificates of the examples"
  echo
  echo "Made by \`bash scripts/certificates.sh\` on $(date -I). Each file begins with its command. Predicted is the plan's"
  echo "peak as a multiple of the compiler's: at least 1, and at most 1.15. The runs are on 8 emulated CPU devices."
  echo
  echo "| certificate | verdict | peak per device |"
  echo "|---|---|---|"
  for file in docs/certificates/*[0-9].txt; do
    verdict=$(grep -m1 -oE '^(PASS|REFUSED)' "$file")
    peak=$(grep -m1 -E '^peak ' "$file" | sed 's/^peak //; s/; plan .*//')
    echo "| [$(basename "$file" .txt)]($(basename "$file")) | $verdict | $peak |"
  done
  echo
  echo "| run | measured |"
  echo "|---|---|"
  for file in docs/certificates/*-run.txt; do
    echo "| [$(basename "$file" .txt)]($(basename "$file")) | $(grep -m1 ' on each of ' "$file" | sed 's/; numerics.*//') |"
  done
} > docs/certificates/README.md
