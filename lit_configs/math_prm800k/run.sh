#!/usr/bin/env bash
# The reference pipeline on MATH and PRM800K. Stages that have finished are skipped, stages that were killed go on.
#   DATA=prm800k/prm800k bash lit_configs/math_prm800k/run.sh
# DATA is the folder of that name in a clone of github.com/openai/prm800k (with git lfs); it holds data/ and math_splits/.
# Models come from the hub; another model, a local copy of ProcessBench (gsm8k.jsonl, ...), adapters alone, number format
# of the engine, and a smaller run:
#   MODEL=dir PROCESSBENCH=dir OVERLAY=lit_configs/overlays/lora.yaml DTYPE=float32 bash lit_configs/math_prm800k/run.sh
#   EXAMPLES=400 PROBLEMS=400 SAMPLES=16 TEST_PROBLEMS=100 TEST_SAMPLES=32 bash lit_configs/math_prm800k/run.sh
# And then, with the samples of the training problems:
#   SELECT=1 ...                        sheets of convincing incorrect answers, for people to rate
#   TWO_STAGE=1 LARGE_MODEL=dir ...     a larger reward model that learns the values of the first one
# Other ratings, of flat rows for example:
#   RATINGS='{"class_path": "stepverify.readers.RatedSolutions", "init_args": {"path": ..., "problems": ...}}' ...
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lit_configs/math_prm800k
DATA=${DATA:-prm800k/prm800k}
train=$DATA/math_splits/train.jsonl test=$DATA/math_splits/test.jsonl
overlay=${OVERLAY:+--config $OVERLAY}
backbone=${MODEL:+--model.init_args.backbone.path $MODEL}
large=${LARGE_MODEL:+--model.init_args.backbone.path $LARGE_MODEL}
base=${MODEL:+--engine.init_args.model $MODEL}
dtype="--engine.init_args.dtype ${DTYPE:-auto}"
for split in gsm8k math olympiadbench omnimath; do
  path=${PROCESSBENCH:+$PROCESSBENCH/$split.jsonl}
  sampling convert --config $here/01_processbench.yaml --input.init_args.path "${path:-Qwen/ProcessBench}" \
    --input.init_args.split $split --output runs/math_prm800k/processbench/$split.jsonl
done
ratings=(--input.init_args.path "[$DATA/data/phase1_train.jsonl, $DATA/data/phase2_train.jsonl]")
if [ -n "${RATINGS:-}" ]; then ratings=("--input=$RATINGS"); fi
sampling convert  --config $here/02_ratings.yaml "${ratings[@]}"
sampling generate --config $here/03_few_shot.yaml $dtype $base --problems.init_args.path "$train" \
  --problems.init_args.limit "${EXAMPLES:-12000}"
sampling label    --config $here/04_few_shot_labels.yaml
stepverify fit    --config $here/05_generator.yaml $overlay $backbone --ckpt_path last
sampling generate --config $here/06_samples_train.yaml $dtype --problems.init_args.path "$train" \
  --problems.init_args.limit "${PROBLEMS:-12000}" --num_samples "${SAMPLES:-100}"
sampling generate --config $here/07_samples_test.yaml $dtype --problems.init_args.path "$test" \
  --problems.init_args.limit "${TEST_PROBLEMS:-500}" --num_samples "${TEST_SAMPLES:-100}"
sampling label    --config $here/08_labels_train.yaml
sampling label    --config $here/09_labels_test.yaml
stepverify fit    --config $here/10_prm.yaml $overlay --ckpt_path last
stepverify fit    --config $here/11_orm.yaml $overlay --ckpt_path last
sampling score    --config $here/12_scores.yaml
sampling rank     --config $here/13_rank.yaml
sampling report   --config $here/14_report.yaml
sampling score    --config $here/15_processbench_scores.yaml
sampling report   --config $here/16_processbench_report.yaml
if [ -n "${SELECT:-}${TWO_STAGE:-}" ]; then
  sampling score  --config $here/17_scores_train.yaml
fi
if [ -n "${SELECT:-}" ]; then
  sampling select --config $here/18_select.yaml
fi
if [ -n "${TWO_STAGE:-}" ]; then
  sampling label  --config $here/19_step_labels.yaml
  stepverify fit  --config $here/20_prm_large.yaml $overlay $large --ckpt_path last
fi
