"""What a node says is checked: it may be of another release, or somebody else may have taken its machine over."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.fabric.fabric import Event
from xinference.fabric.memory import MemoryFabric
from xinference.hardware.devices import Gpu, Host
from xinference.nodes import messages
from xinference.nodes.hello import MAX_TEXT, hello, printable, refusal_of
from xinference.nodes.membership import CLOCK_SECONDS
from xinference.nodes.message_codec import decode_answer, decode_event, decode_host, encode
from xinference.nodes.node_links import NodeLinks
from xinference.nodes.remote import MAX_UNKNOWN, RemoteNode
from xinference.process.snapshot import ReplicaState

REPORT = {
    "type": "ReplicaReport",
    "replica_id": "r1",
    "serial": 1,
    "state": ReplicaState.READY.value,
    "port": 1,
    "base_url": "http://127.0.0.1:1",
    "log_path": "r1.log",
}
HELLO = hello("machine", "127.0.0.1:9998", {}, "", None)


@pytest.mark.parametrize(
    "changes",
    [{"started_at": math.nan}, {"started_at": math.inf}, {"serial": 2**64 - 1}, {"context": {"tokens": -math.inf}}],
)
def test_a_number_that_is_no_figure_is_refused_in_every_event(changes: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="has the number") as caught:
        decode_event(msgspec.msgpack.encode(REPORT | changes))
    assert caught.value.code == Code.NODE_MESSAGE_REFUSED


@pytest.mark.parametrize("depth", [600, 100_000])
def test_a_message_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    before, after = msgspec.msgpack.encode(REPORT | {"context": {"key": 7}}).split(b"\xa3key\x07")
    with pytest.raises(Problem, match="cannot be read") as caught:
        decode_event(before + b"\xa3key" + b"\x91" * depth + b"\x07" + after)
    assert caught.value.code == Code.NODE_MESSAGE_REFUSED


def test_a_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(Problem, match="cannot be read"):
        decode_event(msgspec.msgpack.encode(REPORT | {"base_url": "name"}).replace(b"name", b"\xff\xfe\xfd\xfc"))


def test_a_number_that_is_no_figure_is_refused_in_every_answer() -> None:
    answer = {"type": "ReplicaIs", "report": REPORT | {"exit": None, "started_at": math.nan}}
    with pytest.raises(Problem, match="has the number nan"):
        decode_answer(msgspec.msgpack.encode(answer))


def test_a_giant_memory_in_a_report_of_a_host_is_refused() -> None:
    report = decode_event(encode(messages.HostIs(Host(8, 2**63, 2**63))))
    assert isinstance(report, messages.HostReport)
    with pytest.raises(Problem, match="9223372036854775808"):
        decode_host(report)


@pytest.mark.parametrize(
    "host",
    [
        Host(0, 1, 1),
        Host(8, -1, 1),
        Host(8, 1, -1),
        Host(8, 1, 1, (Gpu(0, "H100", 1, -1),)),
        Host(8, 1, 1, (Gpu(-1, "H100", 1, 1),)),
        Host(8, 1, 1, (Gpu(0, "H100\x1b[2J", 1, 1),)),
    ],
)
def test_a_host_that_cannot_exist_is_refused(host: Host) -> None:
    report = decode_event(encode(messages.HostIs(host)))
    assert isinstance(report, messages.HostReport)
    with pytest.raises(Problem, match="a negative size, no core, or a name"):
        decode_host(report)


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        ({"status": "abc"}, 500),
        ({"status": math.inf}, 500),
        ({"status": None}, 500),
        ({"status": 200}, 500),
        ({"status": 7}, 500),
        ({"status": 404, "log_tail": 5, "suggestions": 5, "hint": [1], "stage": {}}, 404),
    ],
)
def test_a_problem_of_another_program_is_read_whatever_the_types_of_its_fields_are(
    problem: dict[str, Any], status: int
) -> None:
    read = Problem.from_dict(problem)
    assert (read.status, read.log_tail, read.suggestions, read.hint, read.stage) == (status, (), (), None, None)
    assert str(read) == "unknown problem"


def test_an_event_that_meets_a_defect_ends_no_other_link() -> None:
    def fail(node_id: str, event: messages.ReceivedEvent) -> None:
        raise ZeroDivisionError

    fabric = MemoryFabric()
    links = NodeLinks(fabric, {"n1": RemoteNode("n1", fabric, 1)}, note_event=fail)
    links._take_event("n1", Event(1, encode(messages.WholeState())))


def test_a_node_with_very_many_unknown_replicas_fills_neither_the_log_nor_the_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fabric = MemoryFabric()
    node = RemoteNode("n1", fabric, 1)
    for run in range(3):
        reports = tuple(
            messages.ReplicaReport(f"r{run}-{number}", 1, ReplicaState.READY, 1, "", Path("log"))
            for number in range(3 * MAX_UNKNOWN)
        )
        node.end_unknown(messages.WholeState(reports), lambda replica_id: False)
    assert len(node._given_up) == MAX_UNKNOWN
    assert len(caplog.records) == 3 and all(len(each.getMessage()) < 2000 for each in caplog.records)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "box\nn000000000001  other  READY"},
        {"name": "\x1b[2J"},
        {"name": "b" * (MAX_TEXT + 1)},
        {"version": "\x07"},
        {"labels": {"a": "\x1b[2J"}},
        {"labels": {f"label{number}": "x" for number in range(1000)}},
        {"hubs": ["h" * 1000]},
        {"interface": "eth0\n"},
        {"serves": "10.0.0.1:1/x"},
        {"front_door": ""},
        {"front_door": "10.0.0.1"},
        {"front_door": "10.0.0.1:0"},
        {"front_door": "10.0.0.1:65536"},
        {"front_door": "10.0.0.1:-1"},
        {"front_door": "10.0.0.1: 22"},
        {"front_door": "10.0.0.1:1_0"},
        {"front_door": "user@host:1"},
        {"front_door": "host/path?:1"},
        {"front_door": "10.0.0.1:" + "9" * 200},
        {"clock": math.nan},
        {"clock": math.inf},
    ],
)
def test_a_hello_that_nobody_could_read_or_use_is_refused(changes: dict[str, Any]) -> None:
    assert refusal_of(HELLO, HELLO.clock, "") is None
    assert refusal_of(msgspec.structs.replace(HELLO, **changes), HELLO.clock, "")


@pytest.mark.parametrize("address", ["box-1.example.org:1", "[fd00::1]:9998", "[fe80::1%eth0]:9998", "127.0.0.1:65535"])
def test_each_kind_of_address_is_accepted_in_a_hello(address: str) -> None:
    said = msgspec.structs.replace(HELLO, front_door=address, serves=address)
    assert refusal_of(said, HELLO.clock + CLOCK_SECONDS / 2, "") is None


def test_the_name_of_a_machine_that_joins_is_made_printable() -> None:
    assert printable("a\x1b[2J\nb" + "c" * 300) == ("a?[2J?b" + "c" * 300)[:MAX_TEXT]
