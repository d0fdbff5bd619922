#!/usr/bin/env bash
# As run_benchmark.sh, each model shared by np ranks under mpirun (default: the catalog's number, else 2).
unset TORCH_LLM_ALLREDUCE # it can run a device out of memory
suite=benchmark-ds exec "$(dirname "$0")/run_benchmark.sh"
