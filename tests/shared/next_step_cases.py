"""How runs end, and what a person has to be told then, wherever: in the log and the alert, and on the tab.

Imported as ``from next_step_cases import CASES``. Both texts have words of their own, because the log is written before
Airflow knows the task instance's state; each fact has a pattern for either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: A fact → how the log tells it, and how the tab does.
FACTS = {
    "another try follows": ("Airflow starts try 2 of 3", "Try 2 of 3 (is due|follows)"),
    "when Ropo One asks for it": ("that Ropo One asks for", "as Ropo One asked"),
    "at a time that Airflow computes": ("a delay that Airflow computes", "a delay that Airflow computes"),
    "no other try follows": ("does not try this again|No retry is left", "does not try this task instance again"),
    "a later try has taken over": ("The later try", "A later try of this task instance has taken over"),
    "rows are to be fixed": ("Fix the rejected, invalid and changed rows", "Fix the row in the source table"),
    "events are to be settled": ("settle each with", "until a person settles it"),
    "all is sent again without a ledger": ("ithout a ledger", "There is no ledger"),
    "all is sent again by choice": ("redeliver='always'", "redeliver='always'"),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """The end of a run, and the facts to tell.

    :param state: of the task instance, after its first try of three.
    :param stopped_by: why the run ended early, as the report has it.
    :param retry_after: seconds that Ropo One asked for.
    :param retry_delay: the task's, in seconds; None: Airflow computes it.
    """

    name: str
    counts: dict[str, int]
    facts: set[str] = field(default_factory=set)
    state: str = "failed"
    stopped_by: str | None = None
    retry_after: float | None = None
    retry_delay: float | None = 300.0
    uses_retry_after: bool = True
    has_ledger: bool = True
    on_unconfirmed: str = "resend"
    redeliver: str = "never"


CASES = [
    Case(
        name="tried again",
        counts={"undelivered": 2, "delivered": 1},
        state="up_for_retry",
        facts={"another try follows"},
    ),
    Case(
        name="tried again at an unknown time",
        counts={"undelivered": 2},
        state="up_for_retry",
        retry_delay=None,
        facts={"another try follows", "at a time that Airflow computes"},
    ),
    Case(
        name="tried again when Ropo One asks for it",
        counts={"undelivered": 2},
        state="up_for_retry",
        stopped_by="unavailable",
        retry_after=7200.0,
        facts={"another try follows", "when Ropo One asks for it"},
    ),
    Case(
        name="an Airflow without retry policies",
        counts={"undelivered": 2},
        state="up_for_retry",
        stopped_by="unavailable",
        retry_after=7200.0,
        uses_retry_after=False,
        facts={"another try follows"},
    ),
    Case(
        name="tried again without a ledger",
        counts={"undelivered": 2, "delivered": 1},
        state="up_for_retry",
        has_ledger=False,
        facts={"another try follows", "all is sent again without a ledger"},
    ),
    Case(
        name="tried again with redeliver",
        counts={"undelivered": 2, "delivered": 1},
        state="up_for_retry",
        redeliver="always",
        facts={"another try follows", "all is sent again by choice"},
    ),
    Case(name="no retry is left", counts={"undelivered": 2}, facts={"no other try follows"}),
    Case(
        name="no retry is left, some rows are wrong",
        counts={"undelivered": 2, "rejected": 1},
        facts={"no other try follows", "rows are to be fixed"},
    ),
    Case(name="only wrong rows", counts={"invalid": 1}, facts={"no other try follows", "rows are to be fixed"}),
    Case(
        name="only wrong rows, without a ledger",
        counts={"invalid": 1, "delivered": 1},
        has_ledger=False,
        facts={"no other try follows", "rows are to be fixed", "all is sent again without a ledger"},
    ),
    Case(
        name="only wrong rows, with redeliver",
        counts={"invalid": 1, "delivered": 1},
        redeliver="always",
        facts={"no other try follows", "rows are to be fixed", "all is sent again by choice"},
    ),
    Case(
        name="unconfirmed, resent",
        counts={"unconfirmed": 2},
        facts={"no other try follows"},
    ),
    Case(
        name="unconfirmed, held",
        counts={"unconfirmed": 2},
        on_unconfirmed="hold",
        facts={"no other try follows", "events are to be settled"},
    ),
    Case(
        name="hold without a ledger",
        counts={"unconfirmed": 2},
        on_unconfirmed="hold",
        has_ledger=False,
        facts={"no other try follows", "all is sent again without a ledger"},
    ),
    Case(name="sign-in refused", counts={"undelivered": 2}, stopped_by="sign_in", facts={"no other try follows"}),
    Case(name="run refused", counts={"undelivered": 2}, stopped_by="refused", facts={"no other try follows"}),
    Case(
        name="superseded",
        counts={"undelivered": 2},
        state="running",
        stopped_by="superseded",
        facts={"a later try has taken over"},
    ),
]


def facts_in(text: str, *, of_tab: bool) -> set[str]:
    """Return the facts that a text tells."""
    return {fact for fact, patterns in FACTS.items() if re.search(patterns[of_tab], text)}
