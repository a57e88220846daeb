#!/usr/bin/env bash
# The same samples labelled by every strategy, and how far their labels agree with eight completions of every prefix.
#   PROBLEMS=100 SAMPLES=4 bash lit_configs/math_shepherd/strategies.sh
# MODEL, DATA and DTYPE as for run.sh. Instead of drawing samples, take the recorded ones of lit_configs/gsm8k, completed
# by a generator that was trained as theirs was; STRATEGIES are those to run now, on a machine each if you like:
#   GENERATOR=runs/gsm8k/generator/export STRATEGIES="early_stop exhaustive" bash lit_configs/math_shepherd/strategies.sh
# With labels of people, from sheets of `sampling select`, compare again:
#   sampling compare --labels '{people: {class_path: stepverify.readers.HumanRatings, init_args: {path: SHEETS}}, ...}' ...
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lit_configs/math_shepherd out=runs/math_shepherd/strategies
strategies=${STRATEGIES:-early_stop binary_search exhaustive}
train=${DATA:+$DATA/train.jsonl.gz}
train=${train:-openai/gsm8k}
dtype=${DTYPE:-auto} num_samples=${SAMPLES:-4} num_problems=${PROBLEMS:-100}
if [ -n "${GENERATOR:-}" ]; then
  solutions="{class_path: stepverify.readers.Solutions, init_args: {path: lit_configs/gsm8k/recorded/samples_train.jsonl.gz,
    max_solutions: $num_samples, limit: $((num_problems * num_samples)),
    problems: {class_path: stepverify.readers.GSM8K, init_args: {path: $train, split: train}}}}"
  completer=(--config $here/ablations/fine_tuned.yaml --steps.init_args.engine.init_args.engine.init_args.model "$GENERATOR"
    --steps.init_args.engine.init_args.engine.init_args.dtype "$dtype" --steps.init_args.reuse_samples false)
else
  sampling generate --config $here/01_samples_train.yaml --engine.init_args.dtype "$dtype" ${MODEL:+--engine.init_args.model "$MODEL"} \
    --few_shot.init_args.path "$train" --problems.init_args.path "$train" --problems.init_args.limit "$num_problems" \
    --num_samples "$num_samples" --output $out/samples
  solutions=$out/samples
  completer=(--steps.init_args.engine.init_args.dtype "$dtype" ${MODEL:+--steps.init_args.engine.init_args.model "$MODEL"}
    --steps.init_args.few_shot.init_args.path "$train")
fi
before=() # what an earlier one drew is not sampled again: early stopping draws in twos, which both others take
for strategy in $strategies; do
  ablation=$here/ablations/labels_$strategy.yaml
  if [ "$strategy" = early_stop ]; then ablation=$here/03_labels_train.yaml; fi
  sampling label --config $here/03_labels_train.yaml --config "$ablation" "${completer[@]}" "${before[@]}" "$@" \
    --input "$solutions" --output $out/"$strategy"
  if [ "$strategy" = early_stop ]; then before=(--steps.init_args.reuse_from "[$out/early_stop]"); fi
done
labels=""
for folder in early_stop binary_search exhaustive; do
  if [ -f $out/$folder/manifest.json ]; then labels="$labels$folder: $out/$folder, "; fi
done
sampling compare --labels "{$labels}" --reference exhaustive --output $out/agreement
