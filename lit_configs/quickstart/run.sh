#!/usr/bin/env bash
# The reference pipeline on the embedded problems: every stage is one command and one YAML.
# A stage that has finished is skipped, a stage that was killed goes on; start over with: rm -r runs/quickstart
#   bash lit_configs/quickstart/run.sh              SEED=1 bash lit_configs/quickstart/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lit_configs/quickstart
seed=${SEED:-0}
export HF_HUB_OFFLINE=1
stage() {
  echo; echo "── $* "
  local start=$SECONDS
  "$@"
  echo "   $((SECONDS - start)) s"
}
stage stepverify fit    --config $here/01_generator.yaml --seed_everything "$seed" --ckpt_path last
stage sampling generate --config $here/02_samples_train.yaml --seed "$seed"
stage sampling generate --config $here/03_samples_test.yaml --seed "$seed"
stage sampling label    --config $here/04_labels_train.yaml --steps.init_args.seed "$seed"
stage sampling label    --config $here/05_labels_test.yaml
stage stepverify fit    --config $here/06_orm.yaml --seed_everything "$seed" --ckpt_path last
stage stepverify fit    --config $here/07_prm.yaml --seed_everything "$seed" --ckpt_path last
stage sampling score    --config $here/08_scores.yaml
stage sampling rank     --config $here/09_rank.yaml
stage sampling report   --config $here/10_report.yaml
echo; echo "total $SECONDS s; open runs/quickstart/report/report.html"
