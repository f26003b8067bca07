"""A launch without room gets a node of Ray's autoscaler, and gives it back: Ray's provider of nodes for tests.

The machine of the supervisor runs Ray's head, which has no CPUs and so no worker. These tests run where the extra
``cluster`` is installed: ``make test-cluster``.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.support.polling import until
from tests.support.ray_machines import RayMachines
from tests.support.ray_site import UID, Site, make_site

pytest.importorskip("ray", reason="the extra `cluster` is not installed")

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]
HEAD_ID = "f" * 51 + "00000"
#: Time after which the autoscaler ends a node that is not used.
IDLE_SECONDS = 12
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


def _configuration(address: str) -> dict[str, object]:
    """The autoscaler adds up to two nodes of one CPU. Ray's wheel lacks the file that its AutoscalingCluster reads."""
    empty: dict[str, object] = {}
    commands = (
        "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
        "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter",
    )  # fmt: skip
    return {
        "cluster_name": "test",
        "max_workers": 2,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "provider": {
            "type": "external", "module": PROVIDER, "gcs_address": address, "launch_multiple": True,
            "head_node_id": HEAD_ID, "disable_node_updaters": True, "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": empty, "max_workers": 0},
            "box": {
                "resources": {"CPU": 1, "object_store_memory": 80_000_000}, "node_config": empty, "min_workers": 0,
                "max_workers": 2,
            },
        },
        "head_node_type": "ray.head.default",
        "auth": empty, "docker": empty, "file_mounts": empty, "file_mounts_sync_continuously": False,
        "upscaling_speed": 1.0, **{name: [] for name in commands},
    }  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("scaled")
    ray = RayMachines(folder, cpus=(0,), gpus=(0,), first_port=10600)
    ray.head_env = {
        "RAY_enable_autoscaler_v2": "1", "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
    }  # fmt: skip
    configuration = folder / "autoscaler.json"
    configuration.write_text(json.dumps(_configuration(ray.address)))
    ray.head_words = (f"--autoscaling-config={configuration}",)
    made = make_site(folder, ray, "--ray-autoscaler-seconds", "300")
    try:
        ray.start(0)
        made.start()
        yield made
    finally:
        made.close()


def test_a_launch_without_room_gets_a_node_and_gives_it_back(site: Site) -> None:
    until("Ray is reached", lambda: site.get("/v1/cluster/ray")["is_reached"])
    assert (site.get("/v1/cluster/nodes"), site.ray.look()["nodes"]) == ([], [HEAD_ID]), "there is no worker at all"
    begun = time.monotonic()
    site.launch(1)
    print(f"the launch was ready {time.monotonic() - begun:.1f} s after it was asked for")
    (node,) = site.ready()
    assert site.ray.look()["nodes"] == sorted([HEAD_ID, node])
    assert site.home.chat(model=UID, max_tokens=4).status_code == 200
    until("what it uses is reserved", lambda: _reserved(site) == [1], 60)
    until("and nothing is wanted any more", lambda: site.get("/v1/cluster/ray")["wanted"] == [], 60)
    end = time.monotonic() + 2 * IDLE_SECONDS
    while time.monotonic() < end:  # Ray would end the node if it took it for idle
        assert node in site.ray.look()["nodes"]
    assert site.home.chat(model=UID, max_tokens=4).status_code == 200
    httpx2.delete(f"{site.home.url}/v1/models/{UID}", timeout=60).raise_for_status()
    begun = time.monotonic()
    until("the autoscaler has taken the node back", lambda: site.ray.look()["nodes"] == [HEAD_ID])
    print(f"the node was gone {time.monotonic() - begun:.1f} s after the model")
    until("its worker is ended", lambda: (site.beside_ray(), site.get("/v1/cluster/nodes")) == ([], []))
    print(f"its worker was ended {time.monotonic() - begun:.1f} s after the model")


def test_the_supervisor_leaves_nothing_in_ray(site: Site) -> None:
    site.end(signal.SIGINT)
    seen = site.ray.look()
    assert (seen["nodes"], seen["actors"], seen["groups"]) == ([HEAD_ID], [], [])
    assert psutil.pid_exists(_pid(site)) and site.beside_ray() == []


def _reserved(site: Site) -> list[float]:
    return [group["CPU"] for group in site.ray.look()["groups"]]


def _pid(site: Site) -> int:
    raylet = site.ray.raylet(0)
    assert raylet is not None
    return int(raylet.pid)
