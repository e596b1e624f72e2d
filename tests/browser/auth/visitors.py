"""An Airflow with a user who may see everything but one DAG."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

HIDDEN = "ropo_usageplace_events_daily"


class Visitors(SimpleAuthManager):
    """Airflow's simple auth manager, whose user "visitor" may not see that DAG, nor anything of it."""

    def is_authorized_dag(self, *, user: Any, details: Any = None, **options: Any) -> bool:
        if user.get_name() == "visitor" and details is not None and details.id == HIDDEN:
            return False
        return super().is_authorized_dag(user=user, details=details, **options)
