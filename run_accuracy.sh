#!/usr/bin/env bash
# Measures the accuracy of each validated model, each in a process of its own: on a machine with an Intel GPU and IPEX by
# the guide's command lines, without IPEX on stock PyTorch. The environment sets task, and what --help lists (such as
# flags="--acc-iter 200"). A model that fails does not stop the others. A run that has a record in the results directory
# is not made again unless rerun says so. The exit code is 1 when a run failed.
set -eu
suite=${suite:-accuracy}
# shellcheck source=run_suite.sh
. "$(dirname "$0")/run_suite.sh"
read_arguments "$suite" "\
  task         the tasks of lm-eval (default: lambada_standard)" "$@"
export LLM_ACC_TEST=1
run_suite "$suite" "--acc-tasks ${task:-lambada_standard}"
