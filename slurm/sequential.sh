#!/usr/bin/env bash
# PRESENCE-Sequential as a chain of jobs: recipes/sequential/run.sh, each of its commands a job that waits for the one
# before; the corpus is scored by an array.
#
#     . slurm/site.sh
#     SHARDS=16 KEEP=0.8 slurm/sequential.sh recipes/llama_350m.yaml /shared/sequential --nodes=2
#
# sbatch's options after the folder are those of the two trainings; those of the two jobs that need no GPUs are in
# COMMAND_OPTIONS, such as "--partition=cpu". SCORING_STEPS is the length of the scoring model's training. The same
# command goes on where a chain has ended early: jobs whose work is done end at once.
set -euo pipefail

fail() {
    echo "presence: error: $*" >&2
    exit 2
}

[ "$#" -ge 2 ] || fail "usage: [SHARDS=8] [KEEP=0.8] [SCORING_STEPS=1000] $0 RECIPE.yaml FOLDER [options of sbatch]"
recipe="$1" work="$2"
shift 2
[ -f "$recipe" ] || fail "recipe is $recipe: there is no such file in $PWD"
shards="${SHARDS:-8}" steps="${SCORING_STEPS:-1000}"
[[ "$shards" =~ ^[1-9][0-9]*$ ]] || fail "SHARDS is $shards: it must be a number of jobs"
templates="${PRESENCE_HOME:-$PWD}/slurm"
data=(--data.prepared "$work/corpus")
scoring_model="$work/scoring_model-$steps"
read -ra command_options <<<"${COMMAND_OPTIONS:-}"

# job NAME AFTER ARGUMENT ...: submit a job that starts when job AFTER has succeeded; its number.
job() {
    local name="$1" after="$2"
    shift 2
    sbatch --parsable --job-name="presence-$name" ${after:+--dependency=afterok:"$after" --kill-on-invalid-dep=yes} "$@"
}

# The same for a command that needs no GPUs.
command_job() {
    local name="$1" after="$2"
    shift 2
    (
        unset SBATCH_GPUS_PER_NODE
        job "$name" "$after" "${command_options[@]}" "$templates/command.sbatch" "$@"
    )
}

corpus="$(command_job prepare "" prepare "$recipe" "$work/corpus")"
model="$(job scoring-model "$corpus" "$@" "$templates/train_preemptible.sbatch" "$recipe" "${data[@]}" \
    --run_dir "$scoring_model" --training.steps "$steps" \
    --lr_schedule.kind constant --lr_schedule.decay_steps null --lr_schedule.warmup_steps "$steps")"
scores="$(job score "$model" --array="0-$((shards - 1))" "$templates/score.sbatch" "$recipe" "$work/scores" "${data[@]}" \
    --checkpoint "$scoring_model")"
filtered="$(command_job filter "$scores" filter "$work/scores" "$work/filtered" --keep "${KEEP:-0.8}")"
training="$(job training "$filtered" "$@" "$templates/train_preemptible.sbatch" "$recipe" --data.prepared "$work/filtered" \
    --run_dir "$work/training")"
echo "prepare $corpus, scoring model $model, scores $scores, filter $filtered, training $training"
