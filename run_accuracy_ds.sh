#!/usr/bin/env bash
# As run_accuracy.sh, each model shared by np ranks (default 2) under mpirun.
unset TORCH_LLM_ALLREDUCE # it can run a device out of memory
suite=accuracy-ds np=${np:-2} exec "$(dirname "$0")/run_accuracy.sh"
