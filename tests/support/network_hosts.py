"""Hosts in network namespaces, joined by a bridge: a cable can be pulled. Needs root and `ip`."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.cluster_processes import Host

#: Networks that test processes may have at one time: 10.77.0.0/24 and so on.
NETWORKS = 8


def missing() -> str | None:
    """Why there are no namespaces here; None: there are."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command `ip` is not installed"
    name = f"xinfprobe{os.getpid()}"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if probe.returncode != 0:
        return f"no network namespace can be made: {probe.stderr.decode().strip()}"
    _ip("netns", "del", name)
    return None


@contextmanager
def network_hosts(count: int) -> Iterator[list[Host]]:
    """Hosts with the addresses 10.77.N.1 and so on; this machine is 10.77.N.254."""
    with _own_network() as network:
        _clear(network, count)
        bridge = f"xinfbr{network}"
        try:
            _ip("link", "add", bridge, "type", "bridge")
            _ip("addr", "add", f"10.77.{network}.254/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
            yield [_add(network, number) for number in range(1, count + 1)]
        finally:
            _clear(network, count)


def pull_cable(host: Host) -> None:
    """No packet reaches a host, or leaves it."""
    _ip("link", "set", _cable_of(host), "down")


def plug_in(host: Host) -> None:
    """The cable is back."""
    _ip("link", "set", _cable_of(host), "up")


def drop_packets_to(host: Host, port: int) -> None:
    """Drop what a host sends to a TCP port of others; its other connections go on."""
    _ip("-n", host.prefix[-1], "rule", "add", "pref", "1", "ipproto", "tcp", "dport", str(port), "blackhole")


def drop_no_packets(host: Host) -> None:
    """End `drop_packets_to`."""
    _ip("-n", host.prefix[-1], "rule", "del", "pref", "1")


@contextmanager
def _own_network() -> Iterator[int]:
    """The number of a network that no other process uses."""
    for network in range(NETWORKS):
        with (Path(tempfile.gettempdir()) / f"xinference-test-network-{network}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield network
            return
    raise RuntimeError(f"all {NETWORKS} networks are in use")


def _add(network: int, number: int) -> Host:
    """Make a host with its cable."""
    name, cable, address = _name(network, number), _cable(network, number), f"10.77.{network}.{number}"
    _ip("netns", "add", name)
    _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", cable, "master", f"xinfbr{network}", "up")
    _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", name, "link", "set", device, "up")
    return Host(address, ("ip", "netns", "exec", name))


def _name(network: int, number: int) -> str:
    return f"xinfh{network}-{number}"


def _cable(network: int, number: int) -> str:
    return f"xinfv{network}-{number}"


def _cable_of(host: Host) -> str:
    network, number = host.address.split(".")[2:]
    return _cable(int(network), int(number))


def _clear(network: int, count: int) -> None:
    """Delete what an earlier run has left."""
    for number in range(1, count + 1):
        subprocess.run(["ip", "netns", "del", _name(network, number)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", _cable(network, number)], capture_output=True, check=False)
    subprocess.run(["ip", "link", "del", f"xinfbr{network}"], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
