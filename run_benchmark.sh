#!/usr/bin/env bash
# Measures the latency of each validated model, each in a process of its own. The environment sets models, beam, bs, input,
# output, iter, device, dtype, results, and flags for the rest (such as flags="--ipex --use-static-cache"). A model that
# fails does not stop the others. A run that has a record in the results directory is not made again unless rerun is
# "failed" or "all". The exit code is 1 when a run failed.
set -eu
cd "$(dirname "$0")"
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
# shellcheck disable=SC2086  # several models
exec "$python" -m xpubench suite "${suite:-benchmark}" ${models:+--models $models} ${np:+--ranks "$np"} \
  --results-dir "${results:-results}" ${rerun:+--rerun "$rerun"} \
  --flags="--num-beams ${beam:-4} --batch-size ${bs:-1} --input-tokens ${input:-1024} --max-new-tokens ${output:-128} \
    --num-iter ${iter:-10} ${device:+--device $device} ${dtype:+--dtype $dtype} ${flags:-}"
