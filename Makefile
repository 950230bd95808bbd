# Each target makes its own environment in .venv; nothing but Python, make and git is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(abspath $(VENV))/.cache
export PYTHONPYCACHEPREFIX := $(CACHE)/python
export MPLCONFIGDIR := $(CACHE)/matplotlib
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis
export PIP_DISABLE_PIP_VERSION_CHECK := 1

DEMO := results/demo
PRESET := default

# Left out of the wheels: what JAX brings along, and what is required but never imported here. The
# wheel of fonttools for any platform is a fifth of that for one.
BEYOND_JAX := flashoptim-jax flax matplotlib mlxtend optax orbax-checkpoint pandas rich tyro
LEFT_OUT := jax jaxlib ml_dtypes numpy opt_einsum scipy \
	fonttools joblib narwhals scikit_learn threadpoolctl uvloop
WHEELS_PYTHON = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
WHEELS_PLATFORMS := manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64

.PHONY: help demo test lint pytest test-lowest test-datasets benchmarks accelerators gpu wheels docs dist clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.experiments ## five arms on 5,000 MNIST images: a table and a figure
	$(BIN)/python -m experiments accuracy --dataset mnist5k --seeds 5 --epochs 10 \
		--arms full gradient_only sgd adam sgd_homeostasis --no-diagnostics --out $(DEMO)

test: lint pytest ## lint, types, doctests and tests

lint: $(VENV)/.test ## format, lint and types alone
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

pytest: $(VENV)/.test ## doctests and tests alone
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

test-lowest: export PIP_CONSTRAINT := $(CURDIR)/tests/constraints_lowest.txt
test-lowest: ## doctests and tests with the lowest versions that pyproject.toml allows
	$(MAKE) pytest VENV=$(VENV)/lowest

test-datasets: $(VENV)/.datasets ## the TensorFlow Datasets path, for real
	$(BIN)/python -m pytest -q -m tfds tests/test_datasets_tfds.py

benchmarks: $(VENV)/.experiments ## time and traffic of a step, speed of training; PRESET=smoke for a quick try
	$(BIN)/python -m benchmarks.step --preset $(PRESET)
	$(BIN)/python -m benchmarks.train --preset $(PRESET)

accelerators: export JAX_PLATFORMS := cpu
accelerators: ## steps compiled for TPU and H100 without one, and counted; PRESET=smoke likewise
	$(MAKE) $(VENV)/accelerators/.accelerators VENV=$(VENV)/accelerators
	$(VENV)/accelerators/bin/python -m benchmarks.accelerators --preset $(PRESET)

# Where there are wheels, they are used beside the JAX of $(PYTHON), and no package index is needed.
ifneq ($(wildcard wheels),)
gpu: export PYTHONPATH := $(abspath $(VENV))/wheels
gpu: $(VENV)/wheels/.installed
	$(PYTHON) -m benchmarks.gpu --preset $(PRESET)
else
gpu: $(VENV)/.experiments ## all that is to be measured on a GPU, 9 minutes per call; PRESET=smoke likewise
	$(BIN)/python -m benchmarks.gpu --preset $(PRESET)
endif

wheels: $(BIN)/python ## what make gpu needs beyond JAX, for WHEELS_PYTHON=3.12 or another one
	rm -rf wheels
	$(BIN)/python -m pip download --quiet --dest wheels --only-binary :all: \
		--python-version $(WHEELS_PYTHON) $(addprefix --platform ,$(WHEELS_PLATFORMS)) $(BEYOND_JAX)
	rm -f $(foreach name,$(LEFT_OUT),wheels/$(name)-*.whl)
	$(BIN)/python -m pip download --quiet --dest wheels --only-binary :all: --no-deps \
		--platform any fonttools
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir wheels .
	du -sh wheels

docs: $(VENV)/.docs ## the documentation, into site/
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet \
		--doctree-dir $(CACHE)/doctrees docs site

dist: $(VENV)/.test ## sdist and wheel, checked as the package index checks them, into dist/
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

$(VENV)/.experiments: EXTRAS := experiments
$(VENV)/.test: EXTRAS := experiments,examples,test
$(VENV)/.datasets: EXTRAS := experiments,examples,test,datasets
$(VENV)/.docs: EXTRAS := docs
$(VENV)/.accelerators: EXTRAS := experiments,accelerators
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

$(VENV)/wheels/.installed: $(wildcard wheels/*)
	rm -rf $(VENV)/wheels
	$(PYTHON) -m pip install --quiet --no-index --no-deps --target $(VENV)/wheels wheels/*.whl
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean: ## removes environments, results, site/, dist/ and wheels/
	rm -rf $(VENV) results site dist wheels
