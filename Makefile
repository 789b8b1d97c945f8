# kpose: one environment in .venv and the few things one does with it. `make` alone lists them.
#
#   make test PYTHON=python3.12        another interpreter to build the environment with
#   make test VENV=/path/to/folder     another environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# An environment is up to date when its stamp is newer than these.
INPUTS := pyproject.toml setup.py constraints.txt
CORE := $(VENV)/.kpose-core
DEV := $(VENV)/.kpose-dev
TORCH := $(VENV)/.kpose-torch
KOTLIN := $(VENV)/.kpose-kotlin
BEAM := $(VENV)/beam
# Lies in the environment while pip works there: what an interrupt left behind is thrown away, not mended.
UNFINISHED := $(VENV)/.kpose-unfinished

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all test-beam test-gpu android-tools site notebooks lint format lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

quickstart: $(CORE)  ## generate people, train, evaluate, predict and draw; downloads nothing but packages
	@$(BIN)/python scripts/quickstart.py

# Two files of tests at a time: much of a test is TensorFlow's tracing, which keeps a single core busy. Files stay whole for their fixtures.
test: lint  ## lint, then every test but the slow ones
	@$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-all: lint $(TORCH) test-beam  ## lint, then every test, those on Beam and against PyTorch too
	@$(BIN)/python -m pytest

test-beam: $(BEAM)/.kpose  ## what runs on Apache Beam, in an environment of its own: Beam wants an older protobuf
	@$(BEAM)/bin/python -m pytest tests/data/test_beam_tfrecords.py tests/inference/test_batch.py -k beam

test-gpu: $(DEV)  ## the TFLite files on LiteRT's GPU accelerator, by a Vulkan driver in software that npm fetches
	@scripts/fetch_software_vulkan.sh $(VENV)/vulkan
	@KPOSE_VULKAN=$(VENV)/vulkan $(BIN)/python -m pytest tests/export/test_accelerator.py

android-tools: $(KOTLIN)  ## the Kotlin compiler, JUnit and Android's classes, for tests/tflite/test_android.py; it needs a JDK too
	@scripts/fetch_android_classes.sh $(VENV)/android

site: $(DEV)  ## the documentation as a site, in site/; open site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html: $$(find site -name '*.html' | wc -l) pages"

notebooks: $(DEV)  ## run the notebooks anew, and keep what they show
	@$(BIN)/python scripts/run_notebooks.py

lint: $(DEV)  ## ruff (rules and format) and mypy
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy

format: $(DEV)  ## bring the code into ruff's form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock:  ## write the newest versions within the bounds of pyproject.toml to constraints.txt
	@$(check_python)
	@echo "Installing the newest versions within the bounds of pyproject.toml into a temporary folder ..."
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder" constraints.txt.new' EXIT INT TERM \
	&& $(PYTHON) -m venv "$$folder" \
	&& "$$folder/bin/python" -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]' setuptools \
	&& "$$folder/bin/python" -m pip freeze --all --exclude-editable --exclude pip > constraints.txt.new \
	&& mv constraints.txt.new constraints.txt \
	&& echo "constraints.txt holds $$(wc -l < constraints.txt) packages"

clean:  ## remove caches and build outputs; .venv, runs and quickstart stay
	@rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find kpose scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(CORE): $(INPUTS)
	$(call install,.)
	@touch $@

$(DEV): $(INPUTS)
	$(call install,'.[dev]')
	@touch $(CORE) $@

$(TORCH): $(INPUTS) | $(DEV)
	$(call install,'.[torch]')
	@touch $(CORE) $(DEV) $@

$(BEAM)/.kpose: $(INPUTS) | $(DEV)
	@rm -rf $(BEAM) && $(BIN)/python -m venv $(BEAM)
	@echo "Installing TensorFlow and Apache Beam into $(BEAM) ..."
	@grep --invert-match --extended-regexp '^(pillow|protobuf|python-dateutil)==' constraints.txt > $(BEAM)/constraints.txt
	@$(BEAM)/bin/python -m pip install --quiet --constraint $(BEAM)/constraints.txt --editable '.[test,lite,parquet,beam]'
	@touch $@

# The compiler lies inside of a Jupyter kernel, whose other parts are not needed.
$(KOTLIN): | $(DEV)
	@$(BIN)/python -m pip install --quiet --no-deps kotlin-jupyter-kernel==0.19.0.944
	@touch $@

define check_python
{ $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null \
|| { echo "kpose needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is none of them; name yours: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }; }
endef

define install
@if [ -e $(UNFINISHED) ] || ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
	$(check_python) && rm -rf $(BIN) && rm -rf $(VENV) && mkdir -p $(VENV) && touch $(UNFINISHED) && $(PYTHON) -m venv $(VENV); \
fi
@touch $(UNFINISHED)
@echo "Installing TensorFlow and friends into $(VENV) (the first time about 700 MB, some minutes) ..."
@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable $(1)
@rm $(UNFINISHED)
endef
