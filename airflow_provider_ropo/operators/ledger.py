"""The Airflow operators that settle events and purge the ledger: ``airflow ropo settle`` and ``purge`` as tasks.

For those without a command line. Airflow's permissions decide who may trigger such a DAG, its audit log shows who did.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator, Context

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger.maintenance import Settlement, erase, parse_age, purge, settle
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.task.connections import claimant_of, existing_ledger
from airflow_provider_ropo.task.no_retry import no_retry_on_misconfiguration
from airflow_provider_ropo.task.options import parse_bool
from airflow_provider_ropo.task.redaction import Redacted, unredacted

_PREVIEW = "Preview, nothing was changed;"


class RopoSettleOperator(BaseOperator):
    """Settle events in the ledger: one row for each, with who and why, or none if one of them cannot be settled.

    Every parameter is a template field.

    :param event_ids: the events: a list of text, or a template that gives one as JSON, such as
        ``{{ params.event_ids | tojson }}``.
    :param settle_as: ``"delivered"``: Ropo One has it; ``"undelivered"``: Ropo One does not have it, and the next run
        that reads it sends it; ``"closed"``: it is not sent and does not fail a task, until its content changes.
    :param reason: why; it is written to the ledger, with the user who triggered the run (Airflow 3.1 and later) or the
        run's id.
    :param conn_id: the connection of the ledger's database.
    :param table: the ledger's table.
    :param destination: where the events went, as the ledger names it; needed if they have more than one.
    :param claim_timeout: that of the tasks that use this ledger, in seconds.
    :return: ``{"settled": …}``, the number of events.
    :raises RopoConfigurationError: if an event cannot be settled like that; there is no retry.
    """

    template_fields: Sequence[str] = (
        "event_ids",
        "settle_as",
        "reason",
        "conn_id",
        "table",
        "destination",
        "claim_timeout",
    )
    ui_color = "#d9ecf2"

    def __init__(
        self,
        *,
        event_ids: Sequence[str] | str,
        settle_as: str,
        reason: str,
        conn_id: str,
        table: str = "ropo_ledger",
        destination: str | None = None,
        claim_timeout: float | str = 600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.event_ids = event_ids
        self.settle_as = settle_as
        self.reason = reason
        self.conn_id = conn_id
        self.table = table
        self.destination = destination
        self.claim_timeout = claim_timeout

    def execute(self, context: Context) -> dict[str, int]:
        """Settle the events, and log what each was before."""
        with no_retry_on_misconfiguration():
            me = claimant_of(context, self.task_id)
            settlement = Settlement(
                event_ids=_list_of_ids(self.event_ids),
                settle_as=self.settle_as,
                reason=self.reason,
                who=getattr(context.get("dag_run"), "triggering_user_name", None) or f"run {me.run_id}",
                destination=self.destination or None,
                claim_timeout=_seconds(self.claim_timeout),
                task=me,
            )
            with existing_ledger(self.conn_id, self.table) as table:
                table.create_or_upgrade()
                settled = settle(table, settlement)
        for each in settled:
            was = each.rows[-1]
            self.log.info(
                "%s was %s (%s); %s", each.event_id, was["delivery_status"], was["detail"], each.row["detail"]
            )
        return {"settled": len(settled)}


class RopoPurgeOperator(BaseOperator):
    """Delete the rows of finished events beyond an age from the ledger, or erase a usage place from it.

    Every parameter is a template field. With ``place``, the code is hidden in the Rendered Templates view; but where it
    comes from a param, the configuration of the DAG run holds it: delete that run afterwards.

    :param conn_id: the connection of the ledger's database.
    :param table: the ledger's table.
    :param older_than: delete the rows of events that are delivered or closed and have no newer row, such as ``"400d"``.
    :param place: instead of that, remove this usage place and the details from all rows about it.
    :param force: accept an age below 90 days.
    :param preview: count only.
    :return: the numbers of ``events`` and their ``rows``; without ``place`` also ``kept``, the open events of that age.
    :raises RopoConfigurationError: if a parameter is not valid, or the place is unknown; there is no retry.
    """

    template_fields: Sequence[str] = ("conn_id", "table", "older_than", "place", "force", "preview")
    ui_color = "#d9ecf2"

    def __init__(
        self,
        *,
        conn_id: str,
        table: str = "ropo_ledger",
        older_than: str | None = None,
        place: str | None = None,
        force: bool | str = False,
        preview: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.table = table
        self.older_than = older_than
        self.place: str | Redacted | None = place
        self.force = force
        self.preview = preview
        if (older_than is None) == (place is None):
            raise RopoConfigurationError("give either `older_than` or `place`")

    def render_template(self, content: Any, context: Context, *args: Any, **kwargs: Any) -> Any:
        """Render one value; that of ``place`` is not shown."""
        is_place = content is not None and content is self.place
        rendered = super().render_template(content, context, *args, **kwargs)
        return Redacted(rendered) if is_place else rendered

    def execute(self, context: Context) -> dict[str, int]:  # noqa: ARG002 - Airflow's signature
        """Purge or erase, and log the counts."""
        with no_retry_on_misconfiguration():
            preview = parse_bool("preview", self.preview)
            force = parse_bool("force", self.force)
            place = unredacted(self.place)
            with existing_ledger(self.conn_id, self.table) as table:
                table.create_or_upgrade()
                if place is not None:
                    return self._erase(table, str(place), preview=preview)
                return self._purge(table, preview=preview, force=force)

    def _erase(self, table: LedgerTable, place: str, *, preview: bool) -> dict[str, int]:
        erased = erase(table, place, dry_run=preview)
        if erased.warning:
            self.log.warning("%s", erased.warning)
        self.log.info("%s this usage place: %s", _PREVIEW if preview else "Erased", erased)
        return {"events": erased.events, "rows": erased.rows}

    def _purge(self, table: LedgerTable, *, preview: bool, force: bool) -> dict[str, int]:
        purged = purge(table, parse_age(str(self.older_than)), force=force, dry_run=preview)
        self.log.info("%s older than %s: %s", _PREVIEW if preview else "Deleted,", self.older_than, purged)
        self.log.info("Open events of that age, which are kept: %s", f"{purged.kept:,}")
        return asdict(purged)


def _list_of_ids(value: object) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RopoConfigurationError(
            "`event_ids` must be a list of ids, or a template that gives one as JSON: {{ params.event_ids | tojson }}"
        )
    return list(value)


def _seconds(value: float | str) -> float:
    try:
        return float(value)
    except ValueError:
        raise RopoConfigurationError("`claim_timeout` must be a number of seconds") from None
