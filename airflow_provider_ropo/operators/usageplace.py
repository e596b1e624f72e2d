"""The Airflow operator: outcomes in a warehouse table arrive at Ropo One."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Context

from airflow_provider_ropo.assets.ropo import dataset_of
from airflow_provider_ropo.dispatch.posting import RestChannel
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.links.ropo import LINKS
from airflow_provider_ropo.operators.base import Target, UsageplaceOperator
from airflow_provider_ropo.task import options, retry_policy
from airflow_provider_ropo.task.lineage import openlineage_of

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage


class UsageplaceEventOperator(UsageplaceOperator):
    """Report each row of a warehouse query to Ropo One: one ``POST /usageplace/event`` an event.

    The payload is that of the API reference (https://dev.ropo.com/api-reference/usageplace). The parameters that are
    not described here are those of :class:`~airflow_provider_ropo.operators.base.UsageplaceOperator`.

    :param ropo_conn_id: the connection of type Ropo One; its extra ``timeout`` is in seconds. Templated.
    :param max_workers: parallel posts, never two for one usage place. Templated.
    :param rate_limit: maximum number of posts a second over all of them; None: no limit. Templated.
    :raises DeliveriesFailedError: if something is not at Ropo One.
    :raises RopoError: if nothing could be sent at all.
    """

    template_fields: Sequence[str] = (*UsageplaceOperator.template_fields, "ropo_conn_id", "max_workers", "rate_limit")
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        ropo_conn_id: str = RopoHook.default_conn_name,
        max_workers: int | str = 8,
        rate_limit: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        retry_policy.use_retry_after(self)
        self.ropo_conn_id = ropo_conn_id
        self.max_workers = max_workers
        self.rate_limit = rate_limit
        options.check_posting_when_parsed(self)

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return what is read and where it goes; Airflow's OpenLineage provider asks when the task starts."""
        return openlineage_of(
            self.sql,
            self.sql_conn_id,
            self.sql_hook_params,
            self.parameters,
            output=lambda: dataset_of(RopoHook(self.ropo_conn_id).settings.server),
        )

    def _target(self, context: Context) -> Target:
        del context
        posting = options.posting_options(self)
        hook = RopoHook(self.ropo_conn_id)
        settings = hook.settings
        channel = RestChannel(hook.get_conn(), posting, settings.jobid_as_string)
        return Target(channel, settings.server, settings.destination, settings.timezone)
