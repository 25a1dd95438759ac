# Set-up and checks. `make test` on a fresh machine needs Python 3.11+, git and make.
PYTHON ?= python3
BIN := .venv/bin
WORKSPACE ?= workspace

.PHONY: setup browser viewer demo test test-viewer test-servers test-cluster test-runs docs lint units stages scores weights widths sparse studies trials bench faults soak daily conus conus-full globe growth projection constraints image-venv clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "soilweave needs Python 3.11 or newer; give PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# A small planet whose truth is known: maps, scores, a report; learnt with all of its 30 probes, and
# with 5 of them. A few minutes on 2 cores.
demo: setup
	$(BIN)/soilweave run demo --workspace $(WORKSPACE)
	$(BIN)/soilweave run demo-few --workspace $(WORKSPACE) --set cube=$(WORKSPACE)/demo/cube.zarr
	$(BIN)/soilweave evaluate demo demo-few --workspace $(WORKSPACE)

# Two test processes run at a time, which suits two cores and 8 GB.
test: setup
	$(MAKE) --jobs=2 --output-sync=target units lint
	$(MAKE) stages

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests that need neither Ray nor a server.
units: setup
	$(BIN)/pytest -m units --numprocesses=2 --dist=loadfile $(ARGS)

# Tests that run stages on a local Ray.
stages: setup
	$(BIN)/pytest -m stages --numprocesses=2 --dist=loadgroup $(ARGS)

# What tests in a browser need: packages of npm. Chromium is that of the system: apt install chromium.
browser: .venv/browser/.ready

.venv/browser/.ready: tests/browser/package.json .venv/ready
	mkdir -p .venv/browser
	cp $< .venv/browser
	cd .venv/browser && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	touch $@

# Kernels for GPUs are tested with Triton's interpreter.
.venv/gpu: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[test,gpu]'
	touch $@

# The page of `soilweave view`, built anew from infra/viewer into pipeline/viewer/static. Needs Node 20.
VIEWER := infra/viewer
viewer: $(VIEWER)/node_modules/.ready
	cd $(VIEWER) && npm run --silent build

# Not `npm ci`, which refuses the lock file where a registry lacks a package that only Windows needs.
$(VIEWER)/node_modules/.ready: $(VIEWER)/package.json $(VIEWER)/package-lock.json
	cd $(VIEWER) && npm install --no-save --loglevel=error
	touch $@

# The viewer's own tests, then the page in Chromium, which is that of the system: apt install chromium.
test-viewer: $(VIEWER)/node_modules/.ready .venv/viewer
	cd $(VIEWER) && npm run --silent test
	$(BIN)/pytest -m viewer -o faulthandler_timeout=900 $(ARGS)

.venv/viewer: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[test,viewer]'
	touch $@

# Tests with real servers: SeaweedFS, MLflow, PostgreSQL, a Ray head that takes jobs.
test-servers: setup
	$(BIN)/pytest -m servers --numprocesses=2 --dist=loadfile $(ARGS)

# Jobs on a head and two workers with addresses of their own, and nodes killed on the way.
test-cluster: setup
	$(BIN)/pytest -m cluster -o faulthandler_timeout=900 -s $(ARGS)

# Whole runs: interrupted, in bad stores, on S3, over many kinds of sources; and other long tests.
test-runs: .venv/gpu $(if $(shell command -v npm),browser)
	$(BIN)/pytest -m runs -o faulthandler_timeout=900 $(ARGS)

# The site, in build/docs: the snippets of tutorials and how-tos are run, and warnings are errors. ARGS="--only
# PAGE.md ..." runs the snippets of some pages, --no-snippets builds alone, --external asks other hosts too.
docs: .venv/docs demo
	PYTHONPATH=tests/fixtures $(BIN)/python docs/site/build.py --workspace $(WORKSPACE) $(ARGS)

.venv/docs: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

# The results on real sites of docs/results.md; needs SOILWEAVE_DATA; an hour on 2 cores.
CUBE := --set cube=$(WORKSPACE)/scan/cube.zarr
scores: setup
	$(BIN)/soilweave run scan --workspace $(WORKSPACE)
	$(BIN)/soilweave run scan --workspace $(WORKSPACE) --name scan-liu2022 $(CUBE) --set recipe=liu2022 --set train.updates=500
	$(BIN)/soilweave evaluate scan scan-liu2022 --workspace $(WORKSPACE)
	$(BIN)/soilweave run scan-later-known --workspace $(WORKSPACE) $(CUBE)
	$(BIN)/soilweave run scan-later-unseen --workspace $(WORKSPACE) $(CUBE) --set n_seeds=1
	$(BIN)/soilweave run scan-region --workspace $(WORKSPACE) $(CUBE) --set n_seeds=1
	$(BIN)/soilweave score scan --workspace $(WORKSPACE) --sites $(SOILWEAVE_DATA)/scan_sites.nc --adjust --figure $(WORKSPACE)/adjustment.png
	$(BIN)/soilweave run scan-coarse --workspace $(WORKSPACE) --set n_seeds=5

# The models that come with soilweave, trained anew: pipeline/experiment/presets/models/scan. Needs
# SOILWEAVE_DATA; half an hour on 2 cores.
weights: setup
	$(BIN)/soilweave run scan --workspace $(WORKSPACE)/weights --set n_seeds=6
	PYTHONPATH=tests $(BIN)/python -m studies.weights $(WORKSPACE)/weights/scan --sites $(SOILWEAVE_DATA)/scan_sites.nc

# Whether intervals would rank better if their factor knew more of a place: table into docs/results. Needs
# SOILWEAVE_DATA; half an hour on 2 cores, and seconds after `make weights`.
widths: setup
	$(BIN)/soilweave run scan --workspace $(WORKSPACE)/weights --set n_seeds=6
	PYTHONPATH=tests $(BIN)/python -m studies.widths $(WORKSPACE)/weights/scan

# Changes of the recipe, one at a time, each arm under each: tables into docs/experiments.md.
trials: setup
	PYTHONPATH=tests $(BIN)/python -m studies.trials --folder $(WORKSPACE)/trials

# How many sites the satellite is worth, on real sites: table and figure into docs/results; about 80
# minutes on 2 cores. ARGS=--full for 20 draws of sites and 12 members, which wants a GPU or a day.
sparse: setup
	PYTHONPATH=tests $(BIN)/python -m studies.sparse --folder $(WORKSPACE)/sparse $(ARGS)

# What planets whose truth is known say: tables into docs/studies.md, figures beside it; about an hour.
studies: setup
	PYTHONPATH=tests $(BIN)/python -m studies --folder $(WORKSPACE)/studies

# What the machine does beside what it could, and beside others: table into docs/benchmarks.md.
bench: .venv/bench
	PYTHONPATH=tests:tests/fixtures $(BIN)/python -m bench --folder $(WORKSPACE)/bench $(ARGS)

.venv/bench: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[test,bench,viewer]'
	touch $@

# Every promise under every fault that can break it: table into docs/reliability.md.
# ARGS="--list" names the rows, ARGS="--only NAME" tries some.
FAULTS := tests:tests/fixtures
faults: setup
	PYTHONPATH=$(FAULTS) $(BIN)/python -m faults --folder $(WORKSPACE)/faults $(ARGS)

# The small demo in a loop under random faults; an hour, or ARGS="--minutes N"; ARGS="--seed N".
soak: setup
	PYTHONPATH=$(FAULTS) $(BIN)/python -m faults.soak --folder $(WORKSPACE)/soak $(ARGS)

# `update` and `publish` for 30 days in a row, with a provider that is late and revises: table into
# docs/daily-operation.md; nine minutes on 2 cores.
daily: setup
	PYTHONPATH=$(FAULTS) $(BIN)/python -m bench.daily --folder $(WORKSPACE)/daily --docs docs $(ARGS)

# Large made-up planets through all verbs: time, memory, bytes and objects of every stage, into
# workspace/bench/conus.json and docs/scaling.md. CONUS at 9 km, two years: about 15 minutes.
GROWTH := PYTHONPATH=tests $(BIN)/python -m bench.growth --folder $(WORKSPACE) --docs docs
conus: setup
	$(GROWTH) conus $(ARGS)

# CONUS at its own size, the recipe as shipped, on a cluster of this machine with S3 and MLflow: from a
# job to verified maps in a bucket, scored against the truth. In pieces of 9 minutes: exit status 75
# says to run it again. ARGS="--size small" takes minutes in all. Table into docs/scaling.md.
conus-full: setup
	PYTHONPATH=$(FAULTS):tests/cluster $(BIN)/python -m bench.conus_full --docs docs $(ARGS)

# The whole M36 grid, one year.
globe: setup
	$(GROWTH) globe $(ARGS)

# Half of CONUS beside the whole, and a quarter over two and over four years.
growth: setup
	$(GROWTH) half conus quarter "quarter, four years" $(ARGS)

# CONUS and the Earth over ten years, from what bench and conus have measured: docs/scaling.md.
projection: setup
	PYTHONPATH=tests $(BIN)/python -m bench.projection --folder $(WORKSPACE)/bench

# The versions that images have: infra/constraints.txt, as pip resolves them today.
constraints: setup
	$(BIN)/python infra/constraints.py

# What an image installs, in a virtual environment of its own: the same script and versions.
image-venv:
	$(PYTHON) -m venv --clear $(WORKSPACE)/image-venv
	PATH="$(abspath $(WORKSPACE))/image-venv/bin:$$PATH" infra/install.sh dependencies
	PATH="$(abspath $(WORKSPACE))/image-venv/bin:$$PATH" infra/install.sh package
	$(WORKSPACE)/image-venv/bin/soilweave plan conus

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
