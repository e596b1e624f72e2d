"""Settings of a connection of type ``ropo``: its fields, checked once and turned into plain values."""

from __future__ import annotations

import ipaddress
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.timezones import DEFAULT_TIMEZONE, find_timezone

#: The zone of the times that are sent, by the country of the server.
_TIMEZONES = {".fi": DEFAULT_TIMEZONE, ".se": "Europe/Stockholm", ".no": "Europe/Oslo"}
EXTRAS = ("timezone", "timeout", "verify", "jobid_as_string", "destination", "allow_http")
_STANDARD_PORTS = {"https": 443, "http": 80}
#: What a ledger's column of destinations holds, in characters.
_LONGEST_DESTINATION = 255
DEFAULT_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class RopoSettings:
    """Settings of a connection that can work.

    :param conn_id: the connection's id, for messages.
    :param server: scheme, host and port, as in ``https://rc.ropo24.fi``.
    :param cid: the customer number.
    :param apicode: the API code; never shown.
    :param timezone: the zone of the times that Ropo One is sent.
    :param timeout: seconds that one whole response may take, counted from the end of sending; connecting has at most
        as many, and at most ten, for each of its steps.
    :param verify: True, or the path of a bundle of certificate authorities.
    :param jobid_as_string: send ``jobid`` as text, as in the guide's examples.
    :param destination: the name under which a ledger remembers this Ropo One; empty: server and customer number, as in
        ``https://rc.ropo24.fi 1000011``.
    """

    conn_id: str
    server: str
    cid: str
    apicode: str = field(repr=False)
    timezone: str = DEFAULT_TIMEZONE
    timeout: float = DEFAULT_TIMEOUT
    verify: bool | str = True
    jobid_as_string: bool = False
    destination: str = ""

    def __post_init__(self) -> None:
        if not self.destination:
            object.__setattr__(self, "destination", f"{_without_standard_port(self.server)} {self.cid}")

    @classmethod
    def from_connection(
        cls,
        conn_id: str,
        *,
        host: str | None,
        login: str | None,
        password: str | None,
        port: int | None = None,
        schema: str | None = None,
        extra: str | Mapping[str, Any] | None = None,
    ) -> RopoSettings:
        """Return the settings of a connection, given its fields as Airflow has them.

        :param extra: as JSON text, or as the object that it stands for.
        :raises RopoConfigurationError: naming the connection, the field and the remedy.
        """
        try:
            return cls(conn_id, *_checked(host, login, password, port, schema, _extras(extra)))
        except RopoConfigurationError as error:
            raise RopoConfigurationError(f"connection {conn_id!r}: {error}") from None


def _checked(
    host: str | None,
    login: str | None,
    password: str | None,
    port: int | None,
    schema: str | None,
    extra: dict[str, Any],
) -> tuple[Any, ...]:
    unknown = sorted(set(extra) - set(EXTRAS))
    if unknown:
        raise RopoConfigurationError(f"extra {', '.join(unknown)} is not known; known are {', '.join(EXTRAS)}")
    # A form saves fields that are not filled in as null or empty.
    extra = {name: value for name, value in extra.items() if value not in (None, "")}
    server, hostname = _server(host, port, schema)
    if server.startswith("http://") and not is_loopback(hostname) and not _parse_bool(extra, "allow_http"):
        raise RopoConfigurationError(
            f"Server (host) {server} is plain http, which sends the API code unencrypted; use https"
        )
    for name, value in (("Customer number (login)", login), ("API code (password)", password)):
        if not (value or "").strip():
            raise RopoConfigurationError(f"{name} is empty; you get it from Ropo support")
    return (
        server,
        (login or "").strip(),
        (password or "").strip(),
        _timezone(extra, hostname),
        _timeout(extra),
        _verify(extra),
        _parse_bool(extra, "jobid_as_string"),
        _destination(extra),
    )


def _extras(extra: str | Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        found = json.loads(extra or "null") if isinstance(extra, str) else extra
    except (ValueError, RecursionError):
        found = extra
    if not isinstance(found, Mapping | None):
        raise RopoConfigurationError('extra is not a JSON object such as {"timeout": 30}')
    return dict(found or {})


def _server(host: str | None, port: int | None, schema: str | None) -> tuple[str, str]:
    """Return the server's address and its bare host name, from any form in which they may be written."""
    text = (host or "").strip()
    if not text:
        raise RopoConfigurationError("Server (host) is empty; enter rc.ropo24.fi (test) or ropo24.fi, for example")
    # In a connection URI, the path is the schema: ropo://…@rc.ropo24.fi/rest
    scheme = (schema or "").strip("/ ").casefold().replace("rest", "")
    try:
        parts = urlsplit(text if "://" in text else f"{scheme or 'https'}://{_bracketed(text)}")
        hostname, own_port = parts.hostname, parts.port
    except ValueError:
        hostname = own_port = None
    if (
        not hostname
        or parts.scheme not in {"http", "https"}
        or parts.path.strip("/") not in {"", "rest"}
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or any(character.isspace() for character in hostname)
    ):
        raise RopoConfigurationError(
            "Server (host) is not a server's address such as rc.ropo24.fi or https://rc.ropo24.fi"
        )
    if scheme not in {"", parts.scheme} or (own_port and port and own_port != port):
        raise RopoConfigurationError("Server (host) has another scheme or port than Schema or Port; keep one")
    number = own_port or port
    if number and not 0 < number <= 65535:  # noqa: PLR2004 - the last port
        raise RopoConfigurationError("Port is not between 1 and 65535; leave it empty for the default")
    return f"{parts.scheme}://{_bracketed(hostname)}{f':{number}' if number else ''}", hostname


def _bracketed(hostname: str) -> str:
    """Return a host name, in brackets if it is an IPv6 address: a connection URI loses them in Airflow."""
    try:
        return f"[{hostname}]" if ipaddress.ip_address(hostname).version == 6 else hostname  # noqa: PLR2004
    except ValueError:
        return hostname


def is_loopback(hostname: str) -> bool:
    """Return whether a host name is this machine itself."""
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"


def _timezone(extra: Mapping[str, Any], hostname: str) -> str:
    default = _TIMEZONES.get(hostname.rstrip(".")[-3:], DEFAULT_TIMEZONE)
    name = str(extra.get("timezone", default))
    find_timezone(name)
    return name


def _timeout(extra: Mapping[str, Any]) -> float:
    value = extra.get("timeout", DEFAULT_TIMEOUT)
    try:
        seconds = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds <= 3600:  # noqa: PLR2004 - an hour
        raise RopoConfigurationError("extra timeout must be a number of seconds, more than 0, at most 3600")
    return seconds


def _verify(extra: Mapping[str, Any]) -> bool | str:
    value = extra.get("verify", True)
    if value is True or str(value).casefold() == "true":
        return True
    if not isinstance(value, str) or not _is_ca_bundle(value):
        raise RopoConfigurationError(
            "extra verify must be true, or the path of a CA bundle that exists on the worker; "
            "certificates are always checked"
        )
    return value


def _destination(extra: Mapping[str, Any]) -> str:
    value = extra.get("destination", "")
    name = value.strip() if isinstance(value, str) else None
    # Two names that look the same must be the same: nothing in it is invisible, which control characters are too.
    if name is None or len(name) > _LONGEST_DESTINATION or not name.isprintable():
        raise RopoConfigurationError(
            f"extra destination must be printable text on one line, of at most {_LONGEST_DESTINATION} characters"
        )
    return name


def _without_standard_port(server: str) -> str:
    """Return a server's address in the form of its asset's URI: small letters, and no port that is the scheme's own."""
    parts = urlsplit(server.lower())
    port = "" if parts.port in (None, _STANDARD_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{_bracketed(parts.hostname or '')}{port}"


def _is_ca_bundle(path: str) -> bool:
    try:
        if not Path(path).is_dir():
            ssl.create_default_context(cafile=path)
    except (OSError, ValueError):
        return False
    else:
        return True


def _parse_bool(extra: Mapping[str, Any], name: str) -> bool:
    """Return a boolean extra, which a connection URI gives as text."""
    value = str(extra.get(name, False)).casefold()
    if value not in {"true", "false"}:
        raise RopoConfigurationError(f"extra {name} must be true or false")
    return value == "true"
