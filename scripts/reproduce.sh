#!/usr/bin/env bash
# Installs what is missing, builds, runs the quick suite, writes tables, figures, the ledger of claims
# and the results page, and prints the results on one screen.
# With --full: the paper's whole protocol. It resumes when it is stopped and started again.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

usage="usage: scripts/reproduce.sh [--full]"
suite=quick
configs=(recall state_norm jacobian latency quick)
case "$#:${1-}" in
  0:) ;;
  1:--full)
    suite=full
    configs=(recall state_norm jacobian latency copy mqar long_context sweep)
    ;;
  1:-h | 1:--help)
    echo "$usage"
    exit 0
    ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac

"$root/scripts/setup.sh" --no-python
# Without a GPU a first build omits the CUDA kernels, which take nearly as long as the rest; scripts/test.sh
# and cmake build them where nvcc is. On the CPU two cells at a time train a fifth faster than one on all
# threads; timings need the machine to themselves.
cuda=() training=()
if ! [[ -e /dev/nvidiactl || -e /dev/dxg ]]; then
  training=(--jobs 2)
  if ! grep -qs '^CMAKE_CUDA_FLAGS:' "$root/build/CMakeCache.txt"; then
    cuda=(-DVLA_CUDA=OFF)
  fi
fi
# Figures need .venv; so does a build with CUDA, before it starts.
"$root/scripts/setup.sh" &
environment=$!
if [[ ${#cuda[@]} -eq 0 ]]; then wait "$environment"; fi
"$root/scripts/build.sh" release "${cuda[@]}" --target vla-bench
wait "$environment"

cd "$root"
runs=()
status=0
for config in "${configs[@]}"; do
  echo "== configs/$config.json"
  # A failed cell (status 1) is in the tables with its reason, and the other experiments still run.
  jobs=()
  case $config in quick | copy | mqar | long_context | sweep) jobs=("${training[@]}") ;; esac
  build/vla-bench run "configs/$config.json" --out results/runs "${jobs[@]}" > /dev/null || {
    code=$?
    [[ $code -eq 1 ]] || exit "$code"
    status=1
  }
  runs+=("results/runs/$config")
done

report=results/report/$suite
build/vla-bench report "${runs[@]}" --out "$report" || {
  code=$?
  [[ $code -eq 1 ]] || exit "$code"
  status=1
}
.venv/bin/python scripts/recall_grid.py "$report" > "$report/recall_grid.md"
# Beside the page, which draws the figures for itself.
.venv/bin/python scripts/plot.py "$report" > /dev/null &
plot=$!

# Most claims need more than this suite: status 1 means that some have no run, which is not an error.
build/vla-bench claims "${runs[@]}" --out "$report/claims" || {
  code=$?
  [[ $code -eq 1 ]] || exit "$code"
}
build/vla-bench claims "${runs[@]}" --format json > "$report/claims/ledger.json" || [[ $? -eq 1 ]]
.venv/bin/python scripts/report.py "$report" --ledger "$report/claims/ledger.json" \
  --out "$report/page.html" > /dev/null
wait "$plot"

printf '\n== results of the %s suite\n\n' "$suite"
.venv/bin/python scripts/first_screen.py "$report" --ledger "$report/claims/ledger.json"
cat << END

page     $report/page.html (all of it, for a browser)
tables   $report (CSV and Markdown; recall_grid.md: recall, small tables)
figures  $report/figures (PNG, PDF, and their numbers as CSV)
claims   $report/claims/ledger.md (and criteria.md: every criterion)
runs     results/runs (the record and checkpoint of every cell, and tables/ of every config)
END
if [[ $status -ne 0 ]]; then
  printf '\nSome cells failed or are damaged: build/vla-bench status results/runs names them; run this again\n'
  echo "to try them again."
fi
exit "$status"
