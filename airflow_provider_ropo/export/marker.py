"""A small file that follows the file of events, and marks it as complete."""

from __future__ import annotations

import json
from dataclasses import dataclass

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.export.formats import is_part_of_a_name
from airflow_provider_ropo.ledger.files import FileRecord


@dataclass(frozen=True)
class Marker:
    """An empty file.

    :param suffix: what its name has after that of the file, such as ``.done``.
    """

    suffix: str

    def __post_init__(self) -> None:
        if not is_part_of_a_name(self.suffix):
            raise RopoConfigurationError("`marker` must be the ending of a file's name, such as .done")

    def content(self, file: FileRecord) -> bytes:
        """Return what is in it."""
        del file
        return b""


@dataclass(frozen=True)
class ControlFile(Marker):
    """A JSON object with the file's name, the number of events, its size in bytes and its SHA-256.

    :param suffix: what its name has after that of the file.
    """

    suffix: str = ".ctl"

    def content(self, file: FileRecord) -> bytes:
        """Return what is in it."""
        values = {"file": file.name, "events": file.events, "bytes": file.size, "sha256": file.sha256}
        return json.dumps(values).encode("ascii") + b"\n"


def marker_of(given: object) -> Marker | None:
    """Return the marker that an ending or an object stands for.

    :raises RopoConfigurationError: if it stands for none.
    """
    if given is None or isinstance(given, Marker):
        return given
    if isinstance(given, str):
        return Marker(given)
    raise RopoConfigurationError("`marker` must be the ending of a file's name such as .done, a ControlFile, or None")
