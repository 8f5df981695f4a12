#!/usr/bin/env bash
# Configures and builds one preset:
#   scripts/build.sh PRESET [-DVARIABLE=VALUE]... [CMAKE_BUILD_ARGUMENT...]
# `cmake --preset PRESET` does the same without ccache.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

preset=$1
shift
options=()
while [[ ${1-} == -D* ]]; do
  options+=("$1")
  shift
done
# A build folder may come from a machine without a GPU (test.sh).
if [[ -e /dev/nvidiactl || -e /dev/dxg ]]; then
  options=(-DVLA_CUDA_QUICK=OFF "${options[@]}")
fi
if command -v ccache > /dev/null; then
  options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  # What it needs to cache what is compiled with precompiled headers.
  export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:+$CCACHE_SLOPPINESS,}pch_defines,time_macros
  # Through the environment: a build without CUDA would complain of an option it does not use.
  export CMAKE_CUDA_COMPILER_LAUNCHER=ccache
fi
cmake --preset "$preset" "${options[@]}"
# As many compilers as cores: Ninja's two more would only take turns.
cmake --build --preset "$preset" --parallel "$(nproc)" "$@"
