# shellcheck shell=bash disable=SC2034  # what it sets is for submit.sh
# Reads the user's options for sbatch. Sourced by submit.sh.
#
# read_sbatch_options TASKS OPTION..., for an array of TASKS tasks, sets
#   array_options   options of the job array
#   report_options  options of the report after it: the same without GPUs
#   dependency      dependency of the array, or empty
#   throttle        "%N": tasks that may run at a time, or empty
#   wants_gpu       yes, or empty
# and calls `complain` for options that conflict with submit.sh's own.

array_options=() report_options=() dependency='' throttle='' wants_gpu=''

# The long name of an option that matters here. Accepts any unambiguous prefix, as sbatch does.
full_name() {
  case $1 in
    -d | --dep | --depe*) echo --dependency ;;
    -a | --ar | --arr | --arra | --array) echo --array ;;
    -J | --jo | --job | --job-*) echo --job-name ;;
    --si | --sig | --sign*) echo --signal ;;
    -G) echo --gpus ;;
    --tres-per-t*) echo --tres-per-task ;;
    *) echo "$1" ;;
  esac
}

# Whether "gpu:a100:2", "gres/gpu:1" or "gpu" of a list asks for GPUs.
is_gpu_request() {
  local request=${1#gres[/:]} count=1
  [[ $request =~ ^gpu([:=].*)?$ ]] || return 1
  [[ $request =~ [:=]([0-9]+)[^:=]*$ ]] && count=${BASH_REMATCH[1]}
  ((10#$count > 0))
}

# --gres and --tres-per-task: a list, of which the report gets everything except GPUs.
read_request_list() {
  local name=$1 value=$2 request others=()
  local -a requests
  IFS=, read -r -a requests <<< "$value"
  for request in "${requests[@]}"; do
    if is_gpu_request "$request"; then wants_gpu=yes; else others+=("$request"); fi
  done
  array_options+=("$name=$value")
  [[ ${#others[@]} -eq 0 ]] || report_options+=("$name=$(IFS=, && echo "${others[*]}")")
}

# --gpus, --gpus-per-node, ...: [TYPE:]NUMBER, or a list of those.
read_gpu_count() {
  array_options+=("$1=$2")
  [[ ! ,$2 =~ [,:]0*[1-9] ]] || wants_gpu=yes
}

# submit.sh chooses the tasks (the unfinished ones); the user may choose how many run at a time.
read_array() {
  local tasks=$2 indices=${1%%%*}
  throttle=${1#"$indices"}
  [[ -z $throttle || $throttle =~ ^%[1-9][0-9]*$ ]] || complain "--array: expected %N behind the tasks, got $1"
  [[ -z $indices || $indices == "0-$((tasks - 1))" ]] ||
    complain "--array=$1: submit.sh chooses the tasks (--tasks N); --array=%N says how many run at a time"
}

read_sbatch_options() {
  local tasks=$1 name value joined
  shift
  while [[ $# -gt 0 ]]; do
    name=$1 value='' joined=''
    case $1 in
      --*=*) name=${1%%=*} value=${1#*=} joined=yes ;;
      -[daJG]?*) name=${1:0:2} value=${1:2} joined=yes ;;
    esac
    name=$(full_name "$name")
    case $name in
      --dependency | --array | --job-name | --signal | --gres | --tres-per-task | --gpus | \
        --gpus-per-node | --gpus-per-task | --gpus-per-socket | \
        --cpus-per-gpu | --mem-per-gpu | --ntasks-per-gpu | --gpu-bind | --gpu-freq)
        if [[ -z $joined ]]; then
          [[ $# -gt 1 ]] || complain "$1 needs a value"
          value=$2
          shift
        fi
        ;;
    esac
    case $name in
      --dependency) dependency=$value ;;
      --array) read_array "$value" "$tasks" ;;
      --job-name) complain "--job-name: submit.sh finds its own jobs by their name; leave it out" ;;
      --signal) complain "--signal: submit.sh has its tasks told that their time is nearly up; leave it out" ;;
      --gres | --tres-per-task) read_request_list "$name" "$value" ;;
      --gpus | --gpus-per-*) read_gpu_count "$name" "$value" ;;
      # Useless without a GPU, and sbatch refuses some of them then.
      --cpus-per-gpu | --mem-per-gpu | --ntasks-per-gpu | --gpu-*) array_options+=("$name=$value") ;;
      *)
        array_options+=("$1")
        report_options+=("$1")
        ;;
    esac
    shift
  done
}

# The report depends on the array and on the array's dependencies. Alternatives ("?") cannot be
# combined with others; then only the array has them.
report_dependency() {
  if [[ -z $dependency || $dependency == *\?* ]]; then
    echo "afterany:$1"
  else
    echo "afterany:$1,$dependency"
  fi
}
