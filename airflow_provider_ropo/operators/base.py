"""What the operators that report events share: reading, the ledger, the guards, and how a run ends."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, Context
from jinja2 import TemplateNotFound, Undefined

from airflow_provider_ropo.errors import DeliveriesFailedError, RopoConfigurationError, RopoError
from airflow_provider_ropo.ledger.decisions import LedgerPolicy, OnUnconfirmed, Redeliver
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.pipeline import Channel, MappingRows, QueryRows, RowSource, RunResult, deliver
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from airflow_provider_ropo.task import options
from airflow_provider_ropo.task.connections import claimant_of, open_ledger, open_warehouse
from airflow_provider_ropo.task.data_interval import RunDates, refuse_empty_window
from airflow_provider_ropo.task.lineage import add_counts_to_asset_events
from airflow_provider_ropo.task.metrics import RunMetrics
from airflow_provider_ropo.task.next_step import Situation, next_steps
from airflow_provider_ropo.task.no_retry import no_retry_on_misconfiguration, without_retry
from airflow_provider_ropo.task.options import is_literal_rows, parse_bool
from airflow_provider_ropo.task.redaction import RedactedRows
from airflow_provider_ropo.task.report_publisher import about_run, report_publisher

XCOM_RETURN_KEY = "return_value"
#: The XCom in which a preview leaves the digest of what would be sent.
DIGEST_KEY = "ropo_digest"


class Target(NamedTuple):
    """Where a run's events go.

    :param channel: how they are sent.
    :param server: the server's address, for reports.
    :param destination: its name in the ledger.
    :param timezone: the zone of times that name none, and of those that are sent.
    """

    channel: Channel
    server: str
    destination: str
    timezone: str


class UsageplaceOperator(BaseOperator):
    """Base of the operators that report the rows of a query, or row mappings, as events.

    All rows are read, checked and put in order, and the warehouse connection is closed, before the first event is sent.
    Then everything that can be sent is sent, and the task fails once if an event has not arrived. If all failures are
    rejected, invalid or changed rows, Airflow does not retry the task; otherwise it does.

    Every parameter but ``statuses`` and ``sql_hook_params`` is a template field, so that it can be a template or
    another task's output. A number may be text, as a template returns it (``"0.1"``, ``"5"``). Templates are
    checked when the task runs, before it reads; everything else is checked when the DAG is parsed.

    :param sql: query or ``.sql`` file, templated; one row per event, or one per event and invoice.
    :param sql_conn_id: the warehouse: any connection whose hook is a ``DbApiHook``.
    :param parameters: query parameters in the driver's own style, templated.
    :param sql_hook_params: passed to the warehouse's hook.
    :param events: instead of ``sql``: a list of row mappings, or an XCom that holds one.
    :param columns: event field → column name, where they differ.
    :param statuses: the warehouse's status value → ``disconnected``, ``connected`` or ``notdisconnected``.
    :param ledger_table: table that remembers deliveries, created if missing; None: no ledger. Templated.
    :param ledger_conn_id: where it lives; by default where the rows come from.
    :param redeliver: which delivered events are sent again: ``"never"``: none; ``"changed"``: those with the same id
        and other content; ``"always"``: all.
    :param on_unconfirmed: for events that may have arrived already: ``"resend"`` with the same id, or ``"hold"``.
    :param claim_timeout: seconds for which another run's unfinished *sending* is respected; after that it counts as
        unconfirmed.
    :param max_failed: rejected, invalid and changed events that are tolerated: a count, or a fraction below 1.
    :param max_events: refuse before the first event is sent if more would be sent: a count, or a count for each status
        (``{"disconnected": 200}``). Events that the ledger knows as delivered do not count.
    :param approved: the digest that a task with ``preview=True`` left in the XCom ``ropo_digest``; if anything else
        would be sent, the run is refused before the first event is sent. Empty text is refused, too.
    :param event_ids: send only these events: a list, or text with commas or line ends between the ids; empty: all.
    :param on_empty: if there are no rows: ``"succeed"``, ``"skip"`` or ``"fail"``.
    :param preview: read, check and count everything, log the first payloads with customers' data masked, and send
        and write nothing. Templated, so that a DAG param can set it. The digest of what would be sent goes to the XCom
        ``ropo_digest``.
    :return: the counts, for XCom; they are pushed before the task fails, too.
    :raises DeliveriesFailedError: if something has not arrived.
    :raises RunRefusedError: if ``max_events`` or ``approved`` refuse the run.
    :raises RopoError: if nothing could be sent at all.
    """

    template_fields: Sequence[str] = (
        "sql",
        "sql_conn_id",
        "parameters",
        "events",
        "columns",
        "ledger_table",
        "ledger_conn_id",
        "redeliver",
        "on_unconfirmed",
        "claim_timeout",
        "max_failed",
        "max_events",
        "approved",
        "event_ids",
        "on_empty",
        "preview",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "parameters": "json", "columns": "json"}
    ui_color = "#d9ecf2"
    #: What ``on_empty`` may be.
    empty_choices: ClassVar[tuple[str, ...]] = ("succeed", "skip", "fail")

    def __init__(
        self,
        *,
        sql: str | None = None,
        sql_conn_id: str | None = None,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        sql_hook_params: dict[str, Any] | None = None,
        events: Iterable[Mapping[str, Any]] | None = None,
        columns: Mapping[str, str] | None = None,
        statuses: Mapping[Any, str] | None = None,
        ledger_table: str | None = None,
        ledger_conn_id: str | None = None,
        redeliver: Redeliver | str = "never",
        on_unconfirmed: OnUnconfirmed | str = "resend",
        claim_timeout: float | str = 600,
        max_failed: float | str = 0,
        max_events: int | str | Mapping[str, int] | None = None,
        approved: str | None = None,
        event_ids: str | Sequence[str] | None = None,
        on_empty: str = "succeed",
        preview: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.parameters = parameters
        self.sql_hook_params = sql_hook_params
        # Rows written into the DAG are data, not templates; and a template that fails is logged as it stands.
        self.events = RedactedRows(events) if events is not None and is_literal_rows(events) else events
        self._takes_events = events is not None
        self.columns = columns
        self.statuses = statuses
        self.ledger_table = ledger_table
        self.ledger_conn_id = ledger_conn_id
        self.redeliver = redeliver
        self.on_unconfirmed = on_unconfirmed
        self.claim_timeout = claim_timeout
        self.max_failed = max_failed
        self.max_events = max_events
        self.approved = approved
        self.event_ids = event_ids
        self._needs_approval = approved is not None
        self.on_empty = on_empty
        self.preview = preview
        self._dates_used: dict[str, Any] = {}
        self._stop: threading.Event | None = None
        options.check_when_parsed(self)

    def execute(self, context: Context) -> dict[str, int]:
        """Run, push the counts, and fail once if not every event is at Ropo One."""
        with no_retry_on_misconfiguration():
            return self._end(self.deliver(context, preview=parse_bool("preview", self.preview)), context)

    def deliver(self, context: Context, *, preview: bool) -> RunResult:
        """Run with the rendered parameters and Airflow's connections; return how the run ended."""
        self._stop = threading.Event()
        summary = DeliverySummary(preview=preview)
        publish = report_publisher(context, as_xcom=self.do_xcom_push)
        with (
            RunMetrics(context, summary, preview=preview) as metrics,
            Report(summary, publish, preview=preview) as report,
        ):
            refuse_empty_window(self._dates_used)
            options.check(self)
            target = self._target(context)
            metrics.set_server(server=target.server)
            report.set_about(**about_run(self, server=target.server, destination=target.destination))
            run_options = options.delivery_options(
                self, timezone=target.timezone, preview=preview, needs_approval=self._needs_approval
            )
            with self._ledger(context, target.destination, options.ledger_policy(self)) as ledger:
                try:
                    result = deliver(
                        self._rows(),
                        target.channel,
                        ledger,
                        run_options,
                        destination=target.destination,
                        report=report,
                        stop=self._stop,
                        on_delivery=metrics.on_delivery,
                    )
                except BaseException:
                    if summary.rows:
                        self._push(summary.as_dict(), context)
                    raise
            metrics.ends_with(result.error)
        return result

    @abstractmethod
    def _target(self, context: Context) -> Target:
        """Return where the events go, from the rendered parameters and Airflow's connections.

        :raises RopoConfigurationError: naming the connection or the parameter.
        """

    def on_kill(self) -> None:
        """End the posting: what is in flight is waited for a moment, and its delivery status recorded."""
        if self._stop is not None:
            self._stop.set()

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render the templates, noting which of the run's dates they use."""
        super().render_template_fields(self._noting(context), jinja_env)

    def render_template(self, content: Any, context: Context, *args: Any, **kwargs: Any) -> Any:
        """Render one value; also the way in for mapped tasks."""
        is_events = content is self.events
        with no_retry_on_misconfiguration():
            try:
                rendered = super().render_template(content, self._noting(context), *args, **kwargs)
            except TemplateNotFound as error:
                raise RopoConfigurationError(
                    f"there is no template file {error.name!r} in the folder of the DAG file, or in the DAG's "
                    "template_searchpath; correct its name, or deploy it with the DAG"
                ) from None
            if isinstance(rendered, Undefined):
                # Rendered as a native object, a missing date is no text yet: it is noted here.
                str(rendered)
        if is_events and isinstance(rendered, Iterable) and not isinstance(rendered, str | Mapping):
            return RedactedRows(rendered)
        return rendered

    def _noting(self, context: Any) -> Any:
        return context if isinstance(context, RunDates) else RunDates(context, self._dates_used)

    def _rows(self) -> RowSource:
        if self._takes_events:
            return MappingRows(self.events, self._source)
        return QueryRows(
            partial(open_warehouse, str(self.sql_conn_id), self.sql_hook_params), str(self.sql), self.parameters
        )

    @property
    def _source(self) -> str:
        """What the rows come from, in messages."""
        return "`events`" if self._takes_events else "the query"

    def _ledger(
        self, context: Context, destination: str, policy: LedgerPolicy
    ) -> AbstractContextManager[DeliveryLedger | None]:
        if not self.ledger_table:
            return nullcontext()
        conn_id = self.ledger_conn_id or str(self.sql_conn_id)
        hook_params = self.sql_hook_params if conn_id == self.sql_conn_id else None
        me = claimant_of(context, self.task_id)
        return closing(open_ledger(conn_id, hook_params, self.ledger_table, destination, me, policy))

    def _end(self, result: RunResult, context: Context) -> dict[str, int]:
        """Return the counts, or push them and fail once if they are not good."""
        summary, counts = result.summary, result.summary.as_dict()
        if result.digest is not None:
            self._push(result.digest, context, key=DIGEST_KEY)
        is_empty = not summary.rows and self.on_empty in {"skip", "fail"}
        if result.error is not None or is_empty:
            self._push(counts, context)
        if result.stopped is not None:
            self._explain(result.stopped, result, context, f"The run ended early: {result.stopped}")
            # Where it came up first is of no use to the reader of a log.
            raise result.stopped.with_traceback(None)
        if result.failure is not None:
            self._explain(result.failure, result, context)
            raise result.failure if summary.retryable else without_retry(result.failure)
        if is_empty:
            self._end_empty()
        self.log.info("%s", summary)
        add_counts_to_asset_events(self.outlets, counts, context)
        return counts

    def _explain(self, error: RopoError, result: RunResult, context: Context, *reason: str) -> None:
        """Let an error tell the counts first, then why, then what happens next: it is the end of a plain-text log."""
        summary = result.summary
        situation = Situation.of(self, context, is_preview=summary.is_preview)
        # Where the run had to stop, events are left that another try can send.
        retryable = summary.retryable or result.stopped is not None
        steps = next_steps(error, summary.as_dict(), retryable=retryable, situation=situation)
        counts = [str(summary)] if summary.events else []
        error.args = ("\n".join([*counts, *reason, *steps]), *error.args[1:])

    def _end_empty(self) -> None:
        message = f"no rows came from {self._source}"
        if self.on_empty == "skip":
            raise AirflowSkipException(message)
        raise DeliveriesFailedError(f"{message}, and on_empty is fail")

    def _push(self, value: object, context: Context, key: str = XCOM_RETURN_KEY) -> None:
        """Push the counts as Airflow itself would after a good end; before a red one it would not."""
        if self.do_xcom_push and (task_instance := context.get("ti")) is not None:
            task_instance.xcom_push(key=key, value=value)
