"""How long a browser waits for a page: ours beside that of Xinference 4.1.0, in one run, one after the other.

    pip download --no-deps --only-binary :all: --dest FOLDER xinference==4.1.0
    python -m benchmarks.page_load FOLDER/xinference-4.1.0-py3-none-any.whl [--rounds 7]

It needs Playwright and Chromium (`make test-ui` installs them: run it with `.venv-ui/bin/python`). Two pages are
measured: the list of models that can be launched, and the list of models that run. A page is ready when the list shows
a model that is in both. Each round opens each page in a new profile, with nothing in its cache, once on loopback as it
is and once with a processor four times as slow behind a line of 10 Mbit/s and 40 ms. Both pages have the data of one
server; `benchmarks/peer_page.py` says what of the other page is simulated: its API, not its files and not how they are
served.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from tests.support.end_signals import end_as_ctrl_c
from tests.support.polling import until
from tests.support.ports import free_port
from tests.ui.conftest import ARGUMENTS, scripted_home

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: A list is there when an element has this text: the name of a model.
READY = """(name) => {
  const path = `boolean(//body//*[normalize-space(text())="${name}"])`;
  const found = document.evaluate(path, document, null, XPathResult.BOOLEAN_TYPE);
  return found.booleanValue ? performance.now() : 0;
}"""
SLOW = {"offline": False, "latency": 40, "downloadThroughput": 10_000_000 / 8, "uploadThroughput": 10_000_000 / 8}
SLOW_PROCESSOR = 4
#: The largest share of the other page's time.
BOUND = 0.25
#: The pause before an address is opened: Chromium starts the parts of its own window meanwhile, on the same cores.
SETTLE_MS = 1500
#: The address of each list below ours and below the other page's server.
LISTS = {"models": ("ui/#/models", "launch-model/LLM"), "running": ("ui/#/running", "running-model")}


def open_once(browser: Browser, address: str, name: str, *, is_slow: bool) -> tuple[float, int]:
    """Milliseconds until the list shows the model, and the bytes that came until then."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(120_000)
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    page.wait_for_timeout(SETTLE_MS)
    came: list[int] = []
    session.on("Network.dataReceived", lambda event: came.append(int(event["encodedDataLength"])))
    if is_slow:
        session.send("Network.emulateNetworkConditions", SLOW)
        session.send("Emulation.setCPUThrottlingRate", {"rate": SLOW_PROCESSOR})
    page.goto(address, wait_until="commit")
    ready = page.wait_for_function(READY, arg=name).json_value()
    size = sum(came)
    context.close()
    return float(ready), size


def measure(browser: Browser, ours: str, other: str, names: dict[str, str], rounds: int) -> dict[Any, list[float]]:
    times: dict[Any, list[float]] = defaultdict(list)
    for n in range(rounds + 1):
        for is_slow in (False, True):
            for each, paths in LISTS.items():
                pair = [("ours", f"{ours}/{paths[0]}"), ("other", f"{other}/{paths[1]}")]
                for whose, address in pair if n % 2 else reversed(pair):
                    ready, size = open_once(browser, address, names[each], is_slow=is_slow)
                    if n:  # the first round warms the servers
                        times[each, is_slow, whose].append(ready)
                        times[each, "bytes", whose].append(size)
    return times


def report(times: dict[Any, list[float]]) -> bool:
    """Print the table; whether each time is within the bound."""
    print(f"{'list':10}{'line':30}{'ours':>10}{'4.1.0':>10}{'share':>8}")
    is_within = True
    for each in LISTS:
        for is_slow, words in ((False, "loopback"), (True, "CPU / 4, 10 Mbit/s, 40 ms")):
            ours, other = (statistics.median(times[each, is_slow, whose]) for whose in ("ours", "other"))
            is_within &= ours / other <= BOUND
            print(f"{each:10}{words:30}{ours:7.0f} ms{other:7.0f} ms{ours / other:8.3f}")
        sizes = [statistics.median(times[each, "bytes", whose]) / 1024 for whose in ("ours", "other")]
        print(
            f"{each:10}{'bytes until it is ready':30}{sizes[0]:6.0f} KiB{sizes[1]:6.0f} KiB{sizes[0] / sizes[1]:8.3f}"
        )
    return is_within


def answers(address: str) -> bool:
    try:
        return httpx2.get(address, timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, scripted_home(Path(folder)) as home, sync_playwright() as playwright:
        zipfile.ZipFile(arguments.wheel).extractall(folder, (n for n in _members(arguments.wheel)))
        assert home.post_launch("first-model").is_success
        port = free_port()
        peer = subprocess.Popen([sys.executable, "-m", "benchmarks.peer_page", folder, str(port), home.url])
        try:
            until("the other page is served", lambda: answers(f"http://127.0.0.1:{port}/"))
            browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
            families = httpx2.get(f"{home.url}/v1/model_registrations/LLM?detailed=true", timeout=60).json()
            names = {"models": families[0]["model_name"], "running": "first-model"}
            times = measure(browser, home.url, f"http://127.0.0.1:{port}", names, arguments.rounds)
            browser.close()
        finally:
            peer.terminate()
            peer.wait()
    if not report(times):
        sys.exit(f"A page of ours takes more than {BOUND} of the other's time.")


def _members(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as file:
        return [
            n for n in file.namelist() if n.startswith("xinference/ui/") or n == "xinference/api/frontend_static.py"
        ]


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
