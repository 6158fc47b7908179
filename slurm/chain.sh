#!/usr/bin/env bash
# A chain of jobs for one run, where jobs may not requeue themselves: each goes on where the one before it stopped.
#
#     . slurm/site.sh
#     RUN_DIR=/shared/runs/llama_350m slurm/chain.sh 5 --nodes=2 -- recipes/llama_350m.yaml
#
# submits five jobs of slurm/train_preemptible.sbatch; sbatch's options stand before --, the trainer's after the recipe.
# What is left of the chain when the run has finished, or cannot go on, ends at once.
set -euo pipefail

fail() {
    echo "presence: error: $*" >&2
    exit 2
}

links="${1:-}"
[[ "$links" =~ ^[1-9][0-9]*$ ]] ||
    fail "usage: RUN_DIR=DIRECTORY slurm/chain.sh LINKS [options of sbatch] -- RECIPE.yaml [--section.field value ...]"
shift
[ -n "${RUN_DIR:-}" ] || fail "RUN_DIR is not set: the jobs of a chain have only the run directory in common"
options=()
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
    options+=("$1")
    shift
done
[ "$#" -gt 1 ] || fail "no recipe was given after --"
shift

export RUN_DIR REQUEUE=no
home="${PRESENCE_HOME:-$PWD}"
# singleton: one job of a name and a user at a time, in the order they were submitted, however the one before ended.
name="presence-$(basename "$RUN_DIR")"
for ((link = 1; link <= links; link++)); do
    sbatch --job-name="$name" --dependency=singleton "${options[@]}" "$home/slurm/train_preemptible.sbatch" "$@"
done
