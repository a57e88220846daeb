#!/usr/bin/env bash
# The reference pipeline on GSM8K. Stages that have finished are skipped, stages that were killed go on.
#   bash lit_configs/gsm8k/run.sh
# Model and data come from the hub; local copies instead (DATA holds train.jsonl.gz and test.jsonl.gz), adapters
# alone, number format of the engine, and a smaller run:
#   MODEL=dir DATA=dir OVERLAY=lit_configs/overlays/lora.yaml DTYPE=float32 bash lit_configs/gsm8k/run.sh
#   EXAMPLES=400 PROBLEMS=400 SAMPLES=16 TEST_PROBLEMS=300 TEST_SAMPLES=32 bash lit_configs/gsm8k/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lit_configs/gsm8k
train=${DATA:+$DATA/train.jsonl.gz} test=${DATA:+$DATA/test.jsonl.gz}
train=${train:-openai/gsm8k} test=${test:-openai/gsm8k}
overlay=${OVERLAY:+--config $OVERLAY}
backbone=${MODEL:+--model.init_args.backbone.path $MODEL}
dtype="--engine.init_args.engine.init_args.dtype ${DTYPE:-auto}"
stepverify fit    --config $here/01_generator.yaml $overlay $backbone --ckpt_path last \
  --data.train.init_args.path "$train" --data.validation.init_args.path "$train" --data.train.init_args.limit "${EXAMPLES:-7000}" \
  --trainer.callbacks.init_args.problems.init_args.path "$train"
sampling generate --config $here/02_samples_train.yaml $dtype --problems.init_args.path "$train" \
  --problems.init_args.limit "${PROBLEMS:-7000}" --num_samples "${SAMPLES:-100}"
sampling generate --config $here/03_samples_test.yaml $dtype --problems.init_args.path "$test" \
  --problems.init_args.limit "${TEST_PROBLEMS:-1319}" --num_samples "${TEST_SAMPLES:-100}"
sampling label    --config $here/04_labels_train.yaml
sampling label    --config $here/05_labels_test.yaml
stepverify fit    --config $here/06_orm.yaml $overlay --ckpt_path last \
  --data.lm.init_args.path "$train" --data.lm.init_args.limit "${PROBLEMS:-7000}"
sampling score    --config $here/07_scores.yaml
sampling rank     --config $here/08_rank.yaml
sampling report   --config $here/09_report.yaml
