from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.errors import RopoLedgerError, SupersededError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import Outcome, PendingClaim, Round
from airflow_provider_ropo.ledger.decisions import Action, Decision
from airflow_provider_ropo.ledger.recorder import NullRecorder, Recorder
from interruptions import interruption

MakeEvent = Callable[..., UsageplaceEvent]

#: Longer than anything here takes, unless it hangs.
SOON = 10.0
SEND = Decision(Action.SEND)


class FakeLedger:
    """A ledger that takes its time: a round lasts until the test lets it end.

    Every event that is looked up is to be sent, and is ready in the round after.
    """

    def __init__(self) -> None:
        #: Each round, as it begins.
        self.rounds: queue.SimpleQueue[Round] = queue.SimpleQueue()
        #: Lets a round end, or fail.
        self.gate: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.released = 0
        self.threads: set[str] = set()

    def exchange(self, asked: Round) -> Outcome:
        self.threads.add(threading.current_thread().name)
        self.rounds.put(asked)
        error = self.gate.get(timeout=SOON)
        if error is not None:
            raise error
        claimed = [PendingClaim(event, SEND, is_claimed=True) for event in asked.look_ups[: asked.claim_limit]]
        rest = [PendingClaim(event, SEND) for event in asked.look_ups[asked.claim_limit :]]
        return Outcome(ready=list(asked.unresolved), unresolved=claimed, postponed=rest)

    def release_connection(self) -> None:
        self.released += 1

    def next_round(self) -> Round:
        return self.rounds.get(timeout=SOON)


@pytest.fixture
def ledger() -> FakeLedger:
    """Return a ledger that takes its time."""
    return FakeLedger()


@pytest.fixture
def answers() -> queue.SimpleQueue[Outcome | BaseException]:
    """Return where the recorder's answers go."""
    return queue.SimpleQueue()


Answers = queue.SimpleQueue[Outcome | BaseException]


@pytest.fixture
def recorder(ledger: FakeLedger, answers: Answers) -> Iterator[Recorder]:
    """Return a recorder that is at work, and ended at last."""
    recorder = Recorder(ledger, answers.put)
    recorder.claim_target = recorder.claims_per_place = 100
    recorder.start()
    yield recorder
    for _ in range(20):
        ledger.gate.put(None)
    recorder.finish()


def delivered(event: UsageplaceEvent, attempts: int = 1) -> tuple[PendingClaim, Delivery]:
    status = DeliveryStatus.DELIVERED if attempts else DeliveryStatus.UNDELIVERED
    return PendingClaim(event, SEND, is_claimed=True), Delivery(status, event.id, attempts=attempts)


def ids(asked: Round) -> list[str]:
    return [claim.event.id for claim, _ in asked.results]


def test_a_result_is_not_held_back(recorder: Recorder, ledger: FakeLedger, make_event: MakeEvent) -> None:
    """A single result goes to the ledger at once, without waiting for more."""
    recorder.record(*delivered(make_event("e1")))

    asked = ledger.next_round()

    assert ["e1"] == ids(asked)


def test_results_of_a_slow_round_go_out_together(recorder: Recorder, ledger: FakeLedger, make_event: MakeEvent) -> None:
    """What comes while the database is busy goes out in the next round, all of it together, in order."""
    recorder.record(*delivered(make_event("e0")))
    first = ledger.next_round()
    for number in range(1, 50):
        recorder.record(*delivered(make_event(f"e{number}")))
    recorder.look_up([make_event("next")], [make_event("blocked")])
    ledger.gate.put(None)

    second = ledger.next_round()

    assert ["e0"] == ids(first)
    assert [f"e{number}" for number in range(1, 50)] == ids(second)
    assert (["next"], ["blocked"]) == (
        [event.id for event in second.look_ups],
        [event.id for event in second.blocked],
    )


def test_claims_are_verified_in_the_next_round(
    recorder: Recorder, ledger: FakeLedger, answers: Answers, make_event: MakeEvent
) -> None:
    """What a round has claimed is verified in the round after, without being asked for."""
    recorder.look_up([make_event("e1")])
    ledger.gate.put(None)
    ledger.next_round()

    second = ledger.next_round()
    ledger.gate.put(None)

    first_answer, second_answer = answers.get(timeout=SOON), answers.get(timeout=SOON)
    assert ["e1"] == [claim.event.id for claim in second.unresolved]
    assert isinstance(first_answer, Outcome)
    assert isinstance(second_answer, Outcome)
    assert ["e1"] == [claim.event.id for claim in second_answer.ready]
    assert 1 == recorder.open_claims


def test_no_more_is_claimed_than_the_target(
    recorder: Recorder, ledger: FakeLedger, answers: Answers, make_event: MakeEvent
) -> None:
    """What is claimed and not recorded counts towards the number of events that may be claimed."""
    recorder.claim_target = 3
    recorder.look_up([make_event("e1"), make_event("e2")])
    first = ledger.next_round()
    ledger.gate.put(None)
    answers.get(timeout=SOON)
    ledger.next_round()
    recorder.look_up([make_event("e3"), make_event("e4")])
    recorder.record(*delivered(make_event("e1")))
    ledger.gate.put(None)

    third = ledger.next_round()

    assert (3, 2) == (first.claim_limit, third.claim_limit)


def test_one_thread_owns_the_ledger(recorder: Recorder, ledger: FakeLedger, make_event: MakeEvent) -> None:
    """Whichever thread asks, one other goes to the ledger; the connection is released before it does."""
    askers = [threading.Thread(target=recorder.record, args=delivered(make_event(f"e{number}"))) for number in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    for _ in askers:
        ledger.gate.put(None)

    recorder.finish()

    assert {"ropo-ledger"} == ledger.threads
    assert 2 == ledger.released


def test_finishing_records_what_is_there(recorder: Recorder, ledger: FakeLedger, make_event: MakeEvent) -> None:
    """Results that came before the end are recorded by it; claims not verified are handed back."""
    recorder.look_up([make_event("e1")])
    ledger.next_round()
    recorder.record(*delivered(make_event("e2")))
    recorder.record(*delivered(make_event("e3")))
    ending = threading.Thread(target=lambda: found.extend(recorder.finish()))
    found: list[PendingClaim] = []

    ending.start()
    time.sleep(0.05)
    ledger.gate.put(None)
    last = ledger.next_round()
    ledger.gate.put(None)
    ending.join(SOON)

    assert (["e2", "e3"], []) == (ids(last), list(last.unresolved))
    assert ["e1"] == [claim.event.id for claim in found]
    assert ledger.rounds.empty()


def test_results_survive_a_failure(
    recorder: Recorder, ledger: FakeLedger, answers: Answers, make_event: MakeEvent
) -> None:
    """If a round fails, its results and those that came since are kept, and written at the end: the sent ones first.

    What was not sent is in a statement of its own, which cannot keep the others from being written.
    """
    failure = RopoLedgerError("away")
    recorder.record(*delivered(make_event("e1")))
    ledger.next_round()
    recorder.record(*delivered(make_event("unsent"), attempts=0))
    recorder.record(*delivered(make_event("e2")))
    ledger.gate.put(failure)

    answer = answers.get(timeout=SOON)
    recorder.finish()
    for _ in range(2):
        ledger.gate.put(None)
    recorder.flush()

    assert failure is answer
    assert [["e1", "e2"], ["unsent"]] == [ids(ledger.next_round()), ids(ledger.next_round())]
    assert ledger.rounds.empty()


def test_claims_survive_a_failure(
    recorder: Recorder, ledger: FakeLedger, answers: Answers, make_event: MakeEvent
) -> None:
    """If the round that verifies them fails, claims are handed back at the end, to be closed."""
    recorder.look_up([make_event("e1")])
    ledger.gate.put(None)
    ledger.next_round()
    ledger.next_round()
    ledger.gate.put(RopoLedgerError("away"))

    found = recorder.finish()

    assert ["e1"] == [claim.event.id for claim in found]


def test_what_a_superseded_has_recorded_is_not_recorded_again(
    recorder: Recorder, ledger: FakeLedger, answers: Answers, make_event: MakeEvent
) -> None:
    """A superseded try has written its results when it learns of it: they are not written a second time."""
    recorder.record(*delivered(make_event("e1")))
    ledger.next_round()
    recorder.record(*delivered(make_event("e2")))
    ledger.gate.put(SupersededError("superseded"))
    answers.get(timeout=SOON)

    recorder.finish()
    ledger.gate.put(None)
    recorder.flush()

    assert ["e2"] == ids(ledger.next_round())
    assert ledger.rounds.empty()


def test_a_failure_while_flushing_is_raised(
    recorder: Recorder, ledger: FakeLedger, answers: Answers, make_event: MakeEvent
) -> None:
    """If the results cannot be written at the end either, that is an error."""
    recorder.record(*delivered(make_event("e1")))
    ledger.gate.put(RopoLedgerError("away"))
    answers.get(timeout=SOON)
    recorder.finish()
    ledger.gate.put(RopoLedgerError("still away"))

    with pytest.raises(RopoLedgerError, match="still away"):
        recorder.flush()


def test_a_recorder_that_never_started_is_finished(ledger: FakeLedger, answers: Answers) -> None:
    """A run that ends before it began has nothing to record."""
    recorder = Recorder(ledger, answers.put)

    assert [] == recorder.finish()
    recorder.flush()
    assert ledger.rounds.empty()


def test_an_interruption_never_blocks_the_recorder(ledger: FakeLedger, make_event: MakeEvent) -> None:
    """Wherever the calling thread is interrupted while it hands over a result, the recorder ends all the same."""
    # A lock that is taken in Python may stay taken.
    handing_over: list[Callable[..., Any]] = [
        Recorder.record,
        threading.Condition.__enter__,
        threading.Condition.__exit__,
    ]
    for at in range(1, 1_000):
        recorder = Recorder(ledger, lambda _answer: None)
        recorder.start()
        ledger.gate.put(None)
        recorder.record(*delivered(make_event("e1")))
        assert ["e1"] == ids(ledger.next_round())
        with interruption(at, KeyboardInterrupt(), *handing_over) as raised, suppress(KeyboardInterrupt):
            recorder.record(*delivered(make_event("e2")))
        ledger.gate.put(None)

        finishing = threading.Thread(target=recorder.finish, daemon=True)
        finishing.start()
        finishing.join(SOON)

        assert not finishing.is_alive(), raised
        if not raised:
            break
        while not (ledger.gate.empty() and ledger.rounds.empty()):
            for left in (ledger.gate, ledger.rounds):
                with suppress(queue.Empty):
                    left.get_nowait()
    assert at > 10


def test_without_a_ledger_everything_is_sent(answers: Answers, make_event: MakeEvent) -> None:
    """Without a ledger every event is ready at once, and a blocked one is not sent."""
    recorder = NullRecorder(answers.put)

    recorder.look_up([make_event("e1")], [make_event("e2")])

    answer = answers.get(timeout=SOON)
    assert isinstance(answer, Outcome)
    assert (["e1"], ["e2"]) == (
        [claim.event.id for claim in answer.ready],
        [claim.event.id for claim in answer.refused],
    )
    assert [] == recorder.finish()
