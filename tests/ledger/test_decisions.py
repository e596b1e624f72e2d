from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from airflow_provider_ropo.errors import RopoConfigurationError, SupersededError
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.ledger.decisions import (
    Action,
    Decision,
    LedgerPolicy,
    decide,
    last_unresolved,
    of_destination,
)
from airflow_provider_ropo.ledger.digest import ContentDigest
from airflow_provider_ropo.ledger.entries import Claimant, LedgerEntry
from ledger_steps import DESTINATION

ME = Claimant("dag", "report", "run_1", -1, 2, "me")
BEFORE = ME._replace(try_number=1, process="before")
LATER = ME._replace(try_number=3, process="later")
OTHER = ME._replace(run_id="run_2", try_number=1, process="other")
THIRD = ME._replace(run_id="run_3", try_number=1, process="third")
PERSON = Claimant("", "", "", -1, 0, "person")

NOW = dt.datetime(2024, 1, 4, 12)  # noqa: DTZ001 - as the ledger writes it

SEND, KNOWN, CHANGED = Action.SEND, Action.ALREADY_DELIVERED, Action.CONTENT_CHANGED
CLAIMED_ELSEWHERE, LOST, CLOSED = Action.CLAIMED_ELSEWHERE, Action.UNCONFIRMED, Action.CLOSED

ASIDE = LedgerPolicy(claim_timeout=60)


def at(seconds_ago: float) -> dt.datetime:
    return NOW - dt.timedelta(seconds=seconds_ago)


def content_of(customernumber: str) -> ContentDigest:
    moment = dt.datetime(2024, 1, 4, 10, tzinfo=dt.UTC)
    event = UsageplaceEvent("e1", "RE1", UsageplaceStatus.CONNECTED, moment, customernumber)
    return ContentDigest(event, DESTINATION)


SAME, OTHER_CONTENT = content_of("A1"), content_of("A2")


def rows(
    *written: tuple[Claimant, str, float],
    content: ContentDigest | None = SAME,
    destination: str | None = DESTINATION,
) -> list[LedgerEntry]:
    """Return rows, oldest first: who wrote what, how many seconds ago."""
    digest = content.text if content is not None else None
    return [
        LedgerEntry(status, digest, at(seconds_ago), claimant, destination)
        for claimant, status, seconds_ago in sorted(written, key=lambda row: -row[2])
    ]


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
        pytest.param([(ME, "sending", 0)], SEND, True, id="this process was sending"),
        pytest.param(
            [(ME._replace(process="twin"), "sending", 59)],
            CLAIMED_ELSEWHERE,
            False,
            id="another process of this very try is sending",
        ),
        pytest.param(
            [(ME._replace(process="twin"), "sending", 60)],
            SEND,
            True,
            id="another process of this very try died",
        ),
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
            id="delivered by one, claimed without a result by another",
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
        pytest.param(
            [(OTHER, "unheard of", 9), (THIRD, "undelivered", 8)],
            Action.UNREADABLE,
            False,
            id="a status of a version to come",
        ),
        pytest.param([(OTHER, "changed", 9)], SEND, False, id="changed, and the delivery itself is gone"),
        pytest.param(
            [(OTHER, "delivered", 9), (THIRD, "undelivered", 8)], KNOWN, False, id="delivered, then undelivered"
        ),
        pytest.param([(OTHER, "unconfirmed", 9), (OTHER, "closed", 8)], CLOSED, False, id="a person has closed it"),
        pytest.param(
            [(OTHER, "unconfirmed", 9), (OTHER, "closed", 8), (OTHER, "undelivered", 7)],
            SEND,
            False,
            id="closed, then opened again",
        ),
    ],
)
def test_state_decides(written: list[tuple[Claimant, str, float]], action: Action, unconfirmed: bool) -> None:  # noqa: FBT001
    """What others wrote last about an event decides what is done with it, and whether it may have arrived."""
    decision = decide(rows(*written), SAME, ME, ASIDE, NOW)

    assert (action, unconfirmed) == (decision.action, decision.unconfirmed)


def test_order_of_rows_does_not_matter() -> None:
    """Rows are taken by their time, in whatever order the database gives them."""
    written = rows((OTHER, "sending", 9), (OTHER, "undelivered", 8), (THIRD, "sending", 7))

    orders = [of_destination(order, DESTINATION) for order in (written, written[::-1], written[1:] + written[:1])]

    assert [written] * 3 == orders


def test_what_is_being_sent_elsewhere_names_the_run() -> None:
    """A decision says which run is sending an event, and what the newest row about it is."""
    written = rows((OTHER, "sending", 9), (OTHER, "undelivered", 8), (THIRD, "sending", 7))

    decision = decide(written, SAME, ME, ASIDE, NOW)

    assert Decision(CLAIMED_ELSEWHERE, detail="run run_3 is sending it", newest=written[-1]) == decision


def test_other_destinations_do_not_count() -> None:
    """What is known of one destination says nothing about another."""
    written = rows((OTHER, "sending", 9), (OTHER, "delivered", 8), destination="https://test 1")

    assert [] == of_destination(written, DESTINATION)
    assert written == of_destination(written, "https://test 1")


def test_rows_without_a_destination_count_for_any() -> None:
    """A row without a destination counts for every one, until a later delivered or closed row has a destination."""
    early = rows((OTHER, "sending", 9), (OTHER, "delivered", 8), destination=None)
    changed = rows((THIRD, "changed", 7))
    named = rows((OTHER, "sending", 6), (OTHER, "delivered", 5))
    late = rows((OTHER, "closed", 4), destination=None)

    assert early == of_destination(early, DESTINATION) == of_destination(early, "https://test 1")
    assert early + changed == of_destination(early + changed, DESTINATION)
    assert changed + named == of_destination(early + changed + named, DESTINATION)
    assert [] == of_destination(early + named, "https://test 1")
    assert named + late == of_destination(early + named + late, DESTINATION)
    assert late == of_destination(early + named + late, "https://test 1")


def test_what_was_delivered_before_destinations_stays_delivered() -> None:
    """A row that says that the content changed does not make the delivery of the earlier layout forgotten."""
    written = rows((OTHER, "delivered", 9), destination=None, content=OTHER_CONTENT) + rows((THIRD, "changed", 8))

    assert CHANGED is decide(of_destination(written, DESTINATION), SAME, ME, ASIDE, NOW).action


@pytest.mark.parametrize(
    ("redeliver", "sent", "action"),
    [
        pytest.param("never", SAME, KNOWN, id="never-same"),
        pytest.param("never", OTHER_CONTENT, CHANGED, id="never-other"),
        pytest.param("never", None, KNOWN, id="never-any"),
        pytest.param("changed", SAME, KNOWN, id="changed-same"),
        pytest.param("changed", OTHER_CONTENT, SEND, id="changed-other"),
        pytest.param("changed", None, KNOWN, id="changed-any"),
        pytest.param("always", SAME, SEND, id="always-same"),
        pytest.param("always", OTHER_CONTENT, SEND, id="always-other"),
    ],
)
def test_redeliver(redeliver: Any, sent: ContentDigest | None, action: Action) -> None:
    """What is known delivered is sent again never, if its content changed, or always.

    A row without a digest stands for any content.
    """
    written = rows((OTHER, "sending", 9), (OTHER, "delivered", 8), content=sent)

    decision = decide(written, SAME, ME, LedgerPolicy(redeliver), NOW)

    assert (action, False) == (decision.action, decision.unconfirmed)


def test_the_last_delivery_counts() -> None:
    """Content that changed and changed back differs from what was delivered last, so it is sent again."""
    written = rows((OTHER, "delivered", 9)) + rows((THIRD, "delivered", 8), content=OTHER_CONTENT)

    assert SEND is decide(written, SAME, ME, LedgerPolicy("changed"), NOW).action
    assert KNOWN is decide(written, OTHER_CONTENT, ME, LedgerPolicy("changed"), NOW).action


@pytest.mark.parametrize("redeliver", ["changed", "always"])
def test_redelivery_gives_way_too(redeliver: Any) -> None:
    """An event that is to be sent again is not sent while another run is sending it."""
    written = rows((OTHER, "delivered", 9), (THIRD, "sending", 8), content=OTHER_CONTENT)

    assert CLAIMED_ELSEWHERE is decide(written, SAME, ME, LedgerPolicy(redeliver), NOW).action


@pytest.mark.parametrize(("redeliver", "action"), [("never", CHANGED), ("changed", SEND), ("always", SEND)], ids=str)
def test_other_content_may_have_arrived(redeliver: Any, action: Action) -> None:
    """What may have arrived with another content is treated as if it had."""
    written = rows((BEFORE, "unconfirmed", 9), content=OTHER_CONTENT)

    assert action is decide(written, SAME, ME, LedgerPolicy(redeliver), NOW).action


@pytest.mark.parametrize(
    "written",
    [[(OTHER, "unconfirmed", 9)], [(BEFORE, "sending", 9)], [(OTHER, "sending", 61)]],
    ids=["unconfirmed", "killed", "ran out"],
)
def test_hold(written: list[tuple[Claimant, str, float]]) -> None:
    """What may have arrived is held if the user wants that."""
    decision = decide(rows(*written), SAME, ME, LedgerPolicy(on_unconfirmed="hold", claim_timeout=60), NOW)

    assert (LOST, True) == (decision.action, decision.unconfirmed)


def test_hold_holds_nothing_else() -> None:
    """What certainly did not arrive is sent even if the unconfirmed is held."""
    written = rows((OTHER, "sending", 9), (OTHER, "undelivered", 8))

    assert SEND is decide(written, SAME, ME, LedgerPolicy(on_unconfirmed="hold"), NOW).action


@pytest.mark.parametrize("status", ["sending", "delivered", "held", "unconfirmed"])
def test_a_superseded_stops(status: str) -> None:
    """A try about whose events a later try has written is told to stop, whatever that one wrote."""
    with pytest.raises(SupersededError):
        decide(rows((ME, "sending", 9), (LATER, status, 8)), SAME, ME, ASIDE, NOW, since=at(10))


def test_a_deleted_dag_runs_tries_do_not_count() -> None:
    """A DAG run that was deleted and made anew begins at the first try: the old run's tries are earlier, not later."""
    written = rows((LATER, "sending", 9), (LATER, "unconfirmed", 8))

    decision = decide(written, SAME, ME, ASIDE, NOW, since=at(7))

    assert (SEND, True) == (decision.action, decision.unconfirmed)


def test_detail_says_why() -> None:
    """What an event's end says names the run, or the fields that differ, and never a value."""
    written = rows((BEFORE, "sending", 9))

    decision = decide(written, SAME, ME, ASIDE, NOW)

    detail = "may have arrived already, from run run_1, try 1"
    assert Decision(SEND, unconfirmed=True, detail=detail, newest=written[-1]) == decision


def test_an_unreadable_row_is_named() -> None:
    """The row whose delivery status makes no sense is named by its time, with the statuses that there are."""
    decision = decide(rows((OTHER, "done", 9), (OTHER, "delivered", 8)), SAME, ME, ASIDE, NOW)

    assert Action.UNREADABLE is decision.action
    assert f"its ledger row of {at(9)} has the delivery_status 'done'" in decision.detail
    assert "correct that row" in decision.detail


def test_closed_holds_for_its_content() -> None:
    """An event that a person has closed is sent when its content changes, and when everything is to be sent again."""
    written = rows((OTHER, "closed", 9))

    assert CLOSED is decide(written, SAME, ME, ASIDE, NOW).action
    assert SEND is decide(written, OTHER_CONTENT, ME, ASIDE, NOW).action
    assert SEND is decide(written, SAME, ME, LedgerPolicy("always"), NOW).action
    assert CLOSED is decide(rows((OTHER, "closed", 9), content=None), OTHER_CONTENT, ME, ASIDE, NOW).action


def test_what_has_changed_can_be_closed() -> None:
    """An event of which Ropo One has another content is closed if a person has closed this one."""
    written = rows((OTHER, "delivered", 9), content=OTHER_CONTENT) + rows((PERSON, "closed", 8))

    assert CLOSED is decide(written, SAME, ME, ASIDE, NOW).action
    assert KNOWN is decide(written, OTHER_CONTENT, ME, ASIDE, NOW).action
    assert CHANGED is decide(written, content_of("A3"), ME, ASIDE, NOW).action


@pytest.mark.parametrize(
    ("who", "unconfirmed"),
    [
        pytest.param(PERSON, False, id="a person"),
        pytest.param(Claimant("settle_dag", "settle", "manual", -1, 1, "person"), False, id="a person, by a task"),
        pytest.param(Claimant("", "", "", -1, 0, ""), False, id="a person, by hand"),
        pytest.param(OTHER, True, id="a run"),
        pytest.param(Claimant("dag", "report", "run_1", -1, 1, ""), True, id="a run of the layout before"),
        pytest.param(Claimant("", "report", "host 17 abc", -1, 1, "abc"), True, id="a run outside Airflow"),
    ],
)
@pytest.mark.parametrize("before", ["unconfirmed", "sending"])
def test_a_persons_undelivered_is_an_answer(before: str, who: Claimant, unconfirmed: bool) -> None:  # noqa: FBT001
    """What may have arrived has not, if a person says so; a run that has not sent it does not know."""
    decision = decide(rows((THIRD, before, 99), (who, "undelivered", 8)), SAME, ME, ASIDE, NOW)

    assert (SEND, unconfirmed) == (decision.action, decision.unconfirmed)


def test_a_persons_undelivered_answers_nothing_later() -> None:
    """What is sent after a person's row may have arrived again."""
    written = rows((THIRD, "unconfirmed", 99), (PERSON, "undelivered", 98), (OTHER, "unconfirmed", 97))

    assert decide(written, SAME, ME, ASIDE, NOW).unconfirmed


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"redeliver": "sometimes"}, "redeliver"),
        ({"on_unconfirmed": "wait"}, "on_unconfirmed"),
        ({"claim_timeout": 0}, "claim_timeout"),
        ({"claim_timeout": True}, "claim_timeout"),
        ({"claim_timeout": float("nan")}, "claim_timeout"),
    ],
    ids=["redeliver", "on_unconfirmed", "zero", "a boolean", "no number"],
)
def test_a_policy_that_makes_no_sense(values: dict[str, Any], name: str) -> None:
    """A policy that makes no sense is refused, and the parameter is named."""
    with pytest.raises(RopoConfigurationError, match=f"`{name}` must be"):
        LedgerPolicy(**values)


def test_nothing_open() -> None:
    """Of what has its end, nothing may have arrived unnoticed."""
    assert last_unresolved([]) is None
    assert last_unresolved(rows((OTHER, "sending", 9), (OTHER, "undelivered", 8))) is None
