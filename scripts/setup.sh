#!/usr/bin/env bash
# Installs the missing dependencies of the build, the tests and the plots. Run again, it does
# nothing. Debian 12; as root or with sudo.
#   scripts/setup.sh [--tests] [--fuzz] [--no-python]
#     --tests       also those of tests that are otherwise skipped
#     --fuzz        also clang and libFuzzer, for the CMake preset fuzz
#     --no-python   without .venv, which figures and a build with CUDA need
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

for_tests='' for_fuzz='' without_python=''
for option in "$@"; do
  case $option in
    --tests) for_tests=yes ;;
    --fuzz) for_fuzz=yes ;;
    --no-python) without_python=yes ;;
    *)
      echo "usage: scripts/setup.sh [--tests] [--fuzz] [--no-python]" >&2
      exit 2
      ;;
  esac
done

# The libraries, by package. libgtest-dev's CMake files refer to libgmock-dev's library.
packages=(
  libbenchmark-dev libcli11-dev libeigen3-dev libfmt-dev libgmock-dev libgtest-dev libhwy-dev
  librandom123-dev libspdlog-dev libxxhash-dev nlohmann-json3-dev python3 python3-venv
)
# Looks for tools by command, so that a compiler or CMake from elsewhere is kept.
# The results page is tested in Chromium.
declare -A tools=([g++]=g++ [cmake]=cmake [ninja]=ninja-build [git]=git [chromium]=chromium)

# A Slurm for the tests of job arrays, unless the machine has one.
test_packages=(slurm-wlm munge)

if [[ -n $for_fuzz ]]; then
  tools[clang++]=clang
  packages+=(libclang-rt-dev libomp-dev)
fi

is_missing() {
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2> /dev/null) != installed ]]
}

missing_packages() {
  local package tool
  for tool in "${!tools[@]}"; do
    command -v "$tool" > /dev/null || echo "${tools[$tool]}"
  done
  for package in "${packages[@]}"; do
    if is_missing "$package"; then echo "$package"; fi
  done
}

missing_test_packages() {
  local package
  if command -v sbatch > /dev/null; then return; fi
  for package in "${test_packages[@]}"; do
    if is_missing "$package"; then echo "$package"; fi
  done
}

install_packages() {
  local as_root=()
  if [[ $EUID -ne 0 ]]; then
    if ! command -v sudo > /dev/null; then
      echo "setup: neither root nor sudo; install these first: $*" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -q)
  echo "setup: installing $*"
  "${as_root[@]}" update
  "${as_root[@]}" install -y --no-install-recommends "$@"
}

# Lines that end with "# CUDA" are only for a build with CUDA.
requirements() {
  if command -v nvcc > /dev/null; then
    cat "$root/scripts/requirements.txt"
  else
    grep -v '# CUDA$' "$root/scripts/requirements.txt"
  fi
}

# The virtual environment is complete when it holds a copy of its requirements.
make_environment() {
  local venv=$root/.venv python=/usr/bin/python3 wanted
  wanted=$(requirements)
  if [[ -f $venv/requirements.txt && $wanted == "$(< "$venv/requirements.txt")" ]] &&
    "$venv/bin/python" -c ''; then
    return
  fi
  [[ -x $python ]] || python=python3
  echo "setup: making .venv"
  "$python" -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r <(echo "$wanted")
  echo "$wanted" > "$venv/requirements.txt"
}

if command -v dpkg-query > /dev/null; then
  mapfile -t missing < <(missing_packages)
  if [[ ${#missing[@]} -gt 0 ]]; then
    install_packages "${missing[@]}"
  fi
  if [[ -n $for_tests ]]; then
    mapfile -t missing < <(missing_test_packages)
    if [[ ${#missing[@]} -gt 0 ]] && ! (install_packages "${missing[@]}"); then
      echo "setup: without ${missing[*]}: the tests of job arrays will be skipped" >&2
    fi
  fi
else
  echo "setup: not a Debian system; wanted: ${tools[*]} ${packages[*]}" >&2
fi
if [[ -z $without_python ]]; then make_environment; fi
