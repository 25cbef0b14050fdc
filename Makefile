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
	@echo "installing into $(VENV): about 5 GB, a few minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) -e '.[dev]'
	@touch $@

run: $(STAMP)      ## execute every notebook into build/ with the shipped weights, end in a table
	$(BIN)/timenet run --preset demo

test: $(STAMP)     ## the tests, every notebook at preset ci among them
	OMP_NUM_THREADS=1 $(TEST) -m 'not slow and not timed' -n 2 --dist loadgroup --no-loadscope-reorder
	$(TEST) -m 'timed and not slow'

test-slow: $(STAMP) ## the tests that take minutes
	$(TEST) -m slow

# Warnings are no errors there: old versions warn of one another. Python 3.11 or 3.12, the oldest have no wheels for 3.13.
test-floor: build/floors.txt ## the tests on the oldest versions pyproject.toml allows, in .venv-floor (6 GB)
	PYTEST_ADDOPTS='-W default' $(MAKE) test VENV=.venv-floor PINS=$<

build/floors.txt: pyproject.toml
	@mkdir -p build
	@$(PYTHON) -c 'import tomllib; p = tomllib.load(open("$<", "rb"))["project"]; \
	print(*p["dependencies"], *p["optional-dependencies"]["dev"], sep="\n")' | sed 's/>=/==/' > $@

test-peers: $(STAMP) ## what is held against other libraries, such as anomalib, which this installs (0.5 GB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,peers]'
	$(TEST) -rs tests/benchmarks tests/nets/test_extractors.py

lab: $(STAMP)      ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

lint: $(STAMP)     ## ruff and mypy over library, tests, notebooks
	$(BIN)/ruff check timenet_lib tests notebooks
	$(BIN)/ruff format --check timenet_lib tests notebooks
	$(BIN)/mypy

figures: $(STAMP)  ## refresh figures/ (maintainers)
	$(BIN)/python -m timenet_lib.course.maintain figures

notebooks: $(STAMP) ## refresh the outputs kept in notebooks/ (maintainers)
	$(BIN)/python -m timenet_lib.course.maintain notebooks

weights: $(STAMP)  ## train every shipped stage from nothing; resumable; about 100 minutes on two cores (maintainers)
	$(BIN)/timenet train extractor --out timenet_lib/weights/demo --resume
	$(BIN)/timenet train all --out timenet_lib/weights/demo --resume
	$(BIN)/timenet reproduce evaluation flows difficulty gain
	$(BIN)/timenet reproduce

clean:             ## remove what was made, but not .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
