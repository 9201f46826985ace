# `make demo` and `make test` do all the set-up that they need, on a machine with Python 3.11+ and a C++ compiler.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.PHONY: demo test lint bench docs clean

demo: .venv/.corpus
	$(BIN)/menagerie demo

test: .venv/.dev
	$(BIN)/pytest -n $(WORKERS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: .venv/.dev
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: .venv/.corpus
	$(BIN)/python -m workflows.reference docs/recipe.md

clean:
	rm -rf .venv build *.egg-info demo .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name it: make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv

.venv/.corpus: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[corpus]'
	touch $@

.venv/.dev: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@ .venv/.corpus
