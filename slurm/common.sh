# shellcheck shell=bash
# What the templates have in common; they source it after setting PRESENCE_HOME. Not to be run by itself.

# One line on standard error, and no job.
fail() {
    echo "presence: error: $*" >&2
    exit 2
}

# check_recipe RECIPE ...: look whether there is one.
check_recipe() {
    if [ "$#" -lt 1 ] || [ "${1#-}" != "$1" ]; then
        fail "no recipe was given: sbatch slurm/TEMPLATE RECIPE.yaml [--section.field value ...]"
    fi
    [ -f "$1" ] || fail "recipe is $1: there is no such file in $PWD"
}

# Read the site's settings.
read_site() {
    local site="${PRESENCE_SITE:-$PRESENCE_HOME/slurm/site.sh}"
    [ -f "$site" ] || fail "$site is missing: cp $PRESENCE_HOME/slurm/site.example.sh $site, edit it, and submit again"
    # shellcheck source=slurm/site.example.sh
    . "$site"
    PRESENCE_PYTHON="${PRESENCE_PYTHON:-$PRESENCE_HOME/.venv/bin/python}"
}

# Look whether the GPUs of the site are there.
check_gpus() {
    local site="${PRESENCE_SITE:-$PRESENCE_HOME/slurm/site.sh}"
    if [ -n "${SBATCH_GPUS_PER_NODE:-}" ] && [ -z "${SLURM_GPUS_ON_NODE:-}" ]; then
        fail "the job has no GPUs, $site says $SBATCH_GPUS_PER_NODE per node: run '. $site' before sbatch"
    fi
}

# prepare RECIPE [--section.field value ...]: read the site's settings, find the run directory, look whether it can be
# written to. Sets RUN_DIR and STEP, the command that trains.
prepare() {
    check_recipe "$@"
    read_site
    check_gpus
    local argument previous=""
    # Without a name the run directory has the job's number, which a requeued job keeps.
    RUN_DIR="${RUN_DIR:-$PWD/runs/$(basename "$1" .yaml)-$SLURM_JOB_ID}"
    for argument in "$@"; do
        case "$previous$argument" in
            --run_dir=*) RUN_DIR="${argument#*=}" ;;
            *) [ "$previous" != --run_dir ] || RUN_DIR="$argument" ;;
        esac
        previous="$argument"
    done
    check_disk
    make_step train "$@" --run_dir "$RUN_DIR"
}

# A run directory on a full or read-only disk is noticed now, not at the first checkpoint.
check_disk() {
    local free
    mkdir -p "$RUN_DIR/slurm" 2>/dev/null ||
        fail "run_dir is $RUN_DIR: it cannot be made; name a directory on a file system that you may write to"
    # Its time tells markers of this start from older ones: one file server's clock, whatever those of the nodes say.
    (echo "$SLURM_JOB_ID" >"$RUN_DIR/slurm/started") 2>/dev/null ||
        fail "run_dir is $RUN_DIR: nothing can be written there; free space or quota, or name another directory"
    free="$(($(df --output=avail -k "$RUN_DIR" | tail -n 1) / 1048576))"
    [ "$free" -ge "${MIN_FREE_GIB:-1}" ] ||
        fail "run_dir is $RUN_DIR: $free GiB are free, MIN_FREE_GIB is $MIN_FREE_GIB; free some, or name another one"
}

# make_step COMMAND ARGUMENT ...: sets STEP, which runs a command of presence as one job step on every node.
make_step() {
    # One task that failed ends the others, which would wait for it, and so does one that has ended, after a minute.
    STEP=(srun --kill-on-bad-exit=1 --wait=60)
    # srun does not take this over from sbatch since SLURM 22.05.
    [ -z "${SLURM_CPUS_PER_TASK:-}" ] || STEP+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
    local -a container=()
    case "${CONTAINER:-none}" in
        none) ;;
        pyxis)
            # The image's entry point stays out of it, and the working directory is the same inside.
            STEP+=(--container-image="$CONTAINER_IMAGE" --container-mounts="$CONTAINER_MOUNTS")
            STEP+=(--no-container-entrypoint --container-workdir="$PWD")
            ;;
        apptainer)
            # --nv: with the node's driver. The job's variables are there inside as they are outside.
            container=(apptainer exec --nv --bind "$CONTAINER_MOUNTS" --pwd "$PWD" "$CONTAINER_IMAGE")
            ;;
        *) fail "CONTAINER is $CONTAINER in the site file: it must be none, pyxis or apptainer" ;;
    esac
    # A signal reaches every process of a step, also while Python starts and would die of it: these two are ignored
    # until the trainer takes them.
    # shellcheck disable=SC2016
    STEP+=(bash -c 'trap "" USR1 USR2; exec "$@"' presence)
    STEP+=("${container[@]}" "$PRESENCE_PYTHON" -m presence_ds "$@")
}

# How the run stands, read off its marker files: exit codes of srun do not tell, it answers 143 when it has ended tasks.
# Prints finished, failed, or the reason of a stop that this start of the job has made.
outcome() {
    if [ -f "$RUN_DIR/summary.json" ]; then
        echo finished
    elif [ "$RUN_DIR/stopped.json" -nt "$RUN_DIR/slurm/started" ]; then
        stopped reason
    else
        echo failed
    fi
}

# stopped FIELD: a field of stopped.json.
stopped() {
    sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\).*/\1/p" "$RUN_DIR/stopped.json"
}

# The name of the newest checkpoint; none before the first.
newest_checkpoint() {
    cat "$RUN_DIR/checkpoints/latest" 2>/dev/null || echo none
}

# leave STATUS: end the job as the run did: 0, what the trainer says in stopped.json, or else the status of the step.
leave() {
    local how status="$1"
    how="$(outcome)"
    case "$how" in
        finished) status=0 ;;
        failed) [ "$status" -ne 0 ] || status=1 ;;
        *) status="$(stopped status)" ;;
    esac
    echo "presence: $how: $RUN_DIR"
    exit "$status"
}
