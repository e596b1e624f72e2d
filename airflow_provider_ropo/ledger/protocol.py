"""What posting needs of a ledger."""

from __future__ import annotations

from typing import Protocol

from airflow_provider_ropo.ledger.claims import Outcome, Round


class Ledger(Protocol):
    """Remembers deliveries from one run to the next."""

    def exchange(self, asked: Round) -> Outcome:
        """Read, decide and write once."""

    def release_connection(self) -> None:
        """Close the database connection; the next call opens one, on whichever thread makes it."""
