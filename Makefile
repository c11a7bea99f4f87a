# Needs python3 >= 3.11, pip and make; everything else goes into .venv.
# make setup EXTRAS=serve,ray adds extras. make demo ARGS="--seed 1" passes flags on.

PYTHON ?= python3
EXTRAS ?=
ARGS ?=
ROWS ?=
PIP_ARGS ?=
JOBS ?= 2
DIR ?= tests/golden/cases

comma := ,
BIN := .venv/bin
STAMP := .venv/.setup$(if $(EXTRAS),-$(subst $(comma),-,$(EXTRAS)))
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile

.PHONY: help setup demo test lint bench speed golden parity study
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || grep '##' Makefile

setup: $(STAMP) ## make .venv with capfilt in it, editable

# The stamp comes last: a setup that was cut short is done again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "capfilt needs Python 3.11 or newer; choose one: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[dev$(addprefix $(comma),$(EXTRAS))]'
	@touch .venv/.setup $@

demo: $(STAMP) ## the whole loop on drawn scenes; ends with a table and runs/demo/report.html
	$(BIN)/capfilt bootstrap --out runs/demo $(ARGS)

test: $(STAMP) ## unit tests, then the slow ones
	$(PYTEST)
	$(PYTEST) -m slow

lint: $(STAMP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## every row against its peer in at most 30 minutes; ROWS="a b" for some; writes bench/results.json
	$(BIN)/capfilt bench $(if $(ROWS),--rows "$(ROWS)") $(ARGS)

speed: $(STAMP) ## whether a few quick rows have kept the ratios of bench/baseline.json; about 2 minutes
	$(BIN)/pytest -m speed tests/peer/test_speed.py

golden: $(STAMP) ## our numbers against reference cases; DIR=folder
	$(BIN)/capfilt golden $(DIR)

parity: $(STAMP) ## our numbers against transformers at base size, and the time to load; about 3 minutes
	$(BIN)/python -m capfilt.recipes.parity

study: $(STAMP) ## the comparison over several seeds
	$(BIN)/capfilt study $(ARGS)
