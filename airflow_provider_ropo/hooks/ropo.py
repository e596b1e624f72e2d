"""Airflow hook that turns a connection of type ``ropo`` into a client that signs in and posts."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.api.responses import Receipt
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.errors import RopoConfigurationError, RopoError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.provider_info import CONNECTION_TYPE
from airflow_provider_ropo.retry import Backoff, call_with_retries
from airflow_provider_ropo.timezones import find_timezone


class RopoHook(BaseHook):
    """Hook of a connection to Ropo One.

    Constructing it touches nothing; the connection is read when it is first needed, once, and everything
    after that is plain values, so that the client may be shared between threads. The two calls are those of the API
    reference (https://dev.ropo.com/), pages "Auth" and "Usageplace".

    :param ropo_conn_id: the connection of type "Ropo One": Server (host), Customer number (login), API code
        (password) and the extras ``timezone``, ``timeout`` (seconds), ``verify``, ``jobid_as_string``,
        ``destination`` (the name under which the ledger remembers this Ropo One; by default server and customer number)
        and ``allow_http``, each described in the connection's form.
    """

    conn_name_attr = "ropo_conn_id"
    default_conn_name = "ropo_default"
    conn_type = CONNECTION_TYPE["connection-type"]
    hook_name = CONNECTION_TYPE["hook-name"]

    def __init__(self, ropo_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ropo_conn_id = ropo_conn_id

    @cached_property
    def settings(self) -> RopoSettings:
        """Settings of the connection, read and checked once.

        :raises RopoConfigurationError: naming the connection, the field and the remedy.
        """
        try:
            connection = self.get_connection(self.ropo_conn_id)
        except AirflowNotFoundException:
            raise RopoConfigurationError(
                f"connection {self.ropo_conn_id!r} is not defined, or Airflow cannot read it; add one "
                "of type Ropo One under Admin, Connections"
            ) from None
        return RopoSettings.from_connection(
            self.ropo_conn_id,
            host=connection.host,
            login=connection.login,
            password=connection.password,
            port=connection.port,
            schema=connection.schema,
            extra=connection.extra,
        )

    @cached_property
    def _client(self) -> RopoClient:
        return RopoClient(self.settings, on_token=mask_secret)

    def get_conn(self) -> RopoClient:
        """Return the client, always the same one, safe to share between threads.

        :raises RopoConfigurationError: if the connection cannot work.
        """
        return self._client

    def post_usageplace_event(self, event: UsageplaceEvent) -> Receipt:
        """Post one event; a transient error is retried with the same id before it is raised.

        :param event: the event, as :meth:`~airflow_provider_ropo.event.UsageplaceEvent.from_row` makes it.
        :return: Ropo One's acceptance.
        :raises RopoError: see :mod:`airflow_provider_ropo.errors`; a
            :class:`~airflow_provider_ropo.errors.RopoTimeoutError` means that the event may have arrived.
        """
        payload = event.to_payload(jobid_as_string=self.settings.jobid_as_string)
        client = self.get_conn()
        result = call_with_retries(lambda: client.post_usageplace_event(payload), Backoff(), what=f"event {event.id}")
        if isinstance(result.result, RopoError):
            result.result.event_id = event.id
            raise result.result
        return result.result

    def test_connection(self) -> tuple[bool, str]:
        """Sign in and return whether that worked, with a message; never posts an event. The Test button calls it."""
        try:
            until = self.get_conn().sign_in()
        except RopoError as error:
            # The button tests a copy under a made-up id, which would only puzzle. An undefined connection keeps its id:
            # the copy always is defined, so it is a caller's own.
            return False, str(error).replace(f"connection {self.ropo_conn_id!r}: ", "")
        local = until.astimezone(find_timezone(self.settings.timezone))
        return True, (
            f"Signed in to {self.settings.server} as customer {self.settings.cid}; the token is valid until "
            f"{local:%Y-%m-%d %H:%M:%S} ({self.settings.timezone})"
        )

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels, for Airflow before 3.2."""
        behaviour = CONNECTION_TYPE["ui-field-behaviour"]
        return {
            "hidden_fields": behaviour["hidden-fields"],
            "relabeling": behaviour["relabeling"],
            "placeholders": behaviour["placeholders"],
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's fields for the extras, for Airflow before 3.2."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from flask_babel import lazy_gettext
        from wtforms import BooleanField, IntegerField, StringField

        kinds = {"string": StringField, "integer": IntegerField, "boolean": BooleanField}
        widgets = {}
        for name, field in CONNECTION_TYPE["conn-fields"].items():
            kind = kinds[field["schema"]["type"][0]]
            look = {} if kind is BooleanField else {"widget": BS3TextFieldWidget()}
            widgets[name] = kind(
                lazy_gettext(field["label"]),
                description=field["description"],
                default=field["schema"]["default"],
                **look,
            )
        return widgets
