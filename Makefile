# Each target sets up what it needs. PYTHON: any Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# a test process a core, of one thread each: two threads in one process are slower
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto

.PHONY: demo test fast check docs clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(READY)  ## the main job end to end, on pictures that are drawn here
	$(BIN)/miue demo demo

test: $(READY)  ## the whole suite
	$(PYTEST)

fast: $(READY)  ## the suite without the slow part
	$(PYTEST) -m "not slow"

check: $(READY)  ## style, types, imports, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/tables.py --check

docs: $(READY)  ## write the tables of README and docs, and the catalogue of the listing verbs
	$(BIN)/python benchmarks/tables.py

clean:
	rm -rf $(VENV) demo build dist
