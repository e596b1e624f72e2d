"""Make the README's links absolute in the package's metadata, where a package index has nothing to resolve them by.

The project's address is one setting: ``[tool.hatch.metadata.hooks.custom] address`` in pyproject.toml. While it is
empty, the links become plain text, and the pictures are left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


class CustomMetadataHook(MetadataHookInterface):
    """Sets the package's ``readme`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the two to the metadata."""
        address = self.config["address"].rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, address)}
        metadata["urls"] = urls(address)


def absolute(text: str, address: str) -> str:
    """Return Markdown in which each relative link leads to the repository; code is left as it is.

    :param address: the repository's address, on GitHub; empty: not known yet.
    """

    def replaced(link: re.Match[str]) -> str:
        is_picture, label, target = link.groups()
        if not address:
            return "" if is_picture else label
        return f"{is_picture}[{label}]({address}/{'raw' if is_picture else 'blob'}/main/{target})"

    parts = _CODE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(replaced, part) for part in parts)


def urls(address: str) -> dict[str, str]:
    """Return the project's links, as a package index shows them beside the text."""
    ropo = {"Ropo One for developers": "https://dev.ropo.com/"}
    if not address:
        return ropo
    return {
        "Repository": address,
        "Documentation": f"{address}/blob/main/docs/index.md",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
        "Issues": f"{address}/issues",
        **ropo,
    }
