"""How a task's file is made, checked before it is."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.export.formats import FileFormat, format_of, is_part_of_a_name
from airflow_provider_ropo.export.marker import Marker, marker_of
from airflow_provider_ropo.export.publisher import FilePaths
from airflow_provider_ropo.timezones import DEFAULT_TIMEZONE, find_timezone

#: Characters of a file's name before its time; the whole name is in the ledger.
LONGEST_NAME = 150


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Where a file goes, and what is in it.

    :param destination_conn_id: the connection of the destination.
    :param folder: the folder there; empty: the connection's own.
    :param timezone: the zone of times that name none, and of those in the file.
    :param name: what the file's name begins with.
    :param format: ``jsonl``, ``json``, ``csv``, or an object that writes another.
    :param temporary: the ending of the file's name while it is uploaded; with ``/`` at its end, a folder; None: none.
    :param marker: the ending of the name of an empty file that follows, or a :class:`Marker`; None: none follows.
    :raises RopoConfigurationError: naming the parameter.
    """

    destination_conn_id: str = "destination"
    folder: str = ""
    timezone: str = DEFAULT_TIMEZONE
    name: str = "usageplace_events"
    format: object = "jsonl"
    temporary: str | None = ".part"
    marker: object = None

    def __post_init__(self) -> None:
        if not isinstance(self.destination_conn_id, str) or not self.destination_conn_id:
            raise RopoConfigurationError("`destination_conn_id` must be a connection of type sftp, aws or fs")
        if not isinstance(self.folder, str):
            raise RopoConfigurationError("`folder` must be text")
        if not is_part_of_a_name(self.name) or len(self.name) > LONGEST_NAME:
            raise RopoConfigurationError(
                f"`name` must be the beginning of a file's name, of at most {LONGEST_NAME} characters, without blanks"
            )
        if self.temporary is not None and not _is_ending_or_folder(self.temporary):
            raise RopoConfigurationError(
                "`temporary` must be the ending of a name such as .part, a folder with / at its end, or None"
            )
        find_timezone(self.timezone)
        format_of(self.format)
        marker_of(self.marker)

    @property
    def file_format(self) -> FileFormat:
        """How events are written."""
        return format_of(self.format)

    @property
    def file_marker(self) -> Marker | None:
        """What follows the file."""
        return marker_of(self.marker)

    @property
    def paths(self) -> FilePaths:
        """Where the file is put."""
        return FilePaths(self.folder, self.temporary)


def _is_ending_or_folder(text: object) -> bool:
    """Tell whether a text is the ending of a name, or a folder with ``/`` at its end."""
    if isinstance(text, str) and text.endswith("/"):
        return all(is_part_of_a_name(part) for part in text[:-1].lstrip("/").split("/"))
    return is_part_of_a_name(text)
