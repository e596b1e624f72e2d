"""The URIs of Ropo One as an asset; Airflow's part in them is in tests/airflow/test_lineage.py."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import pytest

from airflow_provider_ropo.assets.ropo import sanitize_uri

ROPO_ONE = "ropo://rc.ropo24.fi/usageplace/event"

SAME = [
    ROPO_ONE,
    "ropo://rc.ropo24.fi",
    "ropo://rc.ropo24.fi/",
    "ROPO://RC.Ropo24.FI/usageplace/event",
    "ropo://rc.ropo24.fi:443/usageplace/event",
    "ropo://rc.ropo24.fi:/usageplace/event",
    "ropo://1000011@rc.ropo24.fi/usageplace/event",
    "ropo://1000011:secret@rc.ropo24.fi:443/",
]
OTHER_SERVERS = {
    "ropo://ropo24.se/": "ropo://ropo24.se/usageplace/event",
    "ropo://127.0.0.1:8099": "ropo://127.0.0.1:8099/usageplace/event",
    "ropo://[::1]:8099/": "ropo://[::1]:8099/usageplace/event",
    "ropo://[::1]:443/": "ropo://[::1]/usageplace/event",
}
REFUSED = {
    "ropo:///usageplace/event": "must contain a server",
    "ropo:usageplace/event": "must contain a server",
    "ropo://:8099/": "must contain a server",
    "ropo://rc.ropo24.fi/rest": "must have the path /usageplace/event, or none",
    "ropo://rc.ropo24.fi/usageplace/event/1a2b3c4d5": "must have the path /usageplace/event, or none",
    "ropo://rc.ropo24.fi/USAGEPLACE/event": "must have the path /usageplace/event, or none",
    "ropo://rc.ropo24.fi/?timeout=60": "has no query",
    "ropo://rc.ropo24.fi:99999/": "out of range",
    "ropo://rc.ropo24.fi:rest/": "could not be cast",
}


def sanitized(uri: str) -> str:
    return urlunsplit(sanitize_uri(urlsplit(uri)))


@pytest.mark.parametrize("uri", SAME)
def test_one_server_has_one_uri(uri: str) -> None:
    """Every way to write a server gives the same asset, and credentials are not part of it."""
    assert ROPO_ONE == sanitized(uri)


@pytest.mark.parametrize(("uri", "expected"), OTHER_SERVERS.items())
def test_each_server_has_its_own_uri(uri: str, expected: str) -> None:
    """Another server, or another port, is another asset."""
    assert expected == sanitized(uri)


@pytest.mark.parametrize("uri", [*SAME, *OTHER_SERVERS])
def test_a_sanitized_uri_stays_as_it_is(uri: str) -> None:
    """To sanitize once more changes nothing."""
    once = sanitized(uri)

    assert once == sanitized(once)


@pytest.mark.parametrize(("uri", "reason"), REFUSED.items())
def test_other_uris_are_refused(uri: str, reason: str) -> None:
    """A URI without a server, or of something else than usage place events, is refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        sanitized(uri)
