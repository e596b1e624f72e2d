"""The README as a package index shows it: nothing in it leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

ROOT = Path(__file__).parent.parent
ADDRESS = "https://github.com/utility/airflow-provider-ropo"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)]+)\)")


def metadata_with(address: str | None = None) -> ProjectMetadata[PluginManager]:
    """Return the package's metadata as a build makes it, with an address instead of the setting."""
    metadata = ProjectMetadata(str(ROOT), PluginManager())
    if address is not None:
        metadata.hatch.metadata.hook_config["custom"]["address"] = address
    return metadata


@pytest.mark.parametrize("address", [None, "", ADDRESS, f"{ADDRESS}/"], ids=["setting", "none", "one", "with a slash"])
def test_the_built_readme_has_no_relative_links(address: str | None) -> None:
    """Each link and picture of the built README is absolute, with and without an address."""
    text = metadata_with(address).core.readme

    assert "# airflow-provider-ropo" in text
    assert [] == [target for target in LINK.findall(text) if not target.startswith("https://")]


def test_links_lead_to_the_repository() -> None:
    """With an address, pages and pictures lead to the repository, and code is left as it is."""
    text = metadata_with(ADDRESS).core.readme

    assert f"[First steps]({ADDRESS}/blob/main/docs/first-steps.md)" in text
    assert f"]({ADDRESS}/raw/main/docs/report.png)" in text
    assert code(text) == code((ROOT / "README.md").read_text(encoding="utf-8"))


def test_without_an_address_links_are_text() -> None:
    """Without an address, a link's text stays, and a picture goes."""
    metadata = metadata_with("")

    assert "| First steps |" in metadata.core.readme
    assert "report.png" not in metadata.core.readme
    assert {"Ropo One for developers": "https://dev.ropo.com/"} == metadata.core.urls


def test_the_project_has_links() -> None:
    """With an address, a package index gets the project's links."""
    assert f"{ADDRESS}/issues" == metadata_with(ADDRESS).core.urls["Issues"]


def test_the_readme_leads_to_files_that_exist() -> None:
    """Each relative link in the repository's README leads to a file."""
    targets = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))

    assert [] == [target for target in targets if "://" not in target and not (ROOT / target).exists()]


def code(text: str) -> list[str]:
    return re.findall(r"^```.*?^```$", text, re.DOTALL | re.MULTILINE)
