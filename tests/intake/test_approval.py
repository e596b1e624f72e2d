from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.intake.approval import MAX_FINGERPRINTS, ApprovalDigest, ApprovalDigestBuilder

Events = dict[str, str]


def digest_of(events: Events, destination: str = "https://rc.ropo24.fi 1000011") -> ApprovalDigest:
    builder = ApprovalDigestBuilder(destination)
    for event_id, content in events.items():
        builder.add(event_id, {"id": event_id, "description": content})
    return builder.build()


@given(st.dictionaries(st.text(), st.text(), max_size=20), st.randoms())
def test_order_makes_no_difference(events: Events, dice: random.Random) -> None:
    """The same events in any order have the same digest, which survives being text."""
    shuffled = list(events.items())
    dice.shuffle(shuffled)

    assert str(digest_of(events)) == str(digest_of(dict(shuffled)))
    assert digest_of(events) == ApprovalDigest.parse(str(digest_of(events)))


@given(st.dictionaries(st.text(), st.text(), max_size=20), st.dictionaries(st.text(), st.text(), max_size=20))
def test_any_difference_is_seen(one: Events, other: Events) -> None:
    """Two batches have no difference just when they are the same."""
    assert (one == other) is (digest_of(one).differences(digest_of(other)) is None)


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        ({"a": "x", "b": "x", "c": "x"}, "1 event more"),
        ({"a": "x"}, "1 event fewer"),
        ({"a": "x", "b": "y"}, "1 event with other content"),
        ({"a": "y", "c": "x", "d": "x", "e": "x"}, "3 events more, 1 event fewer, 1 event with other content"),
    ],
)
def test_differences(now: Events, difference: str) -> None:
    """The difference is counted: more, fewer, and other content."""
    assert difference == digest_of(now).differences(digest_of({"a": "x", "b": "x"}))


def test_another_destination() -> None:
    """The same events for another destination are another batch."""
    here, there = digest_of({"a": "x"}), digest_of({"a": "x"}, "https://rc.ropo24.fi 1000012")

    assert "the preview was for another destination" == here.differences(there)


def test_a_large_batch_is_a_short_text() -> None:
    """Beyond a number of events the digest holds totals only, and still sees any difference."""
    approved = digest_of({str(number): "x" for number in range(MAX_FINGERPRINTS + 1)})
    now = digest_of({str(number): "x" if number else "y" for number in range(MAX_FINGERPRINTS + 1)})

    assert len(str(approved)) < 120
    assert "the preview had 1,001 events, this run has 1,001, and not all are the same" == now.differences(approved)


@pytest.mark.parametrize("text", ["", "yes", "ropo1:", "None", f"ropo1:{'0' * 16}:{'0' * 63}:1:"])
def test_no_digest(text: str) -> None:
    """What is no digest is refused by name."""
    with pytest.raises(RopoConfigurationError, match="`approved` is not the digest of a preview"):
        ApprovalDigest.parse(text)
