"""A real Prometheus on loopback, with the configuration of `monitoring/`."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.support.polling import until
from tests.support.ports import free_port

MONITORING = Path(__file__).parents[2] / "monitoring"
PROGRAM, TOOL = shutil.which("prometheus"), shutil.which("promtool")
MISSING = "Prometheus is not installed: apt-get install prometheus"


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now.

        Raises:
            ValueError: the expression is wrong.
        """
        answer = httpx2.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30).json()
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def targets(self) -> list[dict[str, Any]]:
        """What is scraped, and whether it answers."""
        answer = httpx2.get(f"{self.url}/api/v1/targets", timeout=30).json()
        return list(answer["data"]["activeTargets"])

    def value(self, expression: str) -> float:
        """The value of an expression with one series."""
        (series,) = self.query(expression)
        return float(series["value"][1])


@contextmanager
def prometheus(folder: Path, targets: Sequence[str], key: str, *, interval: str = "1s") -> Iterator[Prometheus]:
    """Run Prometheus with our configuration, for these targets, while the block runs."""
    assert PROGRAM is not None
    text = (MONITORING / "prometheus.yml").read_text()
    text = text.replace("15s", interval).replace('["127.0.0.1:9997"]', str(list(targets)).replace("'", '"'))
    assert text.count(targets[0]) == 2, "both paths are scraped"
    text = re.sub("alerts/", f"{MONITORING}/alerts/", text)
    (folder / "prometheus.yml").write_text(text)
    (folder / "xinference.key").write_text(key)
    port = free_port()
    argv = [
        PROGRAM,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    running = Prometheus(f"http://127.0.0.1:{port}")

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        try:
            return httpx2.get(f"{running.url}/-/ready", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        until("Prometheus is ready", is_ready)
        yield running
    finally:
        process.terminate()
        process.wait()
