#!/usr/bin/env bash
# Latency of each validated model. Set in the environment: models, beam, bs, input, output, iter, device, dtype, and
# flags for the rest (such as flags="--ipex --use-static-cache"). woq=1 is what run_benchmark_woq.sh sets.
# A model that fails does not stop the others; the exit code tells that one did.
set -uo pipefail
cd "$(dirname "$0")"
trap 'exit 130' INT

beam=${beam:-4} bs=${bs:-1} input=${input:-1024} output=${output:-128} iter=${iter:-10} flags=${flags:-}
[ -n "${device:-}" ] && flags="--device $device $flags"
[ -n "${dtype:-}" ] && flags="--dtype $dtype $flags"
mode=fp16
[ -n "${woq:-}" ] && mode=int4 flags="--woq $flags"
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
models=${models:-$("$python" -m xpubench models --json | "$python" -c '
import json, sys
print(*(row["id"] for row in json.load(sys.stdin) if row[sys.argv[1]]))' $mode)} || exit 2

failed=()
for model in $models; do
  # shellcheck disable=SC2086  # several values, several flags
  "$python" -u run_generation.py -m "$model" --benchmark --num-beams $beam --batch-size $bs \
    --input-tokens $input --max-new-tokens $output --num-iter "$iter" --token-latency $flags || failed+=("$model")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
