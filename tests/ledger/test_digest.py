from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ropo.event import Invoice, UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.ledger.digest import (
    FIELDS,
    ContentDigest,
    invalid_digest,
    is_of_invalid,
    unkeyed,
    without_fields,
)
from ledger_steps import DESTINATION

MakeEvent = Callable[..., UsageplaceEvent]

TEST = "https://test 1"
FULL: dict[str, Any] = {"customernumber": "A123456", "contract_no": "12b", "invoices": (Invoice("594294", 1234),)}
CHANGES: dict[str, Any] = {
    "usageplacecode": "RE2",
    "status": UsageplaceStatus.DISCONNECTED,
    "time": dt.datetime(2024, 1, 4, 8, 0, 1, tzinfo=dt.UTC),
    "customernumber": "A654321",
    "contract_no": "13",
    "description": None,
    "invoices": (Invoice("594295", 1234),),
}


def digest(event: UsageplaceEvent, destination: str = DESTINATION) -> ContentDigest:
    return ContentDigest(event, destination)


def h(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def test_equal_content_is_recognised(make_event: MakeEvent) -> None:
    """The same content has the same digest every time."""
    text = digest(make_event(**FULL)).text

    assert text == digest(make_event(**FULL)).text
    assert digest(make_event(**FULL)).matches(text)


def test_a_digest_fits_its_column(make_event: MakeEvent) -> None:
    """A digest is 32 hexadecimal digits of the whole content, and one more a field."""
    text = digest(make_event(**FULL)).text

    assert 32 + len(FIELDS) == len(text)
    assert set("0123456789abcdef") >= set(text)


@pytest.mark.parametrize("name", CHANGES)
def test_other_content_is_not_taken_for_the_same(name: str, make_event: MakeEvent) -> None:
    """Contents that differ in one field differ, and if a field is named, it is that one."""
    one = make_event(**FULL)
    other = dataclasses.replace(one, **{name: CHANGES[name]})

    assert not digest(other).matches(digest(one).text)
    assert not digest(other).matches(unkeyed(one))
    assert {name} >= set(digest(other).differing_fields(digest(one).text))
    assert [name] == digest(other).differing_fields(unkeyed(one))


def test_most_differing_fields_are_named(make_event: MakeEvent) -> None:
    """Of a hundred events, in most the field that differs is named, and never another."""
    named = 0
    for number in range(100):
        one, other = (make_event(f"e{number}", customernumber=customer) for customer in ("A1", "A2"))
        found = digest(other).differing_fields(digest(one).text)
        assert {"customernumber"} >= set(found)
        named += bool(found)

    assert 80 < named < 100


@pytest.mark.parametrize("name", CHANGES)
def test_a_field_confirms_no_guess(name: str, make_event: MakeEvent) -> None:
    """A field's own digits fit to about one guess in sixteen, so that a guess is never confirmed by them."""
    at = 32 + FIELDS.index(name)
    secret = digest(make_event(**FULL)).text[at]
    guesses = {
        "usageplacecode": lambda number: {"place": f"RE{number + 100}"},
        "time": lambda number: {"time": f"{10 + number // 60:02}:{number % 60:02}"},
        "status": None,
        "customernumber": lambda number: {"customernumber": f"B{number}"},
        "contract_no": lambda number: {"contract_no": f"B{number}"},
        "description": lambda number: {"description": f"B{number}"},
        "invoices": lambda number: {"invoices": (Invoice(f"{number}", 1),)},
    }[name]
    if guesses is None:
        # Three statuses: nothing can be hidden by a digit of which there are sixteen.
        assert 1 == len(secret)
        return

    fitting = sum(secret == digest(make_event(**FULL | guesses(number))).text[at] for number in range(640))

    assert 15 < fitting < 80


def test_two_events_have_nothing_in_common(make_event: MakeEvent) -> None:
    """Equal contents of two events, or for two destinations, cannot be told from different ones."""
    events = [make_event(f"e{number}", **FULL) for number in range(64)]
    texts = [digest(event).text for event in events] + [digest(event, TEST).text for event in events]

    assert 128 == len({text[:32] for text in texts})
    for at in range(32, 39):
        assert 8 < len({text[at] for text in texts})


def test_another_destination_is_another_content(make_event: MakeEvent) -> None:
    """A digest stands for its destination only."""
    assert not digest(make_event(), TEST).matches(digest(make_event()).text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"invoices": (Invoice("1", 2),)}, {"invoices": (Invoice("1", 2), Invoice("3", 4))}),
        ({"invoices": (Invoice("1", None),)}, {"invoices": (Invoice(None, 1),)}),
        ({"customernumber": None}, {"customernumber": "-" * 16}),
        ({"customernumber": None}, {"customernumber": "None"}),
        ({"customernumber": None}, {"customernumber": ""}),
        ({"customernumber": "A", "contract_no": "B"}, {"customernumber": "B", "contract_no": "A"}),
        ({"customernumber": "A', 'B", "contract_no": None}, {"customernumber": "A", "contract_no": "B"}),
    ],
    ids=["one more", "number or job", "dashes", "None", "empty", "swapped", "quotes"],
)
def test_no_two_contents_look_alike(one: dict[str, Any], other: dict[str, Any], make_event: MakeEvent) -> None:
    """Different contents have different digests, however alike they look."""
    assert not digest(make_event(**one)).matches(digest(make_event(**other)).text)


def test_what_ropo_is_not_told_does_not_count(make_event: MakeEvent) -> None:
    """A fraction of a second makes no other content."""
    assert digest(make_event(time="10:00:00")).text == digest(make_event(time="10:00:00.250")).text


def test_the_order_of_invoices_does_not_count(make_event: MakeEvent) -> None:
    """A query may return an event's rows, an invoice each, in another order the next time."""
    one, other, odd = Invoice("594294", 1234), Invoice("594295", 1235), Invoice(None, 7)

    first, second = (make_event(invoices=order) for order in ((one, other, odd), (odd, other, one)))

    assert digest(first).text == digest(second).text


@pytest.mark.parametrize("payload_hash", [None, ""], ids=["null", "empty"])
def test_a_row_without_a_digest_stands_for_any_content(payload_hash: str | None, make_event: MakeEvent) -> None:
    """A row written by hand, without a digest, is about whatever the content is now."""
    assert digest(make_event(**FULL)).matches(payload_hash)
    assert [] == digest(make_event(**FULL)).differing_fields("")


def test_rows_of_the_earlier_layout_are_recognised(make_event: MakeEvent) -> None:
    """A digest of the earlier layout, 16 digits a field, is recognised, whatever the event's destination is."""
    event = make_event(contract_no="12b", invoices=(Invoice("594294", 1234), Invoice(None, 7)))
    invoices = "[\"('594294', 1234)\", '(None, 7)']"
    earlier = "".join(
        (
            h("RE1"),
            h("connected"),
            h("2024-01-04 10:00:00"),
            "-" * 16,
            h("12b"),
            h("Usage place connected"),
            h(invoices),
        )
    )

    assert earlier == unkeyed(event)
    assert digest(event).matches(earlier)
    assert digest(event, TEST).matches(earlier)
    assert not digest(dataclasses.replace(event, customernumber="A1")).matches(earlier)


def test_an_unknown_digest_matches_nothing(make_event: MakeEvent) -> None:
    """A digest of no known length is about another content."""
    event = make_event()

    assert not digest(event).matches("abc")
    assert not digest(event).matches(digest(event).text[:31])


# Of invalid rows, and after purging.


def test_an_invalid_row_has_the_digest_of_its_reason() -> None:
    """The number that a row has in a query makes no difference, its reason and its event do."""
    one = invalid_digest("row 7 (id e1): time: is missing", "e1")

    assert one == invalid_digest("row 12 (id e1): time: is missing", "e1")
    assert one != invalid_digest("row 7 (id e1): time: is no time", "e1")
    assert one != invalid_digest("row 7 (id e1): time: is missing", "e2")
    assert is_of_invalid(one)
    assert 128 >= len(one)


def test_an_invalid_rows_digest_is_no_contents(make_event: MakeEvent) -> None:
    """A row that has become an event is not taken for the one that was invalid."""
    assert not digest(make_event()).matches(invalid_digest("row 7: time: is missing", "e1"))
    assert not is_of_invalid(digest(make_event()).text)
    assert not is_of_invalid(None)


def test_a_digest_without_fields(make_event: MakeEvent) -> None:
    """What is left of a digest tells the same content from another, and names no field."""
    left = without_fields(digest(make_event()).text)

    assert left is not None
    assert digest(make_event()).matches(left)
    assert not digest(make_event(customernumber="A1")).matches(left)
    assert [] == digest(make_event(customernumber="A1")).differing_fields(left)
    assert left == without_fields(left)
    assert without_fields(unkeyed(make_event())) is None
    assert without_fields(None) is None
    assert "invalid:1" == without_fields("invalid:1")
