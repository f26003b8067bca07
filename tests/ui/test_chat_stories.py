"""Stories of chats: from nothing to the first answer, a stop, an engine that dies, and a hostile answer."""

from __future__ import annotations

import re
import signal
import time

import httpx2
import pytest

from tests.support.home import send_signal
from tests.support.polling import until
from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open
from tests.ui.hostile_texts import HOSTILE, marker

pytestmark = [pytest.mark.browser, pytest.mark.process]
#: An answer of 40 seconds: longer than what a story does with it.
SLOW = {"chunks": 400, "interval": 0.1, "text": "slow "}


def launched(home: ScriptedHome, uid: str, **script: object) -> str:
    answer = home.post_launch(uid, script=script)
    assert answer.status_code == 200, answer.text
    return uid


def test_a_model_is_registered_launched_and_answers_by_clicks(home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(home)
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("link", name="Register a model").click()
    page.get_by_role("textbox").first.fill(str(home.weights))
    page.get_by_role("button", name="Draft the registration").click()
    page.get_by_role("button", name="Register", exact=True).click()
    page.get_by_role("radio", name="Fifth").check()
    page.get_by_text("What will happen").wait_for()
    page.get_by_label("Name in requests").fill("first")
    page.get_by_role("button", name="Launch", exact=True).click()
    page.get_by_role("link", name="Chat", exact=True).nth(1).click()
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("word word word word word").wait_for()
    page.get_by_text(re.compile(r"7 in .* 5 out")).wait_for()
    assert home.status("first") == "READY"


def test_a_stop_ends_the_answer_here_and_in_the_server(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "slow", **SLOW)
    page, _ = open_page(home, f"#/chat?model={uid}")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_text("slow slow").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text(re.compile(r"out · stopped")).wait_for()
    address = f"{home.url}/v1/requests/active"
    until("the server has no active request", lambda: httpx2.get(address, params={"model": uid}).json() == [])


def test_the_chat_says_that_its_engine_died_and_answers_the_next_message(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "dying", **SLOW)
    page, _ = open_page(home, f"#/chat?model={uid}")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_text("slow slow").wait_for()
    killed = home.engine_pid(uid)
    send_signal(killed, signal.SIGKILL)
    alert = page.get_by_label(f"Chat with {uid}").get_by_role("alert")
    alert.wait_for()
    assert "engine" in alert.inner_text()
    until("another engine is ready", lambda: home.status(uid) == "READY" and home.engine_pid(uid) != killed)
    # Not the same request: the server sends one that crashed an engine to no other.
    page.get_by_role("button", name="New chat").click()
    page.get_by_label("Message", exact=True).fill("Good morning")
    page.keyboard.press("Enter")
    page.get_by_text("slow slow").wait_for()
    page.get_by_role("button", name="Stop").click()


def test_hostile_texts_of_a_model_are_shown_as_text(home: ScriptedHome, open_page: Open) -> None:
    uid = launched(home, "hostile", chunks=1, text="\n\n".join(HOSTILE))
    page, watch = open_page(home, f"#/chat?model={uid}")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"7 in")).wait_for()
    answer = page.locator(".message.assistant")
    shown = answer.inner_text()
    assert [n for n in range(len(HOSTILE)) if marker(n) not in shown] == []
    made = answer.locator("script, iframe, img, svg, object, embed, form, input, style, link, meta, video, audio, base")
    assert made.count() == 0
    links = answer.locator("a")
    addresses = [links.nth(n).get_attribute("href") or "" for n in range(links.count())]
    assert addresses
    assert [each for each in addresses if not re.match(r"(https?://|mailto:)", each)] == []
    assert page.evaluate("window.hacked") is None
    assert watch.dialogs == []


#: A model that writes 100 tokens a second for 12 seconds.
FAST = {"chunks": 1200, "interval": 0.01, "text": "word "}
COLUMNS = 4
SECONDS = 6.0
#: Share of the time for which the page's thread may compute (CPU time), and the paints of one column in a second.
MOST_BUSY, MOST_PAINTS = 0.3, 12
#: Counts the changes of each column that the browser sees together: a paint, at most.
COUNT_PAINTS = """() => {
  window.paints = [0, 0, 0, 0];
  document.querySelectorAll("section.column .messages").forEach((column, n) => {
    const seen = new MutationObserver(() => { window.paints[n] += 1; });
    seen.observe(column, {subtree: true, childList: true, characterData: true});
  });
}"""


def test_four_columns_at_a_hundred_tokens_a_second_leave_the_browser_idle(home: ScriptedHome, open_page: Open) -> None:
    uids = [launched(home, f"fast-{n}", **FAST) for n in range(COLUMNS)]
    page, _ = open_page(home, f"#/chat?model={uids[0]}")
    for uid in uids[1:]:
        page.get_by_role("button", name="Compare").click()
        page.locator("section.column select").last.select_option(uid)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def computed() -> float:
        """The seconds for which the page's thread has computed."""
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    for uid in uids:
        page.get_by_label(f"Chat with {uid}").get_by_text("word word").wait_for()
    page.evaluate(COUNT_PAINTS)
    before, began = computed(), time.monotonic()
    page.wait_for_timeout(SECONDS * 1000)
    busy, seconds = computed() - before, time.monotonic() - began
    paints = page.evaluate("window.paints")
    assert all(2 <= each <= MOST_PAINTS * seconds for each in paints), paints
    assert busy <= MOST_BUSY * seconds, f"{busy:.2f} s of {seconds:.2f} s"
    for uid in uids:
        page.get_by_label(f"Chat with {uid}").get_by_text(re.compile(r"1,?200 out|tokens/s")).first.wait_for()
    page.get_by_role("button", name="Stop").click()


def test_a_model_that_thinks_has_a_rate_and_its_thoughts_are_folded(home: ScriptedHome, open_page: Open) -> None:
    shape = {"engine": "vLLM", "thoughts": 15}
    uid = launched(home, "thinker", shape=shape, chunks=5, interval=0.05)
    page, _ = open_page(home, f"#/chat?model={uid}")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    answer = page.locator(".message.assistant")
    answer.get_by_text(re.compile(r"20 out")).wait_for()
    figures = answer.inner_text()
    rate = re.search(r"([\d.]+) tokens/s", figures)
    assert rate is not None and float(rate[1]) > 0, figures
    assert not answer.get_by_text("thought 0 thought 1").is_visible()
    answer.get_by_text("Reasoning").click()
    answer.get_by_text("thought 0 thought 1").wait_for()


#: Whether the end of the messages of each column is in view.
ENDS = """() => [...document.querySelectorAll("section.column .messages")].map((each) => {
  const {bottom} = each.getBoundingClientRect();
  return each.scrollTop + each.clientHeight > each.scrollHeight - 2 && bottom <= innerHeight;
})"""


def test_the_end_of_each_column_is_in_view_however_long_the_others_are(home: ScriptedHome, open_page: Open) -> None:
    long = launched(home, "long-answer", chunks=1, text="A line.\n\n" * 200)
    short = launched(home, "short-answer", chunks=1, text="Short.")
    page, _ = open_page(home, f"#/chat?model={long}")
    page.get_by_role("button", name="Compare").click()
    page.locator("section.column select").last.select_option(short)
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_text("Short.").wait_for()
    page.get_by_role("button", name="Branch").nth(1).wait_for()
    page.wait_for_function(f"() => ({ENDS})().every((each) => each)")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")


def test_a_formula_an_alignment_and_a_task_of_an_answer_are_shown(home: ScriptedHome, open_page: Open) -> None:
    text = "So \\(a_1*b_1*c\\) is:\n\\[ \\frac{a}{b}\\,x \\]\n\n| n |\n|--:|\n| 1 |\n\n- [x] done\n\nשלום"
    uid = launched(home, "formulas", chunks=1, text=text)
    page, _ = open_page(home, f"#/chat?model={uid}")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    answer = page.locator(".message.assistant")
    answer.locator("code", has_text="a_1*b_1*c").wait_for()
    assert answer.locator("pre").inner_text() == r"\frac{a}{b}\,x"
    assert answer.locator("td").evaluate("(each) => getComputedStyle(each).textAlign") == "right"
    assert "☑ done" in answer.locator("li").inner_text()
    assert answer.locator("p", has_text="שלום").evaluate("(each) => getComputedStyle(each).direction") == "rtl"
