"""Failed events, grouped by delivery status and reason: fifty rows with one fault are one line, not fifty."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from airflow_provider_ropo.delivery import NAMED, Delivery, DeliveryStatus

#: Reasons that are told apart: memory stays flat, whatever the number of failures.
MAX_REASONS = 500
#: Rows and ids that are named of each reason.
EXAMPLES = 5
OTHER = "other reasons"

_ROW_NUMBER = re.compile(r"row ([\d,]+)")


@dataclass
class _Group:
    """The failed events with one reason: their number, and the first of them."""

    first: Delivery
    count: int = 0
    rows: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def add(self, delivery: Delivery) -> None:
        self.count += 1
        if (found := _ROW_NUMBER.match(delivery.row)) and len(self.rows) < EXAMPLES:
            self.rows.append(found[1])
        if delivery.event_id and len(self.ids) < EXAMPLES:
            self.ids.append(delivery.event_id)

    def line(self, reason: str) -> str:
        """Return one line; of several events, with examples: ``24 × invalid: time: … (rows 3, 5, …; ids V-1, …)``."""
        if self.count == 1:
            return str(self.first)
        named = [self._examples("rows", self.rows), self._examples("ids", self.ids)]
        examples = "; ".join(filter(None, named))
        return f"{self.count:,} × {self.first.status}: {reason}{examples and f' ({examples})'}"

    def _examples(self, noun: str, values: list[str]) -> str:
        more = ", …" if values and self.count > len(values) else ""
        return f"{noun} {', '.join(values)}{more}" if values else ""


class FailureReasons:
    """Counts failed events by reason, and names the first events of each."""

    def __init__(self) -> None:
        self._groups: dict[tuple[DeliveryStatus, str], _Group] = {}

    def add(self, delivery: Delivery) -> None:
        """Count one failed event."""
        key = (delivery.status, delivery.reason)
        if key not in self._groups and len(self._groups) >= MAX_REASONS:
            key = (delivery.status, OTHER)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(delivery)
        group.add(delivery)

    def lines(self) -> list[str]:
        """Return a line for each of the most frequent reasons, and one for the number of events with others."""
        groups = sorted(self._groups.items(), key=lambda item: -item[1].count)
        lines = [group.line(reason) for (_status, reason), group in groups[:NAMED]]
        if more := sum(group.count for _key, group in groups[NAMED:]):
            lines.append(f"… and {more:,} more")
        return lines
