#!/usr/bin/env bash
# Checks, on a machine with a GPU, what this project claims for GPUs, and prints a short table.
#   gpu_check.sh BUILD_DIR OUT [STEP...]
# Needs the build folder (preset gpu), bash and coreutils; uses compute-sanitizer and nvidia-smi if
# present. Without STEP it runs all steps, in this order:
#   info       the GPU and the libraries
#   tests      every *_cuda_tests of the build
#   verify     all golden files in float32 on the GPU, at 1e-4
#   sanitizer  memcheck and racecheck over the same tests at small sizes
#   repeat     one config three times, twice by itself and once with workers beside it: the same bits
#   step       time of a whole training step, by mixer
#   latency    configs/latency_gpu.json
#   sweep      the capacity sweep with three seeds, long context and copy, against the clock
#   probes     recall, state norm and Jacobian
#   report     the tables of all runs
# OUT/summary.tsv has every step's verdict and wall time; logs and tables are beside it. When a step
# fails the others still run, and the exit status is 1. Steps may be run one by one: the table keeps
# earlier ones.
set -uo pipefail
export LC_ALL=C                   # numbers with a point
export OMP_WAIT_POLICY=passive    # waiting threads leave the cores to others

all_steps=(info tests verify sanitizer repeat step latency sweep probes report)
usage="usage: gpu_check.sh BUILD_DIR OUT [${all_steps[*]}]"

# Time limit of one program, in seconds: one that hangs must not occupy a borrowed machine.
most_seconds=${GPU_CHECK_SECONDS:-600}
most_sweep_seconds=300
most_forward_us=4000 # VLA, T = 4,096, batch 4, one head, d = 64

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

fail_usage() {
  echo "gpu_check: $1" >&2
  echo "$usage" >&2
  exit 2
}

# Prints the first of the folders that exists.
first_folder() {
  local folder
  for folder in "$@"; do
    if [[ -d $folder ]]; then
      (cd -- "$folder" && pwd)
      return
    fi
  done
  return 1
}

# Time in microseconds.
now() { echo "${EPOCHREALTIME/./}"; }

# A decimal number times 10^12 as an integer, since bash has only integers.
scaled() {
  local text
  printf -v text '%.12f' "$1" || return
  echo "$((10#${text/./}))"
}

# logged LOG COMMAND...: runs the command with its output in LOG; stops it at the time limit.
logged() {
  local log=$1
  shift
  mkdir -p "$(dirname -- "$log")"
  timeout --kill-after=10 "$most_seconds" "$@" > "$log" 2>&1
}

# The result of a step is its status (0 ok, 77 skipped, else failed) and `detail`.

step_info() {
  local line pattern='^\| device cuda +\| (not )?available: (.*[^ ]) *\|$'
  if command -v nvidia-smi > /dev/null; then logged "$out/nvidia-smi.txt" nvidia-smi; fi
  logged "$out/info.json" "$bench" info --json
  logged "$out/info.txt" "$bench" info || return 1
  while IFS= read -r line; do
    [[ $line =~ $pattern ]] || continue
    detail=${BASH_REMATCH[2]}
    [[ -z ${BASH_REMATCH[1]} ]]
    return
  done < "$out/info.txt"
  detail="info names no device cuda"
  return 1
}

# logged_test LOG COMMAND...: repeats the command after an internal error of compute-sanitizer, which
# sometimes loses track of a launch when threads capture graphs concurrently; such output is useless.
logged_test() {
  local status=0
  logged "$@" || status=$?
  if [[ $(< "$1") == *"Internal Sanitizer Error"* ]]; then
    status=0
    logged "$@" || status=$?
  fi
  return "$status"
}

# run_tests FOLDER AT_ONCE [COMMAND...]: runs the CUDA tests under the command, each program in up to AT_ONCE
# parts and as many parts at a time, with logs in FOLDER. Adds to `passed`, `skipped` and `broken`.
run_tests() {
  local folder=$1 at_once=$2 test parts part name line
  local -A pids=()
  shift 2
  for test in "$build"/*_cuda_tests; do
    [[ -x $test ]] || continue
    parts=0  # as many as there are tests: a sanitizer calls a program that launches nothing an error
    while IFS= read -r line; do
      [[ $line == "  "* ]] && ((++parts))
    done < <("$test" --gtest_list_tests)
    ((parts > 0)) || broken+=("${test##*/}")  # it did not start
    ((parts < at_once)) || parts=$at_once
    for ((part = 0; part < parts; ++part)); do
      while (($(jobs -rp | wc -l) >= at_once)); do wait -n || true; done
      name=${test##*/}.$part
      GTEST_TOTAL_SHARDS=$parts GTEST_SHARD_INDEX=$part logged_test "$folder/$name.log" "$@" "$test" &
      pids[$name]=$!
    done
  done
  for name in "${!pids[@]}"; do
    wait "${pids[$name]}" || broken+=("$name")
    while IFS= read -r line; do
      if [[ $line =~ ^"[  PASSED  ] "([0-9]+)" test" ]]; then ((passed += BASH_REMATCH[1])); fi
      if [[ $line =~ ^"[  SKIPPED ] "([0-9]+)" test" ]]; then ((skipped += BASH_REMATCH[1])); fi
    done < "$folder/$name.log"
  done
}

step_tests() {
  local passed=0 skipped=0 broken=()
  run_tests "$out/tests" 1
  detail="$passed passed, $skipped skipped"
  if ((${#broken[@]})); then detail+="; failed: ${broken[*]}"; fi
  ((${#broken[@]} == 0 && passed > 0))
}

step_verify() {
  local status=0 line error worst=0 worst_text=none rows=0
  local -a cells
  logged "$out/verify.md" "$bench" verify "$golden"/{,rules/}*.safetensors --dtype float32 \
    --device cuda || status=1
  while IFS='|' read -ra cells; do
    # | file | cores | kind | worst_tensor | relative_error | tolerance | status |
    [[ ${#cells[@]} -ge 8 ]] || continue
    error=${cells[5]// /}
    [[ $error =~ ^[0-9] ]] || continue
    ((++rows))
    if (($(scaled "$error") > worst)); then
      worst=$(scaled "$error")
      worst_text=$error
    fi
  done < "$out/verify.md"
  detail="$rows kinds of tensor, worst relative error $worst_text"
  ((status == 0 && rows > 0))
}

step_sanitizer() {
  local sanitizer tool log line found status=0 passed skipped broken
  # racecheck checks only this project's kernels: it also reports hazards in cuDNN's.
  local own=kns=vla_bench
  local -a options
  sanitizer=$(command -v compute-sanitizer) || sanitizer=/usr/local/cuda/bin/compute-sanitizer
  if [[ ! -x $sanitizer ]]; then
    detail="no compute-sanitizer on this machine"
    return 77
  fi
  for tool in memcheck racecheck; do
    passed=0 skipped=0 broken=() options=(--tool "$tool" --error-exitcode 9)
    if [[ $tool == racecheck ]]; then options+=(--kernel-name "$own"); fi
    # Concurrently, since instrumenting the kernels takes a core and most of the time.
    VLA_SMALL_TESTS=1 run_tests "$out/sanitizer/$tool" "$(nproc)" \
      "$sanitizer" "${options[@]}"
    # The tool's summary line, for results that the exit status does not show (warnings of hazards).
    for log in "$out/sanitizer/$tool"/*.log; do
      found=
      while IFS= read -r line; do
        [[ $line =~ "SUMMARY: "([0-9]+)" "(error|hazard) ]] && found=${BASH_REMATCH[1]}
      done < "$log"
      [[ $found == 0 ]] || broken+=("${log##*/}:${found:-none}")
    done
    detail+="${detail:+; }$tool: $passed tests"
    if ((${#broken[@]} || passed == 0)); then
      detail+=", not clean: ${broken[*]-}"
      status=1
    else
      detail+=" clean"
    fi
  done
  return "$status"
}

same_file() {
  [[ -f $1 && -f $2 && $(sha256sum < "$1") == $(sha256sum < "$2") ]]
}

# Writes the table of a run's learning curves beside it, FOLDER.history.csv.
curves_of() {
  timeout --kill-after=10 "$most_seconds" "$bench" report "$1" --format csv --table history \
    > "$1.history.csv" || {
    echo "no learning curves of ${1##*/}"
    return 1
  }
}

# Whether two runs with learning curves have the same bits except for times; prints what differs.
same_bits() {
  local first=$1 second=$2 cell name count=0
  local pair="between ${first##*/} and ${second##*/}"
  for cell in "$first"/mqar/*/; do
    name=$(basename -- "$cell")
    [[ -f $cell/record.json ]] || continue
    ((++count))
    same_file "$cell/checkpoint.safetensors" "$second/mqar/$name/checkpoint.safetensors" || {
      echo "checkpoint.safetensors of $name differs $pair"
      return 1
    }
  done
  same_file "$first.history.csv" "$second.history.csv" || {
    echo "the learning curves differ $pair"
    return 1
  }
  # A report names copies of a cell that differ in more than times.
  logged "$second.report.log" "$bench" report "$first" "$second" --table accuracy --format csv || {
    echo "the accuracies differ $pair: $second.report.log"
    return 1
  }
  echo "$count trainings of 200 steps"
  ((count > 0))
}

step_repeat() {
  local folder=$out/repeat name jobs=1
  # 200 steps, enough for one wrong bit to reach every parameter.
  local -a run=(run "$configs/mqar.json" --device cuda --seed 42 --force --set task.n_pairs=8
    --set train.steps=200 --set train.warmup=20 --set train.log_every=10)
  for name in first second beside; do
    if [[ $name == beside ]]; then jobs=4; fi
    logged "$folder/$name.log" "$bench" "${run[@]}" --jobs "$jobs" --out "$folder/$name" || {
      detail="the run failed: $folder/$name.log"
      return 1
    }
    detail=$(curves_of "$folder/$name") || return 1
  done
  detail=$(same_bits "$folder/first" "$folder/second") || return 1
  detail=$(same_bits "$folder/first" "$folder/beside") || return 1
  detail+=", the same bits twice with one job and once with 4"
}

step_step() {
  local status=0
  local -a cells
  logged "$out/training_step.md" "$build/training_step_cuda_benchmark" || status=1
  while IFS='|' read -ra cells; do
    # | mixer | precision | median_ms | p10_ms | p90_ms | most_ms | ...
    [[ ${#cells[@]} -ge 8 && ${cells[3]} =~ [0-9] ]] || continue
    detail+="${detail:+, }${cells[1]// /} ${cells[3]// /} of ${cells[6]// /} ms"
  done < "$out/training_step.md"
  return "$status"
}

# run_config NAME [ARGUMENT...]: runs a config from the start, into OUT/runs.
run_config() {
  local name=$1
  shift
  logged "$out/logs/$name.log" "$bench" run "$configs/$name.json" --device cuda --force \
    --out "$out/runs" "$@"
}

step_latency() {
  local status=0 seconds us
  run_config latency_gpu || status=1
  seconds=$("$bench" report "$out/runs/latency_gpu" --format csv --table latency_summary \
    --where mixer=vla --where implementation=recurrent --where pass=forward --where seq_len=4096 \
    --column median_s | tail -n 1)
  if [[ ! $seconds =~ ^[0-9] ]]; then
    detail="no time of VLA's forward at T = 4096"
    return 1
  fi
  us=$(($(scaled "$seconds") / 1000000))
  detail="VLA forward, T = 4096: $us of at most $most_forward_us us"
  ((status == 0 && us <= most_forward_us))
}

step_sweep() {
  local begin seconds status=0
  begin=$(now)
  run_config mqar --set 'seeds=[42,43,44]' || status=1
  run_config long_context || status=1
  run_config copy || status=1
  seconds=$((($(now) - begin) / 1000000))
  detail="$seconds of at most $most_sweep_seconds s"
  ((status == 0 && seconds <= most_sweep_seconds))
}

step_probes() {
  local config status=0
  for config in recall state_norm jacobian; do
    run_config "$config" || {
      status=1
      detail+="${detail:+, }$config failed"
    }
  done
  return "$status"
}

step_report() {
  local -a tables
  logged "$out/logs/report.log" "$bench" report "$out/runs" --out "$out/report" || return 1
  tables=("$out/report"/*.csv)
  detail="${#tables[@]} tables"
}

# The table with this step's row instead of an older one.
record() {
  local row=$1 line kept=()
  if [[ -f $summary ]]; then
    while IFS= read -r line; do
      [[ $line == "${row%%$'\t'*}"$'\t'* || $line == name$'\t'* ]] || kept+=("$line")
    done < "$summary"
  fi
  {
    printf 'name\tverdict\tseconds\tdetail\n'
    if ((${#kept[@]})); then printf '%s\n' "${kept[@]}"; fi
    printf '%s\n' "$row"
  } > "$summary.new"
  mv -- "$summary.new" "$summary"
}

run_step() {
  local step=$1 begin status=0 verdict milliseconds seconds
  detail=
  echo "== $step"
  begin=$(now)
  "step_$step" || status=$?
  milliseconds=$((($(now) - begin) / 1000))
  case $status in
    0) verdict=ok ;;
    77) verdict=skipped ;;
    *)
      verdict=failed
      failures=$((failures + 1))
      ;;
  esac
  printf -v seconds '%d.%d' $((milliseconds / 1000)) $((milliseconds % 1000 / 100))
  record "$step"$'\t'"$verdict"$'\t'"$seconds"$'\t'"$detail"
  echo "   $verdict: $detail"
}

print_summary() {
  local step row verdict seconds text
  printf '\n%-10s %-8s %8s  %s\n' name verdict seconds detail
  for step in "${all_steps[@]}"; do
    while IFS=$'\t' read -r row verdict seconds text; do
      [[ $row == "$step" ]] || continue
      printf '%-10s %-8s %8s  %s\n' "$row" "$verdict" "$seconds" "$text"
    done < "$summary"
  done
}

[[ $# -ge 2 ]] || fail_usage "a build folder and a folder for the results are needed"
build=$(first_folder "$1") || fail_usage "$1: no such folder"
mkdir -p "$2" || exit 2
out=$(cd -- "$2" && pwd)
shift 2
bench=$build/vla-bench
summary=$out/summary.tsv
[[ -x $bench ]] || fail_usage "$bench: no such program"
golden=$(first_folder "$build/golden" "$here/../src/testing/golden") ||
  fail_usage "no golden files in the build folder or beside this script"
configs=$(first_folder "$build/configs" "$here/../configs") ||
  fail_usage "no configs in the build folder or beside this script"

steps=("$@")
if ((${#steps[@]} == 0)); then steps=("${all_steps[@]}"); fi
for step in "${steps[@]}"; do
  [[ " ${all_steps[*]} " == *" $step "* ]] || fail_usage "$step: no such step"
done

# Tests look for golden files where the source tree has them.
tree=$(mktemp -d) || exit 2
trap 'rm -rf -- "$tree"' EXIT
mkdir -p "$tree/src/testing"
ln -s -- "$golden" "$tree/src/testing/golden"
ln -s -- "$configs" "$tree/configs"
export VLA_SOURCE_DIR=$tree
export VLA_BENCH_BINARY=$bench

failures=0
for step in "${steps[@]}"; do run_step "$step"; done
print_summary
((failures == 0))
