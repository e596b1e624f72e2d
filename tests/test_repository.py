"""The files around the code: CI, hooks, forms and the release, compared with what they are about."""

from __future__ import annotations

import ast
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def recipe(target: str) -> list[str]:
    """Return the commands of a target of the Makefile, with the folder of the tools as it is there."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None, target
    return [line.strip().removeprefix("@").replace("$(RUN)", ".venv/bin") for line in found[1].splitlines()]


def commands(job: dict[str, Any]) -> list[str]:
    """Return the commands of a job, one for each value of its matrix."""
    written = [step["run"] for step in job["steps"] if "run" in step]
    matrix: dict[str, list[str]] = job.get("strategy", {}).get("matrix", {})
    for name, values in matrix.items():
        field = f"${{{{ matrix.{name} }}}}"
        written = [line.replace(field, value) for line in written for value in (values if field in line else [""])]
    return written


def test_ci_runs_make_targets() -> None:
    """Each job but the upload runs only targets of the Makefile, and all that check are run."""
    run = {name: commands(job) for name, job in JOBS.items() if name != "publish"}

    targets = [line.split()[1] for lines in run.values() for line in lines if line.startswith("make ")]
    assert sum(map(len, run.values())) == len(targets)
    assert {"build", "lint", "test", "test-services", "test-browser", "matrix"} == set(targets)
    assert all(map(recipe, targets))


def test_ci_tests_every_pair_with_the_wheel_it_publishes() -> None:
    """The matrix is that of the noxfile; it and the upload use the wheel of one build."""
    (supported,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SUPPORTED"
    )

    pairs = [f"{airflow}-py{python}" for airflow, (pythons, _) in supported.items() for python in pythons]
    assert pairs == JOBS["matrix"]["strategy"]["matrix"]["pair"]
    assert all('WHEEL="$(echo dist/*.whl)"' in line for line in commands(JOBS["matrix"]))
    assert "build" == JOBS["matrix"]["needs"]
    assert set(JOBS) - {"publish"} == set(JOBS["publish"]["needs"])


def test_only_the_upload_may_more_than_read() -> None:
    """Only the job that publishes has the right to sign in at the package index, and only for a tag."""
    assert {"contents": "read"} == WORKFLOW["permissions"]
    assert ["publish"] == [name for name, job in JOBS.items() if "permissions" in job]
    assert {"contents": "read", "id-token": "write"} == JOBS["publish"]["permissions"]
    assert "startsWith(github.ref, 'refs/tags/v')" == JOBS["publish"]["if"]


def test_hooks_run_what_lint_runs() -> None:
    """The hooks before a commit are the commands of ``make lint``, with the documentation, in their order."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]

    assert "local" == repository["repo"]
    assert recipe("docs") + recipe("lint") == [hook["entry"] for hook in repository["hooks"]]
    assert {("system", False, True)} == {
        (hook["language"], hook["pass_filenames"], hook["always_run"]) for hook in repository["hooks"]
    }


#: What a form may ask with, and what each of these needs.
FIELDS = {"markdown": {"value"}, "textarea": {"label"}, "input": {"label"}, "checkboxes": {"label", "options"}}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_versions_and_no_data(path: Path) -> None:
    """An issue form has the shape that the platform reads, asks for versions, and wants a promise about data."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))

    fields = form["body"]
    asked = [field for field in fields if field["type"] != "markdown"]
    assert {"name", "description", "labels", "body"} == set(form)
    assert all(set(field["attributes"]) >= FIELDS[field["type"]] for field in fields)
    assert len({field["id"] for field in asked}) == len({field["attributes"]["label"] for field in asked}) == len(asked)
    required = " ".join(field["attributes"]["label"] for field in asked if field.get("validations", {}).get("required"))
    assert [] == [word for word in ("airflow-provider-ropo", "Airflow", "Python") if word not in required]
    (promise,) = (field["attributes"]["options"] for field in asked if field["type"] == "checkboxes")
    assert [True] == [option["required"] for option in promise if "no customers' data" in option["label"]]


def test_dependencies_are_looked_after() -> None:
    """Updates are proposed for Python's packages and for CI's actions."""
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))["updates"]

    assert {("pip", "/"), ("github-actions", "/")} == {
        (each["package-ecosystem"], each["directory"]) for each in updates
    }


def test_the_changelog_begins_with_this_version() -> None:
    """The first heading is the version of the package, with its date or ``unreleased``."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (first, *_) = re.findall(r"^## (.*)$", changelog, re.MULTILINE)

    assert re.fullmatch(rf"{re.escape(PYPROJECT['project']['version'])} - (unreleased|\d{{4}}-\d\d-\d\d)", first)


def test_every_shipped_example_is_ignored_where_it_is() -> None:
    """The pattern in the wheel's folder of examples is about each of them, as a glob and as a regular expression."""
    lines = (ROOT / "packaging/airflowignore").read_text(encoding="utf-8").splitlines()
    (pattern,) = (line for line in lines if not line.startswith("#"))
    examples = [path.name for path in (ROOT / "example_dags").glob("*.py")]

    assert len(examples) > 3
    assert all(fnmatch(name, pattern) and re.search(pattern, name) for name in examples)


def test_the_contributors_picture_of_the_layers_is_the_checked_one() -> None:
    """CONTRIBUTING.md draws the layers that ``make lint`` holds, in their order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = text.partition("```\n")[2].partition("```")[0]
    checked = [set(layer.split(" | ")) for layer in PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]]

    drawn = [set(re.findall(r"(\w+)(?:/|\.py)(?=\s|$)", line)) for line in picture.splitlines()]

    assert checked == [layer for layer in drawn if layer]


def test_links_between_the_files_lead_somewhere() -> None:
    """Every relative link in the contributors' pages is to a file that exists."""
    pages = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs/decisions").glob("*.md")]

    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!\w+:)([^)#]+)", page.read_text("utf-8"))]
    assert links
    assert [] == [link for page, link in links if not (page.parent / link).exists()]
    entries = re.findall(r"^(\d{4}-\S+)$", (ROOT / "docs/decisions/index.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(path.stem for path in (ROOT / "docs/decisions").glob("0*.md")) == entries
