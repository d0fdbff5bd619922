#!/usr/bin/env bash
# Does what run_benchmark.sh does for the models validated for INT4, with INT4 weights (RTN, groups of 64): with IPEX
# through neural-compressor. flags="--woq_checkpoint_path DIR" runs a saved model.
suite=benchmark-woq
# shellcheck source=run_benchmark.sh
. "$(dirname "$0")/run_benchmark.sh"
