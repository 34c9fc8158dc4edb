# `make demo` and `make test` are all a newcomer needs: each sets up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find edge_zofc export benchmarks device_profiles -type f -not -name '*.pyc')

.PHONY: demo test test-all check typecheck install develop clean

demo: install
	$(BIN)/edge-zofc demo

# The tests run against the installed package, so a file missing from the wheel fails them.
test: install check
	$(BIN)/pytest

test-all: install check
	$(BIN)/pytest -m ""

check: $(VENV)/.dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory typecheck

typecheck: $(VENV)/.dependencies
	$(BIN)/mypy -p edge_zofc

install: $(VENV)/.installed

develop: $(VENV)/.dependencies
	$(BIN)/pip install --quiet --no-deps --editable .

$(VENV)/.dependencies: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet ".[dev]"
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies $(SOURCES)
	$(BIN)/pip install --quiet --no-deps --force-reinstall .
	@touch $@

clean:
	rm -rf build dist *.egg-info $(VENV)
