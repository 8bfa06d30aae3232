# make run and make test do all their set-up themselves, in .venv; they need Python 3.10 or newer, make and git.
# Another Python: make run PYTHON=python3.12    Another configuration: make run CONFIG=/etc/sipdmq/node.ini

PYTHON ?= python3
VENV = .venv
CONFIG = etc/node.ini
BIN = $(VENV)/bin

.DEFAULT_GOAL = help
.PHONY: help run cluster test bench soak certs lint compiled clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

run: $(VENV)/installed ## a node in the foreground, with etc/node.ini; Ctrl-C ends it
	$(BIN)/twistd -n --pidfile= sipdmq -c '$(CONFIG)'

cluster: $(VENV)/installed ## three nodes that are one cluster, on 127.0.0.1 to 127.0.0.3; Ctrl-C ends all
	$(BIN)/python etc/cluster/run.py $(BIN)/twistd

test: $(VENV)/installed-dev ## all tests; those against other SIP programs are skipped where these are missing
	$(BIN)/python -m twisted.trial tests

bench: $(VENV)/installed-dev ## the benchmarks of bench/RESULTS.md
	$(BIN)/python bench/run.py

soak: $(VENV)/installed-dev ## long runs: bad input, watching memory; clusters, simulated and real (as root), in bad networks
	$(BIN)/python -m tests.soak
	$(BIN)/python -m tests.cluster.figures
	$(BIN)/python -m tests.cluster 0-9999
	$(BIN)/python -m tests.cluster 0-1999 --kamailio
	$(BIN)/python -m tests.interop.soak

certs: $(VENV)/installed ## an authority and certificates for trying TLS, in certs/
	$(BIN)/python etc/make_certs.py certs

lint: $(VENV)/installed-dev ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/mypy

# Built of an sdist that is unpacked elsewhere: a compiled module in the checkout would be run instead of its source.
compiled: $(VENV)/installed-compile ## a wheel whose busiest modules are compiled, into dist/; needs a C compiler
	SIPDMQ_COMPILE=1 $(BIN)/python -m build --no-isolation --outdir dist
	@echo "It is for $$($(BIN)/python --version) on $$(uname -sm). Install it in the environment where the node runs, with"
	@echo "  pip install --force-reinstall --no-deps $$(ls -t dist/*.whl | head -n 1)"

clean: ## remove all that make has made, .venv too
	rm -rf $(VENV) certs build dist *.egg-info _trial_temp* .hypothesis .mypy_cache .ruff_cache
	rm -f twisted/plugins/dropin.cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Editable, so that there is nothing to repeat after a change of the code: only after one of what is installed.
$(VENV)/installed: what = .
$(VENV)/installed-dev: what = .[dev]
$(VENV)/installed-compile: what = .[compile]
$(VENV)/installed $(VENV)/installed-dev $(VENV)/installed-compile: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo >&2 \
	  "sipdmq needs Python 3.10 or newer, and '$(PYTHON)' is not. If you have one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo >&2 \
	  "'$(PYTHON)' cannot make virtual environments: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV): needed once, and after a change of setup.cfg"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '$(what)'
	@touch $@
