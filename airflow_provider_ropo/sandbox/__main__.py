"""``python -m airflow_provider_ropo.sandbox``: run a local Ropo One until Ctrl+C."""

from __future__ import annotations

import argparse
import errno
import sys
from typing import TYPE_CHECKING

from airflow_provider_ropo.sandbox import EXTRA_MISSING

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sandbox with the options of the command line."""
    options = _parser().parse_args(arguments)
    try:
        from airflow_provider_ropo.sandbox.server import listen
    except ModuleNotFoundError:
        sys.exit(EXTRA_MISSING)
    try:
        listening = listen(options.host, options.port)
    except (OSError, OverflowError) as error:
        sys.exit(_listen_error(options, error))
    with listening:
        _serve(options, listening)


def _listen_error(options: argparse.Namespace, error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return f"Port {options.port} on {options.host} is in use: choose another with --port"
    return f"Cannot listen on {options.host} port {options.port}: {error}"


def _serve(options: argparse.Namespace, listening: socket.socket) -> None:
    from airflow_provider_ropo.sandbox.app import LocalRopo, Settings
    from airflow_provider_ropo.sandbox.server import LocalServer, address

    settings = Settings(
        cid=options.cid,
        apicode=options.apicode,
        latency=options.latency,
        token_ttl=options.token_ttl,
        accept_jobid_string=options.accept_jobid_string,
    )
    url = address(listening)
    print(
        f"Ropo One sandbox listens on {url} (cid {settings.cid}, apicode {settings.apicode}); "
        f"its page {url}/ shows the events that arrive",
        flush=True,
    )
    try:
        LocalServer(LocalRopo(settings)).run([listening])
    except KeyboardInterrupt:
        print("Stopped.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_ropo.sandbox",
        description="A local Ropo One: accepts events like the real one and shows them on a page.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8099, help="port to listen on; 0 picks a free one")
    add("--cid", default="1000011", help="customer number that may sign in")
    add("--apicode", default="sandbox", help="API code of that customer number")
    add("--latency", type=_seconds, default=0.0, metavar="SECONDS", help="delay of every answer to an event")
    add("--token-ttl", type=_seconds, default=7200.0, metavar="SECONDS", help="how long a token is valid")
    add("--accept-jobid-string", action="store_true", help='accept a jobid as text ("1234"), too')
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be zero or more")
    return seconds


if __name__ == "__main__":
    main()
