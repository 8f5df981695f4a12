#!/usr/bin/env bash
# Installs what is missing, builds everything and runs every test through ctest.
#   scripts/test.sh [--preset release|debug|asan|portable]
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

usage="usage: scripts/test.sh [--preset release|debug|asan|portable]"
preset=release
while [[ $# -gt 0 ]]; do
  case $1 in
    --preset)
      preset=${2-}
      shift $(($# > 1 ? 2 : 1))
      ;;
    -h | --help)
      echo "$usage"
      exit 0
      ;;
    *)
      echo "$usage" >&2
      exit 2
      ;;
  esac
done
case $preset in
  release) build=build ;;
  debug | asan | portable) build=build-$preset ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac

"$root/scripts/setup.sh" --tests
# Without a GPU no kernel runs: those of a first build are compiled for their errors alone (VLA_CUDA_QUICK),
# in a tenth of the time. Machines with a GPU (build.sh) and the preset gpu compile them for speed.
kernels=()
if ! [[ -e /dev/nvidiactl || -e /dev/dxg ]] &&
  ! grep -qs '^CMAKE_CUDA_FLAGS:' "$root/$build/CMakeCache.txt"; then
  kernels=(-DVLA_CUDA_QUICK=ON)
fi
"$root/scripts/build.sh" "$preset" "${kernels[@]}"
# Tests run five at a time, each with its own threads: those of Slurm and of the page mostly wait, and waiting
# threads yield their core.
export OMP_WAIT_POLICY=passive
# Last, so that ctest's summary closes the output and its status is this script's.
exec ctest --test-dir "$root/$build" --output-on-failure --no-tests=error --parallel 5
