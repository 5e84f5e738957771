#!/bin/sh
# Stands in for `bagssl` in the tests of run.sh: prints what it would, or does what $FAKE says of a part, as in
# FAKE="resnet-small=hang resnet18=crash".
does() { case " ${FAKE:-} " in *" $1=$2 "*) return 0 ;; *) return 1 ;; esac; }
part() {
  if does "$1" crash; then kill -s SEGV $$; fi
  if does "$1" fail; then echo "error: CUDA_ERROR_ILLEGAL_ADDRESS in $1" >&2; exit 1; fi
  if does "$1" flood; then head -c 100000000 /dev/zero | tr '\0' 'x'; echo; fi
  # It does not end when it is asked to, and what it leaves behind holds its output open.
  if does "$1" hang; then trap '' TERM; echo "begins $1"; (sleep 300; :) & sleep 300; sleep 300; fi
}
rate() { echo "{\"patches_per_second\": $1, \"first_step_seconds\": 4.5, \"peak_memory_bytes\": 6000000000, \"steps\": 30}"; }
case "$*" in
  *--help*) echo "--only PART  --list  --profile FILE" ;;
  "doctor")
    printf 'bagssl 0.1.0\ncuda     ready\n'; printf '         %-14s %s\n' cuDNN 9.13.0 "GPU 0" "NVIDIA H100 80GB HBM3, 79.2 GiB"
    part doctor ;;
  *--only*) echo "ok     norm              means        f32   1.0e-7 <= 1e-4    0.10 s" ;;
  "doctor --check"*)
    echo "ok     convolution       outputs      bf16  1.0e-3 <= 1e-2    0.10 s"
    echo "FAILED norm              means        f32   2.0e-2 <= 1e-4    0.10 s"
    part check
    if does check many; then
      long=$(printf '%0150d' 0)
      for number in $(seq 60); do echo "FAILED convolution       $number of $long bf16 2.0e-2 <= 1e-2  0.10 s"; done
    fi
    echo "norm                 2 figures,   1 failed, largest error 200.00 times its bound, 0.2 s"
    echo "FAILED norm              means        f32   2.0e-2 <= 1e-4    0.10 s: [2, 3]"
    echo "2 figures, 1 failed, 0.2 s"
    exit 1 ;;
  *"--arch resnet-small"*) [ -n "${CUDA_LAUNCH_BLOCKING:-}" ] || part resnet-small; rate 1000 ;;
  *--loading*) part loading; echo '{"patches_per_second": 50000, "loading_ratio": 0.93}' ;;
  "bench train"*--profile*) part profile; while [ "$1" != --profile ]; do shift; done; echo "{}" > "$2"; echo "convolution 12.5 ms" ;;
  "bench train"*) part resnet18; rate 85000.5 ;;
  "bench accuracy"*) part golden; echo '{"networks": [{"kernel": "exact", "lowest_cosine": 1.0, "mean_cosine": 1.0, "error": 0.0,' \
    '"knn": 50.0}, {"kernel": "cuda", "lowest_cosine": 0.9995, "mean_cosine": 0.9999, "error": 0.002, "knn": 49.5}]}' ;;
  train*) part train; while [ "$1" != --out ]; do shift; done; mkdir -p "$2"; : > "$2/checkpoint.safetensors"
    echo '{"event": "step", "step": 1, "loss": -10.5}' > "$2/metrics.jsonl"; echo '{"steps": 18, "seconds": 3.5}' ;;
  eval*) part eval; printf '{\n  "results": [\n    {"space": "embedding", "colour": "rgb", "view": "patches", "patches": 49, "knn": 41.5,
    "linear": 52.5}\n  ]\n}\n' ;;
  *) echo "error: unexpected: $*" >&2; exit 2 ;;
esac
