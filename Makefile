# Each target makes its own environment in .venv; nothing but Python, make and git is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(CURDIR)/$(VENV)/.cache
export PYTHONPYCACHEPREFIX := $(CACHE)/python
export MPLCONFIGDIR := $(CACHE)/matplotlib
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis
export PIP_DISABLE_PIP_VERSION_CHECK := 1

DEMO := results/demo
PRESET := default

.PHONY: demo test test-datasets benchmarks docs lint clean

demo: $(VENV)/.experiments ## five arms on 5,000 MNIST images: a table and a figure
	$(BIN)/python -m experiments accuracy --dataset mnist5k --seeds 5 --epochs 10 \
		--arms full gradient_only sgd adam sgd_homeostasis --no-diagnostics --out $(DEMO)

test: lint ## lint, types, doctests and tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test-datasets: $(VENV)/.datasets ## the TensorFlow Datasets path, for real
	$(BIN)/python -m pytest -q -m tfds tests/test_datasets_tfds.py

benchmarks: $(VENV)/.experiments ## time and traffic of a step, speed of training; PRESET=smoke: a try
	$(BIN)/python -m benchmarks.step --preset $(PRESET)
	$(BIN)/python -m benchmarks.train --preset $(PRESET)

docs: $(VENV)/.docs ## the documentation, into site/
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet \
		--doctree-dir $(CACHE)/doctrees docs site

$(VENV)/.experiments: EXTRAS := experiments
$(VENV)/.test: EXTRAS := experiments,examples,test
$(VENV)/.datasets: EXTRAS := experiments,examples,test,datasets
$(VENV)/.docs: EXTRAS := docs
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) results site
