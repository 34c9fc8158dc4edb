# `make demo` and `make test` are all a newcomer needs: each sets up .venv first.
PYTHON ?= python3
# The Python of the environment that holds the bare wheel: make test-bare BARE_PYTHON=python3.10
BARE_PYTHON ?= $(PYTHON)

VENV := .venv
BIN := $(VENV)/bin
BARE := .venv-bare
# Folders count too: a file that was removed or renamed changes its folder alone.
SOURCES := pyproject.toml $(shell find edge_zofc export benchmarks device_profiles \
	-name __pycache__ -prune -o -not -type l -print)
# The stamp's name holds the Python, so that another one makes the environment anew.
BARE_STAMP := $(BARE)/.made-with-$(subst /,-,$(BARE_PYTHON))
# The tests leave the checkout, so they get the environment's whole path.
WITH_BARE := EDGE_ZOFC_BARE_PYTHON=$(CURDIR)/$(BARE)/bin/python

.PHONY: demo test test-all test-bare coverage check install bare develop clean

demo: install
	$(BIN)/edge-zofc demo

# The tests run against the installed wheel, so a file missing from it fails them.
test: check install bare
	$(WITH_BARE) $(BIN)/pytest

test-all: check install bare
	$(WITH_BARE) $(BIN)/pytest -m ""

test-bare: install bare
	$(WITH_BARE) $(BIN)/pytest tests/system/test_bare_wheel.py

# Which lines of edge_zofc/ the fast tests run, child processes included.
coverage: install bare
	$(BIN)/coverage erase
	$(WITH_BARE) $(BIN)/coverage run $(BIN)/pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(VENV)/.dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p edge_zofc

install: $(VENV)/.installed

bare: $(BARE)/.installed

# Without the stamp, `make test` puts the wheel back in the place of the editable install.
develop: $(VENV)/.dependencies
	rm -f $(VENV)/.installed
	$(BIN)/pip install --quiet --no-deps --editable .

$(VENV)/.dependencies: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet ".[dev]"
	@touch $@

# setuptools packs whatever lies in build/lib, files that were removed since then too.
build/wheel/.built: $(SOURCES) | $(VENV)/.dependencies
	rm -rf build
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(@D) .
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies build/wheel/.built
	$(BIN)/pip install --quiet --no-deps --force-reinstall build/wheel/*.whl
	@touch $@

# A change of the dependencies clears the environment: nothing may be left of a package that was dropped.
$(BARE_STAMP): pyproject.toml
	$(BARE_PYTHON) -m venv --clear $(BARE)
	@touch $@

$(BARE)/.installed: $(BARE_STAMP) build/wheel/.built
	$(BARE)/bin/pip install --quiet --no-deps --force-reinstall build/wheel/*.whl
	$(BARE)/bin/pip install --quiet build/wheel/*.whl
	@touch $@

clean:
	rm -rf build dist *.egg-info $(VENV) $(BARE)
