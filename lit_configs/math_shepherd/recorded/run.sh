#!/usr/bin/env bash
# The reward model of RESULTS.md from the recorded labels and samples: no engine, no completions.
#   GENERATOR=runs/gsm8k/generator/export DATA=dir PROCESSBENCH=file bash lit_configs/math_shepherd/recorded/run.sh
# DATA holds GSM8K's train.jsonl.gz and test.jsonl.gz, PROCESSBENCH is gsm8k.jsonl(.gz) of ProcessBench; left out, they come
# from the hub. LABELS is early_stop (as left out) or binary_search; arguments go to the fit, and OUT is the folder of
# another one:
#   OUT=runs/math_shepherd/recorded_bisected LABELS=binary_search ... recorded/run.sh --trainer.precision bf16-mixed
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=lit_configs/math_shepherd out=${OUT:-runs/math_shepherd/recorded} reader=stepverify.readers.Solutions
problems() {
  local path=${DATA:+$DATA/$1.jsonl.gz}
  echo "{class_path: stepverify.readers.GSM8K, init_args: {path: ${path:-openai/gsm8k}, split: $1}}"
}
labels=(--data.train.init_args.path $here/recorded/labels_"${LABELS:-early_stop}".jsonl.gz
  --data.validation.init_args.path $here/recorded/labels_"${LABELS:-early_stop}".jsonl.gz
  --data.train.init_args.problems "$(problems train)" --data.validation.init_args.problems "$(problems train)")
stepverify fit --config $here/05_prm.yaml --config lit_configs/overlays/lora.yaml "$@" "${labels[@]}" \
  --model.init_args.backbone.path "${GENERATOR:-runs/gsm8k/generator/export}" --data.pack_tokens 1024 \
  --trainer.max_epochs 2 --trainer.default_root_dir $out/prm --ckpt_path last
sampling label  --input.class_path $reader --input.init_args.path lit_configs/gsm8k/recorded/samples_test.jsonl.gz \
  --input.init_args.problems "$(problems test)" --input.init_args.max_solutions 16 --input.init_args.limit 2400 --output $out/labels_test
sampling score  --config $here/06_scores.yaml --input $out/labels_test --verifiers "{prm: $out/prm/export}" --output $out/scores_test
sampling rank   --config $here/07_rank.yaml --input $out/scores_test --output $out/rankings
sampling report --config $here/08_report.yaml --input $out/rankings --scores $out/scores_test --output $out/report
sampling convert --config $here/09_processbench.yaml --input.init_args.path "${PROCESSBENCH:-Qwen/ProcessBench}" --output $out/processbench.jsonl
sampling score  --config $here/10_processbench_scores.yaml --input $out/processbench.jsonl \
  --verifiers "{prm: $out/prm/export}" --output $out/scores_processbench
sampling report --config $here/11_processbench_report.yaml --scores $out/scores_processbench --output $out/report_processbench
