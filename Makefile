# The everyday commands; `make` alone lists them. All run in .venv, which is made and kept current as needed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# What `make demo` runs: real weights and real images that come with packages, so it needs no other download.
DEMO := efficientnet_lite0 --dataset digits --per-class 40 --epochs 3

# A Python of your choice: make PYTHON=/path/to/python demo
PYTHON :=

# Tests run in as many processes as there are cores; whichever is idle takes over what another has not begun, from the
# end, so that most of a module's tests stay together and share what it builds.
PYTEST = $(PY) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# Relative, because make cannot name a file in a folder whose name has a space.
PY := .venv/bin/python
STAMP := .venv/.blockzoo-installed
SITE_STAMP := .venv/.blockzoo-docs-installed
SUPPORTED := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
SHOW_DOWNLOADS := s/^ *Downloading \([^ ]*\.whl\) (\(.* [MG]B\)).*/  \1 (\2)/p;s/^Installing collected.*/  unpacking/p

.PHONY: help
help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

.PHONY: demo
demo: $(STAMP) ## Fine-tune one block of a small pretrained network and score it, in a few minutes
	@.venv/bin/zoo eval $(DEMO) --out "runs/demo-$$(date +%Y%m%d-%H%M%S)"

.PHONY: test
test: $(STAMP) ## Run every test, the slow ones and the doctests too
	@$(PYTEST)

.PHONY: test-fast
test-fast: $(STAMP) ## Run all tests but the slow ones
	@$(PYTEST) -m 'not slow'

# pytest comes last, so that its closing line ends the output.
.PHONY: check
check: $(STAMP) ## Run everything CI runs: style, spelling, types, help pages, site, every test
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m codespell_lib
	@$(PY) -m mypy
	@$(PY) -m mypy scripts plugins/example/zoo_example
	@$(PY) scripts/help_pages.py --check
	@$(MAKE) site
	@$(MAKE) test

.PHONY: docs
docs: $(STAMP) ## Write the generated pages anew
	@$(PY) scripts/help_pages.py
	@$(PY) scripts/backbone_cards.py

.PHONY: site
site: $(SITE_STAMP) ## Build the documentation site in build/site/html; a warning or a broken link is an error
	@$(PY) scripts/site.py

.PHONY: release-check
release-check: $(STAMP) ## Build wheel and sdist, and try them in fresh environments of Python 3.11, 3.12 and 3.13
	@$(PY) scripts/release_check.py

.PHONY: clean
clean: ## Remove .venv, build output and caches; runs/ stays
	@rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find . -type d -name __pycache__ -prune -exec rm -rf {} +

$(PY):
	@python=$(if $(PYTHON),'$(PYTHON)',); \
	for name in python3 python3.14 python3.13 python3.12 python3.11; do \
		if [ -z "$$python" ] && "$$name" -c '$(SUPPORTED)' 2>/dev/null; then python=$$name; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'needs Python 3.11 or newer with venv (on Debian: apt-get install python3-venv);' >&2; \
		echo 'name one that is not called python3: make PYTHON=/path/to/python demo' >&2; \
		exit 1; \
	fi; \
	echo "making .venv with $$("$$python" --version)"; \
	rm -rf .venv; \
	"$$python" -m venv .venv

# Only when the requirements change. pip's own words go to a log, shown when it fails.
define INSTALL
	@log=.venv/install.log; \
	$(PY) -m pip --disable-pip-version-check install --no-input --progress-bar off \
		--constraint constraints.txt --editable '.[$(1)]' 2>&1 | tee "$$log" | sed -n -u '$(SHOW_DOWNLOADS)' \
		|| { tail -n 25 "$$log" >&2; echo "the whole of it: $$log" >&2; exit 1; }
	@touch $@
endef

$(STAMP): pyproject.toml constraints.txt | $(PY)
	@echo 'installing blockzoo into .venv (some minutes and gigabytes the first time, torch above all)'
	$(call INSTALL,dev)

$(SITE_STAMP): $(STAMP)
	@echo 'installing what the documentation site needs into .venv'
	$(call INSTALL,docs)
