# One environment in .venv, made when first needed: with prepare's few dependencies for `simulate`
# and `prepare` (a psana node needs no more), with TensorFlow for `train`, with the test tools for
# `test` and `lint`. Where psana is installed, .venv sees it.

PYTHON ?= python3
CONFIG ?=
VENV := .venv
RUN := $(VENV)/bin/python
OLDEST := .venv-oldest

.DEFAULT_GOAL := help
.PHONY: help demo test simulate signal-noise prepare train lint test-oldest clean

help:  ## Show this list
	@echo "make TARGET [CONFIG=configs/...yaml] [PYTHON=python3]"
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'

demo: $(VENV)/train.done  ## Set up; simulated runs -> prepare -> HDF5 -> train -> result (3 minutes)
	$(RUN) -m prepare simulate configs/prepare/demo.yaml --if-missing
	test -f data/demo.h5 || $(RUN) -m prepare build configs/prepare/demo.yaml
	@if test -f runs/demo/model.keras; then set -x; $(RUN) -m train evaluate runs/demo; \
	  else set -x; $(RUN) -m train fit configs/train/demo.yaml --force; fi
	@test data/demo.report.html -nt data/demo.h5 || { set -x; $(RUN) -m prepare report data/demo.h5; }
	@test runs/demo/report.html -nt runs/demo/model.keras || { set -x; $(RUN) -m train report runs/demo; }
	@echo
	@echo "Look next, in a browser, at the reports of the data and of the training:"
	@echo "  $(CURDIR)/data/demo.report.html"
	@echo "  $(CURDIR)/runs/demo/report.html"

test: $(VENV)/dev.done  ## Set up; run all tests
	$(RUN) -m pytest

simulate: need-config $(VENV)/prepare.done  ## Write simulated runs for CONFIG=configs/prepare/...
	$(RUN) -m prepare simulate $(CONFIG)

signal-noise: need-config $(VENV)/prepare.done  ## Write the seed's signal-against-noise images for CONFIG
	$(RUN) -m prepare signal-noise $(CONFIG)

prepare: need-config $(VENV)/prepare.done  ## Select shots, if there is no manifest yet, and build data/NAME.h5
	$(RUN) -m prepare select $(CONFIG) --if-missing
	$(RUN) -m prepare build $(CONFIG)

train: need-config $(VENV)/train.done  ## Train on a data file: CONFIG=configs/train/...
	$(RUN) -m train fit $(CONFIG)

lint: $(VENV)/dev.done  ## Check style
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

test-oldest: $(OLDEST)/done  ## prepare's tests under Python 3.9 with the oldest dependencies of setup.cfg
	$(OLDEST)/bin/python -m pytest tests/common tests/prepare

clean:  ## Remove the environments; data and runs stay
	rm -rf $(VENV) $(OLDEST)

.PHONY: need-config
need-config:
	@test -n "$(CONFIG)" || { echo "error: say which: make $(MAKECMDGOALS) CONFIG=configs/.../NAME.yaml" >&2; exit 2; }
	@test -f "$(CONFIG)" || { echo "error: $(CONFIG): no such config; there are: $$(ls configs/*/*.yaml | tr '\n' ' ')" >&2; exit 2; }

# --- environments ----------------------------------------------------------------------------

PIP = $(RUN) -m pip install --quiet --disable-pip-version-check

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: $(PYTHON) is not Python 3.9 to 3.13; name one that is: make ... PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $$($(PYTHON) -c 'import importlib.util as u; print("--system-site-packages" if u.find_spec("psana") else "")') $(VENV)
	touch $@

$(VENV)/prepare.done: $(VENV)/made setup.cfg
	$(PIP) --editable .
	touch $@

$(VENV)/train.done: $(VENV)/made setup.cfg
	$(PIP) --editable '.[train]'
	touch $(VENV)/prepare.done $@

$(VENV)/dev.done: $(VENV)/made setup.cfg
	$(PIP) --editable '.[train,dev]'
	touch $(VENV)/prepare.done $(VENV)/train.done $@

# Python 3.9 from the path, or pyenv's.
$(OLDEST)/done: setup.cfg
	@rm -rf $(OLDEST)
	@for p in python3.9 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.9.*/bin/python3.9; do \
	  if $$p -c '' 2>/dev/null; then echo "$$p -m venv $(OLDEST)"; $$p -m venv $(OLDEST) && break; fi; done
	@test -x $(OLDEST)/bin/python || { echo "error: no Python 3.9 on the path or in pyenv" >&2; exit 2; }
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check pytest hypothesis \
	  $$(sed -n -e '/^install_requires/,/^$$/b pin' -e '/^report =/,/^[a-z]* =$$/b pin' -e d \
	    -e ':pin' -e 's/^ *\([A-Za-z0-9]*\)>=\([0-9.]*\).*/\1==\2.*/p' setup.cfg)
	touch $@
