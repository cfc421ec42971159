# `make demo` and `make test` set up everything they need on a fresh Debian 12 or 13, as root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# The system's python: the rpm and createrepo_c bindings are bound to the system's librpm.
PYTHON := /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin

HOST_PACKAGES := $(file < tests/lab/host-packages.txt)
# What the tests alone need: a browser that shows the page as its readers see it, what checks units, a compiler
# for an OpenSSL with weak ciphers, and the name servers of the domains that are probed.
test: HOST_PACKAGES += chromium-headless-shell systemd gcc libc6-dev knot unbound

.PHONY: help demo test check lint types unit lab lab-clean bench specs host render rpm

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: host $(VENV)/ready ## Build the lab and run `backport build openssl --target f28` in it
	@$(BIN)/python -m tests.lab.demo

test: host $(VENV)/ready lint types lab ## Run everything: lint, types, unit and end-to-end tests
	@$(BIN)/python -m pytest tests

check: $(VENV)/ready lint types unit ## Run the fast part: no root, and no network once .venv is made

lint: $(VENV)/ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m tests.jenkins Jenkinsfile

types: $(VENV)/ready
	@$(BIN)/mypy

unit: $(VENV)/ready
	@$(BIN)/python -m pytest tests/unit

lab: host $(VENV)/ready ## Build the offline lab once into its cache folder
	@$(BIN)/python -m tests.lab build

lab-clean: $(VENV)/ready ## Remove the lab from its cache folder
	@$(BIN)/python -m tests.lab clean

bench: host $(VENV)/ready ## Print the figures, medians of at least three runs
	@$(BIN)/python -m tests.bench

specs: $(VENV)/ready ## Try the spec editor on every spec below the folder BACKPORT_SPECS
	@$(BIN)/python -m tests.every_spec "$${BACKPORT_SPECS:?names no folder}"

render: $(VENV)/ready ## Render what is made from other files: mock configurations, recipe reference
	@$(BIN)/python docs/generate.py

rpm: host $(VENV)/ready ## Make the source package of backport itself in dist/
	@$(BIN)/python packaging/sources.py dist
	@rpmbuild -bs --define "_sourcedir $(CURDIR)/dist" --define "_srcrpmdir $(CURDIR)/dist" packaging/backport.spec

host: ## Install the Debian packages that are missing
	@missing=; for package in $(HOST_PACKAGES); do \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing > /dev/null; \
	fi

$(VENV)/ready: pyproject.toml
	@test -x $(BIN)/python || { $(PYTHON) -m venv --system-site-packages $(VENV) || \
		{ echo "python3-venv is missing: run 'make host' as root first" >&2; rm -rf $(VENV); exit 9; }; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
