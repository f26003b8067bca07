"""A real Prometheus scrapes a server under load, and every query of our boards and alerts has an answer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from monitoring.boards.__main__ import write as write_boards
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from tests.control.test_engine_metrics import Engines
from tests.support.home import Home
from tests.support.polling import until
from tests.support.prometheus import MISSING, MONITORING, PROGRAM, TOOL, Prometheus, prometheus
from xinference.control import machine_metrics, model_metrics
from xinference.deployments.counts import Counts
from xinference.hardware.devices import Host
from xinference.hardware.gpu_load import GpuLoad
from xinference.hardware.nvidia import Gpu
from xinference.units import GIB

BOARDS = sorted((MONITORING / "grafana").glob("*.json"))
RULES = MONITORING / "alerts" / "xinference.yml"
#: Requests of each of these threads run all the time: more than the model has places, so that some wait.
THREADS = 10
#: Keys that are shown, and names of models that do not exist.
MANY = 1000
SCRAPE_SECONDS = int(os.environ.get("SCRAPE_SECONDS", "20"))
#: A scrape may take as long, and at most 10 s, as with Prometheus' own defaults (15 s and 10 s).
SCRAPE_INTERVAL = os.environ.get("SCRAPE_INTERVAL", "5s")
_SELECTOR = re.compile(r"((?:xinference_|process_|vllm:)[\w:]+|\bup)\s*(\{[^}]*\})?")

needs_prometheus = pytest.mark.skipif(PROGRAM is None, reason=MISSING)


def queries(board: Path) -> dict[str, str]:
    """The queries of a board by their panels, with Grafana's variables replaced."""
    found = {}
    for panel in json.loads(board.read_text())["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "20s")
            found[f"{panel['title']}: {target['refId']}"] = re.sub(r"\$(model|instance)\b", ".*", text)
    return found


def rule_expressions() -> dict[str, str]:
    """The expressions of the alerts by their names, as Prometheus has read them."""
    return dict(re.findall(r"- alert: (\w+)\n\s+expr: (?:>-\n)?((?:.+\n)(?:          .+\n)*)", RULES.read_text()))


class OtherMachine:
    """What this machine does not have: GPUs, downloads, unloads and engines with preemptions. By our own collectors."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.counts.unloaded("other", "evicted")
        self._download = self.counts.meter("huggingface")
        self._done = 0
        gpu = Gpu(0, "Test GPU", 80 * GIB, 20 * GIB, uuid="GPU-1")
        self._host = Host(8, 64 * GIB, 32 * GIB, (gpu,))

    def metrics(self) -> bytes:
        """The answer of ``/metrics``."""
        self._done += 1000
        self._download(self._done)
        families = [
            *machine_metrics._memory(self._host, {0: 50 * GIB}, {}),
            *machine_metrics._loads([GpuLoad("GPU-1", 0.5, 60.0, 300.0)]),
            *model_metrics._counts(self.counts, ["other"]),
        ]

        class Collected(Collector):
            def collect(self) -> Any:
                return families

        registry = CollectorRegistry()
        registry.register(Collected())
        return generate_latest(registry)

    def engines(self) -> bytes:
        """The answer of ``/metrics/engines``."""
        return asyncio.run(Engines("vLLM", "SGLang").scraper.text()).encode()


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """The address of another machine."""
    machine = OtherMachine()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = machine.engines() if self.path == "/metrics/engines" else machine.metrics()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def scraped(
    make_home: Callable[..., Home], tiny: dict[str, Any], other: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus, which has scraped a server with two replicas under load for half a minute."""
    home = make_home(XINFERENCE_METRICS_PER_KEY="true")
    home.serve()
    key = home.cli("keys", "create", "--name", "all", "--scope", "manage", "--scope", "use").stdout.split()[-1]
    reader = home.cli("keys", "create", "--name", "prometheus", "--scope", "monitor").stdout.split()[-1]
    headers = {"Authorization": f"Bearer {key}"}
    client = httpx2.Client(base_url=home.url, headers=headers, timeout=60)
    launch = tiny | {"model_uid": "m", "replica": 2, "n_ctx": 512, "n_parallel": 1}
    answer = client.post("/v1/models", json=launch)
    assert answer.status_code == 200, answer.text
    ended = threading.Event()

    def ask(number: int) -> None:
        count = 0
        while not ended.is_set():
            count += 1
            prompt = f"{number} {'word ' * 40}{count % 3}"
            body = {"model": "m", "prompt": prompt, "max_tokens": 30, "stream": count % 2 == 0}
            assert client.post("/v1/completions", json=body).status_code == 200

    with (
        prometheus(tmp_path_factory.mktemp("prometheus"), [f"127.0.0.1:{home.port}", other], reader) as running,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        asking = [pool.submit(ask, number) for number in range(THREADS)]
        try:
            until("all targets answer", lambda: {each["health"] for each in running.targets()} == {"up"})
            time.sleep(20)  # rates need two samples, and half of the requests wait at any time
            yield running
        finally:
            ended.set()
            for each in asking:
                each.result()
    client.close()


@needs_prometheus
@pytest.mark.live
@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_board_has_an_answer(scraped: Prometheus, board: Path) -> None:
    asked = queries(board)
    assert asked
    for name, expression in asked.items():  # what waits now may be served at the moment of a scrape
        until(f"{board.stem}: {name} has data", partial(scraped.query, expression))


@needs_prometheus
@pytest.mark.live
def test_every_name_and_label_of_an_alert_exists(scraped: Prometheus) -> None:
    expressions = rule_expressions()
    assert len(expressions) == RULES.read_text().count("- alert:")
    for alert, expression in expressions.items():
        scraped.query(expression)  # it can be evaluated
        for name, matchers in _SELECTOR.findall(expression):
            # No request of this load fails, and no model is in a bad state.
            kept = re.sub(r'(status|state)=~"[^"]*",?', "", matchers)
            found = until(f"{alert}: {name}{kept} has data", partial(scraped.query, name + kept))
            labels = {label for series in found for label in series["metric"]}
            wanted = set(re.findall(r"(\w+)\s*=", matchers))
            for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression):
                wanted |= {label for label in re.split(r",\s*", group) if label != "le"}
            assert wanted <= labels, f"{alert}: {name} has no label {wanted - labels}"


@needs_prometheus
@pytest.mark.live
def test_prometheus_has_what_the_server_and_its_engines_report(scraped: Prometheus) -> None:
    assert scraped.value('sum(xinference_replica_up{model="m"})') == 2
    assert scraped.value('count(llamacpp:requests_processing{model="m"})') == 2
    assert scraped.value('sum(xinference_engine_up{model="m"})') >= 1
    engine, server = (
        scraped.value(f'sum({name}{{model="m"}})')
        for name in ("llamacpp:tokens_predicted_total", "xinference_output_tokens_total")
    )
    assert abs(engine - server) < 0.5 * engine, "both count the same answers, seconds apart"
    keys = {series["metric"]["key"] for series in scraped.query("xinference_key_requests_total")}
    assert len(keys) == 1


@needs_prometheus
@pytest.mark.live
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_thousand_names_and_keys_make_no_more_series(
    make_home: Callable[..., Home], tiny: dict[str, Any], tmp_path: Path
) -> None:
    """Under load for `SCRAPE_SECONDS`; both paths are scraped each `SCRAPE_INTERVAL`, and no scrape fails."""
    home = make_home(XINFERENCE_METRICS_PER_KEY="true")
    home.serve()
    admin = home.cli("keys", "create", "--name", "all", "--scope", "manage", "--scope", "use").stdout.split()[-1]
    headers = {"Authorization": f"Bearer {admin}"}
    client = httpx2.Client(base_url=home.url, headers=headers, timeout=60)
    assert client.post("/v1/models", json=tiny | {"model_uid": "m", "n_ctx": 512, "n_parallel": 2}).status_code == 200
    keys = []
    for number in range(MANY + 50):
        answer = client.post("/v1/keys", json={"name": f"key-{number}"})
        assert answer.status_code in (200, 201), answer.text
        keys.append(answer.json()["key"])
    ended = threading.Event()

    def ask(begin: int) -> int:
        count = begin
        while not ended.is_set():
            key = {"Authorization": f"Bearer {keys[count % len(keys)]}"}
            model = "m" if count % 4 == 0 else f"unknown-{count % MANY}"
            body = {"model": model, "prompt": "Once", "max_tokens": 8, "stream": count % 8 == 0}
            status = httpx2.post(f"{home.url}/v1/completions", json=body, headers=key, timeout=60).status_code
            assert status == (200 if model == "m" else 404)
            count += 4
        return (count - begin) // 4

    target = [f"127.0.0.1:{home.port}"]
    with prometheus(tmp_path, target, admin, interval=SCRAPE_INTERVAL) as running, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        try:
            until("both paths answer", lambda: [each["health"] for each in running.targets()] == ["up", "up"])
            ended.wait(SCRAPE_SECONDS)
            assert all(each.running() for each in asking)
        finally:
            ended.set()
        asked = sum(each.result() for each in asking)
        time.sleep(float(SCRAPE_INTERVAL.removesuffix("s")) + 3)  # so that the last requests are scraped
        span = f"[{SCRAPE_SECONDS}s]"
        up = {
            series["metric"]["job"]: float(series["value"][1]) for series in running.query(f"avg_over_time(up{span})")
        }
        slowest = running.value(f"max(max_over_time(scrape_duration_seconds{span}))")
        scrapes = running.value(f"sum(count_over_time(up{span}))")
        series = running.value('count({job=~"xinference.*"})')
        of_keys = running.value("count(xinference_key_requests_total)")
        counted = running.value("sum(xinference_requests_total)")
        names = {each["metric"].get("model", "") for each in running.query('count by (model) ({model!=""})')}
    print(
        f"\n{asked} requests in {SCRAPE_SECONDS} s, {len(keys)} keys, {MANY} unknown names; {scrapes:.0f} scrapes, "
        f"the slowest {slowest * 1e3:.0f} ms, up {up}; {series:.0f} series, {of_keys:.0f} of keys, models {names}"
    )
    assert up == {"xinference": 1.0, "xinference-engines": 1.0} and slowest < 10
    assert counted == asked and names == {"m"}
    assert of_keys <= MANY + 1 and series - 2 * of_keys < 500
    client.close()


@pytest.mark.process
@pytest.mark.skipif(TOOL is None, reason=MISSING)
def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    assert TOOL is not None
    cases = Path(__file__).parents[1] / "assets" / "alerts_test.yml"
    text = cases.read_text().replace("RULES", str(RULES))
    assert all(f'alertname="{name}"' in text for name in rule_expressions())
    (tmp_path / "cases.yml").write_text(text)
    ran = subprocess.run([TOOL, "test", "rules", str(tmp_path / "cases.yml")], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_boards_are_those_of_their_program(tmp_path: Path) -> None:
    write_boards(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in BOARDS}, "run python -m monitoring.boards"
