# Every target makes what it needs itself: a Python of 3.11 or later and make are enough.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: help demo test lint format airflow benchmark build clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/ready ## Run the example DAG through a real Airflow and a local Ropo One (two minutes at most)
	@$(RUN)/python demo/demo.py

airflow: $(VENV)/ready ## Open a whole Airflow in the browser, with everything in place
	@$(RUN)/python demo/standalone.py

test: $(VENV)/ready ## Run every test
	@$(RUN)/python -m pytest

lint: $(VENV)/ready ## Check style, types and floors
	@$(RUN)/ruff format --check .
	@$(RUN)/ruff check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports

format: $(VENV)/ready ## Put the code into shape
	@$(RUN)/ruff format .
	@$(RUN)/ruff check --fix .

benchmark: $(VENV)/ready ## Measure reading, checking and spooling
	@$(RUN)/python benchmarks/intake.py

build: $(VENV)/ready ## Build the wheel and the source distribution
	@$(RUN)/uv build --python $(RUN)/python

clean: ## Remove everything that was made
	rm -rf $(VENV) .airflow .demo build dist

# uv, because it installs Airflow in seconds where pip takes minutes.
$(VENV)/ready: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) …"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(RUN)/uv pip install --quiet --python $(RUN)/python --constraint constraints.txt --group dev --editable '.[sandbox]'
	@touch $@
