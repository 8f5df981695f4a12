#!/usr/bin/env bash
# One task of the array that submit.sh submits: task.sh PROGRAM CONFIG OUT TASKS DEVICE. Slurm runs a
# copy of this file, so nothing is looked up beside it.
set -uo pipefail
program=$1 config=$2 out=$3 tasks=$4 device=$5

near_limit='' child=''
# Signals are handled while the lines below wait for the program, which treats signals within a second
# of each other as one: Slurm sends TERM to this script and to the program.
trap 'near_limit=yes; [[ -z $child ]] || kill -TERM "$child"' USR1
trap '[[ -z $child ]] || kill -TERM "$child"' TERM

# The allocated cores: without cgroups a process sees every core of the node.
threads=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
"$program" run "$config" --out "$out" --device "$device" --threads "$threads" \
  --shard "$SLURM_ARRAY_TASK_ID/$tasks" > /dev/null &
child=$!
# A signal interrupts `wait`; the status of an ended program is kept for the last one.
while kill -0 "$child" 2> /dev/null; do wait "$child"; done
wait "$child"
status=$?

# Stopped before the time limit, with checkpoints written: the requeued task resumes from them.
if [[ $status -eq 75 && -n $near_limit ]]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" && sleep 60 # Slurm ends it
fi
exit "$status"
