#!/usr/bin/env bash
# Measures the latency of each validated model, each in a process of its own: on a machine with an Intel GPU and IPEX by
# the guide's command lines, without IPEX on stock PyTorch. The environment sets beam, bs, input, out (or output) and
# iter, and what --help lists. A model that fails does not stop the others. A run that has a record in the results
# directory is not made again unless rerun says so. The exit code is 1 when a run failed.
set -eu
suite=${suite:-benchmark}
# shellcheck source=run_suite.sh
. "$(dirname "$0")/run_suite.sh"
read_arguments "$suite" "\
  beam         numbers of beams (default: 4)
  bs           batch sizes (default: 1)
  input        lengths of the prompt in tokens (default: 1024)
  out, output  numbers of new tokens (default: 128)
  iter         iterations, with those of the warm-up (default: 10)" "$@"
run_suite "$suite" "--num-beams ${beam:-4} --batch-size ${bs:-1} --input-tokens ${input:-1024} \
--max-new-tokens ${output:-${out:-128}} --num-iter ${iter:-10}"
