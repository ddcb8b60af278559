# Everything a newcomer types: make demo, make test. Needs Python 3.11 to 3.13 and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
WORKERS := 2
# Where Python may not write bytecode, as in many containers, every stage would compile torch and mlflow again: 5 s
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode)

# The same switches for whoever calls make: no tool reports home (README, "Telemetry").
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo test test-slow test-real-data test-gpu lint format docs lock ui clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: .venv/ready  ## the environment, from the hashed lock

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; ok = (3, 11) <= v < (3, 14); sys.exit(None if ok else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}. Say which one: make PYTHON=python3.12 setup")'
	@$(PYTHON) -c 'import ensurepip' || { echo 'Python has no ensurepip: install it (Debian, Ubuntu: apt install python3-venv)'; exit 1; }
	@echo "Installing into .venv (some GB, mostly torch; once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	@$(BIN)/uv pip sync --quiet --require-hashes $(COMPILE) --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

demo: .venv/ready  ## train, evaluate and register four models of handwritten digits
	@dvc repro
	@pixelcnn results --next-steps

test: lint  ## the tests, without a GPU or a network, by two processes (WORKERS=n for others)
	@python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not real_data and not gpu"

test-slow: .venv/ready  ## the tests that take minutes
	@python -m pytest -m slow

test-real-data: .venv/ready  ## the tests that read CIFAR-10 and ImageNet archives (PIXELCNN_ARCHIVES=folder)
	@python -m pytest -m real_data

test-gpu: .venv/ready  ## the tests that need a GPU
	@python -m pytest -m gpu

lint: .venv/ready  ## what pre-commit runs
	@ruff check . && ruff format --check . && mypy && lint-imports --no-logo

format: .venv/ready  ## ruff's fixes and format
	@ruff check --fix . ; ruff format .

ui: .venv/ready  ## MLflow's pages on http://127.0.0.1:5000 (another port: pixelcnn ui --port 5001)
	@pixelcnn ui

docs: .venv/docs  ## the documentation as a site, in build/site (SERVE=1 to look at it while writing)
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs $(if $(SERVE),serve,build --strict --quiet)
	@echo build/site/index.html

.venv/docs: .venv/ready docs/requirements.lock
	@$(PYTHON) -m venv $@
	@$(BIN)/uv pip sync --quiet --require-hashes --python $@/bin/python docs/requirements.lock
	@touch $@

lock: .venv/ready  ## resolve pyproject.toml anew into requirements.lock and docs/requirements.lock
	@uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-annotate --quiet \
	  --python-version 3.11 --custom-compile-command "make lock" --output-file requirements.lock
	@uv pip compile --group docs --universal --generate-hashes --no-annotate --quiet \
	  --python-version 3.11 --custom-compile-command "make lock" --output-file docs/requirements.lock

clean:  ## forget the environment (data, models and runs stay)
	rm -rf .venv
