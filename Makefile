# Every target installs what it needs: only make and Python 3.11 or later are required.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
SNOWFLAKE := $(VENV)/snowflake
# Modules are compiled once, not by each of the many processes that the tests start: container images often tell Python
# to keep nothing compiled, and uv compiles only where it is told to.
export PYTHONDONTWRITEBYTECODE :=
export UV_COMPILE_BYTECODE := 1
# Percent of lines and branches, as it is today: less fails. A merge of one file checks it, because slipcover's table after
# the tests lacks what their processes have measured if it is to check that itself.
COVERAGE := 93

.PHONY: help demo test simulate test-services test-browser matrix lint docs format airflow benchmark build clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/ready ## Run the example DAG in a real Airflow with a local Ropo One (a minute)
	@$(RUN)/python demo/demo.py

airflow: $(VENV)/ready ## Run a whole Airflow for the browser, with the example DAGs, a warehouse and a local Ropo One
	@$(RUN)/python demo/standalone.py

test: $(VENV)/ready ## Run the suite, on four processes, with the coverage of lines and branches
	@mkdir -p build
	@$(RUN)/python -m slipcover --dont-wrap-pytest --json --out build/coverage.json \
		-m pytest --numprocesses 4 --dist worksteal
	@$(RUN)/python -m slipcover --merge build/coverage.json --out build/coverage.json --fail-under $(COVERAGE)

simulate: $(VENV)/ready ## Explore histories of the ledger's protocol until told to stop (Ctrl-C)
	@$(RUN)/python tests/simulation

test-services: $(VENV)/ready $(SNOWFLAKE)/ready ## Run the tests that need MariaDB, Snowflake's driver, a whole Airflow or Celery workers
	@$(RUN)/python -m pytest tests/services
	@PYTHONPATH=. $(SNOWFLAKE)/bin/python -m pytest tests/services/snowflake --confcutdir tests/services/snowflake

test-browser: $(VENV)/ready ## Test a whole Airflow in a real browser (five minutes)
	@$(RUN)/python -m pytest tests/browser

matrix: $(VENV)/ready ## Test the wheel with every supported Airflow and Python (up to an hour); PAIR=3.0-py3.11 for one pair
	@PATH="$(abspath $(RUN)):$$PATH" nox $(if $(PAIR),--session "airflow($(PAIR))") $(if $(WHEEL),-- "$(WHEEL)")

lint: $(VENV)/ready docs ## Check style, types, the layers of imports and the documentation
	@$(RUN)/ruff format --check .
	@$(RUN)/ruff check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports

docs: $(VENV)/ready ## Build the documentation site in build/site; a link or reference that is broken fails
	@$(RUN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --fresh-env docs build/site

format: $(VENV)/ready ## Format the code
	@$(RUN)/ruff format .
	@$(RUN)/ruff check --fix .

benchmark: $(VENV)/ready ## Measure reading and posting (a quarter of an hour)
	@$(RUN)/python benchmarks/imports.py
	@$(RUN)/python benchmarks/intake.py
	@$(RUN)/python benchmarks/posting.py
	@$(RUN)/python benchmarks/far_ledger.py
	@$(RUN)/python benchmarks/files.py

build: $(VENV)/ready ## Build the wheel and the source distribution, and check what a package index would refuse
	@rm -rf dist
	@$(RUN)/uv build --python $(RUN)/python
	@$(RUN)/twine check --strict dist/*

clean: ## Remove all generated files
	rm -rf $(VENV) .airflow .demo .nox build dist

# uv, because it installs Airflow in seconds where pip takes minutes.
$(VENV)/ready: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is required; for example: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) …"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(RUN)/uv pip install --quiet --python $(RUN)/python --constraint constraints.txt --group dev --editable '.[sandbox]'
	@touch $@

# A separate environment, because Snowflake's driver needs older packages than Airflow.
$(SNOWFLAKE)/ready: $(VENV)/ready tests/services/snowflake/requirements.txt
	@$(RUN)/python -m venv --clear $(SNOWFLAKE)
	@$(RUN)/uv pip install --quiet --python $(SNOWFLAKE)/bin/python --requirement tests/services/snowflake/requirements.txt
	@touch $@
