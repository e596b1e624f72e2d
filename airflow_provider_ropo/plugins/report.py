"""The pages "Ropo One" in Airflow's UI: a task instance's report, and the latest runs (Airflow 3.1 and later).

They are static. What they show they read from Airflow's own REST API, in the viewer's browser and with the viewer's
session, so they show what the viewer may see and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_ropo.links.ropo import HAS_TABS, REPORT_ROUTE

if TYPE_CHECKING:
    from starlette.staticfiles import StaticFiles

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

STATIC = Path(__file__).parent / "static"
#: The part of the address the pages are under; relative in what Airflow's pages refer to, which may be under a path
#: of their own (``[api] base_url``).
PREFIX = "ropo-one"

HEADERS = {
    # Nothing from elsewhere, nothing inline, and in nobody else's frame.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    # Asked for again each time, and sent again only after an upgrade.
    "cache-control": "no-cache",
}


class Pages:
    """Serves the files of one folder; an ASGI application.

    Airflow loads plugins wherever it runs, in workers too: what serves the files is imported with the first request.
    """

    @cached_property
    def _files(self) -> StaticFiles:
        from starlette.staticfiles import StaticFiles  # noqa: PLC0415 - only where pages are served

        return StaticFiles(directory=STATIC)

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        await self._files(scope, receive, send_with_headers)


ICONS = {"icon": f"{PREFIX}/icon.svg", "icon_dark_mode": f"{PREFIX}/icon-dark.svg"}
REPORT_VIEW = {
    "name": "Ropo One",
    "destination": "task_instance",
    "url_route": REPORT_ROUTE,
    "href": f"{PREFIX}/report.html?dag_id={{DAG_ID}}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}&run_id={{RUN_ID}}",
    **ICONS,
}
RUNS_VIEW = {
    "name": "Ropo One",
    "destination": "nav",
    "url_route": "ropo-one",
    "href": f"{PREFIX}/runs.html",
    **ICONS,
}


class RopoPlugin(AirflowPlugin):
    """Adds the pages, where Airflow's UI has a place for them; before 3.1 it has none, and nothing is added."""

    name = "ropo_one"
    fastapi_apps: list[Any] = [{"app": Pages(), "url_prefix": f"/{PREFIX}", "name": "Ropo One"}] if HAS_TABS else []
    external_views: list[Any] = [REPORT_VIEW, RUNS_VIEW] if HAS_TABS else []
