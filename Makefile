# Everything a developer types: each target does its own set-up, and repeating it is cheap. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# pip would compile everything, on one core; Python compiles what it imports, when it is allowed to.
PIP := -m pip install --quiet --no-compile -c constraints.txt
unexport PYTHONDONTWRITEBYTECODE
OUT ?= demo-output
# Tests run in so many processes.
WORKERS ?= 2
# Qt draws no canvas without an X server; where there is no xvfb-run, the desktop's own display serves.
ON_SCREEN := $(if $(shell command -v xvfb-run),QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1600x1200x24")

.PHONY: help setup demo test test-core test-viewer lint types contracts format docs soak bench scores gpu gallery screenshots clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# One environment for the viewer and the tools, in two steps so that the demo waits only for the first.
.venv/.stamp-run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (set PYTHON=...)")'
	@echo "Setting up .venv: some minutes the first time."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) "pip>=25.1"
	@$(BIN)/python $(PIP) -e ".[all]"
	@touch $@

.venv/.stamp-dev: .venv/.stamp-run
	@echo "Adding the tools for tests, checks and documentation to .venv."
	@$(BIN)/python $(PIP) --group dev
	@touch $@

# A second environment, with neither Qt nor napari: there the core proves that it needs neither.
.venv-core/.stamp: pyproject.toml constraints.txt
	@echo "Setting up .venv-core, without Qt and napari."
	@$(PYTHON) -m venv .venv-core
	@.venv-core/bin/python $(PIP) "pip>=25.1"
	@.venv-core/bin/python $(PIP) --group core
	@.venv-core/bin/python $(PIP) --no-deps -e .
	@touch $@

setup: .venv/.stamp-dev .venv-core/.stamp  ## both environments and the Debian packages, without running anything
	@scripts/debian_packages.sh

demo: .venv/.stamp-run  ## segment the sample, or IMAGE=path, and show it in napari; files go to demo-output/ or OUT=dir
	@scripts/debian_packages.sh
	@$(BIN)/napari-unet-seg demo $(if $(IMAGE),"$(IMAGE)") --out "$(OUT)"

test: .venv-core/.stamp .venv/.stamp-dev  ## every test; PYTEST_ARGS="-k word" chooses
	@scripts/debian_packages.sh
	@failed=0; $(MAKE) --no-print-directory test-core || failed=1; \
	  $(MAKE) --no-print-directory test-viewer || failed=1; exit $$failed

test-core: .venv-core/.stamp  ## the core's tests, without Qt and napari
	@echo "The core's tests, without Qt and napari:"
	@NAPARI_UNET_SEG_CORE_ONLY=1 .venv-core/bin/python -m pytest -n $(WORKERS) tests/core $(PYTEST_ARGS)

test-viewer: .venv/.stamp-dev  ## all other tests, in a virtual display
	@scripts/debian_packages.sh
	@echo "The viewer's and the command line's tests:"
	@$(ON_SCREEN) $(BIN)/python -m pytest -n $(WORKERS) tests --ignore=tests/core $(PYTEST_ARGS)

soak: .venv/.stamp-dev  ## the tests that are too long for every run
	@scripts/debian_packages.sh
	@$(ON_SCREEN) $(BIN)/python -m pytest -m soak tests $(PYTEST_ARGS)

lint: .venv/.stamp-dev  ## style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: .venv/.stamp-dev  ## put the format right, and what else can be put right mechanically
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: .venv/.stamp-dev  ## mypy, strict
	@$(BIN)/mypy

contracts: .venv/.stamp-dev  ## who may import whom
	@$(BIN)/lint-imports

docs: .venv/.stamp-dev  ## the documentation site, into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Documentation built: open site/index.html"

bench: .venv/.stamp-dev  ## every benchmark (slow; leave the machine alone meanwhile), and their table in the documentation
	@scripts/debian_packages.sh
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(ON_SCREEN) $(BIN)/python $$script || exit 1; done
	@$(BIN)/python scripts/benchmark_table.py

scores: .venv/.stamp-dev  ## fail where a bundled model no longer reaches its recorded scores (some minutes)
	@$(BIN)/python benchmarks/model_scores.py --check

gpu: .venv/.stamp-dev  ## the tests and the benchmark that need a CUDA GPU (and a torch built for it)
	@$(BIN)/python -m pytest tests/core/test_cuda.py
	@$(BIN)/python benchmarks/gpu.py

gallery: .venv/.stamp-dev  ## the gallery of good and bad cases in the documentation, from the test images
	@$(BIN)/python scripts/gallery.py

screenshots: .venv/.stamp-dev  ## the pictures of the README and the documentation
	@scripts/debian_packages.sh
	@$(ON_SCREEN) $(BIN)/python scripts/screenshots.py
	@$(ON_SCREEN) $(BIN)/python -m scripts.tutorial

clean:  ## remove environments, caches and results of runs
	@rm -rf .venv .venv-core site build dist demo-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
