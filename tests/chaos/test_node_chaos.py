"""A cluster in chaos: whatever is killed, hangs or is cut off, it settles, and no living engine is loaded again.

`make chaos-nodes` runs 200 steps; `SEED` chooses another sequence of them. As root, each worker is on a host of its own
whose cable can be pulled; else all are on this one, and a worker whose link would be cut hangs.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.node_events import LOST_SECONDS, NodeChaos
from tests.chaos.node_traffic import RECOVER_SECONDS
from tests.formats.gguf_model import write_gguf
from tests.support.cluster_processes import ClusterProcesses, Host
from tests.support.network_hosts import missing, network_hosts

TINY = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
SEED = int(os.environ.get("CHAOS_SEED", "1"))
STEPS = int(os.environ.get("CHAOS_STEPS", "10"))
WORKERS = 3


@contextlib.contextmanager
def _hosts() -> Iterator[list[Host]]:
    if missing() is not None:
        yield []
        return
    with network_hosts(WORKERS + 1) as hosts:
        yield hosts


@pytest.fixture
def chaos() -> Iterator[NodeChaos]:
    with tempfile.TemporaryDirectory(prefix="xi-") as folder, _hosts() as hosts:
        env = {
            "XINFERENCE_NODE_LOST_SECONDS": str(LOST_SECONDS),
            "XINFERENCE_STOP_SECONDS": "1",
            "XINFERENCE_DRAIN_SECONDS": "2",
            "XINFERENCE_RESTART_BACKOFF_SECONDS": "0.1",
            "XINFERENCE_RESTART_LIMIT": "20",
            "XINFERENCE_RECOVER_SECONDS": str(RECOVER_SECONDS),
        }
        weights = write_gguf(TINY, "Q8_0", Path(folder) / "tiny.gguf")
        cluster = ClusterProcesses(Path(folder) / "homes", env=env, hosts=hosts, is_scripted=True)
        try:
            cluster.start()
            for _ in range(WORKERS):
                cluster.add_worker()
            chaos = NodeChaos(cluster, weights, SEED)
            try:
                yield chaos
            finally:
                chaos.close()
        finally:
            cluster.close()


@pytest.mark.live
@pytest.mark.timeout(120 + STEPS * 60)
def test_no_sequence_of_faults_breaks_an_invariant(chaos: NodeChaos) -> None:
    for number in range(1, STEPS + 1):
        began = time.monotonic()
        chaos.step()
        print(
            f"{number:3}  {time.monotonic() - began:5.1f} s  {chaos.trail[-1]}; {chaos.traffic.sent} requests, "
            f"at most {chaos.traffic.slowest:.1f} s after a loss",
            flush=True,
        )
    for home in (chaos.cluster.home, *(worker.home for worker in chaos.cluster.workers)):
        log = (home.path / "process.log").read_text(errors="replace")
        assert "A defect in xinference" not in log and "Traceback" not in log, log[-4000:]
