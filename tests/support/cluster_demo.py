"""Three nodes on this machine, a replica on each, a killed node, and a worker that ends: `make cluster-demo`."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.support.cluster_processes import ClusterProcesses
from tests.support.end_signals import end_as_ctrl_c
from tests.support.home import UID, send_signal
from tests.support.polling import until

MODEL = {"model_name": UID, "model_format": "ggufv2", "quantization": "Q4_1", "model_engine": "llama.cpp"}
NODES, TOKENS = 3, 6


def main() -> int:
    """Run the demonstration; the exit status is 0 if each chat had its answer."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="xinference-cluster-"))
    (folder / "cache").mkdir()
    cluster = ClusterProcesses(folder, folder / "cache", {"XINFERENCE_NODE_LOST_SECONDS": "10"})
    try:
        say("start a supervisor that runs no models itself")
        cluster.start()
        for number, worker in enumerate(cluster.add_workers(NODES), 1):
            say(f"worker {number} has joined as {worker.node_id}")
        say(f"launch {UID} with {NODES} replicas")
        # All nodes have the same processors: more threads of each engine would only wait for each other.
        options = {"n_ctx": 512, "n_parallel": 1, "n_threads": 1}
        answer = cluster.home.launch(**MODEL, model_size_in_billions="0_135", replica=NODES, **options)
        if answer.status_code != 200:
            say(f"it was refused: {answer.text}")
            return 1
        until("each node has a replica", lambda: len(cluster.ready_on(UID)) == NODES, 60)
        say(f"ready on {', '.join(sorted(cluster.ready_on(UID)))}")
        print(cluster.home.cli("cluster", "info").stdout)
        say(f"chat, with answers of at most {TOKENS} tokens: {_chat(cluster)!r}")
        victim = cluster.workers[0]
        say(f"kill {victim.node_id} and its engine: pids {victim.kill_machine()}")
        for _ in range(NODES):  # one would have been for the killed node
            say(f"chat: {_chat(cluster)!r}")
        cluster.wait_for(victim, "LOST")
        say(f"{victim.node_id} is LOST")
        until("another node has its replica", lambda: _ready(cluster, without=victim.node_id) == NODES, 60)
        say("its replica is started on another node")
        say(f"chat: {_chat(cluster)!r}")
        leaving = cluster.workers[1]
        assert leaving.process is not None
        say(f"Ctrl-C at the worker of {leaving.node_id}: its replicas are ready elsewhere before it stops them")
        send_signal(leaving.process.pid, signal.SIGINT)
        while leaving.process.poll() is None:
            say(f"chat: {_chat(cluster)!r}")
        say(f"the worker has ended, and {_ready(cluster, without=leaving.node_id)} replicas are ready")
        print(cluster.home.cli("cluster", "info").stdout)
        return 0
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def _ready(cluster: ClusterProcesses, without: str = "") -> int:
    """The number of ready replicas on all nodes but one."""
    return sum(each["status"] == "READY" and each["node"] != without for each in cluster.replicas(UID))


def _chat(cluster: ClusterProcesses) -> str:
    answer = cluster.home.chat(max_tokens=TOKENS)
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


if __name__ == "__main__":
    end_as_ctrl_c()
    sys.exit(main())
