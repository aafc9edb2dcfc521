# Two commands: `make demo` and `make test`. Each makes a virtual environment and installs what it needs; asked of you: Python >= 3.11 and make.
PYTHON ?= python3
VENV   ?= .venv
# torch is installed first and by itself: an unpinned torch can pull gigabytes of CUDA packages.
# Override it for your machine, e.g.  make demo TORCH=torch   or   make demo TORCH="torch --index-url ..."
TORCH  ?= torch==2.13.0
# The report is tested in a real browser. Chromium is installed when it is missing and this can be done (as root on Debian);
# BROWSER=none leaves your system alone: the browser tests are then skipped and say so.
BROWSER ?= auto

BIN := $(VENV)/bin

.PHONY: demo test test-slow against-fairchem lint format install install-dev browser clean

demo: install
	$(BIN)/python examples/demo.py

test: install-dev browser
	$(BIN)/python -m pytest

test-slow: install-dev browser
	$(BIN)/python -m pytest -m slow

# AllScAIP as published against the authors' code (fairchem-core, checked with 2.24.0), in an environment of its own
against-fairchem: pyproject.toml
	test -x $(VENV)-fairchem/bin/python || $(PYTHON) -m venv $(VENV)-fairchem
	$(VENV)-fairchem/bin/python -m pip install --quiet $(TORCH)
	$(VENV)-fairchem/bin/python -m pip install --quiet -e ".[against-fairchem]"
	$(VENV)-fairchem/bin/python -m pytest tests/against -W default

lint: install-dev
	$(BIN)/ruff check src tests examples data
	$(BIN)/ruff format --check src tests examples data
	$(BIN)/mypy

format: install-dev
	$(BIN)/ruff check --fix src tests examples data
	$(BIN)/ruff format src tests examples data

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "adatom needs Python >= 3.11, this is " + sys.version.split()[0] + ": set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

browser:
	@if command -v chromium chromium-browser google-chrome >/dev/null 2>&1 || [ "$(BROWSER)" = none ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing chromium for the browser tests (BROWSER=none to leave it out)"; \
		{ apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 || echo "chromium could not be installed: browser tests will be skipped"; \
	else echo "no Chromium found: browser tests will be skipped"; fi

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
