"""A replica is started, stored, shown and taken back on the node of its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.deployments.conftest import world as world
from tests.deployments.doubles import FakeReplica, World, sized_plan
from tests.deployments.steps import launched
from xinference.deployments.adoption import adopt_running
from xinference.deployments.engine_starter import EngineStarter
from xinference.deployments.inbox import Inbox
from xinference.deployments.preparation import Runnable
from xinference.deployments.replica_command import engine_command, restore_sizing
from xinference.deployments.replica_set import ReplicaSet
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.engines.vllm.engine import VLLM
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.place import Place
from xinference.launch.plan import SizedPlan
from xinference.nodes.gang import Gang
from xinference.nodes.node import Node, NodeAddress
from xinference.process.command import EngineCommand
from xinference.store.database import Store

PLAN = replace(sized_plan("one", replica=2), places=(Place("n1"), Place("n2")))


class RecordingNode:
    """A node that starts doubles and remembers them."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.address: NodeAddress | None = NodeAddress(f"10.0.0.{node_id[-1]}", "eth1")
        self.commands: list[EngineCommand] = []
        self.started: list[FakeReplica] = []
        self.asked: list[str] = []

    def start(self, replica_id: str, command: EngineCommand, changed: Callable[[], None]) -> FakeReplica:
        self.commands.append(command)
        replica = FakeReplica(replica_id, changed, dict(command.context))
        replica.snapshot = replace(replica.snapshot, node_id=self.node_id)
        self.started.append(replica)
        return replica

    async def adopt(self, replica_id: str) -> FakeReplica | None:
        self.asked.append(replica_id)
        return next((each for each in self.started if each.snapshot.replica_id == replica_id), None)


def nodes_of(*names: str) -> tuple[dict[str, RecordingNode], dict[str, Node]]:
    made = {name: RecordingNode(name) for name in names}
    return made, cast(dict[str, Node], made)


async def test_each_replica_is_started_on_its_node_and_asked_for_there_by_the_next_server(tmp_path: Path) -> None:
    store, (made, nodes) = Store(tmp_path / "x.db"), nodes_of("local", "n1", "n2")
    store.add_deployment("one", "{}")
    engine, inbox = LlamaCpp(), Inbox()
    starter = EngineStarter(engine, nodes)
    replicas = ReplicaSet("one", engine, starter, cast(Any, None), store, cast(Any, None), inbox)
    for number in replicas.create_all(2):
        await replicas.start(number, PLAN, Path("python"))
    rows = store.replicas("one")
    assert [(row.position, row.node_id) for row in rows] == [(0, "n1"), (1, "n2")]
    assert [len(made[name].started) for name in ("local", "n1", "n2")] == [0, 1, 1]
    assert [view.process.node_id for view in replicas.views(2) if view.process] == ["n1", "n2"]

    adopted = await adopt_running("one", store, nodes)
    assert sorted(adopted) == sorted(row.replica_id for row in rows)
    assert made["n1"].asked == [rows[0].replica_id] and made["n2"].asked == [rows[1].replica_id]
    await inbox.end_helpers()
    store.close()


async def test_a_row_of_an_unknown_node_keeps_no_other_replica_from_being_adopted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, (made, nodes) = Store(tmp_path / "x.db"), nodes_of("local", "n1")
    store.add_deployment("one", "{}")
    for number, places in enumerate([("local",), ("../n\x1b", "n1"), ("n9",), ("n1", "n8")]):
        store.add_replica(f"r{number}", "one", number, places)
    for name, replica_id in (("local", "r0"), ("n1", "r1-1"), ("n1", "r3")):
        made[name].start(replica_id, EngineCommand((), context={"uid": "one"}), lambda: None)
    assert list(await adopt_running("one", store, nodes)) == ["r0"]
    assert [process.over for process in made["n1"].started] == [True, True]  # they are not on all of their nodes
    assert not made["local"].started[0].over
    assert "replica r2 of one was started on 'n9', which is not a node of this server" in caplog.text
    assert "\x1b" not in caplog.text
    store.close()


async def test_a_row_does_not_give_a_deployment_the_engine_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, (made, nodes) = Store(tmp_path / "x.db"), nodes_of("local")
    store.add_deployment("one", "{}")
    store.add_replica("r0", "one", 0)
    made["local"].start("r0", EngineCommand((), context={"uid": "two"}), lambda: None)
    assert await adopt_running("one", store, nodes) == {}
    assert made["local"].started[0].over
    assert "replica r0 of one was started for 'two': it is ended" in caplog.text
    store.close()


async def test_adopted_replicas_are_let_go_if_another_cannot_be_asked_for(tmp_path: Path) -> None:
    store, (made, nodes) = Store(tmp_path / "x.db"), nodes_of("local", "n1")
    store.add_deployment("one", "{}")
    store.add_replica("r0", "one", 0)
    store.add_replica("r1", "one", 1, ("n1",))
    made["local"].start("r0", EngineCommand(()), lambda: None)

    async def refuse(replica_id: str) -> None:
        raise Problem(Code.NODE_GONE, "gone")

    made["n1"].adopt = refuse  # type: ignore[method-assign]  # a double of a node
    with pytest.raises(Problem, match="gone"):
        await adopt_running("one", store, nodes)
    assert made["local"].started[0].detached
    store.close()


async def test_a_node_that_the_server_does_not_have_is_named_with_those_that_it_has() -> None:
    _, nodes = nodes_of("local", "n1")
    starter = EngineStarter(LlamaCpp(), nodes)
    with pytest.raises(Problem, match=r"This server has no node n2\. Its nodes: local, n1\.") as refused:
        await starter.start("r1", PLAN, 1, Path("python"), lambda: None)
    assert refused.value.code == "node_unknown" and refused.value.status == 503


def test_the_context_of_an_engine_gives_its_place_back() -> None:
    plan = replace(PLAN, places=(Place("n1", (1,)), Place("n2")))
    context = engine_command(LlamaCpp(), plan, 1, Path("python")).context
    restored = restore_sizing(PLAN.launch, 1, context)
    assert isinstance(restored, SizedPlan) and restored.places == plan.places


async def test_the_api_names_the_node_of_each_replica(world: World) -> None:
    deployment = await launched(world)
    assert [entry["node"] for entry in deployment.replicas] == ["local"]


TOGETHER = replace(
    sized_plan("one", replica=1), places=(Place("n1", (0, 1), ranks=(Place("n2", (2, 3)), Place("n3", (0, 3)))),)
)


def gang_starter(nodes: dict[str, Node]) -> EngineStarter:
    prepared = {name: Runnable(Path(f"/weights/{name}"), Path(f"/python/{name}")) for name in ("n1", "n2", "n3")}
    return EngineStarter(VLLM(), nodes, prepared=prepared)


async def test_a_replica_on_several_nodes_is_one_process_on_each_with_its_own_weights_and_devices(
    tmp_path: Path,
) -> None:
    store, (made, nodes) = Store(tmp_path / "x.db"), nodes_of("local", "n1", "n2", "n3")
    store.add_deployment("one", "{}")
    inbox = Inbox()
    replicas = ReplicaSet("one", VLLM(), gang_starter(nodes), cast(Any, None), store, cast(Any, None), inbox)
    replicas.create_all(1)
    await replicas.start(0, TOGETHER, Path("python"))
    (row,) = store.replicas("one")
    assert (row.node_id, row.further_nodes) == ("n1", ("n2", "n3"))
    assert not made["local"].started
    for number, (name, devices) in enumerate([("n1", "0,1"), ("n2", "2,3"), ("n3", "0,3")]):
        (command,), (process,) = made[name].commands, made[name].started
        assert command.argv[0] == f"/python/{name}" and f"/weights/{name}" in command.argv
        assert command.env["CUDA_VISIBLE_DEVICES"] == devices
        assert command.argv[command.argv.index("--node-rank") + 1] == str(number)
        assert command.argv[command.argv.index("--master-addr") + 1] == "10.0.0.1"
        assert process.snapshot.replica_id == (row.replica_id if number == 0 else f"{row.replica_id}-{number}")
    ports = {
        command.argv[command.argv.index("--master-port") + 1] for each in made.values() for command in each.commands
    }
    assert len(ports) == 1

    (adopted,) = (await adopt_running("one", store, nodes)).values()
    assert isinstance(adopted, Gang)
    assert [rank.snapshot.node_id for rank in adopted.ranks] == ["n1", "n2", "n3"]
    restored = restore_sizing(sized_plan("one", replica=1), 0, adopted.snapshot.context)
    assert isinstance(restored, SizedPlan) and restored.places == TOGETHER.places
    await adopted.stop()
    await inbox.end_helpers()
    store.close()


async def test_a_replica_that_runs_on_some_of_its_nodes_only_is_ended_there(tmp_path: Path) -> None:
    store, (made, nodes) = Store(tmp_path / "x.db"), nodes_of("n1", "n2", "n3")
    store.add_deployment("one", "{}")
    store.add_replica("r1", "one", 0, ("n1", "n2", "n3"))
    for name, replica_id in (("n1", "r1"), ("n3", "r1-2")):
        made[name].start(replica_id, EngineCommand(()), lambda: None)
    assert await adopt_running("one", store, nodes) == {}
    assert all(process.over for name in ("n1", "n3") for process in made[name].started)
    store.close()


async def test_each_start_of_a_replica_on_several_nodes_meets_at_another_port() -> None:
    made, nodes = nodes_of("n1", "n2", "n3")
    starter = gang_starter(nodes)
    started = [await starter.start(f"r{n}", TOGETHER, 0, Path("p"), lambda: None) for n in range(3)]
    ports = {command.argv[command.argv.index("--master-port") + 1] for command in made["n1"].commands}
    assert len(ports) == 3
    for each in started:
        await each.stop()


async def test_a_node_that_has_not_said_its_address_takes_no_part() -> None:
    made, nodes = nodes_of("n1", "n2", "n3")
    made["n2"].address = None
    with pytest.raises(Problem, match="n2 is not linked"):
        await gang_starter(nodes).start("r1", TOGETHER, 0, Path("p"), lambda: None)
    assert not any(each.started for each in made.values())
