# Every target makes .venv by itself when it is missing or when the lists of packages changed.
PYTHON ?= python3
VENV   ?= .venv
PINS   ?= constraints.txt
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TEST   := $(BIN)/python -m pytest

.PHONY: help run test test-slow test-floor test-peers lab lint figures notebooks weights clean

help:              ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12" if not (3, 11) <= v <= (3, 13) else 0)'
	@echo "installing into $(VENV): about 7 GB, a few minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) -e '.[dev]'
	@touch $@

run: $(STAMP)      ## execute every notebook into build/ with the shipped weights, then print a table
	$(BIN)/timenet run --preset demo

test: $(STAMP)     ## the tests, which run every notebook at preset ci, too
	OMP_NUM_THREADS=1 $(TEST) -m 'not slow and not timed' -n 2 --dist loadfile --no-loadscope-reorder
	$(TEST) -m 'timed and not slow'

test-slow: $(STAMP) ## the tests that take minutes
	$(TEST) -m slow

# Warnings are not errors there: old versions warn about each other. Python 3.11 or 3.12: the oldest lack wheels for 3.13.
test-floor: build/floors.txt ## the tests on the oldest versions pyproject.toml allows, in .venv-floor (6 GB)
	PYTEST_ADDOPTS='-W default' $(MAKE) test VENV=.venv-floor PINS=$<

build/floors.txt: pyproject.toml
	@mkdir -p build
	@$(PYTHON) -c 'import tomllib; p = tomllib.load(open("$<", "rb"))["project"]; \
	lists = [p["dependencies"], *p["optional-dependencies"].values()]; \
	print(*(r.replace(">=", "==") for each in lists for r in each if ">=" in r), sep="\n")' > $@

test-peers: $(STAMP) ## compare with other libraries, such as anomalib, which this installs (0.5 GB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,peers]'
	$(TEST) -rs tests/benchmarks tests/test_features.py

lab: $(STAMP)      ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

lint: $(STAMP)     ## ruff and mypy on library, tests, notebooks
	$(BIN)/ruff check timenet_lib tests notebooks
	$(BIN)/ruff format --check timenet_lib tests notebooks
	$(BIN)/mypy

figures: $(STAMP)  ## refresh figures/ (maintainers)
	$(BIN)/python -m timenet_lib.course.maintain figures

notebooks: $(STAMP) ## refresh the outputs kept in notebooks/ (maintainers)
	$(BIN)/python -m timenet_lib.course.maintain notebooks

weights: $(STAMP)  ## train every shipped stage from scratch; resumable; about 100 minutes on two cores (maintainers)
	$(BIN)/timenet train extractor --out timenet_lib/weights/demo --resume
	$(BIN)/timenet train all --out timenet_lib/weights/demo --resume
	$(BIN)/timenet reproduce evaluation flows difficulty gain
	$(BIN)/timenet reproduce

clean:             ## remove everything generated except .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
