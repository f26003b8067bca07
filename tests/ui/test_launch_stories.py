"""Stories of launches: the page shows the bytes of the dry run, and offers what fits where a version does not."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.support.scripted_home import ScriptedHome
from tests.ui.conftest import Open
from tests.ui.pages import look, visit

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = [pytest.mark.browser, pytest.mark.process]
CONTEXTS = (512, 2048, 4096, 8192, 1024)
MODELS = ("qwen3", "qwen2.5-instruct", "llama-3.2-instruct", "smollm2-instruct")
PLANS = 20


def dry_run(home: ScriptedHome, body: dict[str, Any]) -> httpx2.Response:
    return httpx2.post(f"{home.url}/v1/models", params={"dry_run": "true"}, json=body, timeout=90)


def launches(home: ScriptedHome) -> list[dict[str, Any]]:
    """Launches of different versions on different engines with different contexts, all of which fit here."""
    found: list[dict[str, Any]] = []
    for name in MODELS:
        fits = httpx2.get(f"{home.url}/v1/fits", params={"model_type": "LLM", "part": name}, timeout=90).json()
        able = [each for each in fits if each["model_name"] == name and each["fits"] == "now"]
        spread = able[:: max(1, len(able) // (2 * PLANS // len(MODELS)))]
        for each in [*spread, *(other for other in able if other not in spread)]:
            body = {
                "model_name": name,
                "model_size_in_billions": str(each["model_size_in_billions"]),
                "model_format": each["model_format"],
                "quantization": each["quantization"],
                "model_engine": each["engine"],
                "context_length": CONTEXTS[len(found) % len(CONTEXTS)],
            }
            if (
                len([one for one in found if one["model_name"] == name]) < PLANS // len(MODELS)
                and dry_run(home, body).is_success
            ):
                found.append(body)
    return found


def link(body: dict[str, Any]) -> str:
    choices = {
        "size": body["model_size_in_billions"],
        "format": body["model_format"],
        "quantization": body["quantization"],
        "engine": body["model_engine"],
        "context": body["context_length"],
    }
    return f"launch/LLM/{body['model_name']}?{httpx2.QueryParams(choices)}"


def test_the_page_shows_the_bytes_of_the_dry_run(home: ScriptedHome, open_page: Open) -> None:
    bodies = launches(home)
    assert len(bodies) == PLANS
    assert len({each["model_engine"] for each in bodies}) >= 3
    page, _ = open_page(home)
    page.locator("main h1").wait_for()
    shown, planned = {}, {}
    for body in bodies:
        name = json.dumps(body)
        before = dry_run(home, body).json()["memory"]["total"]
        visit(page, link(body))
        page.locator("section[aria-label=Plan][aria-busy=false] .total").wait_for()
        shown[name] = int(page.locator(".total").get_attribute("data-bytes") or 0)
        after = dry_run(home, body).json()["memory"]["total"]
        planned[name] = before if before == shown[name] else after  # the free memory may decide, and it changes
    assert shown == planned


def test_a_launch_that_does_not_fit_takes_one_that_does(home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page(home, "#/launch/LLM/qwen3?size=235")
    watch.expected.append("status of 400")
    page.get_by_role("alert").get_by_text("does_not_fit").wait_for()
    assert page.get_by_role("button", name="Launch", exact=True).is_disabled()
    page.get_by_role("button", name="Use this").first.click()
    page.get_by_text("What will happen").wait_for()
    assert page.get_by_label("Size").input_value() != "235"
    assert page.get_by_role("button", name="Launch", exact=True).is_enabled()


def test_a_launch_that_fits_is_taken_before_the_list_of_versions_has_come(home: ScriptedHome, open_page: Open) -> None:
    page, watch = open_page(home, "#/")
    watch.expected.append("status of 400")
    page.locator("main h1").wait_for()
    held: list[Route] = []
    page.route("**/v1/engines/LLM/qwen3?detailed=true", lambda route: held.append(route))
    page.evaluate("location.hash = '#/launch/LLM/qwen3?size=235'")
    page.get_by_role("button", name="Use this").first.click()
    command = page.locator("section[aria-label='This launch as'] pre").last
    command.get_by_text(re.compile(r"--size-in-billions (?!235)")).or_(
        command.and_(page.get_by_text(re.compile(r"--size-in-billions (?!235)")))
    ).wait_for()
    held[0].continue_()
    page.get_by_label("Size").locator("option").nth(2).wait_for(state="attached")
    assert page.get_by_label("Size").input_value() not in ("", "235")


def test_a_cell_of_the_table_fills_in_the_form(home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(home, "#/launch/LLM/smollm2-instruct")
    table = page.get_by_role("region", name="What fits this machine")
    cell = table.locator("button.cell.now").last
    cell.wait_for()
    engine, version = (cell.get_attribute("aria-label") or "").split(": ")[0].split(", ")
    size, model_format, quantization = version.split(" ")
    cell.click()
    page.get_by_text(f"--model-format {model_format}").wait_for()
    command = page.locator("section[aria-label='This launch as'] pre").last.inner_text()
    for part in (size.removesuffix("B"), model_format, quantization, engine):
        assert part in command


def test_a_pinned_model_on_demand_says_what_unloads_it(home: ScriptedHome, open_page: Open) -> None:
    request = home.request("pinned")
    choices = {"engine": "Fifth", "format": "ggufv2", "size": "7", "quantization": "Q8_0", "uid": "pinned"}
    query = httpx2.QueryParams({**choices, "path": request["model_path"]})
    page, _ = open_page(home, f"#/launch/LLM/llama-2-chat?{query}")
    page.get_by_label("Load at the first request, unload when idle").check()
    page.get_by_label("Do not unload the model for another one").check()
    page.get_by_label("Unload after idle seconds").fill("600")
    page.get_by_label("Priority for memory").fill("3")
    command = page.locator("section[aria-label='This launch as'] pre").last
    command.get_by_text("--on-demand").wait_for()
    assert "--pin" in command.inner_text() and "--ttl 600" in command.inner_text()
    page.get_by_role("button", name="Launch", exact=True, disabled=False).click()
    page.get_by_text("unloaded after 10 min without a request, not unloaded for another model, priority 3").wait_for()
    described = httpx2.get(f"{home.url}/v1/models/pinned").json()
    assert (described["on_demand"], described["pin"], described["ttl"], described["priority"]) == (True, True, 600, 3)


def test_adapters_of_a_launch_are_lines_of_the_form_and_come_back_with_it(home: ScriptedHome, open_page: Open) -> None:
    request = home.request("adapted")
    choices = {"engine": "Fifth", "format": "ggufv2", "size": "7", "quantization": "Q8_0", "uid": "adapted"}
    query = httpx2.QueryParams({**choices, "path": request["model_path"]})
    page, _ = open_page(home, f"#/launch/LLM/llama-2-chat?{query}")
    box = page.get_by_label("LoRA adapters, one per line: name=folder")
    box.fill("not an adapter")
    page.get_by_role("button", name="Launch", exact=True, disabled=True).wait_for()
    box.fill("short=/adapters/short\nlong one=/adapters/long")
    command = page.locator("section[aria-label='This launch as'] pre").last
    command.get_by_text("--lora-modules short /adapters/short --lora-modules 'long one' /adapters/long").wait_for()
    page.get_by_role("button", name="Launch", exact=True, disabled=False).click()
    page.get_by_role("button", name="Terminate", exact=True).wait_for()
    [launched] = [each for each in httpx2.get(f"{home.url}/v1/launch_history").json() if each["model_uid"] == "adapted"]
    assert launched["data"]["lora_modules"] == {"short": "/adapters/short", "long one": "/adapters/long"}
    page.get_by_role("button", name="Terminate", exact=True).click()
    page.get_by_role("link", name="Launch again: adapted").click()
    assert box.input_value() == "short=/adapters/short\nlong one=/adapters/long"


def test_the_plan_shows_the_warnings_of_the_dry_run(home: ScriptedHome, open_page: Open) -> None:
    ignored = {"worker_ip": "10.0.0.2", "enable_virtual_env": True}
    body = {"model_name": "qwen3", "model_size_in_billions": "0_6", **ignored}
    warnings = dry_run(home, body).json()["warnings"]
    assert [each.split()[0] for each in warnings] == list(ignored)
    extra = "worker_ip=10.0.0.2\nenable_virtual_env=true"
    page, _ = open_page(home, f"#/launch/LLM/qwen3?{httpx2.QueryParams({'size': '0_6', 'extra': extra})}")
    plan = page.get_by_role("region", name="Plan")
    shown = plan.get_by_role("status").filter(has_text="Warnings")
    shown.wait_for()
    assert shown.get_by_role("listitem").all_inner_texts() == [each.replace("`", "") for each in warnings]
    assert shown.locator("code").all_inner_texts() == ["xinference env"]
    look(page, theme="dark", language="zh")
    page.get_by_role("region", name="计划").get_by_role("status").get_by_text("警告").wait_for()
    look(page, theme="light", language="en")
    page.get_by_label("One option per line: name=value").fill("worker_ip=10.0.0.2")
    shown.get_by_text("enable_virtual_env").wait_for(state="detached")
    assert shown.get_by_role("listitem").all_inner_texts() == warnings[:1]
    page.get_by_label("One option per line: name=value").fill("")
    shown.wait_for(state="detached")


@pytest.mark.parametrize(
    ("added", "words"),
    [(-1, "Requests fill the rest."), (2**20, "This includes cached pages of the file"), (0, None)],
)
def test_the_plan_says_why_the_memory_when_ready_differs_from_the_total(
    home: ScriptedHome, open_page: Open, added: int, words: str | None
) -> None:
    page, _ = open_page(home, "#/")
    page.locator("main h1").wait_for()

    def answer(route: Route) -> None:
        response = route.fetch()
        plan = response.json()
        plan["memory"]["loaded"] = plan["memory"]["total"] + added
        route.fulfill(response=response, json=plan)

    page.route("**/v1/models?dry_run=true", answer)
    visit(page, "launch/LLM/qwen3?size=0_6&context=512")
    shown = page.locator("dt", has_text="When ready").locator("+ dd")
    shown.wait_for()
    if words is None:
        assert shown.locator("span").count() == 0
    else:
        assert shown.locator("span").inner_text().startswith(words)


def test_a_plan_without_sizes_shows_no_bytes_of_memory(home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(home, "#/")
    page.locator("main h1").wait_for()

    def answer(route: Route) -> None:
        response = route.fetch()
        plan = response.json()
        plan["memory"] = dict.fromkeys(plan["memory"])
        route.fulfill(response=response, json=plan)

    page.route("**/v1/models?dry_run=true", answer)
    visit(page, "launch/LLM/qwen3?size=0_6&context=512")
    page.locator("dt", has_text="Memory").locator("+ dd", has_text="not known before the download").wait_for()
    plan = page.get_by_role("region", name="Plan")
    assert plan.locator("ul.legend").get_by_text("weights").count() == plan.get_by_text("When ready").count() == 0


def test_the_way_back_from_a_model_leads_to_the_same_search(home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(home, "#/models")
    page.get_by_role("searchbox", name="Name").fill("qwen3-rerank")
    page.get_by_role("button", name="Rerank").click()
    page.locator("ul.list a").first.click()
    page.get_by_role("heading", name="Launch Qwen3-Reranker").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Models").wait_for()
    assert page.get_by_role("searchbox", name="Name").input_value() == "qwen3-rerank"
    assert page.get_by_role("button", name="Rerank").get_attribute("aria-pressed") == "true"
