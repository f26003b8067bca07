"""A node behind a link: what runs on when the link is cut, or the agent or the server is replaced; who is obeyed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from tests.deployments.doubles import DIED, HOST, FakeReplica, launch_of, turns
from tests.support.cluster import NODE, Linked, linked
from xinference.errors import Problem
from xinference.fabric.fabric import Event
from xinference.fabric.memory import MemoryFabric
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.log_position import LogPosition, Piece
from xinference.nodes import messages
from xinference.nodes.message_codec import decode_answer, decode_event, decode_host, encode
from xinference.nodes.node import Node, PeerWeights, Report, Step, WeightsHeader
from xinference.nodes.remote import RemoteNode
from xinference.process.command import EngineCommand, Exit, Fault
from xinference.process.snapshot import ReplicaState

LAUNCH = launch_of("one")
COMMAND = EngineCommand(argv=("engine", "{port}"), api_key="secret", context={"uid": "one"})


class Machine:
    """A machine whose life the test decides; what it keeps survives its agent."""

    node_id = "local"

    def __init__(self) -> None:
        self.kept: dict[str, FakeReplica] = {}
        self.refusal: Problem | None = None
        self.may_fetch = asyncio.Event()
        self.fetches: list[str] = []
        self.hosts = [HOST]
        self.reads: list[tuple[Path, int, LogPosition | None]] = []

    async def host(self) -> Host:
        return self.hosts[0]

    async def find_weights(self, launch: Any) -> Path | None:
        return None

    async def fetch_weights(self, launch: Any, report: Report, peers: PeerWeights | None = None) -> Path:
        report.begin("fetch", "fetching")
        for done in range(100):
            report.progress("fetch", "weights", done, 100)
        self.fetches.append("began")
        try:
            await self.may_fetch.wait()
        except asyncio.CancelledError:
            self.fetches.append("cancelled")
            raise
        if self.refusal is not None:
            raise self.refusal
        return Path("/there/weights")

    async def read_header(self, launch: Any, path: Path) -> WeightsHeader:
        return WeightsHeader(ModelShape(1, 2, 3, 4, bytes_by_type={"Q4_K": 5}), ("a note",))

    def start(self, replica_id: str, command: EngineCommand, changed: Callable[[], None]) -> FakeReplica:
        if self.refusal is not None:
            raise self.refusal
        replica = self.kept[replica_id] = FakeReplica(replica_id, changed, dict(command.context))
        return replica

    async def adopt(self, replica_id: str) -> FakeReplica | None:
        replica = self.kept.get(replica_id)
        return None if replica is None or replica.over else replica

    async def measure(self, replica: Any) -> None:
        return None

    async def read_log(self, path: Path, lines: int, position: LogPosition | None) -> Piece:
        self.reads.append((path, lines, position))
        return Piece(b"\xffsaid\n", LogPosition("r1.2a", 6))


@dataclass
class Taken:
    """A `Report` that remembers."""

    begun: list[tuple[Step, str | None]] = field(default_factory=list)
    done: list[int] = field(default_factory=list)

    def begin(self, step: Step, content: str | None) -> None:
        self.begun.append((step, content))

    def progress(self, step: Step, file: str, done: int, total: int | None) -> None:
        self.done.append(done)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def link(machine: Machine) -> AsyncIterator[Linked]:
    async with linked(cast(Node, machine)) as made:
        yield made


async def started(link: Linked, machine: Machine, replica_id: str = "r1") -> tuple[Any, FakeReplica]:
    """A ready replica: its mirror, and the real one."""
    mirror = link.remote.start(replica_id, COMMAND, lambda: None)
    await turns()
    machine.kept[replica_id].become_ready()
    await mirror.wait_ready()
    return mirror, machine.kept[replica_id]


# -- replicas -----------------------------------------------------------------------------------------------------


async def test_a_replica_is_mirrored_with_its_node_and_its_key(link: Linked, machine: Machine) -> None:
    mirror, real = await started(link, machine)
    snapshot = mirror.snapshot
    assert (snapshot.node_id, snapshot.state, snapshot.base_url) == (NODE, ReplicaState.READY, real.snapshot.base_url)
    assert snapshot.api_key == "secret" and snapshot.context == COMMAND.context
    real.die(replace(DIED, fault=Fault.KERNEL))
    assert await mirror.wait_exited() == replace(DIED, fault=Fault.KERNEL)
    await turns()
    assert link.agent._replicas.reports() == (), "an end that the server has seen is forgotten"


async def test_why_an_engine_did_not_become_ready_is_told_with_all_fields(link: Linked, machine: Machine) -> None:
    mirror = link.remote.start("r1", COMMAND, lambda: None)
    await turns()
    problem = Problem("engine_died", "It had no memory.", stage="health", hint="Use less.", log_tail=("last",))
    machine.kept["r1"].die(DIED, problem)
    with pytest.raises(Problem) as told:
        await mirror.wait_ready()
    assert told.value.to_dict() == problem.to_dict() and mirror.snapshot.exit == DIED


async def test_a_refused_start_is_the_problem_of_the_replica(link: Linked, machine: Machine) -> None:
    machine.refusal = Problem("disk_full", "The disk is full.", status=507)
    mirror = link.remote.start("r1", COMMAND, lambda: None)
    with pytest.raises(Problem, match="The disk is full"):
        await mirror.wait_ready()
    assert mirror.snapshot.state is ReplicaState.EXITED and (await mirror.stop()) is not None


async def test_a_stop_that_comes_before_the_answer_to_the_start_stops_it(link: Linked, machine: Machine) -> None:
    mirror = link.remote.start("r1", COMMAND, lambda: None)
    await mirror.stop()
    assert machine.kept["r1"].stopped and mirror.over


async def test_a_cut_link_ends_no_engine_and_an_exit_meanwhile_is_told_afterwards(
    link: Linked, machine: Machine
) -> None:
    (living, living_real), (dying, dying_real) = await started(link, machine), await started(link, machine, "r2")
    link.cut()
    await turns()
    dying_real.die(DIED)
    await turns()
    assert living.snapshot.state is dying.snapshot.state is ReplicaState.READY and not living_real.stopped
    link.mend()
    assert await dying.wait_exited() == DIED
    assert living.snapshot.state is ReplicaState.READY and not living.over


async def test_a_stop_while_the_link_is_cut_is_repeated_when_it_is_up(link: Linked, machine: Machine) -> None:
    mirror, real = await started(link, machine)
    link.cut()
    stopping = asyncio.create_task(mirror.stop())
    await turns()
    assert not real.stopped and not stopping.done()
    link.mend()
    await stopping
    assert real.stopped


async def test_a_start_whose_link_is_down_fails_and_leaves_no_engine_behind(link: Linked, machine: Machine) -> None:
    link.cut()
    mirror = link.remote.start("r1", COMMAND, lambda: None)
    with pytest.raises(Problem) as failed:
        await mirror.wait_ready()
    assert (failed.value.code, failed.value.status, failed.value.stage) == ("node_gone", 503, "start")
    link.mend()
    await turns()
    assert machine.kept == {}


async def test_an_agent_that_is_started_again_takes_its_engines_back_without_a_reload(
    link: Linked, machine: Machine
) -> None:
    (living, real), (dead, dead_real) = await started(link, machine), await started(link, machine, "r2")
    link.cut()
    dead_real.die(DIED)
    link.restart_agent(cast(Node, machine))
    await turns()
    assert living.snapshot.state is ReplicaState.READY and not real.stopped and list(machine.kept) == ["r1", "r2"]
    assert (await dead.wait_exited()).reason.startswith("is gone: ")
    real.die(DIED)
    assert await living.wait_exited() == DIED, "the new agent reports it"


async def test_the_next_server_adopts_what_runs(link: Linked, machine: Machine) -> None:
    _, real = await started(link, machine)
    following = RemoteNode(NODE, link.fabric, epoch=2)
    following.note_link(is_up=True)
    adopted = await following.adopt("r1")
    assert adopted is not None and adopted.snapshot.state is ReplicaState.READY and not real.stopped
    assert (adopted.snapshot.api_key, adopted.snapshot.context) == ("key", {"uid": "one"})
    assert await following.adopt("r9") is None


async def test_a_lost_node_ends_its_replicas_here_and_they_are_stopped_there_when_it_is_back(
    link: Linked, machine: Machine
) -> None:
    mirror, real = await started(link, machine)
    link.cut()
    link.remote.give_up()
    exit = await mirror.wait_exited()
    assert exit.reason == "is gone: The node n1 is lost" and not real.stopped
    link.mend()
    await turns()
    assert real.stopped and link.agent._replicas.reports() == ()


async def test_what_was_replaced_is_stopped_on_a_node_that_was_only_silent(link: Linked, machine: Machine) -> None:
    _, real = await started(link, machine)
    link.remote.give_up()  # its link is up all the time
    await turns()
    assert not real.stopped
    link.remote.stop_given_up()
    await turns()
    assert real.stopped and link.agent._replicas.reports() == ()


async def test_an_engine_without_a_row_is_stopped_and_one_with_a_row_is_not(link: Linked, machine: Machine) -> None:
    link.agent._replicas.start("r8", COMMAND)
    link.agent._replicas.start("r9", COMMAND)
    link.remote.end_unknown(messages.WholeState(link.agent._replicas.reports()), lambda replica_id: replica_id == "r9")
    await turns()
    assert [each.replica_id for each in link.agent._replicas.reports()] == ["r9"]


async def test_a_detached_mirror_leaves_the_engine_to_its_node(link: Linked, machine: Machine) -> None:
    mirror, real = await started(link, machine)
    await mirror.detach()
    with pytest.raises(Problem, match="Another server"):
        await mirror.wait_exited()
    assert not real.stopped and not real.detached


# -- the end of a worker ------------------------------------------------------------------------------------------


async def test_an_engine_of_a_worker_that_ends_gets_no_more_requests_while_it_still_runs(
    link: Linked, machine: Machine
) -> None:
    mirror, real = await started(link, machine)
    link.agent.leave()
    await turns()
    assert mirror.snapshot.state is ReplicaState.STOPPING and not real.over
    real.become_ready()  # another report
    await turns()
    assert mirror.snapshot.state is ReplicaState.STOPPING


async def test_an_engine_of_a_worker_that_waits_gets_requests_until_the_worker_may_leave(
    link: Linked, machine: Machine
) -> None:
    mirror, _ = await started(link, machine)
    link.agent.leave(waits=True)
    await turns()
    states = [mirror.snapshot.state]
    link.remote.let_leave()
    await turns()
    assert [*states, mirror.snapshot.state] == [ReplicaState.READY, ReplicaState.STOPPING]
    assert link.agent.may_leave.is_set()


async def test_the_exit_of_an_engine_that_its_worker_stops_at_its_end_is_no_crash(
    link: Linked, machine: Machine
) -> None:
    mirror, _ = await started(link, machine)
    link.agent.leave()
    await turns()
    await link.agent.stop_engines()
    exit = await mirror.wait_exited()
    assert (exit.fault, exit.requested) == (Fault.NODE_LEFT, True)
    assert exit.reason == "was stopped, because the worker of the node n1 ends"


async def test_an_engine_that_starts_when_its_worker_ends_has_the_end_as_its_problem(
    link: Linked, machine: Machine
) -> None:
    mirror = link.remote.start("r1", COMMAND, lambda: None)
    await turns()
    link.agent.leave()
    await link.agent.stop_engines()
    with pytest.raises(Problem, match="because the worker of the node n1 ends") as failed:
        await mirror.wait_ready()
    assert failed.value.code == "node_leaving"
    assert mirror.snapshot.exit is not None and mirror.snapshot.exit.fault is Fault.NODE_LEFT


async def test_a_worker_that_ends_starts_nothing(link: Linked, machine: Machine) -> None:
    link.agent.leave()
    await turns()
    mirror = link.remote.start("r1", COMMAND, lambda: None)
    with pytest.raises(Problem, match="starts nothing any more") as refused:
        await mirror.wait_ready()
    assert refused.value.code == "node_leaving" and machine.kept == {}
    assert mirror.snapshot.exit is not None and mirror.snapshot.exit.fault is Fault.NODE_LEFT
    with pytest.raises(Problem, match="starts nothing any more"):
        await link.remote.fetch_weights(LAUNCH, Taken())
    assert machine.fetches == []


async def test_a_node_that_refuses_a_start_as_if_its_worker_ended_is_counted_as_failed(
    link: Linked, machine: Machine
) -> None:
    machine.refusal = Problem("node_leaving", "It ends.", status=503)
    mirror = link.remote.start("r1", COMMAND, lambda: None)
    await turns()
    assert mirror.snapshot.exit is not None and mirror.snapshot.exit.fault is None, "else it is started without a pause"


async def test_the_engines_of_the_next_worker_get_requests(link: Linked, machine: Machine) -> None:
    mirror, _ = await started(link, machine)
    link.agent.leave()
    await turns()
    link.restart_agent(cast(Node, machine))
    await turns()
    assert mirror.snapshot.state is ReplicaState.READY, "it was killed before it had stopped the engine"


# -- operations ---------------------------------------------------------------------------------------------------


async def test_an_operation_reports_its_steps_and_few_of_its_bytes(link: Linked, machine: Machine) -> None:
    taken = Taken()
    machine.may_fetch.set()
    assert await link.remote.fetch_weights(LAUNCH, taken) == Path("/there/weights")
    assert taken.begun == [("fetch", "fetching")] and taken.done[0] == 0 and len(taken.done) < 10
    await turns()
    assert link.agent._operations.state() == ((), ())


async def test_a_cut_link_does_not_end_an_operation(link: Linked, machine: Machine) -> None:
    fetching = asyncio.create_task(link.remote.fetch_weights(LAUNCH, Taken()))
    await turns()
    link.cut()
    machine.may_fetch.set()
    await turns()
    assert not fetching.done()
    link.mend()
    assert await fetching == Path("/there/weights") and machine.fetches == ["began"]


async def test_an_operation_that_is_cancelled_ends_on_the_node_first(link: Linked, machine: Machine) -> None:
    fetching = asyncio.create_task(link.remote.fetch_weights(LAUNCH, Taken()))
    await turns()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert machine.fetches == ["began", "cancelled"]


async def test_an_operation_of_an_agent_that_was_started_again_fails_by_name(link: Linked, machine: Machine) -> None:
    fetching = asyncio.create_task(link.remote.fetch_weights(LAUNCH, Taken()))
    await turns()
    link.restart_agent(cast(Node, machine))
    with pytest.raises(Problem, match="started again during the operation"):
        await fetching


async def test_an_operation_of_an_agent_that_ends_is_lost_with_its_node_and_was_not_cancelled(
    link: Linked, machine: Machine
) -> None:
    fetching = asyncio.create_task(link.remote.fetch_weights(LAUNCH, Taken()))
    await turns()
    await link.agent.close()
    await turns()
    assert not fetching.done() and machine.fetches == ["began", "cancelled"]
    link.remote.give_up()
    with pytest.raises(Problem) as failed:
        await fetching
    assert failed.value.code == "node_gone"


async def test_the_problem_of_an_operation_is_that_of_the_node_and_names_it(link: Linked, machine: Machine) -> None:
    machine.refusal = Problem("hub_unavailable", "No hub.", stage="fetch")
    machine.may_fetch.set()
    with pytest.raises(Problem) as failed:
        await link.remote.fetch_weights(LAUNCH, Taken())
    assert failed.value.to_dict() == machine.refusal.replace(cause="On the node n1: No hub.").to_dict()


# -- questions ----------------------------------------------------------------------------------------------------


async def test_the_host_and_a_header_are_those_of_the_node(link: Linked, machine: Machine) -> None:
    assert await link.remote.host() == HOST
    header = await link.remote.read_header(LAUNCH, Path("w"))
    assert header == await machine.read_header(LAUNCH, Path("w"))


@pytest.mark.parametrize("position", [None, LogPosition("", 0), LogPosition("r1.2a", 2**40)])
async def test_a_log_is_read_on_the_node_byte_by_byte(
    link: Linked, machine: Machine, position: LogPosition | None
) -> None:
    piece = await link.remote.read_log(Path("/logs/r1.log"), 40, position)
    assert piece == Piece(b"\xffsaid\n", LogPosition("r1.2a", 6))
    assert machine.reads == [(Path("/logs/r1.log"), 40, position)]


async def test_a_report_of_the_host_is_used_until_it_is_old(machine: Machine) -> None:
    now = [0.0]
    async with linked(cast(Node, machine)) as link:
        link.remote._clock = lambda: now[0]
        await link.agent.report_host()
        await turns()
        machine.hosts = [replace(HOST, memory_available=1)]
        assert await link.remote.host() == HOST
        now[0] = 3.1
        assert (await link.remote.host()).memory_available == 1


async def test_a_link_that_is_down_is_a_problem_with_the_name_of_the_node(link: Linked) -> None:
    link.cut()
    with pytest.raises(Problem, match="The link to the node n1 is down") as failed:
        await link.remote.host()
    assert failed.value.code == "node_gone"


async def test_only_the_newest_server_is_obeyed(link: Linked, machine: Machine) -> None:
    mirror, real = await started(link, machine)
    await RemoteNode(NODE, link.fabric, epoch=2).host()
    with pytest.raises(Problem, match="epoch 1 was replaced by that of epoch 2") as refused:
        await link.remote.host()
    assert refused.value.code == "earlier_server"
    stopping = asyncio.create_task(mirror.stop())
    await turns()
    assert not real.stopped
    stopping.cancel()


# -- versions -----------------------------------------------------------------------------------------------------


async def test_an_unknown_type_of_question_is_refused_and_an_unknown_field_is_ignored(link: Linked) -> None:
    unknown = msgspec.msgpack.encode({"epoch": 1, "body": {"type": "Rebalance"}})
    answer = decode_answer(await link.fabric.call(NODE, unknown, 5))
    assert isinstance(answer, messages.Refused) and answer.problem["code"] == "node_message_refused"
    newer = msgspec.msgpack.encode({"epoch": 1, "body": {"type": "AskHost", "gpus_only": True}, "trace": "x"})
    assert isinstance(decode_answer(await link.fabric.call(NODE, newer, 5)), messages.HostIs)


async def test_what_cannot_be_read_ends_neither_side(link: Linked, machine: Machine) -> None:
    later = msgspec.msgpack.encode({"type": "OfALaterRelease"})
    for data in (b"", b"\xc1", b"\x80", encode(messages.Done()), b"\x81\xa5epoch\x01", later):
        answer = decode_answer(await link.fabric.call(NODE, data, 5))
        assert isinstance(answer, messages.Refused) and answer.problem["status"] == 502
        link.fabric.tell(NODE, data)
        link.remote.receive(Event(1, data))
    assert (await started(link, machine))[0].snapshot.state is ReplicaState.READY


async def test_a_launch_in_the_form_of_another_release_is_refused(link: Linked) -> None:
    ask = messages.Envelope(1, messages.FindWeights("one", {"request": {}}))
    answer = decode_answer(await link.fabric.call(NODE, encode(ask), 5))
    assert isinstance(answer, messages.Refused) and "another release" in answer.problem["cause"]


@pytest.mark.parametrize(
    "event",
    [
        messages.WholeState((messages.ReplicaReport("r", 1, ReplicaState.READY, 1, "u", Path("l")),), ("o",)),
        messages.Finished("o", Path("/p")),
        messages.ReplicaReport("r", 2, ReplicaState.EXITED, 1, "u", Path("l"), exit=Exit(1, None, ("x",), 0.5)),
    ],
)
def test_an_event_is_read_as_it_was_written(event: messages.EventBody) -> None:
    assert decode_event(encode(event)) == event


def test_the_resources_in_a_report_are_decoded_when_somebody_asks() -> None:
    report = decode_event(encode(messages.HostIs(HOST)))
    assert isinstance(report, messages.HostReport) and decode_host(report) == HOST


async def test_a_report_whose_resources_cannot_be_read_is_as_none(caplog: pytest.LogCaptureFixture) -> None:
    remote = RemoteNode(NODE, MemoryFabric(), 1)
    remote.receive(Event(2, encode(messages.HostIs(HOST)).replace(b"memory_total", b"memory_other")))
    assert remote.last_host is None and "cannot be read" in caplog.text
