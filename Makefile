# make app and make test do all the set-up themselves, in .venv; only Python 3.11 or newer must be there.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help app check test soak engines lowest bench bench-cuda docs docs-site wheel space lint clean

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
RUNTIME := $(VENV)/runtime.stamp
TESTS := $(VENV)/tests.stamp
# What is compiled is kept, whatever the environment says: the tests start Python several hundred times.
export PYTHONDONTWRITEBYTECODE :=
# The theme's notice of a later MkDocs.
export NO_MKDOCS_2_WARNING := 1
# Tests without a browser, one process for each core; every process computes on one thread.
UNITS := $(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal

help:
	@echo 'make app     open the dashboard on the built-in demo'
	@echo 'make check   style checks and the quick tests: for every change'
	@echo 'make test    style checks and every test, a real browser included'
	@echo 'make soak    the tests that take long, and a search for examples that break a property'
	@echo 'make engines install llama.cpp, CTranslate2 and mlx-lm in build/engines, for make soak: minutes, a C++ compiler'
	@echo 'make lowest  the tests without browser and cluster at the lower ends of the ranges, in an environment of their own'
	@echo 'make bench   time the spectrum engine and the repair against the obvious alternatives'
	@echo 'make bench-cuda  all measurements of a CUDA device, in one table'
	@echo 'make docs    write the generated pages of docs/ again'
	@echo 'make docs-site  the documentation as a site, in build/site'
	@echo 'make wheel   the wheel, in build/dist, and its trial in an environment of its own'
	@echo 'make space   what a Hugging Face Space is made of, in build/space'
	@echo 'make lint    style checks only'
	@echo 'make clean   remove .venv and what the tools left behind'

app: $(RUNTIME)
	$(PY) -m dgviz app

check: lint
	$(UNITS) -m 'not e2e and not slow'

test: lint
	$(PY) tests/e2e/find_browser.py
	$(UNITS) -m 'not e2e and not cluster'
	$(PY) -m pytest -m 'e2e or cluster'

soak: $(TESTS) engines
	DGVIZ_SOAK=1 $(PY) -m pytest -rs -m 'soak or hypothesis'

# What cannot be installed here is said, and the tests of it are skipped with the reason.
engines: $(TESTS)
	$(PY) -m tests.export.engines

# The harness and s3fs want newer packages than the lower ends: neither is installed, and what runs them is left out.
lowest: $(TESTS)
	$(PY) -m venv build/lowest
	build/lowest/bin/python -m pip install -r tests/lowest.txt $$(grep '^[a-z]' tests/requirements.txt | grep -Ev '^(lm-eval|s3fs)=')
	build/lowest/bin/python -m pytest -n auto --dist loadfile -m 'not e2e and not cluster' --ignore tests/scores/test_evaluate.py \
	    --deselect tests/checkpoint/test_remote.py::test_a_pair_in_a_bucket \
	    --deselect tests/checkpoint/test_remote.py::test_a_bucket_that_is_not_there

bench: $(TESTS)
	for bench in tests/bench/bench_*.py; do PYTHONPATH=. $(PY) "$$bench"; done

bench-cuda: $(TESTS)
	$(PY) -m tests.bench.bench_cuda

docs: $(TESTS)
	$(PY) -m tests.docs.generate

# PAIRS=DIR, where dgviz calibrate has trained some: their reports are in the gallery as well as the demo's.
docs-site: $(TESTS)
	$(PY) -m tests.docs.gallery $(PAIRS)
	$(PY) -m mkdocs build --strict

wheel: $(RUNTIME)
	rm -rf build/dist build/trial
	$(PIP) wheel --no-deps --wheel-dir build/dist .
	$(PY) -m venv build/trial
	build/trial/bin/python -m pip install "$$(echo ./build/dist/*.whl)[all]"
	cd build/trial && bin/dgviz demo pair && bin/dgviz repair pair/base pair/noisy repaired && bin/dgviz report pair/base pair/noisy -o report.html

space: $(RUNTIME)
	rm -rf build/space
	mkdir -p build/space
	cp docs/space/* requirements.txt build/space
	$(PIP) wheel --no-deps --wheel-dir build/space .

lint: $(TESTS)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	$(PY) -m tests.lint_scripts

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than its requirements when they are installed, which makes the second run instant.
$(RUNTIME): requirements.txt
	@$(find_python)
	$(PIP) install -r requirements.txt
	@touch $@

$(TESTS): tests/requirements.txt $(RUNTIME)
	$(PIP) install -r tests/requirements.txt
	@touch $@

# An environment that still runs is kept.  PYTHON=/path/to/python chooses another one.
define find_python
if ! $(PY) -m pip --version >/dev/null 2>&1; then \
  for python in $${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do \
    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
      found=$$python; \
      if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then usable=$$python; break; fi; \
    fi; \
  done; \
  if [ -n "$${usable:-}" ]; then \
    echo "$$usable -m venv $(VENV)"; \
    "$$usable" -m venv --clear $(VENV); \
  elif [ -n "$${found:-}" ]; then \
    echo "$$found cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)" >&2; \
    exit 1; \
  else \
    echo 'dgviz needs Python 3.11 or newer and found none: install it, or say where it is: make PYTHON=/path/to/python' >&2; \
    exit 1; \
  fi; \
fi
endef
