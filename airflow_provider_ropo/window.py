"""Guard against the silently empty window: a query over the run's dates where the run has none, or of no width.

Airflow 3's ``schedule="@daily"`` gives every run a data interval whose two ends are the same moment, and a run
triggered by an asset, or by hand without a date, has no dates at all
(https://airflow.apache.org/docs/apache-airflow/stable/templates-ref.html). A query between the two ends then
selects nothing, and the task would be green for ever. So while a template is rendered, it is noted which of
the run's dates it really uses.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from jinja2 import StrictUndefined

from airflow_provider_ropo.errors import RopoConfigurationError

#: The run's own dates, under all the names a template may know them by.
RUN_DATES = frozenset(
    {
        "data_interval_start",
        "data_interval_end",
        "logical_date",
        "execution_date",
        "ds",
        "ds_nodash",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
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
    }
)
REMEDY = (
    "schedule the DAG with CronDataIntervalTimetable, whose runs have an interval, or select a look-back from "
    "dag_run.run_after, or give the dates as `parameters` or DAG params"
)


def refuse_empty_window(used: Mapping[str, Any]) -> None:
    """Fail if both ends of the data interval were used and lie on each other.

    :param used: as :class:`RunDates` fills it.
    :raises RopoConfigurationError: saying what to use instead.
    """
    start, end = used.get("data_interval_start"), used.get("data_interval_end")
    if start is not None and start == end:
        raise RopoConfigurationError(
            f"the query selects between data_interval_start and data_interval_end, and in this run both are "
            f"{start}: it would find nothing, ever; {REMEDY}"
        )


class RunDates(MutableMapping[str, Any]):
    """A template context that notes which of the run's dates are used, and has an answer where there are none.

    :param context: Airflow's template context.
    :param used: takes each date's value under its name, when it is used.
    """

    def __init__(self, context: MutableMapping[str, Any], used: dict[str, Any]) -> None:
        self._context = context
        self._used = used

    def note(self, name: str, value: object) -> object:
        """Return a date's value for use in a template; a missing one complains when it is used."""
        if name not in RUN_DATES:
            return value
        if value is None or isinstance(value, StrictUndefined):
            return StrictUndefined(
                hint=f"the query uses {name}, and this run has no dates (it was triggered by an asset, or by hand "
                f"without one); {REMEDY}",
                name=name,
                exc=RopoConfigurationError,  # type: ignore[arg-type]  # jinja only ever raises it
            )
        self._used[name] = value
        return value

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - a context may hold anything
        if key in RUN_DATES:
            return self.note(key, self._context.get(key))
        value = self._context[key]
        return _DagRun(value, self) if key == "dag_run" and value is not None else value

    def __setitem__(self, key: str, value: Any) -> None:  # noqa: ANN401
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
    """The context's ``dag_run``, whose dates are noted too."""

    def __init__(self, dag_run: Any, dates: RunDates) -> None:  # noqa: ANN401
        self._dag_run = dag_run
        self._dates = dates

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return self._dates.note(name, getattr(self._dag_run, name))

    def __str__(self) -> str:
        return str(self._dag_run)
