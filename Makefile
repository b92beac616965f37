# What a developer types. `make demo` and `make test` need nothing but Python 3.11-3.13 and, for the tests' second
# broker, mosquitto (installed here when we are root).

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell \
	$(name) -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $(name))))
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo unit test check torture torture-long system bench bench-quick lock broker faults containers clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

install: $(STAMP) ## the project and its tools, in .venv

# The stamp is newer than the locks: the environment is what they say. pip checks every hash.
$(STAMP): requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "error: needs Python 3.11, 3.12 or 3.13 with venv" >&2; \
		echo "hint: apt-get install python3 python3-venv, or make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making .venv with $(PYTHON)"; $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## HQ, a broker, three stores, a cut line, and the proof that all end equal
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench.demo

unit: $(STAMP) ## rules, unit and golden tests, in under 20 seconds
	$(BIN)/python -m pytest tests/rules tests/unit tests/golden

# Tests wait more than half of their time: four workers keep two cores at work.
test: $(STAMP) broker ## all tests; ONE=path_or_name runs those alone and without workers, SEED=n replays a seed
	$(SEEDED) $(BIN)/python -m pytest $(if $(ONE),-n 0 $(if $(wildcard $(firstword $(subst ::, ,$(ONE)))),'$(ONE)',-k '$(ONE)'),-n 4)

# Of the simulation one seed alone, of the torture where all random choices begin.
SEEDED := $(if $(SEED),SIMULATION_SEED=$(SEED) TORTURE_SEED=$(SEED))

torture: $(STAMP) broker faults ## every fault we can cause, in about thirteen minutes; as root, or what needs root is left out; SEED=n
	$(TORTURE_SEEDED) SIMULATION_SEEDS=2000 $(TORTURE)

torture-long: $(STAMP) broker faults ## the same for a night
	$(TORTURE_SEEDED) SIMULATION_SEEDS=20000 TORTURE_SCALE=20 $(TORTURE)

# Side by side: the faults wait much, the simulation computes.
TORTURE := $(BIN)/python -m pytest tests/faults tests/simulation
TORTURE_SEEDED := $(if $(SEED),TORTURE_SEED=$(SEED))

system: $(STAMP) containers ## installed from deploy/ into a booted container; as root
	$(BIN)/python -m pytest -n 0 tests/system

check: $(STAMP) ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP) ## the figures that the documents promise, each against a limit of the same run
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench

bench-quick: $(STAMP) ## the same with fewer rows, in under two minutes
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench --quick

lock: $(STAMP) ## renew requirements/*.txt from pyproject.toml
	$(BIN)/pip-compile $(LOCKING) --output-file requirements/runtime.txt pyproject.toml
	$(BIN)/pip-compile $(LOCKING) --extra demo --extra dev --output-file requirements/dev.txt pyproject.toml

LOCKING := --quiet --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

# mosquitto is a system package; the embedded broker runs the same suites where it cannot be had.
broker:
	@if PATH="$$PATH:/usr/sbin" command -v mosquitto >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing mosquitto"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			mosquitto >/dev/null || echo "mosquitto cannot be installed: its tests are left out"; \
	else echo "mosquitto is not installed: its tests are left out (apt-get install mosquitto)"; fi

# Tools of the torture and system suites; a test that lacks one is left out and says so.
# $(1): commands that must be there; $(2): the packages that bring them.
need = @for tool in $(1); do PATH="$$PATH:/usr/sbin:/sbin" command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -z "$$missing" ]; then :; elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then echo "installing $(2)"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2) >/dev/null \
	|| echo "cannot be installed; what needs them is left out:$$missing"; else echo "left out is what needs:$$missing"; fi

faults:
	$(call need,strace nft xfs_io mkfs.ext4 losetup ip,strace nftables xfsprogs e2fsprogs mount iproute2)

containers:
	$(call need,systemd-nspawn debootstrap,systemd-container debootstrap)

clean: ## what make made
	rm -rf .venv .demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis bench-results.json
