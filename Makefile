# The everyday commands. `make` without an argument lists them. make creates and updates .venv, in which they run.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The arguments of `make demo`. The weights and the images are in installed packages, so they need no download.
DEMO := efficientnet_lite0 --dataset digits --per-class 40 --epochs 3

# Set PYTHON to choose the interpreter: make PYTHON=/path/to/python demo
PYTHON :=

# Tests run in as many processes as the machine has cores. An idle process takes tests from the end of another process's
# list, so that most tests of a module stay in one process and share fixtures.
PYTEST = $(PY) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# The path is relative, because make cannot name a file in a folder whose name contains a space.
PY := .venv/bin/python
STAMP := .venv/.blockzoo-installed
SITE_STAMP := .venv/.blockzoo-docs-installed
SUPPORTED := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
SHOW_DOWNLOADS := s/^ *Downloading \([^ ]*\.whl\) (\(.* [MG]B\)).*/  \1 (\2)/p;s/^Installing collected.*/  unpacking/p

.PHONY: help
help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

.PHONY: demo
demo: $(STAMP) ## Fine-tune one block of a small pretrained network and score it, in a few minutes
	@.venv/bin/zoo eval $(DEMO) --out "runs/demo-$$(date +%Y%m%d-%H%M%S)"

.PHONY: test
test: $(STAMP) ## Run every test and doctest, including slow tests
	@$(PYTEST)

.PHONY: test-fast
test-fast: $(STAMP) ## Run all tests that are not marked slow
	@$(PYTEST) -m 'not slow'

# pytest runs last, so that its summary is the last line of the output.
.PHONY: check
check: $(STAMP) ## Run all checks of CI: style, spelling, types, help pages, site, every test
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m codespell_lib
	@$(PY) -m mypy
	@$(PY) -m mypy scripts plugins/example/zoo_example
	@$(PY) scripts/help_pages.py --check
	@$(MAKE) site
	@$(MAKE) test

.PHONY: docs
docs: $(STAMP) ## Generate docs/commands.md and the pages of the backbones
	@$(PY) scripts/help_pages.py
	@$(PY) scripts/backbone_cards.py

.PHONY: site
site: $(SITE_STAMP) ## Build the documentation site in build/site/html; fail on a warning or a broken link
	@$(PY) scripts/site.py

.PHONY: release-check
release-check: $(STAMP) ## Build wheel and sdist, and test them in new environments of Python 3.11, 3.12 and 3.13
	@$(PY) scripts/release_check.py

.PHONY: clean
clean: ## Remove .venv, build output and caches, but not runs/
	@rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find . -type d -name __pycache__ -prune -exec rm -rf {} +

$(PY):
	@python=$(if $(PYTHON),'$(PYTHON)',); \
	for name in python3 python3.14 python3.13 python3.12 python3.11; do \
		if [ -z "$$python" ] && "$$name" -c '$(SUPPORTED)' 2>/dev/null; then python=$$name; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'no Python 3.11 or newer with venv was found (on Debian: apt-get install python3-venv);' >&2; \
		echo 'if your Python has another name, type: make PYTHON=/path/to/python demo' >&2; \
		exit 1; \
	fi; \
	echo "making .venv with $$("$$python" --version)"; \
	rm -rf .venv; \
	"$$python" -m venv .venv

# Install the packages if the requirements changed. pip writes to a log file, and make shows its end if pip fails.
define INSTALL
	@log=.venv/install.log; \
	$(PY) -m pip --disable-pip-version-check install --no-input --progress-bar off \
		--constraint constraints.txt --editable '.[$(1)]' 2>&1 | tee "$$log" | sed -n -u '$(SHOW_DOWNLOADS)' \
		|| { tail -n 25 "$$log" >&2; echo "the complete log of pip: $$log" >&2; exit 1; }
	@touch $@
endef

$(STAMP): pyproject.toml constraints.txt | $(PY)
	@echo 'installing blockzoo into .venv (the first time, this takes minutes and gigabytes, mostly for torch)'
	$(call INSTALL,dev)

$(SITE_STAMP): $(STAMP)
	@echo 'installing the packages of the documentation site into .venv'
	$(call INSTALL,docs)
