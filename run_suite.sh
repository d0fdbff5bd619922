# shellcheck shell=bash
# What the one-click scripts share. `run_suite SUITE FLAGS` runs a suite with the Python of the activated environment,
# else .venv's, else the system's, and with these variables of the environment:
#   models   the models, instead of the suite's own
#   stack    ipex, pytorch or openvino (default: auto, which is ipex where it drives an Intel GPU here, else pytorch)
#   np       how many ranks share a model, in the scripts whose name ends in _ds
#   device, dtype, and flags for all other flags of run_generation.py
#   timeout  seconds that a run may take, downloads not counted (default: 3600)
#   results  the directory of the records (default: results)
#   rerun    "failed" or "all" makes runs again that have a record
run_suite() {
  local python
  for python in "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" "${CONDA_PREFIX:+$CONDA_PREFIX/bin/python}" .venv/bin/python python3; do
    if [ -n "$python" ] && command -v "$python" >/dev/null; then break; fi
  done
  # shellcheck disable=SC2086,SC2154  # several models; the variables are the caller's
  exec "$python" -m xpubench suite "$1" --stack "${stack:-auto}" ${models:+--models $models} ${np:+--ranks "$np"} \
    ${timeout:+--timeout "$timeout"} --results-dir "${results:-results}" ${rerun:+--rerun "$rerun"} \
    --flags="$2 ${device:+--device $device} ${dtype:+--dtype $dtype} ${flags:-}"
}
