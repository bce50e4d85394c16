#!/usr/bin/env bash
# The main job on what ships: compress a trained network, check it, time it beside the engines installed, write the report.
# usage: examples/demo.sh [OUT_FOLDER]
set -euo pipefail
out="${1:-demo-out}"
mkdir -p "$out"
run() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

run netsuke compress models:digits_cnn --recipe cpu-int8 --calib digits --eval digits:test --drop top1:1% \
  -o "$out/digits.nsk" --json "$out/compress.json"
run netsuke check "$out/digits.nsk" --against models:digits_cnn --data digits:test --json "$out/check.json"
run netsuke bench "$out/digits.nsk" --vs models:digits_cnn --threads 1 --batch 1,32 --seconds 0.5 \
  --engines netsuke,torch,onnxruntime,openvino --json "$out/bench.json"
run netsuke report "$out/digits.nsk" --check "$out/check.json" --bench "$out/bench.json" -o "$out/report.html"
printf '\n'
netsuke report "$out/digits.nsk" --check "$out/check.json" --bench "$out/bench.json" --line
