"""Guard against an empty data interval: a query over the run's dates if the run has no dates, or an empty interval.

Airflow 3's ``schedule="@daily"`` gives every run a data interval whose two ends are the same moment, and a run
triggered by an asset, or by hand without a date, has no dates at all
(https://airflow.apache.org/docs/apache-airflow/stable/templates-ref.html). A query between the two ends
then selects nothing, and the task would always succeed without reporting anything. Therefore, while a template is
rendered, the run's dates that it uses are recorded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Self

from jinja2 import ChainableUndefined, Undefined

from airflow_provider_ropo.errors import RopoConfigurationError

#: The run's own dates, by the names that every Airflow version has for them.
RUN_DATES = frozenset(
    {
        "data_interval_start",
        "data_interval_end",
        "logical_date",
        "ds",
        "ds_nodash",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
    }
)
#: Other dates for a window, which not every version or run has: Airflow 2's names, and the dates of earlier runs.
OTHER_DATES = frozenset(
    {
        "execution_date",
        "tomorrow_ds",
        "tomorrow_ds_nodash",
        "yesterday_ds",
        "yesterday_ds_nodash",
        "next_ds",
        "next_ds_nodash",
        "next_execution_date",
        "prev_ds",
        "prev_ds_nodash",
        "prev_execution_date",
        "prev_data_interval_start_success",
        "prev_data_interval_end_success",
        "prev_start_date_success",
        "prev_end_date_success",
    }
)
REMEDY = (
    "schedule the DAG with CronDataIntervalTimetable, whose runs have an interval, or select a look-back from "
    "dag_run.run_after, or give the dates as `parameters` or DAG params, or, on Airflow 3.2 and later, select by the "
    "partition_key of a partitioned schedule"
)


def refuse_empty_window(used: Mapping[str, Any]) -> None:
    """Raise if the task used both ends of an empty data interval, or a date that this run does not have.

    :param used: the used dates by name, as recorded by :class:`RunDates`; None for a missing date.
    :raises RopoConfigurationError: names what to use instead.
    """
    for name, value in used.items():
        if value is None:
            raise RopoConfigurationError(_missing(name))
    end = used.get("data_interval_end")
    if end is None:
        return
    # The logical date is another name for the interval's start.
    starts = [used[name] for name in ("data_interval_start", "logical_date", "execution_date") if name in used]
    if end in starts or used.get("ts") == end.isoformat():
        raise RopoConfigurationError(
            f"the task selects between data_interval_start and data_interval_end, and in this run both are "
            f"{end}: the query would never find a row; {REMEDY}"
        )


def _missing(name: str) -> str:
    if name in RUN_DATES:
        why = "this run has no dates (it was triggered by an asset, or by hand without one)"
        return f"the task uses {name}, and {why}; trigger it with a logical date, or {REMEDY}"
    return f"the task uses {name}, and there is none for this run; {REMEDY}"


class _MissingDate(ChainableUndefined):
    """Placeholder for a date that the run does not have; records its use, so that the task fails later.

    If it failed while the template is rendered, the message would be in a part of the log that Airflow collapses. A
    template that tests the date first (``is defined``, ``default``) does not use it.
    """

    __slots__ = ("_used",)

    def record_in(self, used: dict[str, Any]) -> Self:
        """Record uses in this dictionary; return the placeholder."""
        self._used = used
        self._undefined_exception = RopoConfigurationError  # type: ignore[assignment]  # jinja only ever raises it
        self._undefined_hint = _missing(str(self._undefined_name))
        return self

    def __str__(self) -> str:
        self._used[str(self._undefined_name)] = None
        return ""

    def __getattr__(self, name: str) -> Self:
        return self

    def __call__(self, *_args: object, **_kwargs: object) -> Self:  # type: ignore[override]  # jinja's never returns
        return self


class RunDates(MutableMapping[str, Any]):
    """Template context that records which of the run's dates are used, with a placeholder for each missing date.

    :param context: Airflow's template context.
    :param used: receives the value of each used date, by its name.
    """

    def __init__(self, context: MutableMapping[str, Any], used: dict[str, Any]) -> None:
        self._context = context
        self._used = used

    def record(self, name: str, value: object) -> object:
        """Record the use of a date and return its value; for a missing date, return a placeholder."""
        if name not in RUN_DATES and name not in OTHER_DATES:
            return value
        # Compared as text, because some are proxies for None.
        if isinstance(value, Undefined) or str(value) == "None":
            return _MissingDate(name=name).record_in(self._used)
        self._used[name] = value
        return value

    def __getitem__(self, key: str) -> Any:
        if key in RUN_DATES:
            return self.record(key, self._context.get(key))
        value = self.record(key, self._context[key])
        return _DagRun(value, self) if key == "dag_run" and value is not None else value

    def __setitem__(self, key: str, value: Any) -> None:
        self._context[key] = value

    def __delitem__(self, key: str) -> None:
        del self._context[key]

    def __contains__(self, key: object) -> bool:
        return key in RUN_DATES or key in self._context

    def __iter__(self) -> Iterator[str]:
        return iter(self._context)

    def __len__(self) -> int:
        return len(self._context)

    def __copy__(self) -> RunDates:
        return RunDates(copy.copy(self._context), self._used)


class _DagRun:
    """The context's ``dag_run``; the use of its dates is recorded, too."""

    def __init__(self, dag_run: Any, dates: RunDates) -> None:
        self._dag_run = dag_run
        self._dates = dates

    def __getattr__(self, name: str) -> Any:
        return self._dates.record(name, getattr(self._dag_run, name))

    def __str__(self) -> str:
        return str(self._dag_run)
