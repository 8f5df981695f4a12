# shellcheck shell=bash disable=SC2034  # what it sets is for submit.sh
# What submit.sh has to know of the options that a user gives to sbatch. Sourced by it.
#
# read_sbatch_options TASKS OPTION..., for an array of TASKS tasks, sets
#   array_options   what goes to the job array
#   report_options  what goes to the report behind it: all of these but GPUs
#   dependency      what the array is to wait for, or nothing
#   throttle        "%N": tasks that may run at a time, or nothing
#   wants_gpu       yes, or nothing
# and calls `complain` with what cannot be merged with submit.sh's own options.

array_options=() report_options=() dependency='' throttle='' wants_gpu=''

# The long name of an option that matters here. Like sbatch, which takes any beginning that no other
# option has.
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

# --gres and --tres-per-task: a list, of which the report gets what is no GPU.
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

# The tasks are submit.sh's choice: what is unfinished. How many run at a time is the user's.
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
      # Of no use without a GPU, and sbatch refuses some of them there.
      --cpus-per-gpu | --mem-per-gpu | --ntasks-per-gpu | --gpu-*) array_options+=("$name=$value") ;;
      *)
        array_options+=("$1")
        report_options+=("$1")
        ;;
    esac
    shift
  done
}

# What the report waits for: the array and whatever the array waits for. Alternatives ("?") cannot
# be joined with anything; there the array does the waiting.
report_dependency() {
  if [[ -z $dependency || $dependency == *\?* ]]; then
    echo "afterany:$1"
  else
    echo "afterany:$1,$dependency"
  fi
}
