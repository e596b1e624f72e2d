"""The buttons on a task instance's page, as Airflow stores them when the task has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.models.xcom import XComModel
from airflow.providers.common.compat.sdk import TaskInstanceKey
from airflow.utils.session import create_session

from airflow_provider_ropo.links.ropo import LINKS, ReportLink, RopoOneLink
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.provider_info import get_provider_info
from airflow_provider_ropo.sandbox import Sandbox

RunDag = Callable[..., Any]

ONE_TASK = """
with DAG(DAG_ID, schedule=None) as dag:
    UsageplaceEventOperator(task_id="report", events={events}, {options})
"""
GOOD = {"usageplacecode": "P1", "status": "connected", "time": "2024-01-04 10:00:00"}


def kept(link: Any) -> list[tuple[Any, ...]]:
    """Return every link of a kind that Airflow has kept, newest first, with the task instance it is of."""
    with create_session() as session:
        rows = session.query(XComModel).filter_by(key=link.xcom_key).order_by(XComModel.timestamp.desc()).all()
        return [(XComModel.deserialize_value(row), row.dag_id, row.run_id, row.map_index) for row in rows]


def test_a_button_leads_to_the_server(run_dag: RunDag, sandbox: Sandbox) -> None:
    """After a successful run, the button "Ropo One" leads to the front page of the server that got the events."""
    finished = run_dag(ONE_TASK.format(events=[GOOD], options=""))

    assert "success" == finished.state
    assert f"{sandbox.url}/" == kept(RopoOneLink())[0][0]


def test_a_button_leads_to_the_server_after_a_red_run(run_dag: RunDag, sandbox: Sandbox) -> None:
    """After a failed run, too, the button "Ropo One" leads to the server."""
    finished = run_dag(ONE_TASK.format(events=[GOOD | {"usageplacecode": "UNKNOWN1"}], options=""))

    assert "failed" == finished.state
    assert f"{sandbox.url}/" == kept(RopoOneLink())[0][0]


def test_a_button_leads_to_the_report(run_dag: RunDag, sandbox: Sandbox) -> None:
    """The button "Report" leads to the tab of the same task instance, below whatever path Airflow is served under."""
    run_dag(ONE_TASK.format(events=[GOOD], options=""))

    link, dag_id, run_id, _ = kept(ReportLink())[0]
    assert f"dags/{dag_id}/runs/{run_id}/tasks/report/plugin/ropo-report" == link


def test_each_mapped_task_has_its_own_report(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Mapped task instances each have a button to their own tab."""
    run_dag(
        """
        with DAG(DAG_ID, schedule=None) as dag:
            UsageplaceEventOperator.partial(task_id="report").expand(events=[[], []])
        """
    )

    newest = kept(ReportLink())[:2]
    assert {0, 1} == {map_index for *_, map_index in newest}
    assert [f"/tasks/report/mapped/{map_index}/plugin/ropo-report" for *_, map_index in newest] == [
        link.partition(run_id)[2] for link, _, run_id, _ in newest
    ]


def test_without_a_report_there_is_no_button_to_a_server(run_dag: RunDag, sandbox: Sandbox) -> None:
    """A task that pushes no XComs ends as usual, and its link is empty, so that Airflow does not show it."""
    finished = run_dag(ONE_TASK.format(events=[GOOD], options="do_xcom_push=False"))

    assert "success" == finished.state
    assert "" == kept(RopoOneLink())[0][0]


def test_a_report_cannot_lead_astray(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Only a web address becomes a link, whatever is in the XCom."""
    finished = run_dag(
        """
        class Astray(UsageplaceEventOperator):
            def execute(self, context):
                context["ti"].xcom_push(key="ropo_report", value={"server": "javascript:alert(1)"})

        with DAG(DAG_ID, schedule=None) as dag:
            Astray(task_id="report", events=[])
        """
    )

    assert "success" == finished.state
    assert "" == kept(RopoOneLink())[0][0]


@pytest.mark.usefixtures("airflow_db")
def test_a_link_never_fails() -> None:
    """If Airflow cannot be asked, as outside a task, there is no link and no error."""
    nowhere = TaskInstanceKey(dag_id="d", task_id="t", run_id="r", try_number=1, map_index=-1)
    operator = UsageplaceEventOperator(task_id="t", events=[])

    assert "" == RopoOneLink().get_link(operator, ti_key=nowhere)


def test_a_name_is_escaped_as_airflow_does() -> None:
    """A run's name is in the address as Airflow's own pages have it, so that the tab is the same."""
    operator = UsageplaceEventOperator(task_id="tä", events=[])
    key = TaskInstanceKey(dag_id="d.1", task_id="tä", run_id="manual__2026-01-01T00:00:00+00:00", try_number=1)

    link = ReportLink().get_link(operator, ti_key=key)

    assert "dags/d.1/runs/manual__2026-01-01T00:00:00+00:00/tasks/t%C3%A4/plugin/ropo-report" == link


def test_airflow_knows_the_links() -> None:
    """Every link of the operator is one that the provider info names, without which Airflow 2 would drop it."""
    named = get_provider_info()["extra-links"]

    assert {f"{type(link).__module__}.{type(link).__qualname__}" for link in LINKS} <= set(named)
    assert LINKS == UsageplaceEventOperator.operator_extra_links
