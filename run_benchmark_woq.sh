#!/usr/bin/env bash
# As run_benchmark.sh, of the models validated for INT4, with INT4 weights (RTN, groups of 64). A saved model is run with
# flags="--woq_checkpoint_path DIR".
suite=benchmark-woq exec "$(dirname "$0")/run_benchmark.sh"
