#!/usr/bin/env bash
# Math-Shepherd on GSM8K. Stages that have finished are skipped, stages that were killed go on.
#   bash lit_configs/math_shepherd/run.sh
# Models and data come from the hub; other ones, adapters alone, number format of the engine, another strategy, and a
# smaller run (DATA holds train.jsonl.gz and test.jsonl.gz, PROCESSBENCH is gsm8k.jsonl.gz of ProcessBench):
#   MODEL=dir DATA=dir PROCESSBENCH=file OVERLAY=lit_configs/overlays/lora.yaml DTYPE=float32 \
#     STRATEGY=binary_search PROBLEMS=100 SAMPLES=4 TEST_PROBLEMS=100 TEST_SAMPLES=16 bash lit_configs/math_shepherd/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lit_configs/math_shepherd
train=${DATA:+$DATA/train.jsonl.gz} test=${DATA:+$DATA/test.jsonl.gz}
train=${train:-openai/gsm8k} test=${test:-openai/gsm8k}
overlay=${OVERLAY:+--config $OVERLAY}
strategy=${STRATEGY:+--config $here/ablations/labels_$STRATEGY.yaml}
labels=runs/math_shepherd/labels_train${STRATEGY:+_$STRATEGY}
engine="--engine.init_args.dtype ${DTYPE:-auto} ${MODEL:+--engine.init_args.model $MODEL}"
completer="--steps.init_args.engine.init_args.dtype ${DTYPE:-auto} ${MODEL:+--steps.init_args.engine.init_args.model $MODEL}"
sampling generate --config $here/01_samples_train.yaml $engine --few_shot.init_args.path "$train" \
  --problems.init_args.path "$train" --problems.init_args.limit "${PROBLEMS:-7000}" --num_samples "${SAMPLES:-15}"
sampling generate --config $here/02_samples_test.yaml $engine --few_shot.init_args.path "$train" \
  --problems.init_args.path "$test" --problems.init_args.limit "${TEST_PROBLEMS:-1319}" --num_samples "${TEST_SAMPLES:-64}"
sampling label    --config $here/03_labels_train.yaml $strategy $completer --steps.init_args.few_shot.init_args.path "$train"
sampling label    --config $here/04_labels_test.yaml
stepverify fit    --config $here/05_prm.yaml $overlay ${MODEL:+--model.init_args.backbone.path $MODEL} --ckpt_path last \
  --data.train.init_args.path "$labels" --data.validation.init_args.path "$labels"
sampling score    --config $here/06_scores.yaml
sampling rank     --config $here/07_rank.yaml
sampling report   --config $here/08_report.yaml
sampling convert  --config $here/09_processbench.yaml --input.init_args.path "${PROCESSBENCH:-Qwen/ProcessBench}"
sampling score    --config $here/10_processbench_scores.yaml
sampling report   --config $here/11_processbench_report.yaml
