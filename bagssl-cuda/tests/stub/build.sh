#!/bin/sh
# build.sh FOLDER: builds the stub's libraries there. Programs that run with that folder as LD_LIBRARY_PATH, and this one as
# CUDA_PATH, take them for CUDA.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
build() { # SOURCE LIBRARY FLAGS
  source=$1 library=$2
  shift 2
  c++ -std=c++20 -O2 -Wall -Wextra -Wno-clobbered -fPIC -shared -fvisibility=hidden -pthread -Wl,-z,nodelete \
    -DSTUB_INCLUDE="\"$here/include\"" "-Wl,-soname,$library" "$here/$source" -o "$folder/$library" "$@"
}
folder=$1
build driver.cpp libcuda.so.1
build nvrtc.cpp libnvrtc.so.13
build cublas.cpp libcublas.so.13 -L"$folder" -l:libcuda.so.1
build cudnn.cpp libcudnn.so.9 -L"$folder" -l:libcuda.so.1
build nccl.cpp libnccl.so.2 -L"$folder" -l:libcuda.so.1
