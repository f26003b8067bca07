"""Stories of chats that the browser keeps: rename, export, delete, edit, branch; thoughts and calls of tools."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.process]
#: An answer of 40 seconds: longer than what a story does with it.
SLOW = {"chunks": 400, "interval": 0.1, "text": "slow "}


def launched(home: ScriptedHome, uid: str, **script: object) -> str:
    answer = home.post_launch(uid, script=script)
    assert answer.status_code == 200, answer.text
    return uid


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Send").wait_for()
    page.get_by_text(text, exact=True).first.wait_for()
    page.get_by_role("button", name="Branch").last.wait_for()


def test_chats_are_kept_renamed_exported_imported_and_deleted(
    home: ScriptedHome, open_page: Open, tmp_path: Path
) -> None:
    uid = launched(home, "keeper")
    page, watch = open_page(home, f"#/chat?model={uid}")
    ask(page, "First question")
    page.get_by_role("button", name="New chat").click()
    ask(page, "Second question")
    page.reload()
    page.get_by_role("button", name="Chats", exact=True).click()
    chats = page.get_by_role("complementary", name="Chats")
    chats.get_by_role("button", name="First question", exact=True).click()
    page.get_by_role("heading", name="First question").wait_for()
    page.get_by_text("word word word").wait_for()
    chats.get_by_role("button", name="Rename First question").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("A better title")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="A better title").wait_for()
    with page.expect_download() as saved:
        chats.get_by_role("button", name="Export A better title").click()
    file = tmp_path / "chat.json"
    saved.value.save_as(file)
    [chat] = json.loads(file.read_text())
    assert [each["role"] for each in chat["columns"][0]["messages"]] == ["user", "assistant"]
    chats.get_by_role("button", name="Delete A better title").click()
    chats.get_by_role("button", name="A better title", exact=True).wait_for(state="detached")
    assert watch.dialogs == ["Delete the chat A better title?"]
    chats.get_by_label("Import").set_input_files(file)
    chats.get_by_role("button", name="A better title", exact=True).wait_for()
    file.write_text('[{"id": 1}]')
    chats.get_by_label("Import").set_input_files(file)
    chats.get_by_role("alert").wait_for()


def test_a_message_is_edited_and_a_chat_branches(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "editor")
    page, _ = open_page(home, f"#/chat?model={uid}")
    ask(page, "One")
    ask(page, "Two")
    page.get_by_role("button", name="Branch").first.click()
    page.get_by_text("Two", exact=True).wait_for(state="detached")
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Changed message").fill("Another one")
    page.get_by_role("button", name="Send").first.click()
    page.locator(".message.user").get_by_text("Another one").wait_for()
    page.get_by_role("button", name="Branch").wait_for()
    assert page.locator(".message.user").count() == 1
    page.get_by_role("button", name="Chats", exact=True).click()
    # The chat before the branch is as it was.
    page.get_by_role("complementary", name="Chats").locator("button.name:not([aria-current])").click()
    page.get_by_text("Two", exact=True).wait_for()


def test_thoughts_are_folded_and_calls_of_tools_are_shown_as_such(home: ScriptedHome, open_page: Open) -> None:
    shape = {"engine": "vLLM", "thoughts": 2, "calls": 1}
    uid = launched(home, "caller", shape=shape, chunks=3)
    page, _ = open_page(home, f"#/chat?model={uid}")
    ask(page, "Weather?")
    thinking = page.locator("details.thinking")
    assert thinking.get_attribute("open") is None
    thinking.locator("summary").click()
    page.get_by_text("thought 0 thought 1").wait_for()
    call = page.get_by_role("region", name="Call of tool look_up")
    assert "{}" in call.locator("pre").inner_text()


def test_the_same_message_goes_to_four_models_side_by_side(home: ScriptedHome, open_page: Open) -> None:
    uids = [launched(home, f"side-{n}", text=f"from{n} ") for n in range(4)]
    page, _ = open_page(home, f"#/chat?model={uids[0]}")
    for n in range(1, 4):
        page.get_by_role("button", name="Compare").click()
        page.get_by_label("Model", exact=True).nth(n).select_option(uids[n])
    assert page.get_by_role("button", name="Compare").is_disabled()
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    for n, uid in enumerate(uids):
        column = page.get_by_role("region", name=f"Chat with {uid}")
        column.get_by_text(f"from{n} from{n}").wait_for()
        column.get_by_text("5 out").wait_for()


def test_a_reload_opens_the_chat_of_the_tab_again(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "reloaded")
    page, _ = open_page(home, f"#/chat?model={uid}")
    ask(page, "A question before the reload")
    page.reload()
    page.get_by_role("heading", name="A question before the reload").wait_for()
    page.get_by_text("word word word").wait_for()
    page.get_by_role("button", name="New chat").click()
    page.reload()
    page.get_by_role("heading", name="New chat").wait_for()


def begin_answer(page: Page, question: str) -> None:
    """Ask, and wait until a part of the answer is there."""
    page.get_by_label("Message", exact=True).fill(question)
    page.keyboard.press("Enter")
    page.get_by_text("slow slow").wait_for()


def test_a_reload_in_the_middle_of_an_answer_keeps_the_question_and_the_part_that_came(
    home: ScriptedHome, open_page: Open
) -> None:
    uid = launched(home, "interrupted", **SLOW)
    page, _ = open_page(home, f"#/chat?model={uid}")
    begin_answer(page, "A long story, please")
    page.reload()
    page.locator(".message.user").get_by_text("A long story, please").wait_for()
    answer = page.locator(".message.assistant")
    answer.get_by_text("slow slow").wait_for()
    answer.get_by_text("The answer broke off: its page was closed or reloaded.").wait_for()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Stop").click()


def test_a_changed_question_is_kept_by_a_reload_before_its_answer(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "changed", **SLOW)
    page, _ = open_page(home, f"#/chat?model={uid}")
    begin_answer(page, "The first question")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Changed message").fill("The changed question")
    page.get_by_role("button", name="Send").first.click()
    page.locator(".message.user").get_by_text("The changed question").wait_for()
    page.reload()
    page.locator(".message.user").get_by_text("The changed question").wait_for()


def open_again(page: Page, address: str, title: str) -> Page:
    """Open a chat in another tab of the same browser."""
    other = page.context.new_page()
    other.goto(address)
    other.get_by_role("button", name="Chats", exact=True).click()
    other.get_by_role("complementary", name="Chats").get_by_role("button", name=title, exact=True).click()
    return other


def test_a_question_is_kept_when_its_tab_is_closed_at_once(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "closed", **SLOW)
    page, _ = open_page(home, f"#/chat?model={uid}")
    page.get_by_label("Message", exact=True).fill("A question before the end")
    page.keyboard.press("Enter")
    page.locator(".message.user").wait_for()
    page.close()
    other = open_again(page, f"{home.url}/ui/#/chat", "A question before the end")
    other.locator(".message.user").get_by_text("A question before the end").wait_for()


def test_a_crash_of_the_tab_loses_at_most_the_last_second_of_an_answer(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "crashed", **SLOW)
    page, _ = open_page(home, f"#/chat?model={uid}")
    begin_answer(page, "A question before the crash")
    page.get_by_text("slow " * 40).wait_for()
    with contextlib.suppress(Exception):  # the browser answers nothing for a tab that is gone
        page.goto("chrome://crash", timeout=2000)
    other = open_again(page, f"{home.url}/ui/#/chat", "A question before the crash")
    other.locator(".message.assistant").get_by_text("slow " * 20).wait_for()


def test_an_answer_that_another_chat_has_stopped_is_kept_as_stopped(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "left", **SLOW)
    page, _ = open_page(home, f"#/chat?model={uid}")
    begin_answer(page, "A question that is left")
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("button", name="Chats", exact=True).click()
    chats = page.get_by_role("complementary", name="Chats")
    chats.get_by_role("button", name="A question that is left", exact=True).click()
    answer = page.locator(".message.assistant")
    answer.get_by_text("slow slow").wait_for()
    answer.get_by_text("· stopped").wait_for()


def test_a_chat_that_is_deleted_while_its_answer_comes_stays_deleted(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "removed", **SLOW)
    page, _ = open_page(home, f"#/chat?model={uid}")
    begin_answer(page, "A question to delete")
    page.get_by_role("button", name="Chats", exact=True).click()
    page.get_by_role("button", name="Delete A question to delete").click()
    page.get_by_role("heading", name="New chat").wait_for()
    page.reload()
    page.get_by_role("button", name="Chats", exact=True).click()
    page.get_by_text("There is no chat yet.").wait_for()


def test_a_message_that_is_not_sent_outlasts_a_reload(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "drafted")
    page, _ = open_page(home, f"#/chat?model={uid}")
    page.get_by_label("Message", exact=True).fill("Half a quest")
    page.reload()
    page.wait_for_function("() => document.querySelector('form.ask textarea')?.value === 'Half a quest'")


def test_two_tabs_with_one_chat_lose_no_question_of_the_other(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "in-two-tabs", chunks=3)
    page, _ = open_page(home, f"#/chat?model={uid}")
    ask(page, "One")
    other = open_again(page, f"{home.url}/ui/#/chat", "One")
    other.locator(".message.user").get_by_text("One").wait_for()
    ask(other, "Two")
    page.locator(".message.user").get_by_text("Two").wait_for()
    ask(page, "Three")
    other.locator(".message.user").get_by_text("Three").wait_for()
    assert other.locator(".message.user").count() == 3


def test_two_tabs_that_ask_in_one_chat_at_once_get_a_chat_each(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "both-ask", **SLOW)
    page, _ = open_page(home, f"#/chat?model={uid}")
    begin_answer(page, "From the first tab")
    other = open_again(page, f"{home.url}/ui/#/chat", "From the first tab")
    other.locator(".message.user").get_by_text("From the first tab").wait_for()
    other.get_by_label("Message", exact=True).fill("From the second tab")
    other.keyboard.press("Enter")
    other.locator(".message.user").get_by_text("From the second tab").wait_for()
    chats = other.get_by_role("complementary", name="Chats")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("· stopped").wait_for()
    page.reload()
    page.locator(".message.user").get_by_text("From the first tab").wait_for()
    page.locator(".message.assistant").get_by_text("· stopped").wait_for()
    assert page.get_by_text("From the second tab").count() == 0
    assert chats.get_by_role("button", name="From the first tab", exact=True).count() >= 1
    other.get_by_role("button", name="Stop").click()


def test_a_double_click_on_branch_makes_one_chat(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "twice")
    page, _ = open_page(home, f"#/chat?model={uid}")
    ask(page, "One")
    page.get_by_role("button", name="Branch").dblclick()
    page.get_by_role("button", name="Chats", exact=True).click()
    names = page.get_by_role("complementary", name="Chats").locator("button.name")
    names.nth(1).wait_for()
    assert names.count() == 2


def test_a_link_to_a_chat_with_a_model_that_is_gone_says_so(home: ScriptedHome, open_page: Open) -> None:
    launched(home, "another")
    page, _ = open_page(home, "#/chat?model=gone")
    page.get_by_text("The model gone is not running.").wait_for()
    assert page.get_by_role("link", name="Show its last launch").get_attribute("href") == "#/running/gone"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("indexedDB.open = () => { throw new DOMException('no', 'SecurityError'); };", "This browser stores no chats"),
        (
            "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); };",
            "The storage of this browser is full",
        ),
    ],
    ids=["forbidden", "full"],
)
def test_chats_that_the_browser_does_not_store_are_called_so_and_last_as_long_as_the_page(
    home: ScriptedHome, open_page: Open, script: str, words: str
) -> None:
    uid = launched(home, f"unstored-{words.split()[1]}")
    page, _ = open_page(home, f"#/chat?model={uid}", script=script)
    ask(page, "First question")
    page.get_by_text(words).wait_for()
    page.get_by_role("button", name="New chat").click()
    ask(page, "Second question")
    page.get_by_role("button", name="Chats", exact=True).click()
    chats = page.get_by_role("complementary", name="Chats")
    assert chats.get_by_text("not stored").count() == 2
    assert chats.get_by_text("Chats are stored in this browser only.").count() == 0
    chats.get_by_role("button", name="First question", exact=True).click()
    page.get_by_role("heading", name="First question").wait_for()


def test_an_image_that_cannot_be_decoded_is_refused_and_a_sent_one_is_no_text_of_the_page(
    home: ScriptedHome, open_page: Open, tmp_path: Path
) -> None:
    uid = launched(home, "seer")
    page, _ = open_page(home)
    page.locator("main h1").wait_for()

    def with_vision(route: Route) -> None:
        answer = route.fetch()
        seers = [{**each, "model_ability": ["chat", "vision"]} for each in answer.json()]
        route.fulfill(response=answer, json=seers)

    # Without the stream the page asks for the models.
    page.context.route("**/v1/watch", lambda _route: None)
    page.context.route("**/v1/models/instances", with_vision)
    page.goto(f"{home.url}/ui/#/chat?model={uid}")
    page.reload()
    images = page.get_by_label("Images")
    images.wait_for(state="attached")  # a picture of an empty page is short
    broken, whole = tmp_path / "broken.png", tmp_path / "whole.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no image")
    whole.write_bytes(page.screenshot())
    images.set_input_files(broken)
    page.get_by_text("broken.png cannot be read as an image.").wait_for()
    images.set_input_files(whole)
    page.get_by_role("button", name="Remove the images (1)").wait_for()
    ask(page, "What is this?")
    page.get_by_alt_text("Attached image 1").wait_for()
    assert len(page.locator("main").text_content() or "") < 10_000
    page.get_by_text("The request", exact=True).first.click()
    shown = page.get_by_role("region", name="The request")
    shown.get_by_text("characters)").wait_for()
    assert len(shown.inner_text()) < 10_000
    page.context.unroute_all(behavior="ignoreErrors")
