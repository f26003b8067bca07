"""A supervisor's cluster with its door open, and machines that dial it over real TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.loopback_server import serve_connections
from xinference.cluster.supervisor import Cluster
from xinference.config import Settings
from xinference.hosts import node_name
from xinference.nodes.certificates import trusting_context
from xinference.nodes.hello import Hello, Join, Joined, Welcome, hello
from xinference.nodes.joining import Membership, WorkerHome, ask, connect
from xinference.nodes.node import Node
from xinference.store.database import Store


@dataclass
class Machine:
    """A machine that joins, or has joined."""

    cluster: Cluster
    home: WorkerHome
    port: int = 1
    """That of its data port."""
    node_id: str = ""
    streams: list[asyncio.StreamWriter] = field(default_factory=list)

    async def join(self, token: str | None = None) -> str:
        """Ask for a certificate, and store it; returns the node id."""
        text = self.cluster.create_token(60, 1)[0].text if token is None else token
        context = trusting_context(self.cluster.authority)
        stream = await connect("127.0.0.1", self.cluster.port, context, self.cluster.supervisor_id)
        try:
            answer = await ask(stream, Join(text, self.home.identity.signing_request(), "machine"))
        finally:
            stream[1].close()
        assert isinstance(answer, Joined)
        self.home.identity.save(answer.certificate, self.cluster.authority)
        self.home.save(Membership(answer.node_id, self.cluster.supervisor_id, "127.0.0.1", self.cluster.port))
        self.node_id = answer.node_id
        return answer.node_id

    async def greet(self, said: Hello | None = None) -> Welcome:
        """Say hello with the certificate; the connection stays open."""
        said = said or hello("machine", f"127.0.0.1:{self.port}", {}, "", None)
        context = self.home.identity.client_context()
        stream = await connect("127.0.0.1", self.cluster.port, context, self.cluster.supervisor_id)
        self.streams.append(stream[1])
        answer = await ask(stream, said)
        assert isinstance(answer, Welcome)
        return answer


@dataclass
class Site:
    """A cluster, and the folder of its machines."""

    cluster: Cluster
    folder: Path
    data_port: int
    nodes: dict[str, Node]
    machines: list[Machine] = field(default_factory=list)

    def machine(self, name: str = "m") -> Machine:
        made = Machine(self.cluster, WorkerHome(self.folder / name), self.data_port)
        self.machines.append(made)
        return made


def _tls_of(machines: list[Machine]) -> ssl.SSLContext:
    """TLS of a port at which each machine answers with its own certificate."""

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        machine = next((each for each in machines if node_name(each.node_id) == name), None)
        if machine is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = machine.home.identity.server_context()
        return None

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = choose
    return context


@asynccontextmanager
async def a_cluster(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    """A cluster in `folder`, with a data port that any machine may name."""
    made = Settings(home=folder / "home", supervisor_port=0, no_models=True, **settings)
    made.make_home()
    store = Store(made.home / "xinference.db")
    nodes: dict[str, Node] = {}
    cluster = Cluster(made, store, nodes)

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    machines: list[Machine] = []
    async with serve_connections(nothing, _tls_of(machines)) as data_port:
        await cluster.start()
        site = Site(cluster, folder, data_port, nodes, machines)
        try:
            yield site
        finally:
            for machine in site.machines:
                for stream in machine.streams:
                    stream.close()
            await cluster.close()
            store.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_cluster(tmp_path) as made:
        yield made
