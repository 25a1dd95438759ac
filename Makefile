# Set-up and checks. `make test` on a fresh machine needs Python 3.11+, git and make.
PYTHON ?= python3
BIN := .venv/bin
WORKSPACE ?= workspace

.PHONY: setup demo test test-cluster lint unit scores studies clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "soilweave needs Python 3.11 or newer; give PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# A small planet whose truth is known: maps, scores, a report. A few minutes on 2 cores.
demo: setup
	$(BIN)/soilweave run demo --workspace $(WORKSPACE)

test: lint unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup
	$(BIN)/pytest $(ARGS)

# Jobs on a head and two workers with addresses of their own, nodes killed on the way; S3, MLflow.
test-cluster: setup
	$(BIN)/pytest -o addopts=-ra -o faulthandler_timeout=900 -s tests/cluster tests/test_faults.py

# The full experiments, and their tables; an hour on 2 cores. scan needs SOILWEAVE_DATA.
scores: setup
	$(BIN)/soilweave run demo-full --workspace $(WORKSPACE)
	$(BIN)/soilweave run scan --workspace $(WORKSPACE)
	$(BIN)/soilweave run scan-coarse --workspace $(WORKSPACE)
	$(BIN)/soilweave run scan --workspace $(WORKSPACE) --name scan-liu2022 --set recipe=liu2022 --set train.updates=2000

# What planets whose truth is known say: tables into docs/studies.md, figures beside it; about an hour.
studies: setup
	PYTHONPATH=tests $(BIN)/python -m studies --folder $(WORKSPACE)/studies

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
