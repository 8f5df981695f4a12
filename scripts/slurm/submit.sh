#!/usr/bin/env bash
# Submits the unfinished part of a sweep as one Slurm job array, and after it a job that makes tables
# and figures. Prints the plan first. Called again it submits only what is still missing. All nodes
# must share the results folder.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(cd -- "$here/../.." && pwd)
# shellcheck source=scripts/slurm/sbatch_options.sh
source "$here/sbatch_options.sh"

usage="usage: scripts/slurm/submit.sh CONFIG [--tasks N] [--out DIR] [--dry-run] [-- SBATCH_OPTION...]
  --tasks N   tasks of the array; each runs the shard I/N of the sweep (default 8)
  --out DIR   root of the results (default results/runs)
  --dry-run   print the plan and submit nothing
  Options after -- go to sbatch: --time, --partition, --cpus-per-task, --gres=gpu:1, ...
  With an option that requests GPUs the sweep runs on them (--device cuda). The report also waits for
  --dependency. --array=%N limits the number of tasks at a time; other tasks in --array, --job-name and
  --signal are refused. Tasks stop two minutes before a time limit and continue in another run, so a
  limit should be many times that."

complain() {
  echo "submit: $1" >&2
  exit 2
}

config='' tasks=8 out=results/runs submit=yes options=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --tasks | --out)
      [[ $# -gt 1 ]] || complain "$1 needs a value"
      if [[ $1 == --tasks ]]; then tasks=$2; else out=$2; fi
      shift 2
      ;;
    --dry-run)
      submit=''
      shift
      ;;
    -h | --help)
      echo "$usage"
      exit 0
      ;;
    --)
      shift
      options=("$@")
      break
      ;;
    -*)
      complain "unknown option $1 (options of sbatch stand behind --)"
      ;;
    *)
      [[ -z $config ]] || complain "more than one config: $config, $1"
      config=$1
      shift
      ;;
  esac
done
if [[ -z $config ]]; then
  echo "$usage" >&2
  exit 2
fi
[[ $tasks =~ ^[1-9][0-9]{0,5}$ ]] || complain "--tasks: expected a number from 1 to 999999, got $tasks"
[[ -r $config ]] || complain "$config: no such file"
program=${VLA_BENCH_BINARY:-$root/build/vla-bench}
[[ -x $program ]] || complain "$program is not there: run scripts/build.sh release, or name it in VLA_BENCH_BINARY"
out=$(realpath -m -- "$out")

read_sbatch_options "$tasks" "${options[@]}"
device=()
[[ -z $wants_gpu ]] || device=(--device cuda)

plan() {
  "$program" plan "$config" --out "$out" "${device[@]}" --tasks "$tasks" --format csv --table "$1" |
    tail -n +2
}
# "1:02:03", or "unknown" without a number.
duration() {
  local seconds
  [[ -n $1 ]] || { echo unknown && return; }
  seconds=$(printf '%.0f' "$1")
  printf '%d:%02d:%02d\n' $((seconds / 3600)) $((seconds / 60 % 60)) $((seconds % 60))
}

sweep=$(plan sweep)
shards=$(plan tasks)
cells=0 finished=0 folders=() device_name=''
while IFS=, read -r planned_device folder_cells folder_finished _ _ _ folder; do
  device_name=$planned_device
  cells=$((cells + folder_cells))
  finished=$((finished + folder_finished))
  folder=${folder#\"} # a name with a comma is quoted
  folders+=("${folder%\"}")
done <<< "$sweep"
device=(--device "$device_name")

unfinished=() most=0 least=$cells longest=0 in_all=0
while IFS=, read -r task task_cells _ to_do _ _ seconds; do
  most=$((task_cells > most ? task_cells : most))
  least=$((task_cells < least ? task_cells : least))
  if [[ $to_do -gt 0 ]]; then unfinished+=("$task"); fi
  # Unknown without a finished cell; awk, since these are fractions.
  if [[ -z $seconds ]]; then
    longest='' in_all=''
  elif [[ -n $in_all ]]; then
    in_all=$(awk -v a="$in_all" -v b="$seconds" 'BEGIN { print a + b }')
    longest=$(awk -v a="$longest" -v b="$seconds" 'BEGIN { print (a > b ? a : b) }')
  fi
done <<< "$shards"

echo "cells           $cells"
echo "finished        $finished"
echo "to do           $((cells - finished))"
echo "cells per task  $least to $most, $tasks tasks on $device_name"
echo "estimate        $(duration "$longest") the longest task, $(duration "$in_all") all of them"
if [[ ${#unfinished[@]} -eq 0 ]]; then
  echo "nothing to do; tables: $program report ${folders[*]}"
  exit 0
fi
[[ -n $submit ]] || exit 0
command -v sbatch > /dev/null || complain "sbatch is not there: submit where Slurm is (--dry-run only prints the plan)"

# A copy, since the config may be edited while tasks wait, and all tasks must run the same sweep.
stem=$(basename -- "$config" .json)
frozen_name=$stem-$(cksum < "$config" | cut -d ' ' -f 1)
frozen=$out/slurm/$frozen_name.json
mkdir -p "$out/slurm"
cp -- "$config" "$frozen.$$"
mv -- "$frozen.$$" "$frozen"

# Skips tasks of an earlier call that are queued or running; the job name identifies them.
name=vla-$frozen_name-$(cksum <<< "$out" | cut -d ' ' -f 1)-$tasks
in_queue=" $(squeue --noheader --array --name="$name" --format=%K | tr '\n' ' ') "
missing=()
for task in "${unfinished[@]}"; do
  [[ $in_queue == *" $task "* ]] || missing+=("$task")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "all of it waits or runs already: squeue --name=$name"
  exit 0
fi

# Only task.sh gets USR1, two minutes before the time limit; the program needs 5 seconds of them.
job=$(sbatch --parsable --job-name="$name" --requeue --open-mode=append --signal=B:USR1@120 \
  --output="$out/slurm/$stem-%A_%a.log" "${array_options[@]}" ${dependency:+"--dependency=$dependency"} \
  --array="$(IFS=, && echo "${missing[*]}")$throttle" \
  "$here/task.sh" "$program" "$frozen" "$out" "$tasks" "$device_name")
job=${job%%;*} # a cluster's name may follow
report=$(dirname -- "$out")/report/$stem
report_job=$(sbatch --parsable --job-name="$name-report" --dependency="$(report_dependency "$job")" \
  --output="$out/slurm/$stem-%j-report.log" "${report_options[@]}" \
  "$here/report.sh" "$program" "$root" "$report" "${folders[@]}")
echo "submitted       array $job of ${#missing[@]} tasks, then job ${report_job%%;*}"
echo "watch           $program status $out --watch"
echo "logs            $out/slurm"
echo "tables          $report"
