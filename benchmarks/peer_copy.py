"""The copy of a weight file from another node, beside `cp` of the same file on the same disk.

    PYTHONPATH=src python -m benchmarks.peer_copy [--gigabytes 2] [--rounds 5] [--folder DIR]

Two processes of their own: a front door, and a node that copies through it, over mutual TLS on loopback, with the hash
and the `fsync` of a real copy. `cp` is followed by `fsync`, too, and takes its turn in each round. What is compared is
the median of the ratios of a round. The memory is the peak of each process, and its rise from before the first copy.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import tempfile
import threading
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.end_signals import end_as_ctrl_c

from xinference.nodes.certificates import ClusterAuthority, NodeIdentity, public_bytes

PEER, NODE = "n00000000000a", "n00000000000b"
DIGEST, NAME = "0" * 64, "model.gguf"
#: Before each copy. A virtual machine may give free memory back to its host after some seconds, and then has to get it
#: again: what follows another copy at once would get the memory that this one had, and be faster.
PAUSE_SECONDS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk that is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        print(json.dumps(measure(Path(name), int(options.gigabytes * 1e9), options.rounds), indent=2))


def measure(folder: Path, size: int, rounds: int) -> dict[str, object]:
    source = folder / "source"
    sha256 = _write(source, size)
    spawn = multiprocessing.get_context("spawn")
    identities = _identities(folder)
    port, door_end, node_end = _start(spawn, folder, source, identities, sha256)
    ratios: list[float] = []
    speeds: dict[str, list[float]] = {"cp": [], "copy": []}
    node_end.send("ready")
    node_before, node_cpu = node_end.recv()
    for number in range(rounds):
        seconds = {}
        for what in ("cp", "copy") if number % 2 else ("copy", "cp"):
            target = folder / f"{what}{number}"
            time.sleep(PAUSE_SECONDS)
            begin = time.perf_counter()
            if what == "cp":
                subprocess.run(["cp", "--reflink=never", str(source), str(target)], check=True)
                with target.open("rb+") as file:
                    os.fsync(file.fileno())
            else:
                node_end.send((port, size, sha256, str(target)))
                node_peak, cpu = node_end.recv()
            seconds[what] = time.perf_counter() - begin
            target.unlink()
        for what, each in speeds.items():
            each.append(size / seconds[what] / 1e6)
        ratios.append(seconds["cp"] / seconds["copy"])
    node_end.send(None)
    door_end.send(None)
    door_before, door_peak, door_cpu = door_end.recv()
    copied = size * rounds / 1e9
    return {
        "bytes": size,
        "rounds": rounds,
        "cp_megabytes_a_second": [round(each) for each in speeds["cp"]],
        "copy_megabytes_a_second": [round(each) for each in speeds["copy"]],
        "ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(each, 2) for each in ratios],
        "node": {
            "peak_mib": round(node_peak), "rise_mib": round(node_peak - node_before),
            "cpu_seconds_a_gigabyte": round((cpu - node_cpu) / copied, 2),
        },
        "front_door": {
            "peak_mib": round(door_peak), "rise_mib": round(door_peak - door_before),
            "cpu_seconds_a_gigabyte": round(door_cpu / copied, 2),
        },
    }  # fmt: skip


def _write(path: Path, size: int) -> str:
    digest, block = hashlib.sha256(), os.urandom(1 << 20)
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            piece = block[: size - start]
            file.write(piece)
            digest.update(piece)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _identities(folder: Path) -> dict[str, Path]:
    now = datetime.now(UTC)
    authority = ClusterAuthority.load_or_create(folder / "authority", now)
    for node_id in (PEER, NODE):
        identity = NodeIdentity(folder / node_id)
        identity.save(authority.issue(identity.signing_request(), node_id, now), public_bytes(authority.certificate))
    return {node_id: folder / node_id for node_id in (PEER, NODE)}


def _start(
    spawn: multiprocessing.context.SpawnContext, folder: Path, source: Path, identities: dict[str, Path], sha256: str
) -> tuple[int, Connection, Connection]:
    door_end, door_child = spawn.Pipe()
    node_end, node_child = spawn.Pipe()
    for target, end, node_id in ((_serve, door_child, PEER), (_copy, node_child, NODE)):
        spawn.Process(target=target, args=(end, identities[node_id], source), daemon=True).start()
    return door_end.recv(), door_end, node_end


def _serve(end: Connection, identity: Path, source: Path) -> None:
    import uvloop

    uvloop.run(_serve_files(end, NodeIdentity(identity), source))


async def _serve_files(end: Connection, identity: NodeIdentity, source: Path) -> None:
    from xinference.gateway.front_door import FrontDoor, front_door_server
    from xinference.gateway.http.engine_pool import EnginePool
    from xinference.gateway.weight_files import WeightFiles

    files = WeightFiles(lambda digest, name: source if (digest, name) == (DIGEST, NAME) else None)
    door = FrontDoor(dict, EnginePool(), 1024, files)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = front_door_server(door, identity.server_context(), "127.0.0.1", 0, frozenset())
        running = asyncio.create_task(server.serve(sockets=[listener]))
        end.send(listener.getsockname()[1])
        before, cpu = _memory_mib(), time.process_time()
        await asyncio.to_thread(end.recv)
        end.send((before, _memory_mib(), time.process_time() - cpu))
        server.stop()
        await running


def _copy(end: Connection, identity: Path, source: Path) -> None:
    from xinference.hubs.listing import ListedFile, Listing
    from xinference.nodes.node import Peer, PeerWeights
    from xinference.nodes.peer_copy import PeerCopy

    def context() -> ssl.SSLContext:
        return NodeIdentity(identity).client_context()

    end.recv()
    end.send((_memory_mib(), time.process_time()))
    while (order := end.recv()) is not None:
        port, size, sha256, target = order
        weights = PeerWeights(DIGEST, Listing("main", ()), (Peer(PEER, "peer", "127.0.0.1", port),))
        copy = PeerCopy(weights, context)
        copy(ListedFile(NAME, size, sha256), Path(target), lambda count: None, threading.Event())
        end.send((_memory_mib(), time.process_time()))


def _memory_mib() -> float:
    """The peak of this process's resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    end_as_ctrl_c()
    assert shutil.which("cp")
    main()
