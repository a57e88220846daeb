#!/usr/bin/env bash
# The price of training at one position and reading at another: a process reward model on ratings, and the same with its
# labels two tokens too early, which is what becomes of them where data and model both move them for the next token.
# Step judgements on held-out problems, and first incorrect steps on ProcessBench. Needs ratings and a model, no samples.
#   DATA=prm800k/prm800k MODEL=HuggingFaceTB/SmolLM2-135M TAG='<reponame>' bash lit_configs/math_prm800k/shift.sh
# TAG is a token of the model that no solution contains. RATINGS and PROCESSBENCH as for run.sh, SPLITS are the parts of
# ProcessBench; arguments go to both fits: --config lit_configs/overlays/lora.yaml, for example.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lit_configs/math_prm800k out=runs/math_prm800k/shift DATA=${DATA:-prm800k/prm800k}
reader=stepverify.readers.Solutions fraction=0.2
for split in ${SPLITS:-gsm8k math}; do
  path=${PROCESSBENCH:+$PROCESSBENCH/$split.jsonl}
  sampling convert --config $here/01_processbench.yaml --input.init_args.path "${path:-Qwen/ProcessBench}" \
    --input.init_args.split "$split" --output $out/processbench/"$split".jsonl
done
ratings=(--input.init_args.path "[$DATA/data/phase1_train.jsonl, $DATA/data/phase2_train.jsonl]")
if [ -n "${RATINGS:-}" ]; then ratings=("--input=$RATINGS"); fi
excluded="[{class_path: $reader, init_args: {path: $out/processbench}}]"
sampling convert --config $here/02_ratings.yaml "${ratings[@]}" --input.init_args.exclude "$excluded" --output $out/ratings.jsonl
sampling convert --input.class_path $reader --input.init_args.path $out/ratings.jsonl --input.init_args.fold validation \
  --input.init_args.validation_fraction $fraction --output $out/held_out.jsonl
for verifier in aligned shifted; do
  module=stepverify.modules.ProcessRewardModel
  if [ $verifier = shifted ]; then module=tests.benchmarks.peers.shifted.ShiftedRewardModel; fi
  PYTHONPATH=. stepverify fit --config $here/10_prm.yaml --model $module "$@" \
    --model.init_args.backbone.path "$MODEL" \
    --model.init_args.template '{"prompt": "Problem: {problem}\nSolution:\n", "step_tag": "'"$TAG"'"}' \
    --data.train.init_args.path $out/ratings.jsonl --data.train.init_args.validation_fraction $fraction \
    --data.validation.init_args.path $out/ratings.jsonl --data.validation.init_args.validation_fraction $fraction \
    --trainer.default_root_dir $out/$verifier --ckpt_path last
done
for solutions in held_out.jsonl processbench; do
  name=${solutions%.jsonl}
  sampling score  --config $here/15_processbench_scores.yaml --input $out/$solutions \
    --verifiers "{aligned: $out/aligned/export, shifted: $out/shifted/export}" --output $out/scores_"$name"
done
sampling report --scores $out/scores_held_out --output $out/report_held_out
sampling report --config $here/16_processbench_report.yaml --scores $out/scores_processbench --output $out/report_processbench
