#!/usr/bin/env bash
# Accuracy of each validated model, shared by ranks. Set in the environment: np, task, models, dtype, device, and flags
# for the rest (such as flags="--ipex"). A model that fails does not stop the others; the exit code tells that one did.
set -u
cd "$(dirname "$0")"
trap 'exit 130' INT

np=${np:-2}
task=${task:-lambada_standard}
dtype=${dtype:-float16}
device=${device:-xpu}
flags=${flags:-}
[ -d .venv/bin ] && PATH=$PWD/.venv/bin:$PATH
command -v mpirun > /dev/null || { echo "error: no mpirun on PATH; pip install '.[deepspeed]' brings one" >&2; exit 2; }
python=python3
unset TORCH_LLM_ALLREDUCE # it can run a device out of memory
catalog=$("$python" -m xpubench models --json)
models=${models:-$("$python" -c '
import json, sys
print(*(row["id"] for row in json.loads(sys.argv[1]) if row["fp16"]))' "$catalog")}

# The number of ranks that the model was validated with, where the catalog knows one.
ranks_of() {
  "$python" -c '
import json, sys
rows = {row["id"].lower(): row for row in json.loads(sys.argv[1])}
print(rows.get(sys.argv[2].lower(), {}).get("ranks") or sys.argv[3])' "$catalog" "$1" "$np"
}

failed=()
for model in $models; do
  # shellcheck disable=SC2086  # several flags
  LLM_ACC_TEST=1 mpirun -np "$(ranks_of "$model")" --prepend-rank "$python" -u run_generation_with_deepspeed.py \
    -m "$model" --accuracy-only --acc-tasks $task \
    --device "$device" --dtype "$dtype" $flags || failed+=("$model")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
