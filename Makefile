# `make demo` and `make test` set everything up on a fresh machine with python3, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow style check clean

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable ".[test]"
	touch $@

demo: $(VENV)/installed  ## distil the miniature CLIP into the miniature BART, measure it, and leave ./vlkd-demo
	$(BIN)/vlkd demo

test: $(VENV)/installed  ## every test that needs neither a GPU nor patience
	$(BIN)/python -m pytest

test-slow: $(VENV)/installed  ## the rest: towers of full size, training from scratch
	$(BIN)/python -m pytest -m slow

style: $(VENV)/installed  ## format and lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/installed  ## formatting, lint and types, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
