"""What a run reads and where it goes: as assets to Airflow, as datasets to OpenLineage."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, Context

from airflow_provider_ropo.assets.ropo import dataset_of
from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.operators.databases import database_hook

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

#: A database driver's placeholder, or the sign that is none.
_PLACEHOLDER = re.compile(r"%%|%\((\w+)\)s|%s")


def tell_assets(outlets: Iterable[object], counts: dict[str, int], context: Context) -> None:
    """Let the counts go with the asset events that Airflow sends when the task has succeeded.

    (https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/asset-scheduling.html)
    """
    events = context.get("outlet_events")
    for outlet in outlets:
        if isinstance(outlet, Asset) and events is not None:
            events[outlet].extra.update(counts)


def openlineage_of(task: UsageplaceEventOperator) -> OperatorLineage[Any, Any] | None:
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
    if task.sql and task.sql_conn_id:
        hook = database_hook(task.sql_conn_id, task.sql_hook_params)
        query = task.sql if task.parameters is None else _parsable(task.sql)
        # None where the warehouse's hook says too little of its database, as SQLite's does.
        lineage = get_openlineage_facets_with_sql(hook, query, task.sql_conn_id, database=None)
    lineage = lineage or OperatorLineage()
    # Where nothing can go is not known; the task itself says why.
    with suppress(RopoConfigurationError):
        lineage.outputs.append(dataset_of(RopoHook(task.ropo_conn_id).settings.server))
    return lineage


def _parsable(sql: str) -> str:
    """Return a query with ``:name`` for each placeholder: OpenLineage's parser knows no ``%(name)s`` and no ``%s``."""
    return _PLACEHOLDER.sub(lambda found: "%%" if found[0] == "%%" else f":{found[1] or 'parameter'}", sql)
