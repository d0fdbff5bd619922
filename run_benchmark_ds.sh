#!/usr/bin/env bash
# Does what run_benchmark.sh does with each model shared by np ranks under mpirun (default: the catalog's number, else 2).
unset TORCH_LLM_ALLREDUCE # it can run a device out of memory
suite=benchmark-ds
# shellcheck source=run_benchmark.sh
. "$(dirname "$0")/run_benchmark.sh"
