"""How long to wait before the next attempt: arithmetic only, it never sleeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling waits, spread so that many workers do not come back in step.

    :param max_attempts: how often one request is tried in all.
    :param first: the first wait, in seconds, before spreading.
    :param longest: no wait of our own choosing is longer, in seconds.
    :param patience: the longest wait Ropo One may ask for with ``Retry-After``, in seconds; beyond it the
        attempt is the last one of this run.
    """

    max_attempts: int = 5
    first: float = 0.5
    longest: float = 30.0
    patience: float = 120.0
    spread: Callable[[], float] = field(default=random.random, repr=False)

    def delay(self, attempt: int, retry_after: float | None = None) -> float | None:
        """Return the seconds to wait after a failed attempt, or None to give up.

        :param attempt: the attempt that failed, from 1.
        :param retry_after: the seconds the answer asked for.
        """
        if attempt >= self.max_attempts or (retry_after or 0.0) > self.patience:
            return None
        # Spread below the bound, not above it: at the bound, too, no two workers wait alike.
        wait: float = min(self.longest, self.first * 2.0 ** (attempt - 1)) * (0.5 + self.spread() / 2)
        return wait if retry_after is None else retry_after + wait * 0.1
