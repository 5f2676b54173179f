# make demo    a virtual environment, the package, the first notebook run headless, each cell's output printed
# make lab     JupyterLab on the notebooks
# make test    everything the tests need, then the whole suite (what CI runs)
# make lint    ruff and mypy;  make bench  figures against podman, crun, bwrap, docker;  make clean

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TESTED := $(VENV)/.installed-test
PYTEST_ARGS ?=

.PHONY: demo lab test test-peers test-versions test-docker test-faults test-kills test-software lint bench reference packages test-cgroup2 clean

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "error: there is no $(PYTHON)"; echo "hint:  Python 3.11 or newer: make PYTHON=/path/to/python $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old"; echo "hint:  Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make a virtual environment"; echo "hint:  on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(STAMP): $(VENV)/bin/python pyproject.toml hatch_build.py js/package-lock.json js/xterm.js
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(TESTED): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab,test]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python notebooks/run_headless.py notebooks/01-first-container.ipynb
	@echo; echo "open it:  make lab"

lab: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab]'
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/01-first-container.ipynb

packages:
	@sh tests/system-packages.sh

test: packages $(TESTED) lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(TESTED)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(TESTED)
	$(BIN)/python -m tests.benchmarks

# SIGKILL to each process at each step of each scenario (a quarter of an hour; "make test" takes each step once).
test-faults: $(TESTED)
	PYCONTAINERS_ALL_FAULTS=1 $(BIN)/python -m pytest tests/runtime/faults/test_faults.py -s $(PYTEST_ARGS)

# SIGKILL at 200 random moments of load, pull, push, save, commit, import, prune and repair, and of a build (40 minutes; "make test" takes a few).
test-kills: packages $(TESTED)
	PYCONTAINERS_KILLS=200 $(BIN)/python -m pytest tests/images/test_kill.py tests/builder/test_killed.py --timeout 1800 $(PYTEST_ARGS)

# redis, a C program, a Python web application, nginx, PostgreSQL and a Node.js page: built, started, asked, stopped ("make test" takes two).
test-software: packages $(TESTED)
	PYCONTAINERS_SOFTWARE=1 $(BIN)/python -m pytest -v tests/builder/test_software.py $(PYTEST_ARGS)

# The notebook's tests with the oldest and newest supported ipykernel, IPython, ipywidgets, anywidget, plotly, and with ipykernel's subshells.
test-versions: packages $(TESTED)
	PYTEST_ARGS='$(PYTEST_ARGS)' $(BIN)/python -m tests.versions $(VERSIONS)

reference: $(STAMP)
	$(BIN)/python -m pycontainers.commands.reference > docs/reference.md

# podman, dockerd, runc and crun of the distribution beside pycontainers-oci, with what each test did
test-peers: packages $(TESTED)
	$(BIN)/python -m pytest -v tests/oci/test_peers.py tests/oci/test_engines.py $(PYTEST_ARGS)

# All Dockerfiles of tests/builder/docker, built by a Docker Engine of today and by us (five minutes; "make test" takes a part).
test-docker: packages $(TESTED)
	PYCONTAINERS_DOCKER=all $(BIN)/python -m pytest tests/builder/docker $(PYTEST_ARGS)

# The runtime's tests on a machine with cgroup v2 alone: RUNNER runs a command there, with this folder's wheels in /share.
test-cgroup2: $(TESTED)
	@test -n "$(RUNNER)" || { echo "error: no RUNNER"; echo "hint:  make test-cgroup2 RUNNER='command that runs its arguments on a cgroup v2 machine'"; exit 1; }
	RUNNER='$(RUNNER)' BIN=$(BIN) PYTEST_ARGS='$(PYTEST_ARGS)' sh tests/cgroup2.sh

clean:
	rm -rf $(VENV) .venv-versions build dist tests/artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis
