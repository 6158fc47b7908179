# Two commands: `make quickstart` trains a small model on this machine, `make test` runs what is not marked long.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compiled DeepSpeed operators belong to one environment: two environments must not share a build folder.
export TORCH_EXTENSIONS_DIR ?= $(CURDIR)/$(VENV)/torch_extensions
export HF_HUB_DISABLE_TELEMETRY = 1

# Two workers, each of which takes whole files, so that what the tests of a file share is made once.
PYTEST := $(BIN)/python -m pytest
WORKERS := --numprocesses 2 --dist loadfile

.PHONY: quickstart sequential gpu test test-all test-pythons test-slurm slurm-packages chromium-packages lint format install install-dev clean

quickstart: install
	$(BIN)/presence train recipes/quickstart.yaml $(ARGS)

# Score a text by a model that saw little of it, drop the fifth with the highest self-influence, train on the rest.
sequential: install
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/sequential/run.sh recipes/sequential/sequential.yaml runs/sequential

# What a GPU is to tell, in eight minutes (docs/gpu.md); with ARGS=--tiny on a CPU too.
gpu: install-dev
	$(BIN)/python -m benchmarks.gpu $(ARGS)

# What a developer waits for: ten minutes on two cores. CI runs test-all, and Slurm after it.
test: install-dev
	$(PYTEST) $(WORKERS) --ignore=tests/slurm --ignore=tests/pythons -m "not long" $(ARGS)

test-all: install-dev
	$(PYTEST) $(WORKERS) --ignore=tests/slurm $(ARGS)

# What needs no torch, out of a wheel, on every Python from 3.10 on that this machine has.
test-pythons: install-dev
	$(PYTEST) tests/pythons $(ARGS)

# The templates on a real Slurm on this machine; ARGS="-m 'not long'" is the short form.
test-slurm: install-dev slurm-packages
	$(PYTEST) tests/slurm $(ARGS)

slurm-packages:
	PATH="$$PATH:/usr/sbin" which slurmctld slurmd munged shellcheck || (apt-get update -q && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends slurm-wlm munge shellcheck)

# The browser that tests open reports in; without it they are skipped.
chromium-packages:
	which chromium || (apt-get update -q && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium)

# A site to search, which needs no network: open site/index.html.
.PHONY: docs # beside its target: docs is a folder, too
docs: install-dev
	$(BIN)/python -m sphinx -W --keep-going -q docs site $(ARGS)
	@echo "site/index.html"

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache
