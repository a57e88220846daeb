#!/usr/bin/env bash
# What others released, through this project's grading, ranking and reports. DATA holds the files: gsm8k/, strictprmbench/.
#   DATA=dir bash lit_configs/released/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lit_configs/released
bench=${DATA:-.}/strictprmbench/gsm8k_bon32
sampling label  --config $here/01_openai_labels.yaml --input.init_args.path "${DATA:-.}/gsm8k/example_model_solutions.jsonl.gz"
sampling label  --config $here/02_prm_labels.yaml --input.init_args.steps "${bench}_steps_text.jsonl.gz" --input.init_args.scores "${bench}_scores.jsonl.gz"
sampling rank   --config $here/03_prm_rank.yaml
sampling report --config $here/04_prm_report.yaml
