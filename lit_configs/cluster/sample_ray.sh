#!/usr/bin/env bash
# Sample, label, search or score on all GPUs of several nodes: Ray, for this job alone, with a replica on each GPU.
#   sbatch lit_configs/cluster/sample_ray.sh
# Submit it again to go on. Edit the lines of #SBATCH, `environment`, `model` and `sample`, a whole pipeline or a stage.
# Needs pip install -e '.[vllm,ray]', of the same versions on all nodes.
#SBATCH --job-name=sample
#SBATCH --time=24:00:00
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
# Preempted, or with a node lost, the job is queued again and goes on in the same log.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

environment=.venv/bin/activate
model=Qwen/Qwen2.5-1.5B
vllm="{class_path: VllmEngine, init_args: {model: $model, max_model_len: 2048}}"
sample=(
  sampling pipeline lit_configs/math_shepherd --to 04_labels_test --set "model=$model"
  --set "engine={class_path: RayEngine, init_args: {address: auto, engine: $vllm}}"
)

# shellcheck source=/dev/null
source "$environment"
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000)) # another one for each job, as several may share a node
export RAY_ADDRESS=${hosts[0]}:$port   # what `address: auto` finds
export RAY_AUTH_MODE=token             # or whoever reaches the port could run code as you
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN

node=(--ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --gpus-per-node="$SLURM_GPUS_ON_NODE")
node+=(--output=slurm-%j-ray-%N.out)
has=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$SLURM_GPUS_ON_NODE" --block)
steps=()
trap 'kill "${steps[@]}" 2>/dev/null || true; wait' EXIT

# Wait until so many nodes have joined the cluster.
wait_for_nodes() {
  local alive='import ray; ray.init(address="auto", logging_level="ERROR"); print(sum(n["Alive"] for n in ray.nodes()))'
  local deadline=$((SECONDS + 600)) step
  until [[ $(python -c "$alive" 2>/dev/null || true) == "$1" ]]; do
    for step in "${steps[@]}"; do
      if ! kill -0 "$step" 2>/dev/null || ((SECONDS > deadline)); then
        echo "Ray has not started on $1 nodes: see slurm-$SLURM_JOB_ID-ray-*.out" >&2
        exit 1
      fi
    done
    sleep 5
  done
}

srun --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" "${node[@]}" \
  ray start --head --port="$port" --include-dashboard=false --disable-usage-stats "${has[@]}" &
steps+=($!)
wait_for_nodes 1 # the others do not wait for their head
if ((SLURM_NNODES > 1)); then
  others=$((SLURM_NNODES - 1))
  srun --nodes="$others" --ntasks="$others" --exclude="${hosts[0]}" "${node[@]}" \
    ray start --address="$RAY_ADDRESS" "${has[@]}" &
  steps+=($!)
fi
wait_for_nodes "$SLURM_NNODES"

# The name has a fit of the pipeline run on this node alone, rather than look for processes that srun has started.
SLURM_JOB_NAME=interactive "${sample[@]}"
