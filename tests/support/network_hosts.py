"""Hosts in network namespaces, joined by a bridge: a cable can be pulled. Needs root and `ip`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.cluster_processes import Host

BRIDGE = "xinfbr"
GATEWAY = "10.77.0.254"


def missing() -> str | None:
    """Why there are no namespaces here; None: there are."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command `ip` is not installed"
    probe = subprocess.run(["ip", "netns", "add", "xinfprobe"], capture_output=True, check=False)
    if probe.returncode != 0:
        return f"no network namespace can be made: {probe.stderr.decode().strip()}"
    _ip("netns", "del", "xinfprobe")
    return None


@contextmanager
def network_hosts(count: int) -> Iterator[list[Host]]:
    """Hosts with the addresses 10.77.0.1 and so on; this machine is 10.77.0.254."""
    _clear(count)
    try:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        hosts = []
        for number in range(1, count + 1):
            name, address = f"xinfh{number}", f"10.77.0.{number}"
            _ip("netns", "add", name)
            _ip("link", "add", _cable(number), "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", _cable(number), "master", BRIDGE, "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
            hosts.append(Host(address, ("ip", "netns", "exec", name)))
        yield hosts
    finally:
        _clear(count)


def pull_cable(host: Host) -> None:
    """No packet reaches a host, or leaves it."""
    _ip("link", "set", _cable(int(host.address.rpartition(".")[2])), "down")


def plug_in(host: Host) -> None:
    """The cable is back."""
    _ip("link", "set", _cable(int(host.address.rpartition(".")[2])), "up")


def _cable(number: int) -> str:
    return f"xinfv{number}"


def _clear(count: int) -> None:
    """Delete what an earlier run has left."""
    for number in range(1, count + 1):
        subprocess.run(["ip", "netns", "del", f"xinfh{number}"], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", _cable(number)], capture_output=True, check=False)
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
