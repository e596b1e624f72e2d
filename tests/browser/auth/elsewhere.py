"""An XCom backend that keeps the large values of one DAG outside Airflow's database."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend
from airflow.sdk.bases.xcom import BaseXCom

DAG_ID = "elsewhere"


class Elsewhere(XComObjectStorageBackend):
    """Airflow's object storage backend for that DAG; for all others, no backend."""

    @staticmethod
    def serialize_value(value: Any, **ids: Any) -> Any:
        backend = XComObjectStorageBackend if ids.get("dag_id") == DAG_ID else BaseXCom
        return backend.serialize_value(value, **ids)
