"""What an idle worker costs its machine and the network."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.support.cluster_processes import Host

from benchmarks.cluster.clusters import cluster, cpu_seconds
from benchmarks.cluster.figures import Figure

#: Seconds before the measurement, and of it.
SETTLE_SECONDS, SECONDS = 10.0, 30.0


def measure(file: Path) -> list[Figure]:
    """Memory, processor time and traffic of one worker without models."""
    with cluster(file, 1) as made:
        worker = made.workers[0].process
        assert worker is not None
        time.sleep(SETTLE_SECONDS)
        host = made.hosts[1] if made.hosts else None
        began, cpu, sent = time.monotonic(), cpu_seconds(worker.pid), _traffic(host)
        time.sleep(SECONDS)
        seconds = time.monotonic() - began
        cpu = (cpu_seconds(worker.pid) - cpu) / seconds
        rates = [(after - before) / seconds / 1000 for before, after in zip(sent, _traffic(host), strict=True)]
        memory = _memory(worker.pid)
    figures = [
        Figure("memory of an idle worker", memory["Rss"], "MiB", 90, f"proportional {memory['Pss']:.0f} MiB"),
        Figure("processor time of an idle worker", cpu * 100, "% of a core", 0.5),
    ]
    if host is not None:
        names = ("traffic to an idle node", "traffic from an idle node")
        figures += [Figure(name, rate, "kB/s", 2) for name, rate in zip(names, rates, strict=True)]
    return figures


def _memory(pid: int) -> dict[str, float]:
    """MiB by the name of the figure."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}


def _traffic(host: Host | None) -> tuple[int, ...]:
    """Bytes that a host has received and sent; empty without a host of its own."""
    if host is None:
        return ()
    folder = "/sys/class/net/eth0/statistics"
    words = [*host.prefix, "cat", f"{folder}/rx_bytes", f"{folder}/tx_bytes"]
    return tuple(map(int, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()))
