"""Settings of the documentation site: ``make docs`` builds it with Sphinx, strictly.

The theme is Furo: light and dark, readable on a phone, a search without a server, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import logging
import os
import tempfile
import tomllib
from pathlib import Path

# The reference is made from the docstrings, and Airflow keeps its settings where this says when it is imported.
os.environ.setdefault("AIRFLOW_HOME", str(Path(tempfile.gettempdir()) / "airflow-provider-ropo-docs"))
logging.getLogger("airflow").setLevel(logging.WARNING)

_PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))

project = "airflow-provider-ropo"
author = "the airflow-provider-ropo authors"
copyright = author  # noqa: A001 - Sphinx's name
release = version = _PYPROJECT["project"]["version"]
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
# Links to a heading, as in `ledger.md#columns`.
myst_heading_anchors = 3
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
autodoc_typehints = "none"
# What is not on this site: Python's, Airflow's and Jinja's own classes.
nitpick_ignore_regex = [(r"py:.*", r"(airflow|collections|datetime|enum|jinja2|typing)\..*|Exception|RuntimeError|str")]

html_theme = "furo"
html_title = f"Ropo One provider for Apache Airflow {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_search_scorer = str(Path(__file__).with_name("search_scorer.js"))
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
