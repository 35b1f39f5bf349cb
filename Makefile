# `make demo` and `make test` prepare everything they need: a virtual environment in .venv, then their job.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-all lint bench clean

demo: $(VENV)/.ready
	$(BIN)/python examples/stdlib_census/census.py

# Most tests wait most of the time, so twice as many run at once as there are cores; those that are
# about time, nearly alone.
AT_ONCE ?= $(shell expr 2 \* $$(nproc 2>/dev/null || echo 1))

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -q -m 'not alone' -n $(AT_ONCE) --dist worksteal
	$(BIN)/python -m pytest -q -m alone -n 2 --dist worksteal

# Every supported Python that is on this machine; a missing one is named and skipped.
test-all:
	@for v in 3.11 3.12 3.13; do \
	  py=$$(PYTHON_VERSION=$$v tests/find_python.sh) || { echo "python$$v: not on this machine, skipped"; continue; }; \
	  echo "== $$v: $$py"; \
	  $(MAKE) --no-print-directory test PYTHON=$$py VENV=.venv-$$v || exit 1; \
	done

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.ready-dev
	$(BIN)/pip install -q --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "taskmesh needs Python 3.11 or newer; set PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-3.* dist build
