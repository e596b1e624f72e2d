"""The connection's form in the browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from airflow_provider_ropo.provider_info import CONNECTION_TYPE
from airflow_provider_ropo.sandbox import Sandbox

Take = Callable[[Page, str], None]


def press_test(page: Page) -> dict[str, Any]:
    """Press the button in the list of connections, and return the response to Airflow's page."""
    with page.expect_response(lambda answer: answer.url.endswith("/connections/test")) as received:
        page.get_by_role("row", name="ropo_mistyped").get_by_role("button", name="Test Connection").click()
    answer: dict[str, Any] = received.value.json()
    return answer


def test_a_person_mistypes_the_api_code_and_corrects_it(
    page: Page, add_connection: Callable[..., None], sandbox: Sandbox, take: Take
) -> None:
    """A wrong API code gives a message with the fields to check; a corrected one signs in, and posts nothing."""
    add_connection(page, "ropo_mistyped", apicode="sandbx")
    before, posted = sandbox.sign_ins, len(sandbox.arrivals)

    press_test(page)

    message = page.get_by_role("status", name="Test Connection Failed")
    expect(message).to_contain_text(f"{sandbox.url} refuses the sign-in; check Server (host), Customer number (login)")
    expect(message).to_contain_text("API code (password)")
    assert before == sandbox.sign_ins
    take(page, "connection-refused")

    page.get_by_role("row", name="ropo_mistyped").get_by_role("button", name="Edit Connection").click()
    page.get_by_role("textbox", name="API code (apicode)").fill(sandbox.apicode)
    page.get_by_role("button", name="Save").click()
    page.get_by_role("dialog").wait_for(state="detached")
    answer = press_test(page)

    assert answer["status"] is True
    assert answer["message"].startswith(f"Signed in to {sandbox.url} as customer 1000011")
    assert before + 1 == sandbox.sign_ins
    assert posted == len(sandbox.arrivals)


def test_the_form_describes_each_field(page: Page, airflow: Any, take: Take) -> None:
    """Every field has its label and description, meaningless fields are hidden, and the entered values are stored."""
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.get_by_role("textbox", name="Connection ID").fill("ropo_sweden")
    form.get_by_role("combobox", name="Connection Type").fill("Ropo")
    page.get_by_role("option", name="Ropo One").click()

    for field, placeholder in CONNECTION_TYPE["ui-field-behaviour"]["placeholders"].items():
        label = CONNECTION_TYPE["ui-field-behaviour"]["relabeling"].get(field, field.capitalize())
        expect(form.get_by_label(label, exact=True)).to_have_attribute("placeholder", placeholder)
    expect(form.get_by_text("Schema")).to_have_count(0)
    take(page, "connection-form")
    form.get_by_role("textbox", name="Server").fill("rc.ropo24.se")
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    for field in CONNECTION_TYPE["conn-fields"].values():
        expect(form.get_by_text(field["label"], exact=True)).to_be_visible()
        expect(form.get_by_text(field["description"], exact=True)).to_be_visible()
    take(page, "connection-extras")
    form.get_by_role("textbox").first.scroll_into_view_if_needed()
    form.locator("input[name='element_timezone']").fill("Europe/Oslo")
    form.get_by_role("button", name="Save").click()
    form.wait_for(state="detached")

    kept = airflow.ask("connections/ropo_sweden")
    assert ("rc.ropo24.se", "Europe/Oslo") == (kept["host"], json.loads(kept["extra"])["timezone"])
