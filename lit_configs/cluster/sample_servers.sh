#!/usr/bin/env bash
# Sample from vLLM servers, one on each node; needs no Ray.
#   sbatch lit_configs/cluster/sample_servers.sh
# Submit it again to go on. Edit the lines of #SBATCH, `environment`, `model`, `serve`, `in_flight` and `sample`: a
# pipeline, or a stage.
#SBATCH --job-name=sample
#SBATCH --time=24:00:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
# Preempted, or with a node lost, the job is queued again and goes on in the same log.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

environment=.venv/bin/activate
model=Qwen/Qwen2.5-1.5B
serve=(--data-parallel-size 8 --max-model-len 2048) # a copy on each GPU; --tensor-parallel-size for larger models
in_flight=1024                                      # completions that each server works on: 128 for each copy
sample=(sampling pipeline lit_configs/math_shepherd --to 04_labels_test --set "model=$model")

# shellcheck source=/dev/null
source "$environment"
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # since SLURM 22.05 srun does not take it from sbatch
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000)) # another one for each job, as several may share a node
VLLM_API_KEY=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') # or others on the cluster could ask these servers
export VLLM_API_KEY

srun --kill-on-bad-exit=0 --output=slurm-%j-vllm-%N.out \
  vllm serve "$model" --host 0.0.0.0 --port "$port" "${serve[@]}" &
servers=$!
trap 'kill "$servers" 2>/dev/null || true; wait' EXIT

deadline=$((SECONDS + 1800)) # for download, loading and compilation
for host in "${hosts[@]}"; do
  until curl --silent --fail --max-time 5 --output /dev/null "http://$host:$port/health"; do
    if ! kill -0 "$servers" 2>/dev/null || ((SECONDS > deadline)); then
      echo "$host: its server has not started: see slurm-$SLURM_JOB_ID-vllm-$host.out" >&2
      exit 1
    fi
    sleep 5
  done
done

urls=$(printf ", http://%s:$port/v1" "${hosts[@]}")
engine="{class_path: ServerEngine, init_args: {model: $model, base_url: [${urls#, }],"
engine+=" max_in_flight: $in_flight, api_key_env: VLLM_API_KEY}}"
# The name has a fit of the pipeline run on this node alone, rather than look for processes that srun has started.
SLURM_JOB_NAME=interactive "${sample[@]}" --set "engine=$engine"
