"""Web application of the sandbox: the two API calls that the provider uses, and a page that shows the events.

Ropo developer documentation, API reference, pages "Auth" (``POST /rest/token``), "Usageplace"
(``POST /rest/usageplace/event``) and "Models" (``HttpApiProblem``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict, dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from starlette.requests import ClientDisconnect

from airflow_provider_ropo.sandbox import schema
from airflow_provider_ropo.sandbox.faults import Fault, FaultQueue
from airflow_provider_ropo.sandbox.request_log import KEPT, RequestLog
from airflow_provider_ropo.sandbox.tokens import TWO_HOURS, TokenIssuer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_ropo.sandbox.drop_folder import DropFolder

UNKNOWN_PLACE = "UNKNOWN"
"""Usage place codes that start with this are refused, so that a rejection can be tried out."""

MAX_FILES = 100
"""The number of files that are listed."""

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)


@dataclass(frozen=True)
class Settings:
    """Settings of a sandbox, fixed when it starts."""

    cid: str = "1000011"
    apicode: str = "sandbox"
    latency: float = 0.0
    token_ttl: float = TWO_HOURS
    accept_jobid_string: bool = False
    keep: int = KEPT


@dataclass(frozen=True)
class Refusal:
    """An answer other than 200: a 401 has no content, a 400 has an ``HttpApiProblem``."""

    status: HTTPStatus
    title: str
    detail: str

    def response(self) -> Response:
        """Return it as an HTTP response in Ropo's format."""
        if self.status == HTTPStatus.UNAUTHORIZED:
            return Response(status_code=self.status)
        problem = {"type": "about:blank", "title": self.title, "detail": self.detail}
        return _json({"status": int(self.status), **problem}, self.status, "application/problem+json")


class LocalRopo:
    """State of one sandbox, and its answers to requests."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.request_log = RequestLog(settings.keep)
        self.event_faults = FaultQueue()
        self.sign_in_faults = FaultQueue()
        self.stopping = asyncio.Event()
        self.reset: Callable[[Request], None] = _reset_unavailable
        self.drop_folder: DropFolder | None = None
        """The SFTP drop folder whose files the page shows, if there is one."""
        self._tokens = TokenIssuer(settings.token_ttl)

    def clear(self) -> None:
        """Delete arrivals, counts and unused faults. Tokens stay valid."""
        self.request_log.clear()
        self.event_faults.clear()
        self.sign_in_faults.clear()

    async def sign_in(self, request: Request) -> Response:
        """``POST /rest/token``."""
        usual = self._check_sign_in(await request.body())
        fault = self.sign_in_faults.take()
        if fault.takes_effect and usual.status_code == HTTPStatus.CREATED:
            self.request_log.signed_in()
        return await self._answer(request, usual, fault, fault.delay)

    async def report_event(self, request: Request) -> Response:
        """``POST /rest/usageplace/event``."""
        payload, refusal = self._check_event(request.headers.get("authorization", ""), await request.body())
        fault = self.event_faults.take(payload.get("usageplacecode") if isinstance(payload, dict) else None)
        if not fault.takes_effect:
            self.request_log.record(payload, fault.status, fault.label)
        elif refusal:
            self.request_log.record(payload, int(refusal.status), refusal.detail)
        else:
            self.request_log.record(payload, int(HTTPStatus.OK))
        usual = refusal.response() if refusal else Response()
        return await self._answer(request, usual, fault, self.settings.latency + fault.delay)

    async def list_events(
        self,
        *,
        everything: Annotated[bool, Query(alias="all")] = False,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int | None, Query(ge=0)] = None,
        newest: bool = False,
    ) -> Response:
        """``GET /events``: the events that arrived, oldest first; without ``all``, only the accepted ones."""
        return _json(self.request_log.rows(refused=everything, after=after, limit=limit, newest=newest))

    async def list_files(self) -> Response:
        """``GET /files``: the files in the drop folder, the newest first."""
        files = [] if self.drop_folder is None else self.drop_folder.files
        return _json([asdict(file) for file in files[:MAX_FILES]])

    async def forget_events(self) -> Response:
        """``DELETE /events``."""
        self.clear()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def health(self) -> Response:
        """``GET /health``."""
        log = self.request_log
        return _json({"status": "ok", "sign_ins": log.sign_ins, "accepted": log.accepted, "refused": log.refused})

    async def summary(self) -> Response:
        """``GET /summary``: the values that the page shows above its table."""
        log = self.request_log
        return _json(
            {
                "cid": self.settings.cid,
                "apicode": self.settings.apicode,
                "since": log.since,
                "sign_ins": log.sign_ins,
                "accepted": log.accepted,
                "refused": log.refused,
                "repeated": log.repeated,
                **({} if self.drop_folder is None else {"sftp": self.drop_folder.connection}),
            }
        )

    async def page(self) -> Response:
        """``GET /``."""
        html = files("airflow_provider_ropo.sandbox").joinpath("page.html").read_text("utf-8")
        headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"}
        return Response(html, media_type="text/html", headers=headers)

    def _check_sign_in(self, body: bytes) -> Response:
        try:
            pair = schema.parse_json(body)
        except schema.NotJsonError as error:
            return _sign_in_error(1, str(error))
        given = [pair.get("cid"), pair.get("apicode")] if isinstance(pair, dict) else []
        if [type(part) for part in given] != [str, str]:
            return _sign_in_error(2, "cid and apicode must be given, both as strings")
        if given != [self.settings.cid, self.settings.apicode]:
            return _sign_in_error(3, "Unknown customer number or wrong API code")
        return _json({"token": self._tokens.issue(self.settings.cid)}, HTTPStatus.CREATED)

    def _check_event(self, authorization: str, body: bytes) -> tuple[Any, Refusal | None]:
        try:
            payload, unreadable = schema.parse_json(body), None
        except schema.NotJsonError as error:
            payload, unreadable = None, Refusal(HTTPStatus.BAD_REQUEST, "Not JSON", str(error))
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not self._tokens.recognises(token.strip()):
            detail = "the bearer token is missing, has expired or was not given by this sandbox"
            return payload, Refusal(HTTPStatus.UNAUTHORIZED, "Unauthorized", detail)
        return payload, unreadable or self._check_payload(payload)

    def _check_payload(self, payload: Any) -> Refusal | None:
        found = schema.problems(payload, accept_jobid_string=self.settings.accept_jobid_string)
        if found:
            return Refusal(HTTPStatus.BAD_REQUEST, "Invalid event", "; ".join(found))
        if payload["usageplacecode"].startswith(UNKNOWN_PLACE):
            detail = f"usageplacecode: codes that start with {UNKNOWN_PLACE} are unknown here"
            return Refusal(HTTPStatus.BAD_REQUEST, "Unknown usage place", detail)
        return None

    async def _answer(self, request: Request, usual: Response, fault: Fault, delay: float) -> Response:
        # A server that is stopping does not wait for the delay to end.
        if delay:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), delay)
        if fault.cut:
            self.reset(request)
            while (await request.receive())["type"] != "http.disconnect":
                pass
        if fault.status is None:
            return usual
        return Response(fault.body, fault.status, dict(fault.headers))


def create_app(ropo: LocalRopo) -> FastAPI:
    """Return the application with the routes of a sandbox, without FastAPI's own pages, which load external scripts."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    routes: list[tuple[str, str, Callable[..., Awaitable[Response]]]] = [
        ("POST", "/rest/token", ropo.sign_in),
        ("POST", "/rest/usageplace/event", ropo.report_event),
        ("GET", "/events", ropo.list_events),
        ("DELETE", "/events", ropo.forget_events),
        ("GET", "/files", ropo.list_files),
        ("GET", "/health", ropo.health),
        ("GET", "/summary", ropo.summary),
        ("GET", "/", ropo.page),
    ]
    for method, path, endpoint in routes:
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    app.add_exception_handler(ClientDisconnect, _client_disconnected)
    return app


def _json(content: object, status: int = HTTPStatus.OK, media_type: str = "application/json") -> Response:
    # Escaped to ASCII, so that half a surrogate pair can be sent, too: JSON can express it, UTF-8 cannot.
    return Response(json.dumps(content), status, {"Cache-Control": "no-store"}, media_type)


def _sign_in_error(error_id: int, text: str) -> Response:
    """Return a sign-in error. Only its format is documented; the error numbers are the sandbox's own."""
    return _json({"errorId": error_id, "errorText": text}, HTTPStatus.BAD_REQUEST)


def _reset_unavailable(_request: Request) -> None:
    raise RuntimeError("Only a running server can reset a connection")


async def _client_disconnected(_request: Request, _error: Exception) -> Response:
    """Return a response that nobody receives: a client that disconnects is not an error of the sandbox."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)
