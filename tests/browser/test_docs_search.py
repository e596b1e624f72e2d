"""The documentation site in a real browser: its search finds the page that answers, and it is readable on a phone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
#: What people ask → the pages that answer.
QUESTIONS = {
    "how do I go live": {"go-live"},
    "privileges of the ledger role": {"ledger"},
    "what to do when unconfirmed": {"runbook"},
    "where is personal data stored": {"security"},
    "kubernetes": {"recipes/shards"},
    "how do upgrades work": {"versions"},
    "secrets backends": {"connection"},
    "@ in the API code": {"connection"},
    "twenty lines around HttpOperator": {"comparison"},
    "where do I report a bug": {"runbook"},
    "report after dbt": {"recipes/dbt"},
    "approval by a person": {"recipes/approval"},
    "alert when a task is red": {"recipes/alerts"},
    "report the past again": {"recipes/backfills"},
    "rows that land late": {"recipes/late-rows"},
    "several customers": {"recipes/customers"},
    "BigQuery TIMESTAMP": {"warehouses"},
    "metrics and traces": {"observability"},
    "SFTP instead of REST": {"files"},
    "is a floating-point number, which may have lost digits": {"runbook"},
    "does it send twice when a task is retried": {"ledger"},
    "task is green but nothing was sent": {"operator"},
    "how to test without an account": {"first-steps"},
    "my columns have other names": {"rows"},
    "time zone of the events": {"rows"},
    "limit the number of posts per second": {"operator"},
    "delete old ledger rows": {"ledger", "operating"},
    "GDPR erasure request": {"security"},
    "how do I resend one event": {"operator"},
    "proxy with its own certificate": {"connection"},
    "which Python versions are supported": {"versions"},
    "wrong API code": {"runbook"},
    "change the API code": {"connection"},
    "what is a usage place": {"index"},
    "export a CSV file": {"files"},
    "ledger table permissions": {"ledger"},
    "unit test my DAG": {"operator"},
    "deprecation policy": {"versions"},
    "backup of the ledger": {"ledger"},
    "daylight saving time": {"rows"},
}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *_arguments: Any) -> None: ...


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build the site, serve it on this machine, and return its address."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--quiet",
        "--fail-on-warning",
        "--nitpicky",
        str(ROOT / "docs"),
        str(folder),
    ]
    subprocess.run(command, check=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def reader(browser: Browser) -> Iterator[Page]:
    """Return a page of a browser of its own."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_search_finds_the_page_that_answers(reader: Page, site: str, question: str) -> None:
    """A page that answers the question is the first or the second that the site's own search shows."""
    reader.goto(f"{site}/search.html?q={quote(question)}")
    reader.get_by_text("Search finished").wait_for()

    links = reader.locator("#search-results ul.search > li > a").all()
    addresses = (str(link.get_attribute("href")) for link in links)
    found = dict.fromkeys(address.partition(".html")[0] for address in addresses)
    assert QUESTIONS[question] & {*list(found)[:2]}, list(found)[:5]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_site_is_readable(
    browser: Browser, site: str, take: Callable[[Page, str], None], scheme: str, width: int
) -> None:
    """On a phone and a desktop, light and dark, no page is wider than the screen: wide tables scroll by themselves."""
    viewport = cast("Any", {"width": width, "height": 860})
    context = browser.new_context(viewport=viewport, color_scheme=cast("Any", scheme))
    page = context.new_page()

    wider = {}
    for name in ("index", "first-steps", "operator", "runbook", "warehouses", "api", "recipes/shards"):
        page.goto(f"{site}/{name}.html")
        wider[name] = page.evaluate(OVERFLOW)
        take(page, f"docs-{name.replace('/', '-')}-{width}-{scheme}")

    context.close()
    assert dict.fromkeys(wider, 0) == wider
