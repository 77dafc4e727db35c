# make run, make test, make lint, make docs, make tensorboard, make bench: each sets up what it needs, in .venv, once.
PYTHON ?= python3
VENV := .venv
RUNS ?= runs
PORT ?= 6006
VENV_PYTHON := $(VENV)/bin/python
INSTALL := $(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: run test test-portable lint format docs release-check bench gpu tensorboard clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	$(VENV_PYTHON) -m experiments.run data=digits model=logistic sampler=margin,entropy,uniform seed=0,1,2,3,4 runs="$(RUNS)" -m

# bytecode is kept: the processes that tests start would compile everything again
test: $(VENV)/.installed-dev
	PYTHONDONTWRITEBYTECODE= $(VENV_PYTHON) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# SETTINGS="avx2 one-thread" runs some of them
test-portable: $(VENV)/.installed-dev $(VENV)-oldest/.installed
	$(VENV_PYTHON) -m tests.portable $(SETTINGS)

lint: $(VENV)/.installed-dev
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed-dev
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

# open build/docs/index.html; no network is used, and a warning is an error
docs: $(VENV)/.installed-dev
	$(VENV_PYTHON) -m sphinx --fail-on-warning --keep-going --quiet --jobs auto docs build/docs
	cd docs && ../$(VENV_PYTHON) -m make_pages.check_site ../build/docs

# PYTHONS="3.11 3.12" tries some; each is installed with torch, which takes minutes
release-check: $(VENV)/.installed-release
	$(VENV_PYTHON) -m tests.release $(PYTHONS)

bench: $(VENV)/.installed-bench
	$(VENV_PYTHON) -m benchmarks.run

gpu:
	benchmarks/gpu.sh

tensorboard: $(VENV)/.installed
	$(VENV_PYTHON) -m tensorboard.main --logdir "$(RUNS)" --port $(PORT) --samples_per_plugin images=1000

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist docs/api docs/learn docs/strategies/*.md docs/strategies/pictures *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"torchal needs Python 3.10 or newer; {sys.executable} is {sys.version.split()[0]}. Use: make PYTHON=/path/to/python3.x")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg setup.py pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV): several GB are downloaded once, which takes a few minutes ..."
	$(INSTALL) '.[all]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(INSTALL) '.[bench]'
	touch $@

$(VENV)/.installed-release: $(VENV)/.installed
	$(INSTALL) '.[release]'
	touch $@

$(VENV)-oldest/.installed: setup.cfg constraints-oldest.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable \
		'.[vision,experiments,sweep,tables]' faiss-cpu pytest pytest-xdist hypothesis polars 'setuptools>=77'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) '.[dev]'
	touch $@
