# Everything here works on a fresh Debian or Ubuntu with make and Python 3.10 or newer.

PYTHON ?=
WORKERS ?= 4
UI ?=
ARGS ?=

VENV := .venv
FRAMEWORKS := .venv-frameworks
PY := $(VENV)/bin/python
GPU_RUN := provider/airflow_provider_gpu_cluster/gpu_run
TOOLS := git:git procps:ps curl:curl jq:jq xfsprogs:mkfs.xfs btrfs-progs:mkfs.btrfs e2fsprogs:mkfs.ext2 gcc:gcc
BROWSER := chromium:chromium
UI_TESTS := nodejs:node
SLURM := munge:munged slurm-wlm:slurmctld slurmdbd:slurmdbd
DATABASES := postgresql:pg_ctlcluster mariadb-server:mariadbd

# The order of the groups is that of tests/conftest.py.
DISTRIBUTION := --dist loadgroup --no-loadscope-reorder

# Compiled tests are kept beside them (git ignores them): to compile them anew takes each worker seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check lint bench screenshots clean

help:
	@echo "make demo         run the DAG gpu_train_digits in a real Airflow, against a sandbox cluster, and end"
	@echo "make demo UI=1    the same, and leave Airflow's web page up"
	@echo "make test         run every test (ARGS='-k sandbox' for some; WORKERS=$(WORKERS) at a time)"
	@echo "make check        lint, and run the tests that start no server and install nothing: under two minutes"
	@echo "make lint         check style, types, and that gpu_run stays Python 3.8"
	@echo "make bench        measure what the README claims, and run the long tests"
	@echo "make screenshots  take the pictures of docs/images/pages anew (ARGS='jobs log' for some)"
	@echo "make clean        remove the virtual environment and all caches"
	@echo "PYTHON=/path/to/python3.12 chooses the interpreter of the virtual environment."

demo: $(VENV)/.installed
	@$(PY) scripts/demo.py $(if $(UI),--ui) $(ARGS)

test: $(VENV)/.installed-development
	@scripts/system-packages openssh-server:sshd openssh-client:ssh rsync:rsync prometheus:promtool $(TOOLS) $(SLURM) $(DATABASES) $(BROWSER) $(UI_TESTS)
	$(PY) -m pytest -n $(WORKERS) $(DISTRIBUTION) $(ARGS)

check: lint
	@scripts/system-packages $(TOOLS) $(UI_TESTS)
	$(PY) -m pytest -n $(WORKERS) $(DISTRIBUTION) -m "not long and not heavy" $(ARGS)

lint: $(VENV)/.installed-development
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict
	$(VENV)/bin/vermin --target=3.8- --no-tips --violations --quiet $(GPU_RUN)

bench: $(VENV)/.installed-development
	@scripts/system-packages openssh-server:sshd openssh-client:scp rsync:rsync iproute2:ip gcc:gcc $(SLURM) $(DATABASES) $(BROWSER) $(UI_TESTS)
	@set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; \
	  $(PY) -m benchmarks.$$(basename $$file .py) $(ARGS); done
	$(MAKE) $(FRAMEWORKS)/.installed
	$(PY) -m pytest -n $(WORKERS) $(DISTRIBUTION) -m long

screenshots: $(VENV)/.installed-development
	@scripts/system-packages $(BROWSER)
	PYTHONPATH=. $(PY) scripts/screenshots.py $(ARGS)

clean:
	rm -rf $(VENV) $(FRAMEWORKS) .mypy_cache .pytest_cache .ruff_cache dist

$(VENV)/.installed: pyproject.toml scripts/install
	@PYTHON="$(PYTHON)" scripts/install
	@touch $@

# What the examples of tests/gpu_run/frameworks/ run with; a Python that has it already may be named instead.
$(FRAMEWORKS)/.installed:
	[ -n "$$FRAMEWORKS_PYTHON" ] || { $(PY) -m venv $(FRAMEWORKS) && \
	  $(FRAMEWORKS)/bin/pip install --quiet torch lightning accelerate transformers; }
	@mkdir -p $(FRAMEWORKS) && touch $@

$(VENV)/.installed-development: pyproject.toml scripts/install
	@PYTHON="$(PYTHON)" scripts/install test lint
	@touch $@ $(VENV)/.installed
