"""The sandbox's SFTP drop folder, and what its page shows of it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import paramiko

from airflow_provider_ropo.sandbox.drop_folder import DropFolder


def put(connection: dict[str, str], name: str, content: bytes) -> None:
    """Put a file there, as any SFTP client would."""
    with paramiko.Transport((connection["host"], int(connection["port"]))) as transport:
        transport.connect(username=connection["login"], password=connection["password"])
        client = paramiko.SFTPClient.from_transport(transport)
        assert client is not None
        with client, client.open(name, "wb") as target:
            target.write(content)


def test_files(tmp_path: Path) -> None:
    """A user sees the drop folder alone, and a file in it is listed with its size and lines once it has its name."""
    with DropFolder(tmp_path) as drop:
        connection = json.loads(json.dumps(drop.connection))
        put(connection, "/a.jsonl", b"1\n2\n")
        put(connection, "/b.jsonl.part", b"1\n")

        assert [("a.jsonl", 4, 2)] == [(file.name, file.size, file.lines) for file in drop.files]
    assert ["a.jsonl", "b.jsonl.part"] == sorted(path.name for path in tmp_path.iterdir())


def test_page_shows_files(tmp_path: Path) -> None:
    """From the command line, the sandbox prints the connection to its drop folder, and lists the files there."""
    command = [sys.executable, "-m", "airflow_provider_ropo.sandbox", "--port", "0", "--sftp-port", "0"]
    command += ["--sftp-folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[5]
            connection = json.loads(process.stdout.readline().partition(": ")[2])
            put(connection, "/in/a.csv", b"id;status\r\n")

            with urllib.request.urlopen(f"{url}/files") as answer:  # noqa: S310 - loopback
                files = json.load(answer)
            with urllib.request.urlopen(f"{url}/summary") as answer:  # noqa: S310 - loopback
                summary = json.load(answer)
        finally:
            process.terminate()

    assert [("in/a.csv", 11)] == [(file["name"], file["size"]) for file in files]
    assert connection == summary["sftp"]
