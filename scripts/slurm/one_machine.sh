#!/usr/bin/env bash
# A Slurm of one node on this machine, for the tests: no systemd, no cgroups, no database. As root,
# with the packages slurm-wlm and munge of Debian 12.
#   scripts/slurm/one_machine.sh up DIR [CPUS]   starts it; clients need SLURM_CONF=DIR/slurm.conf
#   scripts/slurm/one_machine.sh down DIR        cancels its jobs and stops it
# All its files are in DIR, whose path has to be short: paths of sockets have at most 107 bytes.
set -euo pipefail
PATH=$PATH:/usr/sbin # where the daemons are
umask 022 # munged refuses folders that others may write to

usage() {
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

# Prints the pid of one of our daemons if it is alive: its file may be stale, and a zombie, which its
# parent may be slow to reap, counts as dead.
pid_of() {
  local pid
  pid=$(cat "$dir/run/$1.pid" 2> /dev/null) || return 1
  [[ -n $pid && $(cat "/proc/$pid/comm" 2> /dev/null) == "$1" ]] || return 1
  ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" || return 1
  echo "$pid"
}

# Whether nothing listens on the port.
is_free() { ! (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }

# Finds two neighbouring free ports from a random start, since several clusters may run at once; below
# 32768, where the kernel's ports for outgoing connections begin.
find_ports() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    if is_free "$port" && is_free "$((port + 1))"; then
      echo "$port"
      return
    fi
  done
}

write_conf() {
  local cpus=$1 port memory interfaces='#'
  port=$(find_ports)
  # In MiB; part of it, so that a job may ask for memory and the machine keeps some.
  memory=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.8) }' /proc/meminfo)
  # Only loopback, where the machine's name resolves to it; otherwise the daemons would bind to an
  # address that the clients do not use.
  if [[ $(getent ahostsv4 "$(hostname)" | awk 'NR == 1 { print $1 }') == 127.0.0.1 ]]; then
    interfaces=CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
  fi
  cat > "$dir/slurm.conf" << END
ClusterName=tests
SlurmUser=root
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
$interfaces
AuthType=auth/munge
# A requeued job waits until the credential of its last run has expired.
AuthInfo=socket=$dir/run/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Schedules at once; by default Slurm collects work for seconds.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
# The node may claim more cores than the machine has.
SlurmdParameters=config_overrides
# A node that is down returns to service when it answers.
ReturnToService=2
RequeueExit=75
KillWait=5
SlurmdTimeout=10
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 Gres=gpu:2 CPUs=$cpus Boards=1 SocketsPerBoard=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
  # Two fake GPUs, so that jobs can request them on any machine.
  echo 'Name=gpu File=/dev/null,/dev/zero' > "$dir/gres.conf"
}

start_daemons() {
  pid_of munged > /dev/null ||
    munged --key-file="$dir/munge.key" --socket="$dir/run/munge.socket" \
      --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log" \
      --seed-file="$dir/run/munged.seed" --origin=127.0.0.1 < /dev/null
  pid_of slurmctld > /dev/null || slurmctld < /dev/null
  pid_of slurmd > /dev/null || timeout 20 slurmd < /dev/null
}

up() {
  mkdir -p "$dir"/{state,spool,log,run}
  [[ -s $dir/munge.key ]] || mungekey --create --keyfile="$dir/munge.key"
  # Kept while the cluster runs, since it has the ports.
  pid_of slurmctld > /dev/null || write_conf "$1"
  start_daemons
  local deadline=$((SECONDS + 40))
  while ((SECONDS < deadline)); do
    # The node says "unknown" until its daemon has registered.
    if timeout 5 sinfo --noheader --format=%T 2> /dev/null | grep -qxE 'idle|mixed|allocated'; then
      return
    fi
    sleep 0.1
  done
  tail -n 20 "$dir"/log/*.log >&2
  return 1
}

# Cancels the jobs first, since they survive their daemons.
cancel_jobs() {
  pid_of slurmctld > /dev/null || return 0
  local deadline=$((SECONDS + 15))
  squeue --noheader --format=%A | sort -u | xargs -r scancel
  while ((SECONDS < deadline)) && [[ -n $(squeue --noheader) ]]; do sleep 0.2; done
}

down() {
  local daemon pid deadline
  cancel_jobs || true # a controller that does not answer is stopped all the same
  for daemon in slurmd slurmctld munged; do
    pid=$(pid_of "$daemon") || continue
    kill "$pid"
    deadline=$((SECONDS + 20))
    # Waits for the process, since slurmd removes its pid file before it ends.
    while [[ $(cat "/proc/$pid/comm" 2> /dev/null) == "$daemon" ]] &&
      ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status"; do
      ((SECONDS < deadline)) || { echo "one_machine: $daemon does not stop" >&2 && return 1; }
      sleep 0.1
    done
  done
}

[[ $# -ge 2 ]] || usage
dir=$(realpath -m -- "$2")
export SLURM_CONF=$dir/slurm.conf
case $1 in
  up) up "${3:-$(nproc)}" ;;
  down) down ;;
  *) usage ;;
esac
