"""Assets for Ropo One: ``ropo://rc.ropo24.fi/usageplace/event`` means the events reported to that server.

Imports nothing that is slow to load: Airflow loads this module with every DAG that uses such an asset.
(https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/assets.html)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.common.compat.sdk import Asset

SCHEME = "ropo"
PATH = "/usageplace/event"


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Return the normalized form of an asset's URI: server in lower case, port unless it is 443, and path.

    :param uri: as the DAG's author wrote it; Airflow has dropped the fragment and slashes at the end.
    :raises ValueError: if it has no server, or is not the URI of usage place events.
    """
    if not uri.hostname:
        raise ValueError("URI format ropo:// must contain a server, as in ropo://rc.ropo24.fi/usageplace/event")
    if uri.path not in ("", "/", PATH):
        raise ValueError(f"URI format ropo:// must have the path {PATH}, or none")
    if uri.query:
        raise ValueError("URI format ropo:// has no query")
    host = f"[{uri.hostname}]" if ":" in uri.hostname else uri.hostname
    netloc = host if uri.port in (None, 443) else f"{host}:{uri.port}"
    return SplitResult(SCHEME, netloc, PATH, "", "")


def create_asset(*, host: str, extra: dict[str, Any] | None = None) -> Asset:
    """Return the asset of a server; hook lineage finds this function by the scheme.

    :param host: such as ``rc.ropo24.fi``, with a port if it is not 443.
    :raises ValueError: if that is not a server.
    """
    from airflow.providers.common.compat.sdk import Asset

    return Asset(uri=urlunsplit(sanitize_uri(urlsplit(f"{SCHEME}://{host}"))), extra=extra or {})


def dataset_of(server: str) -> Dataset:
    """Return the OpenLineage dataset of a server.

    :param server: its address, such as ``https://rc.ropo24.fi``, or an asset's URI.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    uri = sanitize_uri(urlsplit(server))
    return Dataset(namespace=f"{SCHEME}://{uri.netloc}", name=PATH.lstrip("/"))


def convert_asset_to_openlineage(asset: Asset, lineage_context: object) -> Dataset:  # noqa: ARG001 - Airflow's signature
    """Return the OpenLineage dataset of an asset."""
    return dataset_of(asset.uri)
