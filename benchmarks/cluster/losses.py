"""How soon a loss is known, and how soon what was lost answers again."""

from __future__ import annotations

import contextlib
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
from tests.support.cluster_processes import ClusterProcesses, WorkerHome
from tests.support.home import send_signal
from tests.support.network_hosts import plug_in, pull_cable
from tests.support.polling import until

from benchmarks.cluster.clusters import UID, cluster, launch
from benchmarks.cluster.figures import Figure

#: The restarts of each kind; the figure is their median.
ROUNDS = 3


def measure(file: Path) -> Iterator[Figure]:
    """Losses of a worker's process, of a machine's link and of the supervisor, with the default settings."""
    with cluster(file, 2) as made:
        launch(made, file, replica=2)
        yield _process(made)
        yield _worker_restart(made)
        yield _supervisor_restart(made)
        launch_streams(made, file)
        if made.hosts:
            yield from _cable(made)


def launch_streams(made: ClusterProcesses, file: Path) -> None:
    """Launch the model again, with answers that last for a minute."""
    httpx2.delete(f"{made.home.url}/v1/models/{UID}", timeout=60).raise_for_status()
    launch(made, file, replica=2, chunks=600, interval=0.1)


def _process(made: ClusterProcesses) -> Figure:
    worker = made.workers[0]
    began = time.monotonic()
    _kill(worker)
    seconds = _seconds_until(lambda: made.state(worker) != "READY", began)
    made.start_worker(worker)
    made.wait_for(worker, "READY")
    return Figure("a killed worker is known", seconds, "s", 4)


def _worker_restart(made: ClusterProcesses) -> Figure:
    worker, times = made.workers[0], []
    until("both are ready", lambda: len(made.ready_on(UID)) == 2)
    before = made.ready_on(UID)
    for _ in range(ROUNDS):
        _kill(worker)
        made.wait_for(worker, "UNREACHABLE")
        began = time.monotonic()
        made.start_worker(worker)
        times.append(_seconds_until(lambda: made.state(worker) == "READY" and made.ready_on(UID) == before, began))
    return Figure("a worker starts again: engines adopted", statistics.median(times), "s", 3, "the same pids")


def _supervisor_restart(made: ClusterProcesses) -> Figure:
    before, times = made.ready_on(UID), []
    for _ in range(ROUNDS):
        made.kill_server()
        began = time.monotonic()
        made.start(wait=False)
        times.append(_seconds_until(lambda: _answers(made), began))
    until("all are ready", lambda: made.ready_on(UID) == before)
    return Figure("a supervisor starts again: first answer", statistics.median(times), "s", 3, "the same pids")


def _cable(made: ClusterProcesses) -> list[Figure]:
    worker, host = made.workers[0], made.hosts[1]
    broken: list[float] = []
    for _ in range(4):  # two for each replica
        threading.Thread(target=_stream, args=(made, broken), daemon=True).start()
    time.sleep(2)
    began = time.monotonic()
    pull_cable(host)
    try:
        known = _seconds_until(lambda: made.state(worker) != "READY", began)
        told = until("a stream is told", lambda: broken[:1], 60)[0] - began
        lost = _seconds_until(lambda: made.state(worker) == "LOST", began)
        others = set(made.ready_on(UID)) - {worker.node_id}
        elsewhere = _seconds_until(
            lambda: [each["node"] for each in made.replicas(UID) if each["status"] == "READY"] == [*others] * 2, began
        )
    finally:
        plug_in(host)
    return [
        Figure("a pulled cable is known", known, "s", 8),
        Figure("a stream to it is told", told, "s", 8.5, "8 s, and the answer of the client's own connection"),
        Figure("its replica is elsewhere", elsewhere, "s", 32, f"LOST after {lost:.1f} s of 30 s"),
    ]


def _stream(made: ClusterProcesses, broken: list[float]) -> None:
    """Read a stream that lasts; add the time at which it breaks."""
    body = {"model": UID, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    text = ""
    with (
        contextlib.suppress(httpx2.TransportError),
        httpx2.stream("POST", f"{made.home.url}/v1/chat/completions", json=body, timeout=120) as answer,
    ):
        for piece in answer.iter_text():
            text += piece
    if "[DONE]" not in text or '"error"' in text:
        broken.append(time.monotonic())


def _answers(made: ClusterProcesses) -> bool:
    """Whether the model answers."""
    body = {"model": UID, "messages": [{"role": "user", "content": "hi"}]}
    try:
        return httpx2.post(f"{made.home.url}/v1/chat/completions", json=body, timeout=10).status_code == 200
    except httpx2.TransportError:
        return False


def _seconds_until(holds: Callable[[], bool], began: float) -> float:
    until("it is seen", holds, 120)
    return time.monotonic() - began


def _kill(worker: WorkerHome) -> None:
    assert worker.process is not None
    send_signal(worker.process.pid, signal.SIGKILL)
    worker.process.wait(30)
