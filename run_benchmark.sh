#!/usr/bin/env bash
# Measures the latency of each validated model, each in a process of its own: on a machine with an Intel GPU and IPEX by
# the guide's command lines, without IPEX on stock PyTorch. The environment sets beam, bs, input, out (or output) and
# iter, and what run_suite.sh lists. A model that fails does not stop the others. A run that has a record in the results
# directory is not made again unless rerun says so. The exit code is 1 when a run failed.
set -eu
cd "$(dirname "$0")"
. ./run_suite.sh
run_suite "${suite:-benchmark}" "--num-beams ${beam:-4} --batch-size ${bs:-1} --input-tokens ${input:-1024} \
--max-new-tokens ${output:-${out:-128}} --num-iter ${iter:-10}"
