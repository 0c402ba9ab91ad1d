# One environment in .venv, made when first needed: with prepare's few dependencies for `simulate`
# and `prepare` (a psana node needs no more), with TensorFlow for `train`, with the test tools for
# `test` and `lint`. Where psana is installed, .venv sees it.

PYTHON ?= python3
CONFIG ?=
JOBS ?=
FORCE ?=
RESUME ?=
KILLS ?=
export CONFIG JOBS  # recipes read them from the environment, whatever is in a name: spaces, quotes
VENV := .venv
RUN := $(VENV)/bin/python
OLDEST := .venv-oldest
PSANA := .venv-psana

.DEFAULT_GOAL := help
.PHONY: help demo demo-data test test-wheel test-faults simulate signal-noise prepare train check-psana lint bench test-oldest test-psana clean

help:  ## Show this list
	@echo "make TARGET [CONFIG=configs/...yaml] [FORCE=1] [RESUME=1] [JOBS=4] [PYTHON=python3]"
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'

demo: demo-data  ## Set up; simulated runs -> prepare -> HDF5 -> train -> result (5 minutes)
	test -f runs/demo/model.keras || $(RUN) -m train fit configs/train/demo.yaml --force
	test -f runs/recommended/model.keras || $(RUN) -m train fit configs/train/recommended.yaml --force
	@test data/demo.report.html -nt data/demo.h5 || { set -x; $(RUN) -m prepare report data/demo.h5; }
	@test runs/recommended/report.html -nt runs/recommended/model.keras || { set -x; $(RUN) -m train report runs/recommended; }
	@test runs/comparison.html -nt runs/recommended/model.keras || { set -x; $(RUN) -m train report runs/recommended runs/demo --out runs/comparison.html --force; }
	@echo
	$(RUN) -m train compare runs/recommended runs/demo --data data/unseen.h5
	@echo
	@echo "Held-out shots are of other blocks of time of the runs that the networks were trained on. With lasing"
	@echo "switched, a network that judges lasing is as right as before, one that judges the run is wrong. The last"
	@echo "runs are of machines that differ from the demo's in everything at once: much of it is flagged there."
	@echo "runs/demo is the 2016 study's network. All runs are simulated; real ones are harder."
	@echo
	@echo "Look next, in a browser, at the reports of the data and of the recommended network, which is also"
	@echo "compared with the 2016 study's; and at its card:"
	@echo "  $(CURDIR)/data/demo.report.html"
	@echo "  $(CURDIR)/runs/recommended/report.html"
	@echo "  $(CURDIR)/runs/comparison.html"
	@echo "  $(CURDIR)/runs/recommended/card.md"

demo-data: $(VENV)/train.done
	$(RUN) -m prepare simulate configs/prepare/demo.yaml --if-missing
	test -f data/demo.h5 || $(RUN) -m prepare build configs/prepare/demo.yaml
	@test data/demo.counterfactual.h5 -nt data/demo.h5 || { set -x; $(RUN) -m prepare counterfactual configs/prepare/demo.yaml --force; }
	test -f data/unseen.h5 || $(RUN) -m prepare build configs/prepare/unseen.yaml

test: $(VENV)/dev.done  ## Set up; run all tests, some on each core
	$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

simulate: need-config $(VENV)/prepare.done  ## Write simulated runs for CONFIG=configs/prepare/...
	$(RUN) -m prepare simulate "$$CONFIG" $(if $(FORCE),--force,--if-missing)

signal-noise: need-config $(VENV)/prepare.done  ## Write the 2016 study's signal-against-noise images for CONFIG
	$(RUN) -m prepare signal-noise "$$CONFIG" $(if $(FORCE),--force)

prepare: need-config $(VENV)/prepare.done  ## Select the shots that the manifest lacks and build data/NAME.h5 [JOBS=4] [FORCE=1]
	$(RUN) -m prepare select "$$CONFIG" --if-missing
	$(RUN) -m prepare build "$$CONFIG" $(if $(JOBS),--jobs "$$JOBS") $(if $(FORCE),--force)

train: need-config $(VENV)/train.done  ## Train on a data file: CONFIG=configs/train/... [RESUME=1] [FORCE=1]
	$(RUN) -m train fit "$$CONFIG" $(if $(RESUME),--resume) $(if $(FORCE),--force)

check-psana: need-config $(VENV)/prepare.done  ## On a psana node: do psana and the native reader agree on CONFIG's runs?
	$(RUN) -m prepare check-psana "$$CONFIG"

lint: $(VENV)/dev.done  ## Check style
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: $(VENV)/bench.done  ## Set up; the trainer's speed against Keras, PyTorch and other loaders (15 minutes)
	$(RUN) -m tests.benchmarks.training

test-oldest: $(OLDEST)/done  ## prepare's tests under Python 3.9 with the oldest dependencies of setup.cfg
	$(OLDEST)/bin/python -m pytest tests/common tests/prepare

test-psana: $(PSANA)/done  ## Set up psana 2 from PyPI; tests of reading through it, on one rank and on several
	PATH="$(CURDIR)/$(PSANA)/bin:$$PATH" $(PSANA)/bin/python -m pytest -W ignore::DeprecationWarning tests/psana

test-wheel:  ## The wheel in an empty environment: the whole job by the installed commands
	.ci/wheel

test-faults: $(VENV)/dev.done  ## Kill, starve and damage the commands, fuzz the readers, count what is lost (6 minutes)
	$(RUN) -m tests.faults $(if $(KILLS),--kills $(KILLS))
	$(RUN) -m tests.faults.fuzz
	$(RUN) -m tests.faults.fuzz_hdf5

clean:  ## Remove the environments; data and runs stay
	rm -rf $(VENV) $(OLDEST) $(PSANA)

.PHONY: need-config
need-config:
	@test -n "$$CONFIG" || { echo "error: say which: make $(MAKECMDGOALS) CONFIG=configs/.../NAME.yaml" >&2; exit 2; }
	@case "$$CONFIG" in "~"*) ;; *) test -f "$$CONFIG" ;; esac || \
	  { printf 'error: %s: no such config; ' "$$CONFIG" >&2; echo "there are: $$(ls configs/*/*.yaml | tr '\n' ' ')" >&2; exit 2; }

# --- environments ----------------------------------------------------------------------------

, := ,
NO_PACKAGES = { echo "error: the packages could not be installed, see above; without a network, give pip a folder" \
  "of wheels, of setuptools and wheel, too: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER make ...; the same command goes on from here" >&2; exit 2; }

# $(call install,WHAT,ARGUMENTS): pip says what it downloads, which can take minutes.
install = @echo "installing $(1) into $(VENV):"; \
  $(RUN) -m pip install --disable-pip-version-check --editable $(2) || $(NO_PACKAGES)

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: $(PYTHON) is not Python 3.9 to 3.13; name one that is: make ... PYTHON=python3.12" >&2; exit 2; }
	@echo "making $(VENV)"; $(PYTHON) -m venv $$($(PYTHON) -c 'import importlib.util as u; print("--system-site-packages" if u.find_spec("psana") else "")') $(VENV) || \
	  { echo "error: $(PYTHON) cannot make $(VENV); on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	touch $@

$(VENV)/prepare.done: $(VENV)/made setup.cfg
	$(call install,the packages of prepare,.)
	touch $@

$(VENV)/train.done: $(VENV)/made setup.cfg
	$(call install,TensorFlow and the packages of train (0.6 GB),'.[train]')
	touch $(VENV)/prepare.done $@

$(VENV)/dev.done: $(VENV)/made setup.cfg
	$(call install,TensorFlow and the test tools (0.6 GB),'.[train$(,)dev]')
	touch $(VENV)/prepare.done $(VENV)/train.done $@

$(VENV)/bench.done: $(VENV)/dev.done
	$(call install,PyTorch and other peers of the benchmark,'.[bench]')
	touch $@

# Python 3.9 from the path, or pyenv's.
$(OLDEST)/done: setup.cfg
	@rm -rf $(OLDEST)
	@for p in python3.9 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.9.*/bin/python3.9; do \
	  if $$p -c '' 2>/dev/null; then echo "$$p -m venv $(OLDEST)"; $$p -m venv $(OLDEST) && break; fi; done
	@test -x $(OLDEST)/bin/python || { echo "error: no Python 3.9 on the path or in pyenv" >&2; exit 2; }
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check pytest hypothesis \
	  $$(sed -n -e '/^install_requires/,/^$$/b pin' -e '/^report =/,/^[a-z]* =$$/b pin' -e d \
	    -e ':pin' -e 's/^ *\([A-Za-z0-9]*\)>=\([0-9.]*\).*/\1==\2.*/p' setup.cfg)
	touch $@

# psana's wheels are for Linux and Python 3.11 to 3.13. One of its dependencies is built here and
# needs the Kerberos headers (Debian's libkrb5-dev); mpi4py takes MPI from PyPI's mpich.
$(PSANA)/done: setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: psana needs Python 3.11 to 3.13; name one: make test-psana PYTHON=python3.12" >&2; exit 2; }
	@command -v krb5-config >/dev/null || { set -x; apt-get update -qq && apt-get install -y -qq libkrb5-dev; } || \
	  { echo "error: psana needs the Kerberos headers; as root: apt-get install libkrb5-dev" >&2; exit 2; }
	@rm -rf $(PSANA)
	$(PYTHON) -m venv $(PSANA)
	$(PSANA)/bin/python -m pip install --disable-pip-version-check mpich
	PATH="$(CURDIR)/$(PSANA)/bin:$$PATH" $(PSANA)/bin/python -m pip install --disable-pip-version-check \
	  pytest hypothesis psana==4.3.4 --editable '.[psana]'
	touch $@
