# Set-up and checks. `make test` on a fresh machine needs Python 3.11+, git and make.
PYTHON ?= python3
BIN := .venv/bin
WORKSPACE ?= workspace

.PHONY: setup test lint unit scores clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "soilweave needs Python 3.11 or newer; give PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

test: lint unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup
	$(BIN)/pytest $(ARGS)

# The full experiments, and their tables; about half an hour on 2 cores. Needs SOILWEAVE_DATA.
scores: setup
	$(BIN)/soilweave run scan --workspace $(WORKSPACE)
	$(BIN)/soilweave run scan-coarse --workspace $(WORKSPACE)
	$(BIN)/soilweave run scan --workspace $(WORKSPACE) --name scan-liu2022 --set recipe=liu2022 --set train.updates=2000

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
