# A fresh clone needs make and Python 3.11, 3.12 or 3.13. Each target creates the environment first, if there is none.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
# The first Python on PATH with a version that fits; make PYTHON=/path/to/python takes another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
  $$python -c '$(FITS)' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help search ui quick test test-slow lint docs schema format gpu lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

# The file is created last. If the installation is interrupted, the next make starts it again.
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(or $(PYTHON),false) -c '$(FITS)' || { \
	  echo "pneumo needs Python 3.11, 3.12 or 3.13; $(or $(PYTHON),python3) is not one. Try: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)" >&2; exit 2; }
	@rm -f $@
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot create a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "Installing into $(VENV): about two minutes and 3 GB the first time"
	@$(PIP) install --require-hashes --requirement requirements.lock
	@$(PIP) install --no-deps --editable .
	@touch $@

# Two processes run the tests, because many tests wait for a program to start. The tests of a file share fixtures, so one
# process runs them all. tests/conftest.py says which files are first.
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder

search: $(VENV)/.ready  ## run the quick start: a small study on generated phantoms, offline
	$(BIN)/python -m pneumo.search

ui: $(VENV)/.ready  ## open the latest study of this folder in MLflow's pages; STUDY=name opens another
	$(BIN)/python -m pneumo.ui $(STUDY)

# The plugin skips a test when it starts a process, imports TensorFlow or opens MLflow's database, so that nobody keeps a list
# of quick tests.
quick: $(VENV)/.ready  ## run a part of the fast tests in a minute: no processes, TensorFlow or MLflow
	$(BIN)/python -m pytest -p tests.support.quick --numprocesses 2 --dist worksteal -m 'not slow'

test: $(VENV)/.ready  ## run the fast tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not slow'

test-slow: $(VENV)/.ready  ## run the slow tests: real studies, a browser, a database
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m slow

lint: $(VENV)/.ready  ## check style, types, imports and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

docs: $(VENV)/.ready  ## the documentation as web pages in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html is the first page"

schema: $(VENV)/.ready  ## write docs/experiment.schema.json and docs/architecture.svg again
	$(BIN)/python -m pneumo.spec.schema > docs/experiment.schema.json
	$(BIN)/python docs/map.py > docs/architecture.svg

format: $(VENV)/.ready  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gpu: $(VENV)/.ready  ## install NVIDIA's libraries for TensorFlow (Linux, 4 GB)
	$(PIP) install --require-hashes --no-deps --requirement requirements-gpu.lock

# A lock has names, versions and hashes. The second lock has only what the first does not have.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet

lock:  ## resolve requirements.lock and requirements-gpu.lock again (needs uv)
	$(COMPILE) --extra dev --output-file requirements.lock
	$(COMPILE) --extra gpu --constraints requirements.lock --output-file requirements-gpu.lock \
	  $$(sed -nE 's/^([a-z0-9-]+)==.*/--no-emit-package \1/p' requirements.lock | sort -u)

clean:  ## remove the environment and all caches, but not mlruns/ and mlflow.db
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis site
