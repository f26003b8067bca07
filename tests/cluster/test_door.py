"""Who joins a cluster, who is linked, and who is refused with which reason."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from tests.cluster.conftest import Machine, Site, a_cluster
from tests.support.loopback_server import serve_connections
from tests.support.polling import until_async
from tests.support.ports import free_port
from xinference.cluster import door
from xinference.cluster.rows import ClusterRows
from xinference.cluster.supervisor import Cluster
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import InUse, Problem
from xinference.fabric.frames import to_frame
from xinference.nodes.certificates import ClusterAuthority, NodeIdentity, now
from xinference.nodes.hello import PROTOCOL, hello, refusal_of
from xinference.nodes.join_tokens import parse_token
from xinference.nodes.joining import WorkerHome, connect
from xinference.nodes.membership import NodeState
from xinference.store.database import Store

HELLO = hello("machine", "127.0.0.1:1", {}, "", None)


async def test_a_machine_joins_by_a_token_and_is_linked_by_its_certificate(site: Site) -> None:
    machine = site.machine()
    node_id = await machine.join()
    welcome = await machine.greet(hello("box", f"127.0.0.1:{site.data_port}", {"gpu": "h100"}, "", None))
    assert welcome.epoch == 1 and welcome.certificate is None
    member = site.cluster.members.get(node_id)
    assert (member.name, member.labels, member.front_door) == ("box", {"gpu": "h100"}, f"127.0.0.1:{site.data_port}")
    assert member.node.front_door == f"https://127.0.0.1:{site.data_port}" and site.nodes[node_id] is member.node


async def test_a_second_worker_of_a_machine_is_told_that_both_plan_with_its_memory(site: Site) -> None:
    first, second = site.machine("a"), site.machine("b")
    for each in (first, second):
        await each.join()
    said = [hello("box", f"127.0.0.1:{site.data_port}", {}, machine, None) for machine in ("one", "one", "two")]
    assert (await first.greet(said[0])).warning == ""
    await until_async("it is linked", lambda: site.cluster.members.get(first.node_id).known.link_is_up)
    assert f"is on the same machine as {first.node_id}: each of them" in (await second.greet(said[1])).warning
    assert (await second.greet(said[2])).warning == ""


async def test_a_machine_that_joins_again_is_the_same_node(site: Site) -> None:
    machine = site.machine()
    assert await machine.join() == await machine.join()
    assert len(list(site.cluster.members)) == 1


async def test_a_token_is_for_as_many_machines_as_it_says(site: Site) -> None:
    text = site.cluster.create_token(60, 1)[0].text
    await site.machine("a").join(text)
    with pytest.raises(Problem, match="as often as it may be") as caught:
        await site.machine("b").join(text)
    assert caught.value.code == Code.JOIN_TOKEN_REFUSED


@pytest.mark.parametrize("kind", ["expired", "revoked", "unknown", "damaged"])
async def test_a_token_that_is_not_valid_is_refused(site: Site, kind: str) -> None:
    token, row = site.cluster.create_token(-1 if kind == "expired" else 60, 1)
    if kind == "revoked":
        site.cluster.revoke_token(row.token_id)
    text = {"unknown": replace(token, secret="A" * 43).text, "damaged": "xt_nothing"}.get(kind, token.text)
    with pytest.raises(Problem) as caught:
        await site.machine().join(text)
    assert caught.value.code == (Code.INVALID_JOIN_TOKEN if kind == "damaged" else Code.JOIN_TOKEN_REFUSED)
    assert not list(site.cluster.members)


async def test_a_machine_without_a_certificate_is_not_linked(site: Site) -> None:
    from xinference.nodes.certificates import trusting_context
    from xinference.nodes.joining import ask

    context = trusting_context(site.cluster.authority)
    stream = await connect("127.0.0.1", site.cluster.port, context, site.cluster.supervisor_id)
    with pytest.raises(Problem, match="no certificate of a node") as caught:
        await ask(stream, HELLO)
    stream[1].close()
    assert caught.value.code == Code.NODE_REFUSED


async def test_a_certificate_of_another_cluster_is_not_linked(site: Site, tmp_path: Path) -> None:
    machine = site.machine()
    node_id = await machine.join()
    other = ClusterAuthority.load_or_create(tmp_path / "other", now())
    stranger = Machine(site.cluster, WorkerHome(tmp_path / "stranger"), site.data_port)
    certificate = other.issue(stranger.home.identity.signing_request(), node_id, now())
    stranger.home.identity.save(certificate, site.cluster.authority)
    with pytest.raises(Problem) as caught:
        await stranger.greet()
    assert caught.value.code == Code.SERVER_UNREACHABLE
    assert site.cluster.members.get(node_id).front_door == ""


async def test_an_expired_certificate_is_not_linked(site: Site) -> None:
    machine = site.machine()
    node_id = await machine.join()
    old = site.cluster._authority.issue(machine.home.identity.signing_request(), node_id, now() - timedelta(days=40))
    machine.home.identity.save(old, site.cluster.authority)
    assert not machine.home.identity.is_valid(now())
    with pytest.raises(Problem):
        await machine.greet()


async def test_a_removed_node_is_refused_and_cannot_join_again(site: Site) -> None:
    machine = site.machine()
    node_id = await machine.join()
    await machine.greet()
    await site.cluster.remove(node_id)
    assert node_id not in site.nodes and not list(site.cluster.members)
    for attempt in (machine.greet, machine.join):
        with pytest.raises(Problem, match="was removed") as caught:
            await attempt()
        assert caught.value.code == Code.NODE_REFUSED


async def test_a_certificate_that_is_due_is_renewed_for_the_same_key_only(site: Site, tmp_path: Path) -> None:
    machine = site.machine()
    await machine.join()
    request = machine.home.identity.signing_request()
    said = hello("box", f"127.0.0.1:{site.data_port}", {}, "", request)
    welcome = await machine.greet(said)
    assert welcome.certificate is not None and b"BEGIN CERTIFICATE" in welcome.certificate
    foreign = NodeIdentity(tmp_path / "foreign").signing_request()
    with pytest.raises(Problem, match="another key"):
        await machine.greet(msgspec.structs.replace(said, request=foreign))


async def test_a_data_port_that_cannot_be_reached_is_named_in_the_refusal(site: Site) -> None:
    machine = site.machine()
    await machine.join()
    port = free_port()
    with pytest.raises(Problem, match=f"127.0.0.1:{port}") as caught:
        await machine.greet(hello("box", f"127.0.0.1:{port}", {}, "", None))
    assert caught.value.code == Code.NODE_REFUSED and "--host" in caught.value.cause


async def test_a_data_port_of_another_node_is_not_taken_for_that_of_the_node(site: Site) -> None:
    machine, other = site.machine("a"), site.machine("b")
    await machine.join()
    await other.join()

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serve_connections(nothing, other.home.identity.server_context()) as port:
        with pytest.raises(Problem, match=f"another program answers at its data port 127.0.0.1:{port}") as caught:
            await machine.greet(hello("box", f"127.0.0.1:{port}", {}, "", None))
    assert caught.value.code == Code.NODE_REFUSED and "--host" in caught.value.cause


async def test_the_supervisors_own_machine_is_no_worker_that_can_be_drained(site: Site) -> None:
    with pytest.raises(Problem, match="local is the supervisor's own machine") as caught:
        site.cluster.drain("local", drained=True)
    assert "--no-models" in str(caught.value.hint)


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", to_frame({"type": "nonsense"}), b"\xff" * 8]
)
async def test_what_is_no_message_ends_the_connection_and_no_other(site: Site, said: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", site.cluster.port, ssl=context)
    writer.write(said)
    if not said:
        writer.close()
    assert await reader.read() == b""
    writer.close()
    await site.machine().join()


async def _silent_strangers(site: Site, count: int) -> list[asyncio.StreamWriter]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    streams = [await asyncio.open_connection("127.0.0.1", site.cluster.port, ssl=context) for _ in range(count)]
    return [writer for _, writer in streams]


async def test_machines_that_connect_and_say_nothing_keep_nobody_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_STRANGERS", 3)
    node = site.machine("node")
    await node.join()
    strangers = await _silent_strangers(site, 5)
    assert (await node.greet()).epoch == 1
    assert await site.machine("new").join()
    for each in strangers:
        each.close()


@pytest.mark.parametrize("begin", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
async def test_500_connections_that_set_up_no_tls_keep_nobody_out(site: Site, begin: bytes) -> None:
    node = site.machine("node")
    await node.join()
    writers = [(await asyncio.open_connection("127.0.0.1", site.cluster.port))[1] for _ in range(500)]
    for each in writers:
        each.write(begin)
    assert (await node.greet()).epoch == 1
    assert await site.machine("new").join()
    for each in writers:
        each.transport.abort()


async def test_a_node_that_connects_often_and_says_nothing_has_one_connection(site: Site) -> None:
    node = site.machine()
    node_id = await node.join()
    context = node.home.identity.client_context()
    streams = [await connect("127.0.0.1", site.cluster.port, context, site.cluster.supervisor_id) for _ in range(3)]
    assert [await reader.read() for reader, _ in streams[:2]] == [b"", b""]
    assert list(site.cluster._door._greeting) == [node_id]
    for _, writer in streams:
        writer.close()


async def test_a_name_with_control_characters_joins_with_a_readable_one(site: Site) -> None:
    from xinference.nodes.certificates import trusting_context
    from xinference.nodes.hello import Join
    from xinference.nodes.joining import ask

    machine = site.machine()
    context = trusting_context(site.cluster.authority)
    stream = await connect("127.0.0.1", site.cluster.port, context, site.cluster.supervisor_id)
    request = machine.home.identity.signing_request()
    await ask(stream, Join(site.cluster.create_token(60, 1)[0].text, request, "a\nb\x1b[2J"))
    stream[1].close()
    assert [member.name for member in site.cluster.members] == ["a?b?[2J"]


def test_the_reasons_of_a_refusal_name_both_sides() -> None:
    clock = HELLO.clock
    assert refusal_of(HELLO, clock, "") is None
    newer = msgspec.structs.replace(HELLO, protocol=(PROTOCOL[0] + 1, 0))
    assert "upgrade the supervisor" in (refusal_of(newer, clock, "") or "")
    older = msgspec.structs.replace(HELLO, protocol=(PROTOCOL[0] - 1, 9))
    assert "upgrade the node" in (refusal_of(older, clock, "") or "")
    minor = msgspec.structs.replace(HELLO, protocol=(PROTOCOL[0], 99))
    assert refusal_of(minor, clock, "") is None
    assert "differs from the supervisor's by 61 s" in (refusal_of(HELLO, clock + 61, "") or "")
    same = msgspec.structs.replace(HELLO, machine="one")
    assert "--no-models" in (refusal_of(same, clock, "one") or "")
    assert refusal_of(same, clock, "other") is None


async def test_the_next_server_knows_its_nodes_and_has_a_higher_epoch(tmp_path: Path) -> None:
    async with a_cluster(tmp_path) as site:
        machine = site.machine()
        node_id = await machine.join()
        authority, supervisor = site.cluster.authority, site.cluster.supervisor_id
    async with a_cluster(tmp_path) as again:
        assert (again.cluster.authority, again.cluster.supervisor_id) == (authority, supervisor)
        member = again.cluster.members.get(node_id)
        assert again.cluster.members.state_of(member) is NodeState.UNREACHABLE
        machine.cluster, machine.port = again.cluster, again.data_port
        again.machines.append(machine)
        assert (await machine.greet()).epoch == 2


async def test_a_drained_node_stays_drained_under_the_next_server(tmp_path: Path) -> None:
    async with a_cluster(tmp_path) as site:
        node_id = await site.machine().join()
        site.cluster.drain("machine", drained=True)
    async with a_cluster(tmp_path) as again:
        assert again.cluster.members.get(node_id).known.is_drained
        again.cluster.drain(node_id, drained=False)
        assert not ClusterRows(again.cluster._rows._store).nodes()[0].is_drained


async def test_a_node_is_found_by_its_name_and_its_address_if_one_has_it(site: Site) -> None:
    first, second = site.machine("a"), site.machine("b")
    node_id = await first.join()
    await first.greet()
    assert site.cluster.members.get("127.0.0.1").node_id == node_id
    await second.join()
    with pytest.raises(Problem, match="2 nodes are called machine"):
        site.cluster.members.get("machine")
    with pytest.raises(Problem, match=node_id) as caught:
        site.cluster.members.get("nobody")
    assert caught.value.code == Code.NODE_NOT_FOUND


async def test_tokens_are_listed_without_their_secrets(site: Site) -> None:
    token, row = site.cluster.create_token(60, None)
    assert site.cluster.tokens() == [row] and parse_token(token.text) == token
    assert row.expires > time.time()
    with pytest.raises(Problem, match="no join token"):
        site.cluster.revoke_token("00000000")


async def test_a_port_for_workers_that_is_in_use_is_named_once(tmp_path: Path) -> None:
    async with a_cluster(tmp_path / "one") as site:
        settings = Settings(home=tmp_path / "two", supervisor_port=site.cluster.port, no_models=True)
        settings.make_home()
        store = Store(settings.home / "xinference.db")
        with pytest.raises(InUse, match=rf"on 127\.0\.0\.1:{site.cluster.port}: Address already in use\."):
            await Cluster(settings, store, {}).start()
        store.close()
