"""Lineage of a run: asset events for Airflow, and datasets for OpenLineage."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import Asset, Context

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.task.connections import database_hook

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

#: A database driver's placeholder, or an escaped percent sign.
_PLACEHOLDER = re.compile(r"%%|%\((\w+)\)s|%s")


def add_counts_to_asset_events(outlets: Iterable[object], counts: dict[str, int], context: Context) -> None:
    """Add the counts to the asset events that Airflow sends when the task has succeeded.

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
    output: Callable[[], Dataset],
) -> OperatorLineage[Any, Any] | None:
    """Return the lineage: the tables that the query reads, if Airflow's parser finds them, and where the events go.

    If it raises, Airflow's OpenLineage provider logs a warning and the task continues.

    :param output: returns the dataset that the events go to.
    :return: None if that provider is not installed.
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
        # None if the warehouse's hook gives too little information about its database, as SQLite's does.
        lineage = get_openlineage_facets_with_sql(hook, query, sql_conn_id, database=None)
    lineage = lineage or OperatorLineage()
    # With an invalid connection there is no output dataset; the task itself raises the error.
    with suppress(RopoConfigurationError):
        lineage.outputs.append(output())
    return lineage


def dataset_of_folder(destination: str) -> Dataset:
    """Return the OpenLineage dataset of a folder that files go to.

    :param destination: its address, such as ``sftp://ropo@example.com:22/in``; the user is left out.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    uri = urlsplit(destination)
    server = uri.netloc.rpartition("@")[2]
    return Dataset(namespace=f"{uri.scheme}://{server}" if server else uri.scheme, name=uri.path.lstrip("/") or "/")


def _parsable(sql: str) -> str:
    """Return a query with ``:name`` for each placeholder: OpenLineage's parser knows no ``%(name)s`` and no ``%s``."""
    return _PLACEHOLDER.sub(lambda found: "%%" if found[0] == "%%" else f":{found[1] or 'parameter'}", sql)
