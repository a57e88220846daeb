#!/usr/bin/env bash
# Train on several nodes: srun starts torchrun on each, and torchrun one process for each GPU.
#   sbatch lit_configs/cluster/fit_torchrun.sh
# Submit it again to go on with a run that has not finished; a finished one is left as it is. Edit the lines of #SBATCH,
# `environment` and `fit`. fit_srun.sh has one program less; this is for those who start all else by torchrun.
#SBATCH --job-name=fit
#SBATCH --time=24:00:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
# Preempted, or with a node lost, the job is queued again and goes on in the same log.
#SBATCH --requeue
#SBATCH --open-mode=append
# To this script alone (B), so many seconds before the time limit: time for one step and a checkpoint.
#SBATCH --signal=B:USR1@300
set -euo pipefail

environment=.venv/bin/activate
fit=(
  --config lit_configs/math_shepherd/05_prm.yaml
  --config lit_configs/overlays/gpu.yaml
  --config lit_configs/overlays/fsdp2.yaml # ddp.yaml has the whole model on every GPU
)

# shellcheck source=/dev/null
source "$environment"
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # since SLURM 22.05 srun does not take it from sbatch
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240      # seconds to save after SIGTERM; torchrun's own 30 may be too few

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000)) # another one for each job, as several may share a node

# Near the time limit all processes, but not this script, get SIGTERM: they save and end. The exit code of torchrun does
# not tell that from a failure, so SLURM tells this script.
near_limit=false
trap 'near_limit=true; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

# --ckpt_path last begins a run where there is no checkpoint. A process that dies ends all others.
srun --kill-on-bad-exit=1 torchrun --nnodes="$SLURM_NNODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" \
  --rdzv_backend=c10d --rdzv_endpoint="${hosts[0]}:$port" --rdzv_id="$SLURM_JOB_ID" -m stepverify fit "${fit[@]}" \
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_GPUS_ON_NODE" --ckpt_path last &
status=0
wait $! || status=$?
if $near_limit; then
  wait $! || status=$? # the signal has ended the first wait
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
