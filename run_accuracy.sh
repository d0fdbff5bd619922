#!/usr/bin/env bash
# Measures the accuracy of each validated model, each in a process of its own. The environment sets task, models, device,
# dtype, results, and flags for the rest (such as flags="--ipex --acc-iter 200"). A model that fails does not stop the
# others. A run that has a record in the results directory is not made again unless rerun is "failed" or "all". The exit
# code is 1 when a run failed.
set -eu
cd "$(dirname "$0")"
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
# shellcheck disable=SC2086  # several models
LLM_ACC_TEST=1 exec "$python" -m xpubench suite "${suite:-accuracy}" ${models:+--models $models} ${np:+--ranks "$np"} \
  --results-dir "${results:-results}" ${rerun:+--rerun "$rerun"} \
  --flags="--acc-tasks ${task:-lambada_standard} ${device:+--device $device} ${dtype:+--dtype $dtype} ${flags:-}"
