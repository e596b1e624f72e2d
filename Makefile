# Every target makes what it needs itself: a Python of 3.11 or later and make are enough.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
SNOWFLAKE := $(VENV)/snowflake

.PHONY: help demo test test-services test-browser matrix lint format airflow benchmark build clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/ready ## Run the example DAG through a real Airflow and a local Ropo One (two minutes at most)
	@$(RUN)/python demo/demo.py

airflow: $(VENV)/ready ## Open a whole Airflow in the browser, with everything in place
	@$(RUN)/python demo/standalone.py

test: $(VENV)/ready ## Run the suite
	@$(RUN)/python -m pytest

test-services: $(VENV)/ready $(SNOWFLAKE)/ready ## Run the tests that want MariaDB, Snowflake's driver, a whole Airflow or Celery workers
	@$(RUN)/python -m pytest tests/services
	@PYTHONPATH=. $(SNOWFLAKE)/bin/python -m pytest tests/services/snowflake --confcutdir tests/services/snowflake

test-browser: $(VENV)/ready ## Click through a whole Airflow in a real browser (five minutes)
	@$(RUN)/python -m pytest tests/browser

matrix: $(VENV)/ready ## Test the wheel with every supported Airflow and Python (most of an hour); PAIR=3.0-py3.11 for one
	@PATH="$(abspath $(RUN)):$$PATH" nox $(if $(PAIR),--session "airflow($(PAIR))")

lint: $(VENV)/ready ## Check style, types and floors
	@$(RUN)/ruff format --check .
	@$(RUN)/ruff check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports

format: $(VENV)/ready ## Put the code into shape
	@$(RUN)/ruff format .
	@$(RUN)/ruff check --fix .

benchmark: $(VENV)/ready ## Measure reading and posting: a table of ratios (a quarter of an hour)
	@$(RUN)/python benchmarks/imports.py
	@$(RUN)/python benchmarks/intake.py
	@$(RUN)/python benchmarks/posting.py

build: $(VENV)/ready ## Build the wheel and the source distribution
	@$(RUN)/uv build --python $(RUN)/python

clean: ## Remove everything that was made
	rm -rf $(VENV) .airflow .demo .nox build dist

# uv, because it installs Airflow in seconds where pip takes minutes.
$(VENV)/ready: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) …"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(RUN)/uv pip install --quiet --python $(RUN)/python --constraint constraints.txt --group dev --editable '.[sandbox]'
	@touch $@

# An environment of its own: Snowflake's driver wants older packages than Airflow does.
$(SNOWFLAKE)/ready: $(VENV)/ready tests/services/snowflake/requirements.txt
	@$(RUN)/python -m venv --clear $(SNOWFLAKE)
	@$(RUN)/uv pip install --quiet --python $(SNOWFLAKE)/bin/python --requirement tests/services/snowflake/requirements.txt
	@touch $@
