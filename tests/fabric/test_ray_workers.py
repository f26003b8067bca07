"""A supervisor on a Ray cluster that somebody else has started: it joins, uses it, and leaves it as it was.

Two nodes of Ray on this machine, a real supervisor, workers beside Ray, and the tiny model on llama.cpp. These tests
run where the extra ``cluster`` is installed: ``make test-cluster``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import psutil
import pytest

from tests.support.polling import until
from tests.support.ray_machines import RayMachines
from tests.support.ray_site import UID, Site, make_site

pytest.importorskip("ray", reason="the extra `cluster` is not installed")

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("onray")
    made = make_site(folder, RayMachines(folder, cpus=(2, 2), gpus=(2, 0)))
    try:
        made.ray.start(0)
        made.ray.start(1)
        until("Ray has both nodes", lambda: len(made.ray.look()["nodes"]) == 2, 90)
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def joined(site: Site) -> dict[str, str]:
    """Ray node -> our node; the supervisor runs, and the model has a replica on each node."""
    if site.process is None or site.process.poll() is not None:
        site.start()
    nodes = site.until_ready(2)
    if UID not in {each["id"] for each in site.get("/v1/models")["data"]}:
        site.launch(2)
    until("both replicas are ready", lambda: len(site.engines()) == 2)
    return nodes


def _answers(site: Site) -> bool:
    return site.home.chat(model=UID, max_tokens=4).status_code == 200


def test_each_node_of_ray_gets_a_worker_beside_ray(site: Site, joined: dict[str, str]) -> None:
    assert sorted(joined) == site.ray.look()["nodes"] and sorted(site.engines()) == sorted(joined.values())
    raylets = _raylets(site)
    for pid in site.worker_pids():
        parents = [parent.pid for parent in psutil.Process(pid).parents()]
        assert not set(parents) & set(raylets), "it is no child of Ray"
        assert "RAY_RAYLET_PID" not in psutil.Process(pid).environ()
    assert _answers(site)
    assert site.get("/v1/cluster/tokens") == [], "the tokens of the workers are deleted"


def test_what_the_replicas_use_is_reserved_in_ray_until_they_end(site: Site, joined: dict[str, str]) -> None:
    until("both are reserved", lambda: len(site.ray.look()["groups"]) == 2, 60)
    seen = site.ray.look()
    assert all(group["CPU"] == 1 and group["memory"] > 0 for group in seen["groups"]), seen
    assert (seen["free"]["CPU"], seen["actors"], len(seen["jobs"])) == (2, [], 1)
    httpx2.delete(f"{site.home.url}/v1/models/{UID}", timeout=60).raise_for_status()
    until("nothing is reserved", lambda: site.ray.look()["groups"] == [], 60)
    assert site.ray.look()["free"]["CPU"] == 4


def test_a_killed_raylet_ends_no_engine_and_the_next_one_finds_its_worker(site: Site, joined: dict[str, str]) -> None:
    engines, workers = site.engines(), site.worker_pids()
    (lost,) = [ray_node for ray_node in joined if ray_node in _node_of(site, 1)]
    site.ray.kill_raylet(1)
    until("Ray has lost the node", lambda: lost not in _ray_nodes(site), 60)
    assert (site.engines(), site.worker_pids()) == (engines, workers) and _answers(site)
    site.ray.start(1)
    found = site.until_ready(2)
    assert lost not in found and sorted(found.values()) == sorted(joined.values())
    assert (site.engines(), site.worker_pids()) == (engines, workers)


def test_ray_is_killed_as_a_whole_and_comes_back(site: Site, joined: dict[str, str]) -> None:
    engines, workers = site.engines(), site.worker_pids()
    site.ray.kill(1)
    site.ray.kill(0)
    problem = until("it is said that Ray is gone", lambda: site.get("/v1/cluster/ray")["problem"], 90)
    assert problem["code"] == "ray_unreachable" and "--ray-address" in problem["hint"]
    assert (site.engines(), site.worker_pids()) == (engines, workers) and _answers(site)
    begun = time.monotonic()
    site.ray.start(0)
    site.ray.start(1)
    found = site.until_ready(2)
    print(f"Ray is used again {time.monotonic() - begun:.1f} s after its start")
    assert sorted(found.values()) == sorted(joined.values())
    assert (site.engines(), site.worker_pids()) == (engines, workers) and _answers(site)
    until("both are reserved", lambda: len(site.ray.look()["groups"]) == 2, 60)


def test_a_killed_supervisor_leaves_nothing_in_ray_and_the_next_one_loads_nothing(
    site: Site, joined: dict[str, str]
) -> None:
    engines = site.engines()
    site.end(signal.SIGKILL)
    until("nothing of it is in Ray", lambda: _is_clean(site), 60)
    assert all(psutil.pid_exists(pid) for pid in engines.values())
    site.start()
    assert sorted(site.until_ready(2).values()) == sorted(joined.values())
    until("both are ready", lambda: site.engines() == engines)


def test_a_removed_node_has_no_worker_any_more(site: Site, joined: dict[str, str]) -> None:
    gone, *_ = joined.values()
    before = site.worker_pids()
    httpx2.delete(f"{site.home.url}/v1/cluster/nodes/{gone}", timeout=60).raise_for_status()
    until("its worker has ended", lambda: len(site.worker_pids()) == 1, 60)
    said = until("it is said why", lambda: [each["problem"] for each in _nodes(site) if each["state"] == "FAILED"], 90)
    assert f"its node {gone} was removed" in said[0] and set(site.worker_pids()) < set(before)


def test_a_supervisor_that_stops_leaves_ray_as_it_was(site: Site) -> None:
    raylets = _raylets(site)
    nodes = site.ray.look()["nodes"]
    assert site.beside_ray()
    begun = time.monotonic()
    site.end(signal.SIGINT)
    print(f"the supervisor and its workers have ended after {time.monotonic() - begun:.1f} s")
    until("no worker, no keeper and no engine lives", lambda: site.beside_ray() == [], 30)
    until("nothing of it is in Ray", lambda: _is_clean(site), 60)
    seen = site.ray.look()
    assert (seen["nodes"], seen["free"]["CPU"], seen["free"]["GPU"]) == (nodes, 4, 2)
    assert _raylets(site) == raylets


def _nodes(site: Site) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = site.get("/v1/cluster/ray")["nodes"]
    return nodes


def _ray_nodes(site: Site) -> list[str]:
    return [node["ray_node"] for node in _nodes(site)]


def _node_of(site: Site, number: int) -> str:
    """The command line of a raylet, which names its node."""
    raylet = site.ray.raylet(number)
    assert raylet is not None
    return " ".join(raylet.cmdline())


def _raylets(site: Site) -> list[int]:
    found = [site.ray.raylet(number) for number in (0, 1)]
    return [process.pid for process in found if process is not None]


def _is_clean(site: Site) -> bool:
    seen = site.ray.look()
    return (seen["actors"], seen["groups"], seen["jobs"]) == ([], [], [])
