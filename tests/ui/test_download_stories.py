"""Stories of weights: a download that outlives its server, a disk that is too small, and hubs that do not answer."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import Fault, repository
from tests.formats.gguf_model import write_gguf
from tests.support.polling import until
from tests.support.scripted_home import ScriptedHome
from tests.support.small_disk import SmallDisk, small_disk
from tests.ui.conftest import HF, Open, scripted_home

if TYPE_CHECKING:
    from playwright.sync_api import APIResponse, Route

pytestmark = [pytest.mark.browser, pytest.mark.process]
VERSION = "qwen2.5-instruct--0_5B--ggufv2--q4_0"
REPOSITORY, FILE = "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2.5-0.5b-instruct-q4_0.gguf"
FORM = "#/launch/LLM/qwen2.5-instruct?size=0_5&format=ggufv2&quantization=q4_0"
BYTES = 12 << 20
#: A restarted server leaves its page without an answer for a moment.
RESTART = ["net::ERR_CONNECTION_RE", "net::ERR_INCOMPLETE_CHUNKED_ENCODING", "net::ERR_EMPTY_RESPONSE"]


def settings_of(hub: str, folder: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub, "HF_HOME": str(folder / "huggingface"), "XINFERENCE_MODEL_SRC": "huggingface"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    """A slow hub with the weights of one version: random bytes, so that nothing can guess them."""
    content = write_gguf(HF, "Q8_0", tmp_path / "head.gguf").read_bytes()
    content += os.urandom(BYTES - len(content))
    made = LoopbackHub(huggingface=[repository(REPOSITORY, {FILE: content}, ("main",))])
    made.faults[FILE] = Fault(times=1_000_000, seconds_a_chunk=0.15)
    with serve(made) as served:
        yield served


@pytest.fixture
def make_home() -> Iterator[Callable[..., ScriptedHome]]:
    """Servers of a story, which end after its pages."""
    with ExitStack() as stack:
        yield lambda folder, **settings: stack.enter_context(scripted_home(folder, **settings))


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    with small_disk("120m") as made:
        yield made


@pytest.fixture
def home(hub: LoopbackHub, tmp_path: Path) -> Iterator[ScriptedHome]:
    with scripted_home(tmp_path, **settings_of(hub.url, tmp_path)) as made:
        yield made


def cached(home: ScriptedHome) -> list[tuple[str, bool]]:
    entries = httpx2.get(f"{home.url}/v1/cache/models", timeout=60).json()["list"]
    return [(each["model_version"], each["complete"]) for each in entries]


def test_a_download_is_paused_and_goes_on_after_a_restart_of_the_server(
    hub: LoopbackHub, home: ScriptedHome, open_page: Open
) -> None:
    page, watch = open_page(home, FORM)
    page.get_by_text(re.compile("downloads .* MiB")).wait_for()
    page.get_by_role("button", name="Download only").click()
    page.get_by_role("heading", name="Downloads and disk").wait_for()
    page.get_by_role("progressbar", name=VERSION).wait_for()
    page.get_by_text(re.compile(r"\d+(\.\d+)? MiB of 12(\.0)? MiB.*per second.*left.*%")).wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    assert cached(home) == [(VERSION, False)]
    # Another server of the same home: the download is still there, and its bytes are not sent again.
    watch.expected += RESTART
    home.kill()
    page.get_by_role("alert").wait_for()
    home.start()
    page.get_by_role("alert").wait_for(state="detached")
    page.get_by_text(re.compile("stopped at .* MiB")).wait_for()
    del hub.faults[FILE]
    before = len(hub.counters.of(FILE))
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("No downloads are running.").wait_for()
    until("the weights are here", lambda: cached(home) == [(VERSION, True)])
    page.get_by_role("row", name=re.compile(VERSION)).wait_for()
    first = [each[2] for each in hub.counters.of(FILE)[before:] if each[2]]
    assert first and not first[0].startswith("bytes=0-"), "the second server begins where the first one stopped"
    assert hub.counters.sent[FILE] < 1.5 * BYTES


def test_a_download_of_a_repository_goes_on_after_a_restart_of_the_server(
    hub: LoopbackHub, home: ScriptedHome, open_page: Open
) -> None:
    """The model has a name that only its files gave it."""
    asked = {"model_name": REPOSITORY, "quantization": "q4_0"}
    version = httpx2.post(f"{home.url}/v1/cache/models", json=asked, timeout=60).json()["model_version"]
    until("some bytes are here", lambda: hub.counters.sent.get(FILE, 0) > 1 << 20)
    home.kill()
    home.start()
    page, _ = open_page(home, "#/downloads")
    page.get_by_text(re.compile("stopped at .* [KM]iB")).wait_for()
    del hub.faults[FILE]
    page.get_by_role("button", name="Resume").click()
    until("the weights are here", lambda: cached(home) == [(version, True)])


def test_an_earlier_answer_that_comes_later_does_not_replace_the_weights(home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(home)
    page.get_by_role("heading", name="Home").wait_for()
    asked_for: list[Route] = []
    held: list[APIResponse] = []

    def hold_first(route: Route) -> None:
        asked_for.append(route)
        if len(asked_for) > 1:
            route.continue_()
        else:
            held.append(route.fetch())

    page.route("**/v1/cache/models", hold_first)
    page.get_by_role("link", name="Downloads", exact=True).click()
    page.get_by_text("No downloads are running.").wait_for()
    until("the first answer is held", lambda: (page.evaluate("0"), bool(held))[1])
    asked = {"model_name": "qwen2.5-instruct", "model_format": "ggufv2", "quantization": "q4_0"}
    assert httpx2.post(f"{home.url}/v1/cache/models", json=asked, timeout=60).is_success
    row = page.get_by_role("row", name=re.compile(VERSION))
    row.wait_for()
    with page.expect_response("**/v1/cache/models"):
        asked_for[0].fulfill(response=held[0])
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert row.count() == 1


def test_a_download_that_ends_between_two_reports_of_the_server_is_not_left_as_stopped(
    home: ScriptedHome, open_page: Open
) -> None:
    page, _ = open_page(home)
    page.get_by_role("heading", name="Home").wait_for()
    version = {"model_name": "m", "model_type": "LLM", "model_format": "ggufv2", "quantization": "q4_0"}
    version |= {"model_version": VERSION, "hub": "huggingface", "model_id": "a/m", "model_size_in_billions": "0_5"}
    answered: list[bool] = []
    shown: list[bool] = []
    held: list[Route] = []

    def fulfill(route: Route, *, complete: bool) -> None:
        answered.append(complete)
        route.fulfill(json={"list": [version | {"size_bytes": 1 << 20, "complete": complete}]})

    def answer(route: Route) -> None:
        """The first list has a part; the later ones, which are held until the page has shown it, have the whole."""
        if not answered:
            fulfill(route, complete=False)
        elif shown:
            fulfill(route, complete=True)
        else:
            held.append(route)

    page.route("**/v1/cache/models", answer)
    page.get_by_role("link", name="Downloads", exact=True).click()
    page.get_by_text(re.compile("stopped at")).wait_for()
    shown.append(True)
    for route in held:
        fulfill(route, complete=True)
    page.get_by_text("No downloads are running.").wait_for()


def test_a_download_is_removed_from_the_list_and_its_part_from_the_disk(
    hub: LoopbackHub, home: ScriptedHome, open_page: Open
) -> None:
    page, watch = open_page(home, FORM)
    page.get_by_role("button", name="Download only").click()
    page.get_by_role("progressbar", name=VERSION).wait_for()
    until("some bytes are here", lambda: hub.counters.sent.get(FILE, 0) > 1 << 20)
    page.get_by_role("button", name="Remove from the list").click()
    page.get_by_text(re.compile("stopped at")).wait_for()
    page.get_by_role("row", name=re.compile(VERSION)).get_by_role("button", name="Remove").click()
    page.get_by_text("No weights yet. A launch downloads the weights that it needs.").wait_for()
    assert "This frees" in watch.dialogs[-1]
    assert cached(home) == []


def test_a_launch_that_downloads_is_cancelled(home: ScriptedHome, open_page: Open) -> None:
    page, _ = open_page(home, f"{FORM}&uid=fetching")
    page.get_by_role("button", name="Launch", exact=True, disabled=False).click()
    page.get_by_role("progressbar", name="Progress of the launch").wait_for()
    page.get_by_role("link", name="Downloads", exact=True).click()
    page.get_by_text("for the launch of fetching").wait_for()
    # Its files are not also offered as the rest of an earlier download.
    until("a part of the weights is here", lambda: cached(home) == [(VERSION, False)])
    page.reload()
    page.get_by_role("row", name=re.compile(VERSION)).wait_for()
    page.get_by_text("for the launch of fetching").wait_for()
    assert page.get_by_text(re.compile("stopped at")).count() == 0
    page.get_by_role("button", name="Cancel the launch").click()
    page.get_by_text(re.compile("stopped at")).wait_for()
    until("the launch is gone", lambda: home.status("fetching") == "GONE")


def test_a_disk_that_is_too_small_refuses_the_launch_with_numbers(
    hub: LoopbackHub, disk: SmallDisk, make_home: Callable[..., ScriptedHome], open_page: Open
) -> None:
    home = make_home(disk.path, **settings_of(hub.url, disk.path))
    page, watch = open_page(home, FORM)
    watch.expected += ["status of 507", "status 507", "the server responded with a status of 507"]
    page.get_by_text(re.compile("downloads .* MiB")).wait_for()
    (disk.path / "ballast").write_bytes(bytes(64 << 20))
    page.reload()
    alert = page.get_by_role("alert")
    alert.get_by_text("disk_full").wait_for()
    assert re.search(r"\d+(\.\d+)? [MG]i?B.*\d+(\.\d+)? [MG]i?B", alert.inner_text()), alert.inner_text()
    assert page.get_by_role("button", name="Launch", exact=True).is_disabled()
    disk.free()
    page.reload()
    page.get_by_text("What will happen").wait_for()
    assert page.get_by_role("button", name="Launch", exact=True).is_enabled()


def test_without_a_hub_the_page_shows_plans_and_says_which_hub_does_not_answer(
    tmp_path: Path, make_home: Callable[..., ScriptedHome], open_page: Open
) -> None:
    home = make_home(tmp_path, **settings_of("http://127.0.0.1:9", tmp_path))
    page, watch = open_page(home, f"{FORM}&engine=llama.cpp&uid=unreachable")
    page.get_by_text("The sizes are those of the registry.").wait_for()
    watch.expected += ["status of 50", "status 50"]
    page.get_by_role("button", name="Launch", exact=True).click()
    # The launch ends in its first stage: its page says why, and leads back to the form.
    alert = page.get_by_role("alert").first
    alert.wait_for()
    page.get_by_role("link", name="Launch again: unreachable").wait_for()
    assert re.search("hub|huggingface|127.0.0.1:9", alert.inner_text(), re.IGNORECASE), alert.inner_text()


def test_offline_the_whole_page_works_with_local_weights(
    tmp_path: Path, make_home: Callable[..., ScriptedHome], open_page: Open
) -> None:
    home = make_home(tmp_path, XINFERENCE_OFFLINE="1")
    page, watch = open_page(home)
    page.get_by_role("heading", name="Home").wait_for()
    assert home.post_launch("local").is_success
    page.get_by_role("link", name="local", exact=True).first.wait_for()
    page.get_by_role("link", name="Machine", exact=True).click()
    found = page.get_by_role("region", name="Check of the machine")
    found.get_by_text("not checked: XINFERENCE_OFFLINE is set").wait_for()
    found.get_by_text("only cached weights, or those of --model-path, can run").wait_for()
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_text(re.compile(r"\d+ found")).wait_for()
    assert watch.unexpected() == []


def test_what_the_machine_lacks_is_shown_with_what_it_prevents(
    tmp_path: Path, make_home: Callable[..., ScriptedHome], open_page: Open
) -> None:
    home = make_home(tmp_path, XINFERENCE_OFFLINE="1")
    findings = httpx2.get(f"{home.url}/v1/doctor", timeout=60).json()
    page, _ = open_page(home, "#/machine")
    region = page.get_by_role("region", name="Check of the machine")
    region.get_by_role("button", name="Show all").wait_for()
    lacks = [each for each in findings if each["state"] != "ok"]
    assert lacks and region.get_by_role("listitem").count() == len(lacks), json.dumps(findings)
    for each in lacks:
        region.get_by_text(each["cost"], exact=True).first.wait_for()
    region.get_by_role("button", name="Show all").click()
    assert region.get_by_role("listitem").count() == len(findings)
    region.get_by_role("button", name="Check again").click()
    region.get_by_text(lacks[0]["cost"], exact=True).first.wait_for()
