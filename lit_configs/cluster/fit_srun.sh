#!/usr/bin/env bash
# Train on several nodes: srun starts one process for each GPU.
#   sbatch lit_configs/cluster/fit_srun.sh
# Submit it again to go on with a run that has not finished; a finished one is left as it is. Edit the lines of #SBATCH,
# `environment` and `fit`.
#SBATCH --job-name=fit
#SBATCH --time=24:00:00
#SBATCH --nodes=2
# One process for each GPU. Every process has to see all GPUs of its node, so no --gpus-per-task.
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
# Preempted, or with a node lost, the job is queued again and goes on in the same log.
#SBATCH --requeue
#SBATCH --open-mode=append
# So many seconds before the time limit the processes, not this script, get SIGTERM: for one step and a checkpoint.
#SBATCH --signal=TERM@300
set -euo pipefail

environment=.venv/bin/activate
fit=(
  --config lit_configs/math_shepherd/05_prm.yaml
  --config lit_configs/overlays/gpu.yaml
  --config lit_configs/overlays/ddp.yaml # fsdp2.yaml divides the parameters over all GPUs
)

# shellcheck source=/dev/null
source "$environment"
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # since SLURM 22.05 srun does not take it from sbatch

# --ckpt_path last begins a run where there is no checkpoint. A process that dies ends all others.
status=0
srun --kill-on-bad-exit=1 stepverify fit "${fit[@]}" \
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" --ckpt_path last || status=$?

# 143: SIGTERM, and all processes have saved. A job that is cancelled does not come here, as this script is ended too.
if ((status == 143)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
