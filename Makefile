# `make demo` and `make test` set everything up on a fresh machine with python3, git and make.
PYTHON ?= python3
PYTHON_MINIMUM ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
NEWEST := $(VENV)-newest
MINIMUM := $(VENV)-minimum
HARNESSES := $(VENV)-harnesses
PINNED := --constraint constraints.txt

.PHONY: demo test test-slow test-minimum test-newest test-harnesses coverage pins style check clean

$(VENV)/demo-installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PINNED) --editable ".[demo]"
	touch $@

$(VENV)/installed: $(VENV)/demo-installed
	$(BIN)/python -m pip install $(PINNED) --editable ".[test]"
	touch $@

demo: $(VENV)/demo-installed  ## distill the miniature CLIP into the miniature BART, measure it, and leave ./vlkd-demo
	$(BIN)/vlkd demo

test: $(VENV)/installed  ## every test that needs neither a GPU nor patience
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/installed  ## the rest: towers of full size, training from scratch
	$(BIN)/python -m pytest -m slow

test-minimum:  ## the tests on the oldest Python and the oldest versions that are allowed
	$(PYTHON_MINIMUM) -m venv $(MINIMUM)
	$(MINIMUM)/bin/python -m pip install --constraint .ci/minimum.txt --editable ".[test]"
	$(MINIMUM)/bin/python -m pytest --deprecations summary

test-newest:  ## the tests on the newest of everything; what it calls deprecated is listed at the end, and fails nothing
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --upgrade --upgrade-strategy eager --editable ".[test]"
	$(NEWEST)/bin/python -m pytest --deprecations summary

test-harnesses:  ## lmms-eval and lm-eval, which bring some eighty packages, on a tiny task each
	$(PYTHON) -m venv $(HARNESSES)
	grep -vE '^(protobuf|python-dateutil)=' constraints.txt > $(HARNESSES)/constraints  # they need older ones
	$(HARNESSES)/bin/python -m pip install --constraint $(HARNESSES)/constraints --constraint .ci/harnesses.txt \
		--editable ".[demo]" pytest pytest-timeout lmms_eval lm_eval
	$(HARNESSES)/bin/python -m pytest -m harness tests/test_harnesses.py

pins:  ## after `make test-newest` has passed: make its versions those of constraints.txt
	grep '^#' constraints.txt > $(NEWEST)/pins
	$(NEWEST)/bin/python -m pip freeze --all --exclude-editable | grep -viE '^(pip=|nvidia|cuda|triton)' >> $(NEWEST)/pins
	mv $(NEWEST)/pins constraints.txt

coverage: $(VENV)/installed  ## which lines of which room the tests run
	$(BIN)/python -m pytest --cov --cov-report=term

style: $(VENV)/installed  ## format and lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/installed  ## formatting, lint and types, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(NEWEST) $(MINIMUM) $(HARNESSES) build dist *.egg-info
