"""Operator links: buttons on a task instance's page, to the Ropo One server and to the report.

On Airflow 3 the worker computes a link when the task ends, and stores it as an XCom. On Airflow 2 the webserver
computes it whenever the page is shown. A link is therefore made only from XComs and the task instance's key.
"""

from __future__ import annotations

import logging
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import AirflowPlugin, BaseOperator, BaseOperatorLink, TaskInstanceKey, XCom

from airflow_provider_ropo.reporting.report import REPORT_KEY

log = logging.getLogger(__name__)

#: The tab's part of the address of a task instance's page.
REPORT_ROUTE = "ropo-report"


class RopoOneLink(BaseOperatorLink):
    """Link to the front page of the server that the events were sent to."""

    name = "Ropo One"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the server's address from the task's report; empty if there is none."""
        try:
            report = XCom.get_value(ti_key=ti_key, key=REPORT_KEY)
        except Exception as error:  # noqa: BLE001 - Airflow's API server may answer with anything; a link is no reason to fail
            log.debug("no link to Ropo One: %s", type(error).__name__)
            return ""
        server = report.get("server") if isinstance(report, dict) else None
        if not isinstance(server, str) or urlsplit(server).scheme not in {"https", "http"}:
            return ""
        return server.rstrip("/") + "/"


class ReportLink(BaseOperatorLink):
    """Link to the report, a tab on the task instance's page."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the tab's address, relative to the UI's base URL, so that it works under any path."""
        page = task_instance_page(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)
        return f"{page}/plugin/{REPORT_ROUTE}"


def task_instance_page(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the address of a task instance's page on Airflow 3, relative to the UI's base URL."""
    # Escaped as Airflow's own pages do it: with another spelling, they would not mark a tab as the current one.
    dag, run, task = (quote(part, safe=":+~") for part in (dag_id, run_id, task_id))
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"dags/{dag}/runs/{run}/tasks/{task}{mapped}"


#: True if Airflow's UI can show the report: 3.1 and later.
HAS_TABS = hasattr(AirflowPlugin, "external_views")
#: The link to the report.
REPORT_LINKS: tuple[BaseOperatorLink, ...] = (ReportLink(),) if HAS_TABS else ()
#: The links of an operator whose events go to a server of Ropo One.
LINKS: tuple[BaseOperatorLink, ...] = (RopoOneLink(), *REPORT_LINKS)
