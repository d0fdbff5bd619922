#!/usr/bin/env bash
# Does what run_accuracy.sh does with each model shared by np ranks under mpirun (default: the catalog's number, else 2).
unset TORCH_LLM_ALLREDUCE # it can run a device out of memory
suite=accuracy-ds
# shellcheck source=run_accuracy.sh
. "$(dirname "$0")/run_accuracy.sh"
