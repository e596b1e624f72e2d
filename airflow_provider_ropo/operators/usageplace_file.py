"""The Airflow operator: outcomes in a warehouse table go to Ropo One in a file."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import Context

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.export.channel import FileChannel
from airflow_provider_ropo.export.formats import FileFormat
from airflow_provider_ropo.export.marker import Marker
from airflow_provider_ropo.export.store import FileStore
from airflow_provider_ropo.ledger.entries import LONGEST_CODE
from airflow_provider_ropo.links.ropo import REPORT_LINKS
from airflow_provider_ropo.operators.base import Target, UsageplaceOperator
from airflow_provider_ropo.task import options
from airflow_provider_ropo.task.lineage import dataset_of_folder, openlineage_of
from airflow_provider_ropo.task.storage import open_store

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage


class UsageplaceEventFileOperator(UsageplaceOperator):
    """Send the rows of a warehouse query as one file of events: to an SFTP server, a bucket of S3, or a folder.

    The file is written to a temporary name and then renamed, and the ledger records how far it has come: after a kill
    at any point, the next try knows whether to send it again. The same events make the same name and the same bytes.
    The parameters that are not described here are those of
    :class:`~airflow_provider_ropo.operators.base.UsageplaceOperator`. For another kind of destination, derive a class
    and override :meth:`open_store`.

    :param ledger_table: table that records deliveries, created if missing; required. Templated.
    :param destination_conn_id: a connection of type ``sftp``, ``aws`` (S3) or ``fs``. Templated.
    :param folder: the folder there; for S3, what comes before the name, with the bucket first if the connection names
        none. Templated.
    :param timezone: the zone of times that name none, and of those in the file. Templated.
    :param name: what the file's name begins with; the run's time and a digest of the events follow. Templated.
    :param format: ``"jsonl"``, ``"json"``, ``"csv"``, a :class:`~airflow_provider_ropo.export.formats.CsvFormat`, or an
        object of your own with the methods of :class:`~airflow_provider_ropo.export.formats.FileFormat`.
    :param temporary: the ending of the file's name while it is uploaded; with ``/`` at its end, the folder that it is
        in meanwhile. None where the server cannot rename. S3 does not use it. Templated.
    :param marker: the ending of the name of an empty file that follows, such as ``".done"``, or a
        :class:`~airflow_provider_ropo.export.marker.ControlFile`, which has the number of events, the size and the
        SHA-256. None: none follows. Templated.
    :param on_empty: if there are no rows: ``"succeed"``, ``"skip"``, ``"fail"``, or ``"file"``: a file without events.
    """

    template_fields: Sequence[str] = (
        *UsageplaceOperator.template_fields,
        "destination_conn_id",
        "folder",
        "timezone",
        "name",
        "format",
        "temporary",
        "marker",
    )
    operator_extra_links = REPORT_LINKS
    empty_choices: ClassVar[tuple[str, ...]] = (*UsageplaceOperator.empty_choices, "file")

    def __init__(
        self,
        *,
        destination_conn_id: str,
        timezone: str,
        folder: str = "",
        name: str = "usageplace_events",
        format: str | FileFormat = "jsonl",  # noqa: A002 - the word that users know
        temporary: str | None = ".part",
        marker: str | Marker | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.destination_conn_id = destination_conn_id
        self.folder = folder
        self.timezone = timezone
        self.name = name
        self.format = format
        self.temporary = temporary
        self.marker = marker
        options.check_file_when_parsed(self)

    def open_store(self) -> FileStore:
        """Return the store that the file goes to; override it for a kind of your own."""
        return open_store(self.destination_conn_id)

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any] | None:
        """Return what is read and where it goes; Airflow's OpenLineage provider asks when the task starts."""
        return openlineage_of(
            self.sql,
            self.sql_conn_id,
            self.sql_hook_params,
            self.parameters,
            output=lambda: dataset_of_folder(self._destination(self.open_store())),
        )

    def _target(self, context: Context) -> Target:
        file = options.file_options(self)
        store = self.open_store()
        channel = FileChannel(
            store,
            f"{file.name}_{_time_of_run(context)}",
            file.paths,
            file.file_format,
            file.file_marker,
            hold=self.on_unconfirmed == "hold",
            sends_empty=self.on_empty == "file",
        )
        destination = self._destination(store)
        return Target(channel, destination, destination, file.timezone)

    def _destination(self, store: FileStore) -> str:
        destination = "/".join(filter(None, (store.destination, self.folder.strip("/"))))
        if len(destination) > LONGEST_CODE:
            raise RopoConfigurationError(
                f"the destination {destination} has more than {LONGEST_CODE} characters, which the ledger cannot hold"
            )
        return destination


def _time_of_run(context: Context) -> str:
    """Return the run's own time, which is the same for each of its tries: ``20260114T030000Z``."""
    run = context.get("dag_run")
    moment: dt.datetime | None = context.get("logical_date") or getattr(run, "run_after", None)
    if moment is None:
        raise RopoConfigurationError("this run has no logical date, and no time after which it runs")
    return moment.astimezone(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
