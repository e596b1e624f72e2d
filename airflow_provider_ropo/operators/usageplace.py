"""The Airflow operator: outcomes in a warehouse table arrive at Ropo One."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, Context
from jinja2 import Undefined

from airflow_provider_ropo.delivery import Delivery
from airflow_provider_ropo.errors import DeliveriesFailedError, RopoError
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.intake.reader import take_mappings, take_query
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.decisions import LedgerPolicy, OnUnconfirmed, Redeliver
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.links.ropo import LINKS
from airflow_provider_ropo.pipeline import Posting, preview_posts
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from airflow_provider_ropo.task import options, retry_policy
from airflow_provider_ropo.task.connections import claimant_of, database_hook, open_ledger
from airflow_provider_ropo.task.data_interval import RunDates, refuse_empty_window
from airflow_provider_ropo.task.lineage import add_counts_to_asset_events, openlineage_of
from airflow_provider_ropo.task.metrics import RunMetrics
from airflow_provider_ropo.task.no_retry import no_retry_on_misconfiguration, without_retry
from airflow_provider_ropo.task.options import is_literal_rows, parse_bool
from airflow_provider_ropo.task.redaction import RedactedRows
from airflow_provider_ropo.task.report_publisher import report_publisher
from airflow_provider_ropo.timezones import find_timezone

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

XCOM_RETURN_KEY = "return_value"


class UsageplaceEventOperator(BaseOperator):
    """Report each row of a warehouse query to Ropo One: one ``POST /usageplace/event`` an event.

    All rows are read, checked and put in order, and the warehouse is let go, before the first post. Everything
    that can be sent is sent; then the task fails once if anything is not at Ropo One. Rejected and invalid
    rows alone are no reason for an Airflow retry; anything that may pass is. The payload is that of the API reference
    (https://dev.ropo.com/api-reference/usageplace).

    :param sql: query or ``.sql`` file, templated; one row per event, or one per event and invoice.
    :param sql_conn_id: the warehouse: any connection whose hook is a ``DbApiHook``.
    :param parameters: query parameters in the driver's own style, templated.
    :param sql_hook_params: passed to the warehouse's hook.
    :param events: instead of ``sql``: a list of row mappings, or an XCom that holds one.
    :param columns: event field → column name, where they differ.
    :param statuses: the warehouse's status value → ``disconnected``, ``connected`` or ``notdisconnected``.
    :param ropo_conn_id: the connection of type Ropo One; its extra ``timeout`` is in seconds. Templated.
    :param ledger_table: table that remembers deliveries, made if missing; None: no memory. Templated.
    :param ledger_conn_id: where it lives; by default where the rows come from.
    :param redeliver: of what is known delivered: ``"never"``, ``"changed"`` (same id, other content) or ``"always"``.
    :param on_unconfirmed: what may have arrived already: ``"resend"`` with the same id, or ``"hold"``.
    :param claim_timeout: seconds for which another run's unfinished *sending* is respected; after that it counts as
        unconfirmed.
    :param max_workers: posts side by side, never two for one usage place.
    :param rate_limit: posts a second over all of them, at most.
    :param max_failed: rejected plus invalid events tolerated: a count, or a fraction below 1.
    :param on_empty: what no rows mean: ``"succeed"``, ``"skip"`` or ``"fail"``.
    :param preview: read, check and count everything, log the first payloads with customers' data masked, and
        post nothing. Templated, so that a DAG param can set it.
    :return: the counts, for XCom; they are pushed before the task fails, too.
    :raises DeliveriesFailedError: if something is not at Ropo One.
    :raises RopoError: if nothing could be sent at all.
    """

    template_fields: Sequence[str] = (
        "sql",
        "sql_conn_id",
        "parameters",
        "events",
        "ropo_conn_id",
        "ledger_table",
        "ledger_conn_id",
        "preview",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "parameters": "json"}
    ui_color = "#d9ecf2"
    operator_extra_links = LINKS

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
        ropo_conn_id: str = RopoHook.default_conn_name,
        ledger_table: str | None = None,
        ledger_conn_id: str | None = None,
        redeliver: Redeliver = "never",
        on_unconfirmed: OnUnconfirmed = "resend",
        claim_timeout: float = 600,
        max_workers: int = 8,
        rate_limit: float | None = None,
        max_failed: float = 0,
        on_empty: Literal["succeed", "skip", "fail"] = "succeed",
        preview: bool | str = False,
        **kwargs: Any,  # noqa: ANN401 - as Airflow's
    ) -> None:
        super().__init__(**kwargs)
        retry_policy.use_retry_after(self)
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.parameters = parameters
        self.sql_hook_params = sql_hook_params
        # Rows written into the DAG are data, not templates; and a template that fails is logged as it stands.
        self.events = RedactedRows(events) if events is not None and is_literal_rows(events) else events
        self._takes_events = events is not None
        self.columns = columns
        self.statuses = statuses
        self.ropo_conn_id = ropo_conn_id
        self.ledger_table = ledger_table
        self.ledger_conn_id = ledger_conn_id
        self.redeliver = redeliver
        self.on_unconfirmed = on_unconfirmed
        self.claim_timeout = claim_timeout
        self.max_workers = max_workers
        self.rate_limit = rate_limit
        self.max_failed = max_failed
        self.on_empty = on_empty
        self.preview = preview
        self._dates_used: dict[str, Any] = {}
        self._stop: threading.Event | None = None
        options.check(self)

    def execute(self, context: Context) -> dict[str, int]:
        """Read, set in order, post, report."""
        with no_retry_on_misconfiguration():
            summary, stopped = self.deliver(context, preview=parse_bool("preview", self.preview))
            return self._report(summary, stopped, context)

    def deliver(self, context: Context, *, preview: bool) -> tuple[DeliverySummary, RopoError | None]:
        """Read, set in order, post; return the counts, and why nothing more could be posted, if so."""
        self._stop = stop = threading.Event()
        summary = DeliverySummary(preview=preview)
        show = report_publisher(context, as_xcom=self.do_xcom_push)
        with (
            RunMetrics(context, summary, preview=preview) as metrics,
            Report(summary, show, preview=preview) as report,
        ):
            refuse_empty_window(self._dates_used)
            hook = RopoHook(self.ropo_conn_id)
            for each in (metrics, report):
                each.set_server(server=hook.settings.server)
            with Spool(find_timezone(hook.settings.timezone)) as spool, self._ledger(context) as ledger:
                if ledger is not None and not preview:
                    ledger.prepare()
                summary.rows = self._read_into(spool, hook.settings.timezone)
                for error in spool.invalid():
                    summary.add(Delivery.of_invalid_row(error))
                try:
                    stopped = self._post(hook, spool, ledger, report, metrics, stop, preview=preview)
                except BaseException:
                    self._push(summary.as_dict(), context)
                    raise
            metrics.ends_with(stopped or summary.failure(self.max_failed))
        return summary, stopped

    def on_kill(self) -> None:
        """End the posting: what is in flight is waited for a moment, and what became of it remembered."""
        if self._stop is not None:
            self._stop.set()

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return what is read and where it goes; Airflow's OpenLineage provider asks when the task starts."""
        return openlineage_of(
            self.sql, self.sql_conn_id, self.sql_hook_params, self.parameters, ropo_conn_id=self.ropo_conn_id
        )

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:  # noqa: ANN401
        """Render the templates, noting which of the run's dates they use."""
        super().render_template_fields(self._noting(context), jinja_env)

    def render_template(self, content: Any, context: Context, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Render one value; also the way in for mapped tasks."""
        is_events = content is self.events
        with no_retry_on_misconfiguration():
            rendered = super().render_template(content, self._noting(context), *args, **kwargs)
            if isinstance(rendered, Undefined):
                # Rendered as a native object, a missing date is no text yet: it is noted here.
                str(rendered)
        if is_events and isinstance(rendered, Iterable) and not isinstance(rendered, str | Mapping):
            return RedactedRows(rendered)
        return rendered

    def _noting(self, context: Any) -> Any:  # noqa: ANN401
        return context if isinstance(context, RunDates) else RunDates(context, self._dates_used)

    def _read_into(self, spool: Spool, timezone: str) -> int:
        """Read every row into the spool, let the warehouse go, and return how many rows there were."""
        make_reader = partial(RowReader, columns=self.columns, statuses=self.statuses, timezone=timezone)
        started = time.monotonic()
        if self._takes_events:
            rows = take_mappings(spool, self.events, make_reader, columns=self.columns, source=self._source)
        else:
            with closing(self._warehouse()) as connection:
                rows = take_query(spool, connection, str(self.sql), self.parameters, make_reader)
        self.log.info("Read %s rows in %.1f s", f"{rows:,}", time.monotonic() - started)
        return rows

    @property
    def _source(self) -> str:
        """What the rows come from, in messages."""
        return "`events`" if self._takes_events else "the query"

    def _warehouse(self) -> Any:  # noqa: ANN401 - PEP 249 has no type
        hook = database_hook(str(self.sql_conn_id), self.sql_hook_params)
        session = hook.get_conn()
        if hook.supports_autocommit:
            # A server-side cursor lives in a transaction.
            hook.set_autocommit(session, False)  # noqa: FBT003 - Airflow's signature
        return session

    def _ledger(self, context: Context) -> AbstractContextManager[DeliveryLedger | None]:
        if not self.ledger_table:
            return nullcontext()
        conn_id = self.ledger_conn_id or str(self.sql_conn_id)
        same = conn_id == self.sql_conn_id
        hook = database_hook(conn_id, self.sql_hook_params if same else None)
        policy = LedgerPolicy(self.redeliver, self.on_unconfirmed, self.claim_timeout)
        return closing(open_ledger(hook, self.ledger_table, claimant_of(context, self.task_id), policy))

    def _post(
        self,
        hook: RopoHook,
        spool: Spool,
        ledger: DeliveryLedger | None,
        report: Report,
        metrics: RunMetrics,
        stop: threading.Event,
        *,
        preview: bool,
    ) -> RopoError | None:
        """Post what was read, or show what would be; return why nothing more could be posted, if so."""
        if preview:
            known = ledger if ledger is not None and ledger.exists() else None
            preview_posts(spool, known, report.summary, jobid_as_string=hook.settings.jobid_as_string)
            return None
        posting = Posting(
            hook.get_conn(),
            report,
            ledger,
            jobid_as_string=hook.settings.jobid_as_string,
            max_workers=self.max_workers,
            rate_limit=self.rate_limit,
            stop=stop,
            on_delivery=metrics.on_delivery,
        )
        return posting.run(spool)

    def _report(self, summary: DeliverySummary, stopped: RopoError | None, context: Context) -> dict[str, int]:
        """Say the counts, and fail once if they are not good."""
        failure = summary.failure(self.max_failed)
        counts = summary.as_dict()
        empty = not summary.rows and self.on_empty != "succeed"
        if stopped is not None or failure is not None or empty:
            self._push(counts, context)
        if stopped is not None:
            self.log.error("%s", summary)
            raise stopped
        if failure is not None:
            raise failure if summary.retryable else without_retry(failure)
        if empty:
            self._end_empty()
        self.log.info("%s", summary)
        add_counts_to_asset_events(self.outlets, counts, context)
        return counts

    def _end_empty(self) -> None:
        message = f"no rows came from {self._source}"
        if self.on_empty == "skip":
            raise AirflowSkipException(message)
        raise DeliveriesFailedError(f"{message}, and on_empty is fail")

    def _push(self, counts: dict[str, int], context: Context) -> None:
        """Push the counts as Airflow itself would after a good end; before a red one it would not."""
        if self.do_xcom_push and (task_instance := context.get("ti")) is not None:
            task_instance.xcom_push(key=XCOM_RETURN_KEY, value=counts)
