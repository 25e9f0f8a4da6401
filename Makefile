# `make demo` and `make test` set everything up on a fresh machine with python3, git and make.
PYTHON ?= python3
PYTHON_MINIMUM ?= python3.10
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-minimum style check clean

$(VENV)/demo-installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable ".[demo]"
	touch $@

$(VENV)/installed: $(VENV)/demo-installed
	$(BIN)/python -m pip install --editable ".[test]"
	touch $@

demo: $(VENV)/demo-installed  ## distil the miniature CLIP into the miniature BART, measure it, and leave ./vlkd-demo
	$(BIN)/vlkd demo

test: $(VENV)/installed  ## every test that needs neither a GPU nor patience
	$(BIN)/python -m pytest

test-slow: $(VENV)/installed  ## the rest: towers of full size, training from scratch
	$(BIN)/python -m pytest -m slow

test-minimum:  ## the tests on the oldest Python and the oldest versions that are allowed
	$(PYTHON_MINIMUM) -m venv $(VENV)-minimum
	$(VENV)-minimum/bin/python -m pip install --constraint .ci/minimum.txt --editable ".[test]"
	$(VENV)-minimum/bin/python -m pytest

style: $(VENV)/installed  ## format and lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/installed  ## formatting, lint and types, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VENV)-minimum build dist *.egg-info
