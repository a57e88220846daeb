#!/usr/bin/env bash
# The same samples labelled by every strategy, and how far their labels agree with eight completions of every prefix.
#   PROBLEMS=100 SAMPLES=4 bash lit_configs/math_shepherd/strategies.sh
# MODEL, DATA and DTYPE as for run.sh. With labels of people, from sheets of `sampling select`, compare again:
#   sampling compare --labels '{people: {class_path: stepverify.readers.HumanRatings, init_args: {path: SHEETS}}, ...}' ...
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lit_configs/math_shepherd out=runs/math_shepherd/strategies
train=${DATA:+$DATA/train.jsonl.gz}
train=${train:-openai/gsm8k}
engine="--engine.init_args.dtype ${DTYPE:-auto} ${MODEL:+--engine.init_args.model $MODEL}"
completer="--steps.init_args.engine.init_args.dtype ${DTYPE:-auto} ${MODEL:+--steps.init_args.engine.init_args.model $MODEL}"
sampling generate --config $here/01_samples_train.yaml $engine --few_shot.init_args.path "$train" \
  --problems.init_args.path "$train" --problems.init_args.limit "${PROBLEMS:-100}" --num_samples "${SAMPLES:-4}" \
  --output $out/samples
labels=""
for strategy in early_stop binary_search exhaustive; do
  ablation=$here/ablations/labels_$strategy.yaml
  if [ $strategy = early_stop ]; then ablation=$here/03_labels_train.yaml; fi
  sampling label --config $here/03_labels_train.yaml --config $ablation $completer \
    --steps.init_args.few_shot.init_args.path "$train" --input $out/samples --output $out/$strategy
  labels="$labels$strategy: $out/$strategy, "
done
sampling compare --labels "{$labels}" --reference exhaustive --output $out/agreement
