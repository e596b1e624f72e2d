from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ropo.errors import SupersededError
from airflow_provider_ropo.event import Invoice, UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.ledger.decisions import Action, Decision, LedgerPolicy, decide, last_unresolved
from airflow_provider_ropo.ledger.entries import Claimant, LedgerEntry, changed_fields, payload_hash

ME = Claimant("dag", "report", "run_1", -1, 2)
BEFORE = ME._replace(try_number=1)
LATER = ME._replace(try_number=3)
OTHER = ME._replace(run_id="run_2", try_number=1)
THIRD = ME._replace(run_id="run_3", try_number=1)

NOW = dt.datetime(2024, 1, 4, 12)  # noqa: DTZ001 - as the ledger writes it

SEND, KNOWN, CHANGED = Action.SEND, Action.ALREADY_DELIVERED, Action.CONTENT_CHANGED
CLAIMED_ELSEWHERE, LOST = Action.CLAIMED_ELSEWHERE, Action.UNCONFIRMED

ASIDE = LedgerPolicy(claim_timeout=60)


def at(seconds_ago: float) -> dt.datetime:
    return NOW - dt.timedelta(seconds=seconds_ago)


def rows(*written: tuple[Claimant, str, float], content: str = "same") -> list[LedgerEntry]:
    """Return rows: who wrote what, how many seconds ago."""
    return [LedgerEntry(status, content, at(seconds_ago), claimant) for claimant, status, seconds_ago in written]


@pytest.mark.parametrize(
    ("written", "action", "unconfirmed"),
    [
        pytest.param([], SEND, False, id="nothing is known"),
        pytest.param([(OTHER, "sending", 9), (OTHER, "delivered", 8)], KNOWN, False, id="delivered"),
        pytest.param([(OTHER, "sending", 9), (OTHER, "rejected", 8)], SEND, False, id="rejected"),
        pytest.param([(OTHER, "invalid", 9)], SEND, False, id="invalid"),
        pytest.param([(OTHER, "sending", 9), (OTHER, "undelivered", 8)], SEND, False, id="undelivered"),
        pytest.param([(OTHER, "held", 9)], SEND, False, id="held"),
        pytest.param([(OTHER, "sending", 9), (OTHER, "unconfirmed", 8)], SEND, True, id="unconfirmed"),
        pytest.param([(OTHER, "sending", 59)], CLAIMED_ELSEWHERE, False, id="another run is sending"),
        pytest.param(
            [(OTHER, "sending", -3600)], CLAIMED_ELSEWHERE, False, id="another run, whose clock is fast, is sending"
        ),
        pytest.param([(OTHER, "sending", 60)], SEND, True, id="another run's claim ran out"),
        pytest.param([(BEFORE, "sending", 0)], SEND, True, id="the try before was sending"),
        pytest.param([(ME, "sending", 0)], SEND, True, id="this try, in an earlier life, was sending"),
        pytest.param(
            [(ME._replace(map_index=3), "sending", 9)], CLAIMED_ELSEWHERE, False, id="a mapped sibling is sending"
        ),
        pytest.param(
            [(ME._replace(dag_id="dag_2"), "sending", 9)], CLAIMED_ELSEWHERE, False, id="another DAG is sending"
        ),
        pytest.param(
            [(ME._replace(task_id="task_2"), "sending", 9)], CLAIMED_ELSEWHERE, False, id="another task is sending"
        ),
        pytest.param(
            [(BEFORE, "sending", 9), (OTHER, "sending", 8)],
            CLAIMED_ELSEWHERE,
            False,
            id="the try before, and another run",
        ),
        pytest.param(
            [(OTHER, "sending", 9), (OTHER, "held", 8), (THIRD, "sending", 7)],
            CLAIMED_ELSEWHERE,
            False,
            id="one withdrew, one did not",
        ),
        pytest.param([(OTHER, "sending", 9), (OTHER, "held", 8)], SEND, False, id="withdrawn"),
        pytest.param(
            [(OTHER, "sending", 9), (OTHER._replace(try_number=2), "unconfirmed", 8)],
            SEND,
            True,
            id="another run's dead try, of which its next try has spoken",
        ),
        pytest.param(
            [(OTHER, "sending", 9), (OTHER._replace(try_number=2), "sending", 8)],
            CLAIMED_ELSEWHERE,
            False,
            id="another run's dead try, taken over by its next try",
        ),
        pytest.param(
            [(OTHER, "sending", 9), (THIRD, "sending", 8), (OTHER, "delivered", 7), (THIRD, "held", 6)],
            KNOWN,
            False,
            id="delivered by one, held by another after that",
        ),
        pytest.param(
            [(OTHER, "sending", 9), (OTHER, "delivered", 8), (THIRD, "sending", 7)],
            KNOWN,
            False,
            id="delivered by one, claimed in vain by another",
        ),
        pytest.param(
            [(BEFORE, "unconfirmed", 9), (OTHER, "sending", 8), (OTHER, "held", 7)], SEND, True, id="lost, then held"
        ),
        pytest.param(
            [(BEFORE, "unconfirmed", 9), (OTHER, "sending", 8), (OTHER, "undelivered", 7)],
            SEND,
            True,
            id="lost, then undelivered",
        ),
        pytest.param(
            [(ME, "sending", 9), (ME, "unconfirmed", 8), (ME, "sending", 7), (ME, "held", 6)],
            SEND,
            True,
            id="lost, then held by the same try in a later life",
        ),
        pytest.param(
            [(BEFORE, "unconfirmed", 9), (OTHER, "sending", 8), (OTHER, "rejected", 7)],
            SEND,
            False,
            id="lost, then rejected",
        ),
        pytest.param(
            [(BEFORE, "sending", 90), (OTHER, "sending", 80), (OTHER, "rejected", 70)],
            SEND,
            False,
            id="a kill, then rejected elsewhere",
        ),
        pytest.param(
            [(OTHER, "rejected", 90), (BEFORE, "sending", 80)], SEND, True, id="rejected elsewhere, then a kill"
        ),
        pytest.param([(OTHER, "already_delivered", 9)], SEND, False, id="the delivery itself is gone"),
        pytest.param([(OTHER, "unheard of", 9)], SEND, False, id="a state of a version to come"),
    ],
)
def test_state_decides(written: list[tuple[Claimant, str, float]], action: Action, unconfirmed: bool) -> None:  # noqa: FBT001
    """What others wrote last about an event decides what is done with it, and whether it may have arrived."""
    decision = decide(rows(*written), "same", ME, ASIDE, NOW)

    assert (action, unconfirmed) == (decision.action, decision.unconfirmed)


def test_order_of_rows_does_not_matter() -> None:
    """Rows are taken by their time, in whatever order the database gives them."""
    written = rows((OTHER, "sending", 9), (OTHER, "undelivered", 8), (THIRD, "sending", 7))

    decisions = [decide(order, "same", ME, ASIDE, NOW) for order in (written, written[::-1], written[1:] + written[:1])]

    assert [Decision(CLAIMED_ELSEWHERE, detail="run run_3 is sending it", newest=at(7))] * 3 == decisions


@pytest.mark.parametrize(
    ("redeliver", "sent", "action"),
    [
        ("never", "same", KNOWN),
        ("never", "other", CHANGED),
        ("changed", "same", KNOWN),
        ("changed", "other", SEND),
        ("always", "same", SEND),
        ("always", "other", SEND),
    ],
)
def test_redeliver(redeliver: Any, sent: str, action: Action) -> None:
    """What is known delivered is sent again never, if its content changed, or always."""
    written = rows((OTHER, "sending", 9), (OTHER, "delivered", 8), content=sent)

    decision = decide(written, "same", ME, LedgerPolicy(redeliver), NOW)

    assert (action, False) == (decision.action, decision.unconfirmed)


def test_the_last_delivery_counts() -> None:
    """Content that changed and changed back differs from what was delivered last, so it is sent again."""
    written = rows((OTHER, "delivered", 9)) + rows((THIRD, "delivered", 8), content="other")

    assert SEND is decide(written, "same", ME, LedgerPolicy("changed"), NOW).action
    assert KNOWN is decide(written, "other", ME, LedgerPolicy("changed"), NOW).action


@pytest.mark.parametrize("redeliver", ["changed", "always"])
def test_redelivery_gives_way_too(redeliver: Any) -> None:
    """An event that is to be sent again is not sent while another run is sending it."""
    written = rows((OTHER, "delivered", 9), (THIRD, "sending", 8), content="other")

    assert CLAIMED_ELSEWHERE is decide(written, "same", ME, LedgerPolicy(redeliver), NOW).action


@pytest.mark.parametrize(("redeliver", "action"), [("never", CHANGED), ("changed", SEND), ("always", SEND)], ids=str)
def test_other_content_may_have_arrived(redeliver: Any, action: Action) -> None:
    """What may have arrived with another content is treated as if it had."""
    written = rows((BEFORE, "unconfirmed", 9), content="other")

    assert action is decide(written, "same", ME, LedgerPolicy(redeliver), NOW).action


@pytest.mark.parametrize(
    "written",
    [[(OTHER, "unconfirmed", 9)], [(BEFORE, "sending", 9)], [(OTHER, "sending", 61)]],
    ids=["unconfirmed", "killed", "ran out"],
)
def test_hold(written: list[tuple[Claimant, str, float]]) -> None:
    """What may have arrived is held if the user wants that."""
    decision = decide(rows(*written), "same", ME, LedgerPolicy(on_unconfirmed="hold", claim_timeout=60), NOW)

    assert (LOST, True) == (decision.action, decision.unconfirmed)


def test_hold_holds_nothing_else() -> None:
    """What certainly did not arrive is sent even if the unconfirmed is held."""
    written = rows((OTHER, "sending", 9), (OTHER, "undelivered", 8))

    assert SEND is decide(written, "same", ME, LedgerPolicy(on_unconfirmed="hold"), NOW).action


@pytest.mark.parametrize("status", ["sending", "delivered", "held", "unconfirmed"])
def test_a_superseded_stops(status: str) -> None:
    """A try about whose events a later try has written is told to stop, whatever that one wrote."""
    with pytest.raises(SupersededError):
        decide(rows((ME, "sending", 9), (LATER, status, 8)), "same", ME, ASIDE, NOW, since=at(10))


def test_a_deleted_dag_runs_tries_do_not_count() -> None:
    """A DAG run that was deleted and made anew begins at the first try: the old run's tries are earlier, not later."""
    written = rows((LATER, "sending", 9), (LATER, "unconfirmed", 8))

    decision = decide(written, "same", ME, ASIDE, NOW, since=at(7))

    assert (SEND, True) == (decision.action, decision.unconfirmed)


def test_detail_says_why() -> None:
    """What an event's end says names the run, or the fields that differ, and never a value."""
    written = rows((BEFORE, "sending", 9))

    decision = decide(written, "same", ME, ASIDE, NOW)

    assert Decision(SEND, True, "may have arrived already, from run run_1, try 1", at(9)) == decision  # noqa: FBT003


CHANGES: dict[str, Any] = {
    "usageplacecode": "RE2",
    "status": UsageplaceStatus.DISCONNECTED,
    "time": dt.datetime(2024, 1, 4, 8, 0, 1, tzinfo=dt.UTC),
    "customernumber": "A123456",
    "contract_no": "12b",
    "description": None,
    "invoices": (Invoice("594294", 1234),),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_fields_are_named(name: str, make_event: Callable[..., UsageplaceEvent]) -> None:
    """The field in which two contents of one id differ is named; its value is not told."""
    one = make_event()
    other = dataclasses.replace(one, **{name: CHANGES[name]})
    written = [LedgerEntry("delivered", payload_hash(one), at(9), OTHER)]

    decision = decide(written, payload_hash(other), ME, LedgerPolicy(), NOW)

    assert [name] == changed_fields(payload_hash(one), payload_hash(other))
    assert (
        CHANGED,
        f"differs from what was sent with this id before: {name}; redeliver='changed' would send it again",
    ) == (decision.action, decision.detail)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"invoices": (Invoice("1", 2),)}, {"invoices": (Invoice("1", 2), Invoice("3", 4))}),
        ({"invoices": (Invoice("1", None),)}, {"invoices": (Invoice(None, 1),)}),
        ({"customernumber": None}, {"customernumber": "-" * 16}),
        ({"customernumber": None}, {"customernumber": "None"}),
        ({"customernumber": "A", "contract_no": "B"}, {"customernumber": "B", "contract_no": "A"}),
    ],
    ids=["one more", "number or job", "dashes", "None", "swapped"],
)
def test_no_two_contents_look_alike(
    one: dict[str, Any], other: dict[str, Any], make_event: Callable[..., UsageplaceEvent]
) -> None:
    """Different contents have different digests, however alike they look."""
    assert payload_hash(make_event(**one)) != payload_hash(make_event(**other))


def test_what_ropo_is_not_told_does_not_count(make_event: Callable[..., UsageplaceEvent]) -> None:
    """A fraction of a second and the id itself make no other content."""
    assert payload_hash(make_event("e1", time="10:00:00")) == payload_hash(make_event("e2", time="10:00:00.250"))


def test_the_order_of_invoices_does_not_count(make_event: Callable[..., UsageplaceEvent]) -> None:
    """A query may return an event's rows, an invoice each, in another order the next time."""
    one, other, odd = Invoice("594294", 1234), Invoice("594295", 1235), Invoice(None, 7)

    assert payload_hash(make_event(invoices=(one, other, odd))) == payload_hash(make_event(invoices=(odd, other, one)))


def test_digests_tell_nothing(make_event: Callable[..., UsageplaceEvent]) -> None:
    """A digest shows none of the content, and fits its column."""
    digest = payload_hash(make_event(customernumber="A123456", contract_no="12b"))

    assert 112 == len(digest)
    assert set("0123456789abcdef-") >= set(digest)


def test_nothing_open() -> None:
    """Of what has its end, nothing may have arrived unnoticed."""
    assert last_unresolved([]) is None
    assert last_unresolved(rows((OTHER, "sending", 9), (OTHER, "undelivered", 8))) is None
