"""The pages of the documentation, and the code blocks in them.

Imported as ``from documents import block``. Every block has to be asked for by a test, with :func:`block`, the name of
its page and the words that it begins with: ``tests/docs/test_pages.py`` checks that none is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def page(name: str) -> str:
    """Return a page's text; ``README`` is one, too."""
    path = ROOT / "README.md" if name == "README" else DOCS / f"{name}.md"
    return path.read_text(encoding="utf-8")


def pages() -> list[str]:
    """Return the names of all pages, such as ``recipes/dbt``."""
    return ["README", *sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md"))]


def blocks(name: str) -> list[str]:
    """Return a page's blocks of code, in order; directives are none."""
    return [text for kind, text in _FENCE.findall(page(name)) if not kind.startswith("{")]


def block(name: str, beginning: str) -> str:
    """Return the one block of a page with this beginning."""
    (found,) = (text for text in blocks(name) if text.startswith(beginning))
    return str(found)
