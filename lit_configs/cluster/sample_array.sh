#!/usr/bin/env bash
# Divide the problems of one stage over the jobs of an array, and merge what they have made. Jobs need neither Ray nor a
# network between them.
#   array=$(sbatch --parsable --array=1-16 --gpus=1 lit_configs/cluster/sample_array.sh)
#   sbatch --dependency=afterany:$array lit_configs/cluster/sample_array.sh
# The second is no array, so it merges, without a GPU or a model. If shards are missing it names them and merges
# nothing: submit the jobs that failed again, alone (--array=7,12), and then the second. Edit the lines of #SBATCH and
# the variables.
#SBATCH --job-name=sample
#SBATCH --time=24:00:00
#SBATCH --cpus-per-task=8
# Preempted, or with its node lost, a job is queued again and goes on.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

environment=.venv/bin/activate
stage=generate # or label, score, search
config=lit_configs/math_shepherd/01_samples_train.yaml
jobs=runs/math_shepherd/jobs/samples_train # a folder for each job below it; the merged one is the output of `config`
shards=16                                  # jobs of the whole array, 1-16 or 0-15; not to be changed between them

# shellcheck source=/dev/null
source "$environment"
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
  # From 1 to `shards`, for an array that counts from 0 or from 1, and the same for a job that is submitted again alone.
  shard=$((SLURM_ARRAY_TASK_ID % shards + 1))
  exec sampling "$stage" --config "$config" --shard "$shard/$shards" --output "$jobs/$shard"
fi
exec sampling "$stage" --config "$config" --reuse_from "[$jobs/*]"
