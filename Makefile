# The first interpreter of a supported version; another one: make test PYTHON=python3.12
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c "$(SUPPORTED)" 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
# Processes that share the tests: TensorFlow's tracing uses one core each, and some 2.5 GB.
CORES := $(shell nproc 2>/dev/null || echo 1)
WORKERS ?= $(shell test $(CORES) -gt 2 && echo 2 || echo $(CORES))
PYTEST := $(BIN)/python -m pytest
SHARED := $(PYTEST) -n $(WORKERS) --dist loadfile

# How other processors compute, one setting for each pass of `make test-processors`; docs/testing.md
# says what each one does. TensorFlow reads them when it is imported: a process for each.
PROCESSORS := without-onednn avx2 without-kernels one-thread
without-onednn := TF_ENABLE_ONEDNN_OPTS=0
avx2 := ONEDNN_MAX_CPU_ISA=AVX2
without-kernels := LFM4ADS_KERNELS=0
one-thread := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1

.PHONY: demo test test-slow test-cluster test-processors $(PROCESSORS:%=test-%) lint docs clean

# Creates the environment, installs exact tested versions, runs the whole pipeline on MovieLens.
demo: $(VENV)/.installed
	$(BIN)/python train.py

# Creates the environment, installs exact tested versions, runs the tests but the slow ones and those
# of clusters.
test: $(VENV)/.installed
	$(SHARED) -m "not slow and not cluster"

test-slow: $(VENV)/.installed
	$(SHARED) -m slow

# Trainings of clusters of processes, some of which are killed: some 15 minutes on 2 cores.
test-cluster: $(VENV)/.installed
	$(PYTEST) -m cluster

# The tests of what processors compute differently, once under each of the settings above.
test-processors: $(PROCESSORS:%=test-%)

$(PROCESSORS:%=test-%): test-%: $(VENV)/.installed
	@echo "Tests of what processors compute differently, $*: $($*)"
	env $($*) $(SHARED) -m "processor and not slow and not cluster"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as pages in site/: `python -m http.server --directory site` shows them. NO_MKDOCS_2
# is the theme's own switch for a notice about a version that the constraints do not install.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.installed: setup.cfg pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "CPython 3.11, 3.12 or 3.13 is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[test,bench,tune,docs]"
	$(BIN)/python -m lfm4ads_tf.kernels.build || echo "Training goes on with TensorFlow's own ops."
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
