#!/bin/sh
# Checks and measures bagssl on a machine with an NVIDIA GPU, CUDA 12 and PyTorch. It needs no Rust and no network.
#
#     ./run.sh [--data PATH] [--rounds N] [--epochs N] [--quick]
#
# PATH is a data set as `bagssl train` reads it (CIFAR's binary files, for instance); without it the photographs that the
# program carries are used. Everything is printed, and kept in results/DATE.md beside this file. The exit code is 1 if a
# part failed.
set -u
cd "$(dirname "$0")" || exit 2
if [ ! -x bagssl ]; then gzip -dc bagssl.gz > bagssl && chmod +x bagssl || exit 2; fi
data="" rounds=3 epochs=6 steps=30 quick=""
while [ $# -gt 0 ]; do
  case "$1" in
    --data) data="--data $(realpath "$2")"; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --epochs) epochs=$2; shift 2 ;;
    --quick) quick="--no-compile"; rounds=1; steps=10; shift ;;
    *) echo "expected --data PATH, --rounds N, --epochs N or --quick, got $1" >&2; exit 2 ;;
  esac
done
python=$(command -v python3 || command -v python || true)

# PyTorch's wheels bring the libraries, and headers: they serve where the system has none.
if [ -n "$python" ]; then
  wheels=$("$python" -c 'import os, nvidia; print(os.path.dirname(list(nvidia.__path__)[0] + "/"))' 2>/dev/null)
  if [ -n "$wheels" ]; then
    for folder in "$wheels"/*/lib; do LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}:$folder"; done
    export LD_LIBRARY_PATH
    if [ -z "${CUDA_PATH:-}" ] && [ ! -d /usr/local/cuda/include ]; then
      for folder in "$wheels"/cuda_runtime "$wheels"/cu12 "$wheels"/cu13; do
        if [ -f "$folder/include/cuda_runtime.h" ]; then CUDA_PATH=$folder; export CUDA_PATH; break; fi
      done
    fi
  fi
fi

mkdir -p results
output="results/$(date -u +%Y-%m-%d-%H%M).md"
failed=0

say() { echo "$*" | tee -a "$output"; }

# A heading, the command, and what it prints; the seconds it takes.
part() {
  title=$1; shift
  say ""; say "## $title"; say ""; say "\`$*\`"; say ""; say '```text'
  begun=$(date +%s)
  { "$@" 2>&1; echo $? > results/.code; } | tee -a "$output"
  code=$(cat results/.code); rm -f results/.code
  say '```'; say ""; say "$(( $(date +%s) - begun )) s, exit code $code"
  if [ "$code" -ne 0 ]; then failed=$((failed + 1)); fi
}

say "# bagssl on a GPU, $(date -u '+%Y-%m-%d %H:%M') UTC"
part "The machine" sh -c 'nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv; nproc; uname -r'
[ -n "$python" ] && part "PyTorch" "$python" -c 'import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version())'
part "What the program finds" ./bagssl doctor
part "Each operation against the CPU, and the ordering with its negative control" ./bagssl doctor --check
part "The golden checkpoint in bf16" ./bagssl bench accuracy golden.safetensors --backend cuda --least 0.999
part "The first figures" ./bagssl bench train --backend cuda --arch resnet18-cifar --size 32 --batch 2048 --patches 2 \
  --preset bagssl-vicreg --projector 2048,256 --steps "$steps"
if [ -n "$python" ] && "$python" -c 'import torch' 2>/dev/null; then
  # shellcheck disable=SC2086
  part "Against PyTorch" "$python" train.py ./bagssl --rounds "$rounds" $quick
else
  say ""; say "PyTorch was not found: nothing to compare with."
fi
# shellcheck disable=SC2086
part "Loading beside training" ./bagssl bench train --backend cuda --arch resnet18-cifar --preset emp-ssl-cifar \
  --images 100 --patches 20 --steps "$steps" --loading $data
# shellcheck disable=SC2086
part "A training" ./bagssl train --backend cuda --preset emp-ssl-cifar --epochs "$epochs" --out results/run --force $data
# shellcheck disable=SC2086
part "What it has learnt" ./bagssl eval results/run/checkpoint.safetensors --backend cuda $data
if [ "$(nvidia-smi --list-gpus | wc -l)" -gt 1 ]; then
  # shellcheck disable=SC2016
  part "Two GPUs take the steps of one" sh -c '
    for devices in 1 2; do
      ./bagssl train --backend cuda-f32 --devices $devices --images 256 --patches 4 --epochs 2 --out results/on-$devices --force --json || exit 1
    done
    for devices in 1 2; do sed -n "1s/.*\"loss\":\([-0-9.e]*\).*/\1/p" results/on-$devices/metrics.jsonl; done |
      awk "{ loss[NR] = \$1 } END { apart = (loss[1] - loss[2]) / loss[1]; print \"losses of the first step\", loss[1], loss[2]; exit !(NR == 2 && apart * apart < 1e-8) }"'
fi
say ""; say "$failed parts failed"
echo "kept in $output"
[ "$failed" -eq 0 ]
