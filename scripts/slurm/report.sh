#!/usr/bin/env bash
# The job behind the array that submit.sh submits: report.sh PROGRAM ROOT REPORT FOLDER... makes the
# tables of the results folders and draws their figures. Slurm runs a copy of this file.
set -euo pipefail
program=$1 root=$2 report=$3
shift 3

"$program" report "$@" --out "$report"
# Without a finished cell there are no tables, which is not an error.
if ! compgen -G "$report/*.csv" > /dev/null; then
  echo "report: nothing to draw yet" >&2
  exit 0
fi
python=$root/.venv/bin/python
if [[ ! -x $python ]]; then
  echo "report: no figures: $python is made by scripts/setup.sh" >&2
  exit 0
fi
"$python" "$root/scripts/plot.py" "$report"
