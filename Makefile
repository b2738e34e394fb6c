.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A worker that dies fails the run at once: started anew, it can leave xdist waiting for ever.
IN_TWO := -n 2 --dist loadgroup --max-worker-restart 0

.PHONY: help install demo test test-fast test-slow test-wheel lint types clean docs site requirements

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed ## make the environment

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "raymia needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --editable '.[dev]'
	@touch $@

demo: install ## audit a small model trained here; about four minutes on two cores
	$(BIN)/raymia demo

test: install ## run the tests, in two processes
	$(BIN)/pytest $(IN_TWO)

test-fast: install ## run the short tests, which need no Ray, no browser and no training
	$(BIN)/pytest $(IN_TWO) -m 'not ray and not browser and not training and not long and not slow'

test-slow: install ## run the long tests that `test` leaves out
	$(BIN)/pytest -m slow

test-wheel: install ## build the wheel, install it elsewhere, and run the demo from it
	$(BIN)/python tools/check_wheel.py

lint: install ## check style, and that arrows between rooms go one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install ## check types
	$(BIN)/mypy

clean: ## remove the environment and the demo's folder
	rm -rf $(VENV) raymia-demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

docs: install ## make the pages of docs/ that come from the code
	$(BIN)/python tools/make_docs.py docs

site: install ## build the pages of docs/ as a site, in site/
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict

requirements: install ## make the lists of requirements/ from pyproject.toml
	$(BIN)/python tools/make_requirements.py requirements
