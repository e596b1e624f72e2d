"""What a run reads and where it goes: as assets to Airflow, as datasets to OpenLineage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, Context

from airflow_provider_ropo.assets.ropo import dataset_of
from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.task.connections import database_hook

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

#: A database driver's placeholder, or the sign that is none.
_PLACEHOLDER = re.compile(r"%%|%\((\w+)\)s|%s")


def add_counts_to_asset_events(outlets: Iterable[object], counts: dict[str, int], context: Context) -> None:
    """Let the counts go with the asset events that Airflow sends when the task has succeeded.

    (https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/asset-scheduling.html)
    """
    events = context.get("outlet_events")
    for outlet in outlets:
        if isinstance(outlet, Asset) and events is not None:
            events[outlet].extra.update(counts)


def openlineage_of(
    sql: str | None,
    sql_conn_id: str | None,
    sql_hook_params: dict[str, Any] | None,
    parameters: Sequence[Any] | Mapping[str, Any] | None,
    *,
    ropo_conn_id: str,
) -> OperatorLineage[Any, Any] | None:
    """Return the tables that the query reads, where Airflow's parser finds them, and Ropo One's dataset.

    What it raises, Airflow's OpenLineage provider logs as a warning; the task goes on.

    :return: None without that provider.
    """
    try:
        from airflow.providers.common.compat.openlineage.utils.sql import get_openlineage_facets_with_sql
        from airflow.providers.openlineage.extractors import OperatorLineage
    except ImportError:
        return None
    lineage = None
    if sql and sql_conn_id:
        hook = database_hook(sql_conn_id, sql_hook_params)
        query = sql if parameters is None else _parsable(sql)
        # None where the warehouse's hook says too little of its database, as SQLite's does.
        lineage = get_openlineage_facets_with_sql(hook, query, sql_conn_id, database=None)
    lineage = lineage or OperatorLineage()
    # Where nothing can go is not known; the task itself says why.
    with suppress(RopoConfigurationError):
        lineage.outputs.append(dataset_of(RopoHook(ropo_conn_id).settings.server))
    return lineage


def _parsable(sql: str) -> str:
    """Return a query with ``:name`` for each placeholder: OpenLineage's parser knows no ``%(name)s`` and no ``%s``."""
    return _PLACEHOLDER.sub(lambda found: "%%" if found[0] == "%%" else f":{found[1] or 'parameter'}", sql)
