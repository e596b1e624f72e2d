"""The Airflow operator: outcomes in a warehouse table arrive at Ropo One."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseHook, BaseOperator, Context
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_ropo.answer import Receipt
from airflow_provider_ropo.backoff import Backoff
from airflow_provider_ropo.columns import find_timezone
from airflow_provider_ropo.delivery import Delivery, DeliverySummary
from airflow_provider_ropo.dispatch import dispatch, persist
from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoError,
)
from airflow_provider_ropo.event import RowReader, UsageplaceEvent, masked
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.operators.final import final, mistakes_are_final
from airflow_provider_ropo.operators.intake import take_mappings, take_query
from airflow_provider_ropo.progress import Progress
from airflow_provider_ropo.settings import RopoSettings
from airflow_provider_ropo.spool import Spool
from airflow_provider_ropo.window import RunDates, refuse_empty_window

#: Payloads a preview shows.
SHOWN = 5
XCOM_RETURN_KEY = "return_value"


class HiddenRows(Sequence[Any]):
    """Rows given to the task, kept out of the Rendered Templates view: they hold customers' data."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = list(rows)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - as a list's
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        """Say how many there are, and nothing of them."""
        return f"{len(self):,} rows, not shown: they hold customers' data"


class UsageplaceEventOperator(BaseOperator):
    """Report each row of a warehouse query to Ropo One: one ``POST /usageplace/event`` an event.

    All rows are read, checked and put in order, and the warehouse is let go, before the first post. Everything
    that can be sent is sent; then the task fails once if anything is not at Ropo One. Rejected and invalid
    rows alone are no reason for an Airflow retry; anything that may pass is.

    :param sql: query or ``.sql`` file, templated; one row per event, or one per event and invoice.
    :param sql_conn_id: the warehouse: any connection whose hook is a ``DbApiHook``.
    :param parameters: query parameters in the driver's own style, templated.
    :param sql_hook_params: passed to the warehouse's hook.
    :param events: instead of ``sql``: a list of row mappings, or an XCom that holds one.
    :param columns: event field → column name, where they differ.
    :param statuses: the warehouse's status value → ``disconnected``, ``connected`` or ``notdisconnected``.
    :param ropo_conn_id: the connection of type Ropo One.
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
        "preview",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "parameters": "json"}
    ui_color = "#d9ecf2"

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
        max_failed: float = 0,
        on_empty: Literal["succeed", "skip", "fail"] = "succeed",
        preview: bool | str = False,
        **kwargs: Any,  # noqa: ANN401 - as Airflow's
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.parameters = parameters
        self.sql_hook_params = sql_hook_params
        self.events = events
        self.columns = columns
        self.statuses = statuses
        self.ropo_conn_id = ropo_conn_id
        self.max_failed = max_failed
        self.on_empty = on_empty
        self.preview = preview
        self._dates_used: dict[str, Any] = {}
        self._check_parameters()

    def execute(self, context: Context) -> dict[str, int]:
        """Read, set in order, post, report."""
        with mistakes_are_final():
            refuse_empty_window(self._dates_used)
            preview = _flag("preview", self.preview)
            hook = RopoHook(self.ropo_conn_id)
            zone = find_timezone(hook.settings.timezone)
            stopped = None
            with Spool(zone) as spool:
                summary = DeliverySummary(rows=self._read_into(spool, hook.settings.timezone))
                for error in spool.invalid():
                    summary.add(Delivery.of_invalid_row(error))
                if preview:
                    self._preview(spool, hook.settings, summary)
                else:
                    stopped = self._post(spool, hook, summary)
            return self._report(summary, stopped, context)

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:  # noqa: ANN401
        """Render the templates, noting which of the run's dates they use."""
        super().render_template_fields(self._noting(context), jinja_env)

    def render_template(self, content: Any, context: Context, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Render one value; also the way in for mapped tasks."""
        is_events = content is self.events
        with mistakes_are_final():
            rendered = super().render_template(content, self._noting(context), *args, **kwargs)
        if is_events and isinstance(rendered, Iterable) and not isinstance(rendered, str | Mapping):
            return HiddenRows(rendered)
        return rendered

    def _noting(self, context: Any) -> Any:  # noqa: ANN401
        return context if isinstance(context, RunDates) else RunDates(context, self._dates_used)

    def _check_parameters(self) -> None:
        """Fail when the DAG is parsed, not in the night, where that is possible."""
        if (self.sql is None) == (self.events is None):
            raise RopoConfigurationError("give either `sql` or `events`")
        if self.sql is not None and not self.sql_conn_id:
            raise RopoConfigurationError("`sql` needs `sql_conn_id`, the connection of the warehouse")
        if self.on_empty not in {"succeed", "skip", "fail"}:
            raise RopoConfigurationError("`on_empty` must be succeed, skip or fail")
        if isinstance(self.max_failed, bool) or not self.max_failed >= 0:
            raise RopoConfigurationError("`max_failed` must be a count, or a fraction below 1")

    def _read_into(self, spool: Spool, timezone: str) -> int:
        """Read every row into the spool, let the warehouse go, and return how many rows there were."""
        make_reader = partial(RowReader, columns=self.columns, statuses=self.statuses, timezone=timezone)
        started = time.monotonic()
        if self.events is not None:
            rows = take_mappings(spool, self.events, make_reader)
        else:
            with closing(self._warehouse()) as connection:
                rows = take_query(spool, connection, str(self.sql), self.parameters, make_reader)
        self.log.info("Read %s rows in %.1f s", f"{rows:,}", time.monotonic() - started)
        return rows

    def _warehouse(self) -> Any:  # noqa: ANN401 - PEP 249 has no type
        connection = BaseHook.get_connection(str(self.sql_conn_id))
        hook = connection.get_hook(hook_params=self.sql_hook_params)  # type: ignore[no-untyped-call]
        if not isinstance(hook, DbApiHook):
            raise RopoConfigurationError(
                f"connection {self.sql_conn_id!r} is no SQL database: {type(hook).__name__} is no DbApiHook"
            )
        session = hook.get_conn()
        if hook.supports_autocommit:
            # A server-side cursor lives in a transaction.
            hook.set_autocommit(session, False)  # noqa: FBT003 - Airflow's signature
        return session

    def _preview(self, spool: Spool, settings: RopoSettings, summary: DeliverySummary) -> None:
        """Show the first payloads, and leave every event where it is."""
        self.log.info("Preview: nothing is posted; %s events would be", f"{spool.count():,}")
        for event in islice(chain.from_iterable(spool.lanes()), SHOWN):
            payload = event.to_payload(jobid_as_string=settings.jobid_as_string)
            self.log.info("Preview: would post %s", json.dumps(masked(payload), ensure_ascii=False))
        summary.leave(spool.count())

    def _post(self, spool: Spool, hook: RopoHook, summary: DeliverySummary) -> RopoError | None:
        """Post every event; return why nothing more could be sent, if so."""
        total = spool.count()
        if not total:
            return None
        client, jobid_as_string = hook.get_conn(), hook.settings.jobid_as_string
        backoff = Backoff()
        # Before the first event: a wrong API code or server is one error, not one an event.
        sign_in = persist(client.sign_in, backoff, what="sign-in")
        if isinstance(sign_in.result, RopoError):
            summary.leave(total)
            return sign_in.result
        progress = Progress(total)

        def send(event: UsageplaceEvent) -> Receipt:
            return client.post_usageplace_event(event.to_payload(jobid_as_string=jobid_as_string))

        try:
            for delivery in dispatch(spool.lanes(), send, backoff):
                summary.add(delivery)
                progress.landed(summary)
        except RopoAuthenticationError as error:
            return error
        finally:
            client.close()
        return None

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
            raise failure if summary.worth_a_retry else final(failure)
        if empty:
            self._end_empty()
        self.log.info("%s", summary)
        return counts

    def _end_empty(self) -> None:
        message = "the query returned no rows" if self.events is None else "events holds no rows"
        if self.on_empty == "skip":
            raise AirflowSkipException(message)
        raise DeliveriesFailedError(f"{message}, and on_empty is fail")

    def _push(self, counts: dict[str, int], context: Context) -> None:
        """Push the counts as Airflow itself would after a good end; before a red one it would not."""
        if self.do_xcom_push and (task_instance := context.get("ti")) is not None:
            task_instance.xcom_push(key=XCOM_RETURN_KEY, value=counts)


def _flag(name: str, value: object) -> bool:
    """Read a yes or no that a template may have turned into text."""
    text = str(value).strip().casefold()
    if text not in {"true", "false"}:
        raise RopoConfigurationError(f"`{name}` must be true or false, or a template that gives one of them")
    return text == "true"
