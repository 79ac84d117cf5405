# The first interpreter of a supported version; another one: make test PYTHON=python3.12
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c "$(SUPPORTED)" 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt

.PHONY: demo test test-slow lint clean

# Creates the environment, installs exact tested versions, runs the whole pipeline on MovieLens.
demo: $(VENV)/.installed
	$(BIN)/python train.py

# Creates the environment, installs exact tested versions, runs the tests but the slow ones.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: setup.cfg pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "CPython 3.11, 3.12 or 3.13 is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[test]"
	$(BIN)/python -m lfm4ads_tf.kernels.build || echo "Training goes on with TensorFlow's own ops."
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
