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
"$root/scripts/build.sh" "$preset"
# Tests run three at a time, each with its own threads; one mostly waits for Slurm, and waiting threads
# yield their core.
export OMP_WAIT_POLICY=passive
# Last, so that ctest's summary closes the output and its status is this script's.
exec ctest --test-dir "$root/$build" --output-on-failure --no-tests=error --parallel 3
