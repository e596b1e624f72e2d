"""``python -m airflow_provider_ropo.sandbox``: run a local Ropo One until Ctrl+C."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_ropo.sandbox import EXTRA_MISSING

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from airflow_provider_ropo.sandbox.drop_folder import DropFolder


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
    ropo = LocalRopo(settings)
    url = address(listening)
    print(
        f"Ropo One sandbox listens on {url} (cid {settings.cid}, apicode {settings.apicode}); "
        f"its page {url}/ shows the events that arrive",
        flush=True,
    )
    with _drop_folder(options) as ropo.drop_folder:
        with contextlib.suppress(KeyboardInterrupt):
            LocalServer(ropo).run([listening])
        print("Stopped.")


@contextlib.contextmanager
def _drop_folder(options: argparse.Namespace) -> Iterator[DropFolder | None]:
    """Run the SFTP drop folder, if it is wanted."""
    if options.sftp_port is None:
        yield None
        return
    try:
        from airflow_provider_ropo.sandbox.drop_folder import DropFolder
    except ModuleNotFoundError:
        sys.exit(EXTRA_MISSING)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(options.sftp_folder or temporary)
        (root / "in").mkdir(parents=True, exist_ok=True)
        with DropFolder(root, host=options.host, port=options.sftp_port) as drop:
            print(f"Its SFTP drop folder, with the folder in: {json.dumps(drop.connection)}", flush=True)
            yield drop


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
    add("--sftp-port", type=int, metavar="PORT", help="run an SFTP drop folder on that port, too; 0 picks a free one")
    add("--sftp-folder", metavar="FOLDER", help="the drop folder on this machine; by default a temporary one")
    add("--accept-jobid-string", action="store_true", help='accept a jobid as text ("1234"), too')
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be zero or more")
    return seconds


if __name__ == "__main__":
    main()
