#!/usr/bin/env bash
# PRESENCE-Sequential, the paper's equations 4 and 5: a model that was trained for a few steps on random samples scores
# the corpus, what has the highest self-influence is dropped, and the model is trained from scratch on the rest.
#
#     recipes/sequential/run.sh recipes/sequential/sequential.yaml runs/sequential
#
# Where it was stopped, the same command goes on. KEEP is the share to keep, SCORING_STEPS the length of the scoring
# model's training. slurm/sequential.sh does the same as a chain of jobs.
set -euo pipefail

[ "$#" -eq 2 ] || {
    echo "presence: error: usage: [KEEP=0.8] [SCORING_STEPS=10] $0 RECIPE.yaml FOLDER" >&2
    exit 2
}
recipe="$1" work="$2"
steps="${SCORING_STEPS:-10}"
scoring_model="$work/scoring_model-$steps"

# train RUN_DIR ARGUMENT ...: unless that has been done, for a run that has finished does not go on.
train() {
    [ -f "$1/summary.json" ] || presence train "$recipe" --run_dir "$@"
}

presence prepare "$recipe" "$work/corpus"
train "$scoring_model" --data.prepared "$work/corpus" --training.steps "$steps" \
    --lr_schedule.kind constant --lr_schedule.decay_steps null --lr_schedule.warmup_steps "$steps" # which rises all along
presence score "$recipe" "$work/scores" --data.prepared "$work/corpus" --checkpoint "$scoring_model"
presence filter "$work/scores" "$work/filtered" --keep "${KEEP:-0.8}"
train "$work/training" --data.prepared "$work/filtered"
