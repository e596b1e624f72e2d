"""Plugin with the pages "Ropo One": a task instance's report, and the latest runs (Airflow 3.1 and later).

The pages are static. They read their data from Airflow's own REST API, in the viewer's browser and with the viewer's
session, so they show only what the viewer may see.
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
#: The path of the pages. Airflow's pages refer to it as a relative path, because Airflow itself may be served under a
#: path (``[api] base_url``).
PREFIX = "ropo-one"

HEADERS = {
    # Nothing from other servers, nothing inline, and no frame on other sites.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    # Browsers check for a new version each time, but download it only after an upgrade.
    "cache-control": "no-cache",
}


class Pages:
    """ASGI application that serves the files of the folder ``static``.

    Airflow loads plugins in every process, workers too, so the web framework is imported with the first request.
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
    """Airflow plugin that adds the pages; before Airflow 3.1 it adds nothing."""

    name = "ropo_one"
    fastapi_apps: list[Any] = [{"app": Pages(), "url_prefix": f"/{PREFIX}", "name": "Ropo One"}] if HAS_TABS else []
    external_views: list[Any] = [REPORT_VIEW, RUNS_VIEW] if HAS_TABS else []
