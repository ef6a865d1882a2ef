#!/usr/bin/env bash
# All lines of a file as jobs, on the nodes of one allocation: a mapper on the first, a worker on each.
#
#   sbatch --nodes 4 slurm.sh 'sha256sum' lines.txt
#
# Each job is one line, which PROGRAM gets on stdin. Results come to lines.txt.results, and what became of
# each to lines.txt.joblog: the same command again goes on where this one ended. It takes a folder that all
# nodes see, and svcmap on the PATH of all.
#SBATCH --job-name=svcmap
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
# A minute before the time is over this script is told, and lets jobs that run finish.
#SBATCH --signal=B:TERM@60
set -euo pipefail

program=${1:?usage: sbatch slurm.sh PROGRAM FILE}
lines=$(realpath "${2:?usage: sbatch slurm.sh PROGRAM FILE}")
nodes=$SLURM_JOB_NUM_NODES
cpus=${SLURM_CPUS_PER_TASK:-1}
# Twice this is less than the minute of TERM@60: whoever submits is told first, then the workers.
grace=20s

# The keys are this allocation's alone, and gone with it.
umask 077
folder=$(mktemp --directory "$SLURM_SUBMIT_DIR/svcmap-$SLURM_JOB_ID.XXXXXX")
export SVCMAP_DEPLOYMENT=$folder/svcmap.toml
unset SVCMAP_MAPPER

mapper='' workers='' client='' is_over=''

# A trap ends `wait` before the process has ended.
wait_for() {
    local status=0
    while wait "$1" || status=$?; kill -0 "$1" 2>/dev/null; do status=0; done
    return "$status"
}

# Workers drain, then the mapper ends. The trap calls it.
# shellcheck disable=SC2317
end() {
    trap '' TERM
    if [ -n "$client" ]; then
        kill -TERM "$client" 2>/dev/null || true
        wait_for "$client" || true
    fi
    if [ -n "$workers" ]; then
        # To the workers themselves: srun would have them killed.
        scancel --quiet --signal=TERM "$SLURM_JOB_ID.0" || true
        wait_for "$workers" || true
    fi
    if [ -n "$mapper" ]; then
        kill -TERM "$mapper" 2>/dev/null || true
        wait_for "$mapper" || true
    fi
    rm -rf "$folder"
}
trap end EXIT
# It is told once that the time is over; what is not done by then stays in the job log.
trap 'is_over=yes; [ -z "$client" ] || kill -TERM "$client" 2>/dev/null || true' TERM

# Runs a command that is told when the time is over, also if that has been just before.
run() {
    [ -z "$is_over" ] || exit 143
    "$@" &
    client=$!
    [ -z "$is_over" ] || kill -TERM "$client" 2>/dev/null || true
    local status=0
    wait_for "$client" || status=$?
    client=''
    return "$status"
}

# As the other nodes reach this one.
address=$(scontrol show node "$SLURMD_NODENAME" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
# The system chooses the ports, as several allocations may have a node in common.
svcmap mapper --bind tcp://0.0.0.0:0 --publish tcp://0.0.0.0:0 \
    --advertise "$address" > "$folder/mapper" &
mapper=$!
until [ -s "$folder/mapper" ]; do
    kill -0 "$mapper" 2>/dev/null || exit 1
    sleep 0.1
done

srun --ntasks-per-node=1 --cpus-per-task="$cpus" --kill-on-bad-exit=0 \
    svcmap worker --service work --exec "$program" --concurrency "$cpus" --grace "$grace" &
workers=$!
run svcmap status --wait "work>=$nodes" --timeout 2m
options=(--grace "$grace" --joblog "$lines.joblog" --output "$lines.results/{number}")
[ ! -e "$lines.joblog" ] || options+=(--resume)
run svcmap submit work --lines "$lines" "${options[@]}"
