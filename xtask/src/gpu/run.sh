#!/usr/bin/env bash
# Checks and measures bagssl on a machine with an NVIDIA GPU, in calls of four minutes. It needs bash, coreutils and Python 3;
# PyTorch to compare with, if it is there. docs/gpu/README.md says what is run and what is expected.
#
#     ./run.sh call1|call2|call3|all [--seconds S] [--data PATH]
#
# S is how long a call may take (230). PATH is a data set as `bagssl train` reads it, instead of the one in this folder. What
# is found goes to the folder $OUT, without it to results/DATE beside this file. The exit code is 1 if a part failed.
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 2
if ! command -v python3 > /dev/null; then echo "error: expected python3 on the path" >&2; exit 2; fi
if [ -n "${OUT:-}" ]; then OUT=$(realpath -m "$OUT"); export OUT; fi
# Anew each time: the folder may have been copied over an older one.
if ! python3 - "$here" << 'PYTHON'
import gzip, os, shutil, sys
here = sys.argv[1]
with gzip.open(f"{here}/bagssl.gz") as packed, open(f"{here}/bagssl.new", "wb") as program:
    shutil.copyfileobj(packed, program, 1 << 20)
os.chmod(f"{here}/bagssl.new", 0o755)
os.replace(f"{here}/bagssl.new", f"{here}/bagssl")
PYTHON
then echo "error: $here/bagssl.gz: it cannot be unpacked" >&2; exit 2; fi
exec python3 -u "$here/run.py" "$@"
