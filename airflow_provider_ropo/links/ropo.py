"""The buttons on a task instance's page: to the Ropo One server, and to the report.

On Airflow 3 the worker asks for a link when the task ends, and keeps it as an XCom; on Airflow 2 the webserver asks,
whenever somebody looks. So a link is made of what is in XCom and in the task instance's name, and of nothing else.
"""

from __future__ import annotations

import logging
from urllib.parse import quote, urlsplit

import attrs
from airflow.providers.common.compat.sdk import AirflowPlugin, BaseOperator, BaseOperatorLink, TaskInstanceKey, XCom

from airflow_provider_ropo.reporting.report import REPORT_KEY

log = logging.getLogger(__name__)

#: The tab's part in the address of a task instance's page.
REPORT_ROUTE = "ropo-report"


@attrs.define()
class RopoOneLink(BaseOperatorLink):
    """Leads to the front page of the server that the events went to."""

    name = "Ropo One"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the server's address as the task's report has it; empty if there is none."""
        try:
            report = XCom.get_value(ti_key=ti_key, key=REPORT_KEY)
        except Exception as error:  # noqa: BLE001 - Airflow's API server may answer with anything; a link is no reason to fail
            log.debug("no link to Ropo One: %s", type(error).__name__)
            return ""
        server = report.get("server") if isinstance(report, dict) else None
        if not isinstance(server, str) or urlsplit(server).scheme not in {"https", "http"}:
            return ""
        return server.rstrip("/") + "/"


@attrs.define()
class ReportLink(BaseOperatorLink):
    """Leads to the report, the tab on the task instance's page."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the tab's address, relative to the UI's own base: whatever path Airflow is served under, it fits."""
        # As Airflow's own pages write it: another spelling would be the same page, but not the same tab to them.
        dag, run, task = (quote(part, safe=":+~") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
        mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
        return f"dags/{dag}/runs/{run}/tasks/{task}{mapped}/plugin/{REPORT_ROUTE}"


#: Whether Airflow's UI has a place for the report: 3.1 and later.
HAS_TABS = hasattr(AirflowPlugin, "external_views")
#: On every operator of ours.
LINKS: tuple[BaseOperatorLink, ...] = (RopoOneLink(), ReportLink()) if HAS_TABS else (RopoOneLink(),)
