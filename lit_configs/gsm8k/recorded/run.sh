#!/usr/bin/env bash
# The verifier of RESULTS.md from the recorded samples: no engine, no sampling.
#   GENERATOR=runs/gsm8k/generator/export DATA=dir bash lit_configs/gsm8k/recorded/run.sh
# DATA holds GSM8K's train.jsonl.gz and test.jsonl.gz; left out, they come from the hub. SKIP is a file of solutions
# whose problems are not scored. Arguments go to the fit, and OUT is the folder of another one:
#   OUT=runs/gsm8k/recorded_solution_level ... recorded/run.sh --config lit_configs/gsm8k/ablations/solution_level.yaml
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=lit_configs/gsm8k out=${OUT:-runs/gsm8k/recorded} reader=stepverify.readers.Solutions
for split in train test; do
  path=${DATA:+$DATA/$split.jsonl.gz}
  problems="{class_path: stepverify.readers.GSM8K, init_args: {path: ${path:-openai/gsm8k}, split: $split}}"
  exclude="[]"
  if [ $split = test ] && [ -n "${SKIP:-}" ]; then
    exclude="[{class_path: $reader, init_args: {path: '$SKIP', problems: $problems}}]"
  fi
  sampling label --input.class_path $reader --input.init_args.path $here/recorded/samples_$split.jsonl.gz \
    --input.init_args.problems "$problems" --input.init_args.exclude "$exclude" --output $out/labels_$split
done
stepverify fit --config $here/06_orm.yaml --config lit_configs/overlays/lora.yaml --config $here/ablations/no_lm.yaml \
  --config $here/ablations/no_dropout.yaml --config $here/ablations/cross_entropy.yaml \
  --config $here/ablations/balanced_per_problem.yaml "$@" \
  --model.init_args.backbone.path "${GENERATOR:-runs/gsm8k/generator/export}" --data.pack_tokens 2048 \
  --data.train.init_args.path $out/labels_train --data.validation.init_args.path $out/labels_train \
  --trainer.default_root_dir $out/orm --ckpt_path last
sampling score  --config $here/07_scores.yaml --input $out/labels_test --verifiers "{orm: $out/orm/export}" --output $out/scores_test
sampling rank   --config $here/08_rank.yaml --input $out/scores_test --output $out/rankings
sampling report --config $here/09_report.yaml --input $out/rankings --scores $out/scores_test --output $out/report
