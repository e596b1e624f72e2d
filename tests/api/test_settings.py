"""What a connection may say, and what a wrong one is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.errors import RopoConfigurationError

SECRET = "hunter2-hunter2"
BASE = {"host": "rc.ropo24.fi", "login": "1000011", "password": SECRET}


def settings(**fields: Any) -> RopoSettings:
    return RopoSettings.from_connection("ropo_test", **{**BASE, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "rc.ropo24.fi"},
        {"host": " rc.ropo24.fi\n"},
        {"host": "RC.Ropo24.FI"},
        {"host": "rc.ropo24.fi/"},
        {"host": "rc.ropo24.fi/rest"},
        {"host": "rc.ropo24.fi/rest/"},
        {"host": "https://rc.ropo24.fi"},
        {"host": "HTTPS://rc.ropo24.fi/"},
        {"host": "https://rc.ropo24.fi/rest"},
        {"host": "https://rc.ropo24.fi/rest/"},
        {"host": "rc.ropo24.fi", "schema": "https"},
        {"host": "rc.ropo24.fi", "schema": "HTTPS"},
        {"host": "rc.ropo24.fi", "schema": "rest"},
        {"host": "rc.ropo24.fi", "schema": "/rest/"},
        {"host": "rc.ropo24.fi", "schema": "", "port": 0, "extra": ""},
        {"host": "https://rc.ropo24.fi", "schema": "https", "port": None, "extra": "{}"},
    ],
    ids=repr,
)
def test_all_forms_of_a_server_mean_the_same(fields: dict[str, Any]) -> None:
    """A server may be written with or without scheme, ``/rest`` and slash."""
    expected = RopoSettings("ropo_test", "https://rc.ropo24.fi", "1000011", SECRET)

    assert expected == settings(**fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host": "rc.ropo24.fi:8443"}, "https://rc.ropo24.fi:8443"),
        ({"host": "https://rc.ropo24.fi:8443/rest"}, "https://rc.ropo24.fi:8443"),
        ({"host": "rc.ropo24.fi", "port": 8443}, "https://rc.ropo24.fi:8443"),
        ({"host": "rc.ropo24.fi:8443", "port": 8443}, "https://rc.ropo24.fi:8443"),
        ({"host": "192.0.2.7"}, "https://192.0.2.7"),
        ({"host": "[2001:db8::1]"}, "https://[2001:db8::1]"),
        ({"host": "2001:db8::1"}, "https://[2001:db8::1]"),
        ({"host": "2001:db8::1", "port": 8443}, "https://[2001:db8::1]:8443"),
        ({"host": "[2001:db8::1]:8443"}, "https://[2001:db8::1]:8443"),
        ({"host": "https://[2001:db8::1]:8443/rest"}, "https://[2001:db8::1]:8443"),
        ({"host": "localhost:8099", "schema": "http"}, "http://localhost:8099"),
        ({"host": "http://localhost:8099"}, "http://localhost:8099"),
        ({"host": "http://127.0.0.1:8099/rest"}, "http://127.0.0.1:8099"),
        ({"host": "127.9.9.9", "schema": "http", "port": 8099}, "http://127.9.9.9:8099"),
        ({"host": "http://[::1]:8099"}, "http://[::1]:8099"),
        ({"host": "::1", "schema": "http", "port": 8099}, "http://[::1]:8099"),
        ({"host": "http://tunnel", "extra": {"allow_http": True}}, "http://tunnel"),
    ],
    ids=repr,
)
def test_a_server_has_scheme_host_and_port(fields: dict[str, Any], expected: str) -> None:
    """Ports, addresses of both kinds and plain http to loopback are understood wherever they are written."""
    assert expected == settings(**fields).server


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        pytest.param({"host": None}, ["Server (host)", "rc.ropo24.fi"], id="no host"),
        pytest.param({"host": "  "}, ["Server (host)", "rc.ropo24.fi"], id="blank host"),
        pytest.param({"host": "https://"}, ["Server (host)", "rc.ropo24.fi"], id="scheme alone"),
        pytest.param({"host": "rc.ropo24.fi/api"}, ["Server (host)", "rc.ropo24.fi"], id="another path"),
        pytest.param({"host": "rc.ropo24.fi/rest/token"}, ["Server (host)"], id="a deeper path"),
        pytest.param({"host": "rc.ropo24.fi?a=b"}, ["Server (host)"], id="a query"),
        pytest.param({"host": "rc.ropo24.fi#a"}, ["Server (host)"], id="a fragment"),
        pytest.param({"host": "rc ropo24.fi"}, ["Server (host)"], id="a blank inside"),
        pytest.param({"host": "rc.ropo24.fi:port"}, ["Server (host)"], id="port of letters"),
        pytest.param({"host": "rc.ropo24.fi:99999"}, ["Server (host)"], id="port too high"),
        pytest.param({"host": "[::1"}, ["Server (host)"], id="half a bracket"),
        pytest.param({"host": "ftp://rc.ropo24.fi"}, ["Server (host)"], id="ftp"),
        pytest.param({"schema": "ftp"}, ["Server (host)"], id="schema ftp"),
        pytest.param({"host": f"1000011:{SECRET}@rc.ropo24.fi"}, ["Server (host)"], id="credentials in host"),
        pytest.param({"host": "https://rc.ropo24.fi", "schema": "http"}, ["Schema", "keep one"], id="schemes"),
        pytest.param({"host": "rc.ropo24.fi:1", "port": 2}, ["Port", "keep one"], id="ports"),
        pytest.param({"port": 70_000}, ["Port", "65535"], id="port field too high"),
        pytest.param({"port": -1}, ["Port", "65535"], id="port field negative"),
        pytest.param({"schema": "http"}, ["Server (host)", "use https"], id="plain http"),
        pytest.param({"host": "http://rc.ropo24.fi"}, ["Server (host)", "use https"], id="plain http host"),
        pytest.param({"host": "http://192.0.2.7"}, ["use https"], id="plain http to an address"),
        pytest.param({"host": "http://127.0.0.1.example"}, ["use https"], id="looks like loopback"),
        pytest.param({"host": "http://localhost.example"}, ["use https"], id="looks like localhost"),
        pytest.param(
            {"host": "http://rc.ropo24.fi", "extra": {"allow_http": "false"}},
            ["use https"],
            id="http not allowed",
        ),
        pytest.param({"login": None}, ["Customer number (login)", "Ropo support"], id="no login"),
        pytest.param({"login": " "}, ["Customer number (login)", "Ropo support"], id="blank login"),
        pytest.param({"password": None}, ["API code (password)", "Ropo support"], id="no password"),
        pytest.param({"password": "\t"}, ["API code (password)", "Ropo support"], id="blank password"),
        pytest.param({"extra": {"time_out": 5}}, ["time_out", "timeout"], id="unknown extra"),
        pytest.param({"extra": {"apicode": SECRET}}, ["apicode", "timezone"], id="secret in an extra"),
        pytest.param({"extra": {"timezone": "Europe/Helsingfors"}}, ["timezone", "Europe/Helsinki"], id="zone"),
        pytest.param({"extra": {"timezone": 2}}, ["timezone", "Europe/Helsinki"], id="zone number"),
        pytest.param({"extra": {"timezone": "../../etc/passwd"}}, ["timezone"], id="zone a path"),
        pytest.param({"extra": {"timeout": 0}}, ["timeout", "more than 0"], id="timeout 0"),
        pytest.param({"extra": {"timeout": -1}}, ["timeout", "more than 0"], id="timeout negative"),
        pytest.param({"extra": {"timeout": 3601}}, ["timeout", "3600"], id="timeout above an hour"),
        pytest.param({"extra": {"timeout": "soon"}}, ["timeout", "seconds"], id="timeout words"),
        pytest.param({"extra": {"timeout": "nan"}}, ["timeout", "seconds"], id="timeout NaN"),
        pytest.param({"extra": {"timeout": "inf"}}, ["timeout", "seconds"], id="timeout infinite"),
        pytest.param({"extra": {"timeout": True}}, ["timeout", "seconds"], id="timeout yes"),
        pytest.param({"extra": {"timeout": [5]}}, ["timeout", "seconds"], id="timeout list"),
        pytest.param({"extra": {"verify": False}}, ["verify", "CA bundle"], id="verify off"),
        pytest.param({"extra": {"verify": "false"}}, ["verify", "CA bundle"], id="verify off as text"),
        pytest.param({"extra": {"verify": "/no/such/file"}}, ["verify", "CA bundle"], id="verify no file"),
        pytest.param({"extra": {"verify": __file__}}, ["verify", "CA bundle"], id="verify no bundle"),
        pytest.param({"extra": {"verify": "a\0b"}}, ["verify", "CA bundle"], id="verify no path"),
        pytest.param({"extra": {"verify": 1}}, ["verify", "CA bundle"], id="verify a number"),
        pytest.param({"extra": {"jobid_as_string": "yes"}}, ["jobid_as_string", "true or false"], id="jobid"),
        pytest.param({"extra": {"jobid_as_string": 1}}, ["jobid_as_string", "true or false"], id="jobid 1"),
        pytest.param({"extra": {"allow_http": "1"}, "schema": "http"}, ["allow_http"], id="allow_http"),
        pytest.param({"extra": {"destination": "a" * 256}}, ["destination", "255"], id="destination too long"),
        pytest.param({"extra": {"destination": "a\nb"}}, ["destination", "one line"], id="destination of two lines"),
        pytest.param({"extra": {"destination": "a\0b"}}, ["destination", "printable"], id="destination with NUL"),
        pytest.param({"extra": {"destination": "a\u200bb"}}, ["destination", "printable"], id="destination invisible"),
        pytest.param({"extra": {"destination": "\ud800"}}, ["destination", "printable"], id="destination half a pair"),
        pytest.param({"extra": {"destination": 5}}, ["destination", "text"], id="destination a number"),
        pytest.param({"extra": {"destination": ["a"]}}, ["destination", "text"], id="destination a list"),
        pytest.param({"extra": "timeout=5"}, ["extra", "JSON"], id="extra no JSON"),
        pytest.param({"extra": '{"timezone": "Europe/Stockholm"'}, ["extra", "JSON"], id="extra half JSON"),
        pytest.param({"extra": "[1]"}, ["extra", "JSON"], id="extra a list as text"),
        pytest.param({"extra": '"text"'}, ["extra", "JSON"], id="extra a text"),
        pytest.param({"extra": [["timeout", 5]]}, ["extra", "JSON"], id="extra a list"),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(fields: dict[str, Any], names: list[str]) -> None:
    """A connection that cannot work is refused; it, the field and the remedy are named, never the secret."""
    with pytest.raises(RopoConfigurationError) as caught:
        settings(**fields)

    message = str(caught.value)
    assert [name for name in ["connection 'ropo_test'", *names] if name not in message] == []
    assert SECRET not in message
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("rc.ropo24.fi", "Europe/Helsinki"),
        ("ropo24.fi", "Europe/Helsinki"),
        ("rc.ropo24.se", "Europe/Stockholm"),
        ("https://ROPO24.SE/rest", "Europe/Stockholm"),
        ("ropo24.se.", "Europe/Stockholm"),
        ("https://rc.ropo24.no:443", "Europe/Oslo"),
        ("127.0.0.1", "Europe/Helsinki"),
        ("ropo.example", "Europe/Helsinki"),
    ],
)
def test_the_time_zone_is_that_of_the_servers_country(host: str, expected: str) -> None:
    """Without the extra, the server's ending decides whose wall clock Ropo One is told."""
    assert expected == settings(host=host).timezone


def test_the_time_zone_can_be_chosen() -> None:
    """The extra wins over the server's country."""
    assert settings(host="ropo24.se", extra={"timezone": "Europe/Oslo"}).timezone == "Europe/Oslo"


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param({"timeout": 5, "jobid_as_string": True, "verify": True, "timezone": "UTC"}, id="typed"),
        pytest.param(
            {"timeout": "5", "jobid_as_string": "true", "verify": "true", "timezone": "UTC"},
            id="text of a URI",
        ),
        pytest.param({"timeout": 5.0, "jobid_as_string": "True", "verify": "True", "timezone": "UTC"}, id="mixed"),
        pytest.param(
            {
                "timeout": "5.0",
                "jobid_as_string": "TRUE",
                "verify": None,
                "timezone": "UTC",
                "allow_http": "",
            },
            id="with fields nobody filled in",
        ),
        pytest.param('{"timeout": 5, "jobid_as_string": true, "timezone": "UTC"}', id="JSON"),
    ],
)
def test_extras_mean_the_same_as_text(extra: Any) -> None:
    """Extras may come as JSON has them or as the text a connection URI carries."""
    expected = RopoSettings(
        "ropo_test", "https://rc.ropo24.fi", "1000011", SECRET, "UTC", 5.0, verify=True, jobid_as_string=True
    )

    assert expected == settings(extra=extra)


@pytest.mark.parametrize("extra", [None, {}, "", "{}", "null", {"timeout": None, "timezone": "", "verify": ""}])
def test_extras_have_defaults(extra: Any) -> None:
    """What is left open has its documented default."""
    expected = ("Europe/Helsinki", 30.0, True, False)

    found = settings(extra=extra)

    assert expected == (found.timezone, found.timeout, found.verify, found.jobid_as_string)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host": "rc.ropo24.fi"}, "https://rc.ropo24.fi 1000011"),
        ({"host": "HTTPS://RC.Ropo24.FI/rest", "login": " 77 "}, "https://rc.ropo24.fi 77"),
        ({"host": "rc.ropo24.fi", "port": 443}, "https://rc.ropo24.fi 1000011"),
        ({"host": "https://rc.ropo24.fi:443"}, "https://rc.ropo24.fi 1000011"),
        ({"host": "rc.ropo24.fi", "port": 8443}, "https://rc.ropo24.fi:8443 1000011"),
        ({"host": "rc.ropo24.fi:80"}, "https://rc.ropo24.fi:80 1000011"),
        ({"host": "http://localhost"}, "http://localhost 1000011"),
        ({"host": "http://localhost:80"}, "http://localhost 1000011"),
        ({"host": "http://LOCALHOST:443"}, "http://localhost:443 1000011"),
        ({"host": "2001:DB8::1"}, "https://[2001:db8::1] 1000011"),
        ({"host": "[2001:db8::1]:443"}, "https://[2001:db8::1] 1000011"),
        ({"extra": {"destination": None}}, "https://rc.ropo24.fi 1000011"),
        ({"extra": {"destination": ""}}, "https://rc.ropo24.fi 1000011"),
        ({"extra": {"destination": " \t "}}, "https://rc.ropo24.fi 1000011"),
        ({"extra": {"destination": " https://old.ropo24.fi 1000011\n"}}, "https://old.ropo24.fi 1000011"),
        ({"extra": '{"destination": "Ropo One, test"}'}, "Ropo One, test"),
        ({"extra": {"destination": "Ropö Ett"}}, "Ropö Ett"),
        ({"extra": {"destination": "a" * 255}}, "a" * 255),
    ],
    ids=repr,
)
def test_the_ledger_knows_a_connection_by_its_destination(fields: dict[str, Any], expected: str) -> None:
    """The destination is the extra's text, otherwise server and customer number, however the server is written."""
    assert expected == settings(**fields).destination


def test_verify_may_be_a_folder(tmp_path: Path) -> None:
    """A folder of certificate authorities serves as well as a file."""
    assert str(tmp_path) == settings(extra={"verify": str(tmp_path)}).verify


def test_credentials_lose_the_blanks_they_were_pasted_with() -> None:
    """Blanks around the customer number and the API code are no part of them."""
    found = settings(login=" 1000011 ", password=f"{SECRET}\n")

    assert (found.cid, found.apicode) == ("1000011", SECRET)


def test_settings_do_not_show_the_secret() -> None:
    """Settings printed by accident do not show the API code."""
    found = settings()

    assert SECRET not in repr(found)
    assert dataclasses.asdict(found)["apicode"] == SECRET
