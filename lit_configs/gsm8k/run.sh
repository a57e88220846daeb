#!/usr/bin/env bash
# The reference pipeline on GSM8K. Stages that have finished are skipped, stages that were killed go on.
#   bash lit_configs/gsm8k/run.sh
# Models and data come from the hub; local copies instead (DATA holds train.jsonl.gz and test.jsonl.gz):
#   GENERATOR=dir VERIFIER=dir DATA=dir DTYPE=float32 bash lit_configs/gsm8k/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lit_configs/gsm8k
generator=${GENERATOR:-Qwen/Qwen2.5-Coder-0.5B-Instruct}
verifier=${VERIFIER:-HuggingFaceTB/SmolLM2-135M-Instruct}
train=${DATA:+$DATA/train.jsonl.gz} test=${DATA:+$DATA/test.jsonl.gz}
train=${train:-openai/gsm8k} test=${test:-openai/gsm8k}
engine="--engine.init_args.model $generator --engine.init_args.dtype ${DTYPE:-auto}"
sampling generate --config $here/01_samples_train.yaml $engine --problems.init_args.path "$train" --few_shot.init_args.path "$train"
sampling generate --config $here/02_samples_test.yaml $engine --problems.init_args.path "$test" --few_shot.init_args.path "$train"
sampling label    --config $here/03_labels_train.yaml ${engine//--engine/--steps.init_args.engine} --steps.init_args.few_shot.init_args.path "$train"
sampling label    --config $here/04_labels_test.yaml
stepverify fit    --config $here/05_orm.yaml --config lit_configs/overlays/lora.yaml --model.init_args.backbone.path "$verifier" --ckpt_path last
stepverify fit    --config $here/06_prm.yaml --config lit_configs/overlays/lora.yaml --model.init_args.backbone.path "$verifier" --ckpt_path last
sampling score    --config $here/07_scores.yaml
sampling rank     --config $here/08_rank.yaml
sampling report   --config $here/09_report.yaml
