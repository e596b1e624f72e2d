"""Limit of the number of events that a run may post: a wrong join must not disconnect a town."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.event import UsageplaceStatus

#: What a run would post: the number of events of each status that Ropo One is told.
VolumeCounts = Mapping[str, int]


@dataclass(frozen=True)
class VolumeLimit:
    """The largest number of events, in all or of each status.

    :param max_events: a count, or a count for each status (``{"disconnected": 200}``); a status that it does not name
        has no limit; None: no limit at all.
    :raises RopoConfigurationError: if it is something else.
    """

    max_events: int | Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Check the value."""
        if isinstance(self.max_events, Mapping):
            unknown = [str(status) for status in self.max_events if status not in set(UsageplaceStatus)]
            if unknown:
                raise RopoConfigurationError(
                    f"`max_events` names {', '.join(unknown)}, which is none of {', '.join(UsageplaceStatus)}"
                )
        limits = self.max_events.values() if isinstance(self.max_events, Mapping) else [self.max_events or 0]
        if not all(isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0 for limit in limits):
            raise RopoConfigurationError(
                "`max_events` must be a whole number, a whole number for each status such as {'disconnected': 200}, or "
                "None"
            )

    def excess(self, counts: VolumeCounts) -> str | None:
        """Return which limit these counts exceed, and by how much; None if they exceed none."""
        if self.max_events is None:
            return None
        if not isinstance(self.max_events, Mapping):
            total = sum(counts.values())
            return f"{total:,} events, at most {self.max_events:,} are allowed" if total > self.max_events else None
        return "; ".join(
            f"{counts.get(status, 0):,} {status}, at most {limit:,} are allowed"
            for status, limit in self.max_events.items()
            if counts.get(status, 0) > limit
        )


def counts_text(counts: VolumeCounts) -> str:
    """Return the counts as text: ``1,200 disconnected, 3 connected``."""
    return ", ".join(f"{counts[status]:,} {status}" for status in UsageplaceStatus if counts.get(status)) or "none"
