#!/usr/bin/env bash
# Checks and measures bagssl on a machine with an NVIDIA GPU. Needs bash, coreutils and Python 3; with PyTorch installed, call2
# compares with it. docs/gpu/README.md lists what runs and what to expect.
#
#     ./run.sh call1         does it work?
#     ./run.sh call2         how fast is it?
#     ./run.sh call3         is it right?
#     ./run.sh all           all three, one after the other
#
#     --seconds S            time limit of a call (default: 230); the limits of its parts change with it
#     --data PATH            train on this data set, which `bagssl train` can read (default: the one in this folder)
#
# Results go to the folder $OUT; if OUT is not set, to results/DATE beside this file. Exit code: 0 if nothing failed, 1 if a
# part failed, 2 if nothing could be run.
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
then echo "error: $here/bagssl.gz: cannot be unpacked" >&2; exit 2; fi
exec python3 -u "$here/run.py" "$@"
