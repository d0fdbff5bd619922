#!/usr/bin/env bash
# Accuracy of each validated model. Set in the environment: task, models, dtype, device, and flags for the rest
# (such as flags="--ipex"). A model that fails does not stop the others; the exit code tells that one did.
set -u -o pipefail
cd "$(dirname "$0")"
trap 'exit 130' INT

task=${task:-lambada_standard}
dtype=${dtype:-float16}
device=${device:-xpu}
flags=${flags:-}
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
if [ -z "${models:-}" ]; then
  models=$("$python" -m xpubench models --json 2>/dev/null | "$python" -c '
import json, sys
print(*(row["id"] for row in json.load(sys.stdin) if row["fp16"]))' 2>/dev/null) || models=
fi
if [ -z "${models// /}" ]; then
  echo "error: no models: $python does not have xpubench (make venv installs it), and models is not set" >&2
  exit 2
fi

failed=()
for model in $models; do
  # shellcheck disable=SC2086  # several flags
  LLM_ACC_TEST=1 "$python" -u run_generation.py -m "$model" --accuracy-only --acc-tasks $task \
    --device "$device" --dtype "$dtype" $flags || failed+=("$model")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
