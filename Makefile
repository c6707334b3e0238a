# plait: two commands, `make demo` and `make test`. Every target makes its own environment first. Needs Python >= 3.11, git and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# glibc hands freed memory back and faults it in again at every training step; these two make CPU steps several times faster.
# A running Python cannot set them for itself, so whoever starts one does.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 100000000000
export PATH := $(abspath $(BIN)):$(PATH)
# Extra words for a command, for example: make demo ARGS="seed=2"
ARGS ?=
# Processes that share the tests
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test lab lint format clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

install: $(STAMP) ## the environment in .venv, once

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"plait needs Python 3.11 or newer, $(PYTHON) is {v[0]}.{v[1]}. Next: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	@touch $@

demo: $(STAMP) ## train a tokenizer and Liquid, evaluate, write the report (12 minutes on 2 idle cores; Ctrl-C and start again to go on)
	$(BIN)/plait-train curriculum=demo $(ARGS)

test: $(STAMP) ## every test, CPU only, without network, in two processes (make test WORKERS=0: in this one)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) $(ARGS)

lab: $(STAMP) ## JupyterLab on copies of the notebooks in lab/, which git ignores
	@$(BIN)/python notebooks/lab.py
	$(BIN)/jupyter lab --notebook-dir lab $(ARGS)

lint: $(STAMP) ## ruff over code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## ruff, with changes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove build products (not .venv, not outputs)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
