"""The certificates of a cluster: who may sign, who is let in, and what a damaged file says."""

from __future__ import annotations

import asyncio
import ssl
import stat
from asyncio import FIRST_COMPLETED
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hosts import node_name
from xinference.nodes.certificates import (
    NODE_DAYS,
    ClusterAuthority,
    NodeIdentity,
    fingerprint,
    peer_node,
    public_bytes,
)

NOW = datetime.now(UTC)
FIRST, SECOND = "n000000000001", "n000000000002"


def _joined(folder: Path, authority: ClusterAuthority, node_id: str, at: datetime = NOW) -> NodeIdentity:
    identity = NodeIdentity(folder)
    identity.save(authority.issue(identity.signing_request(), node_id, at), public_bytes(authority.certificate))
    return identity


async def _connect(server: NodeIdentity, client: ssl.SSLContext, name: str) -> tuple[str, int] | None:
    """Connect over TLS; returns what the server knows of the client."""
    seen: asyncio.Future[tuple[str, int] | None] = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(peer_node(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)))
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server.server_context())
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        writer.write_eof() if writer.can_write_eof() else writer.write(b"x")
        try:
            # With TLS 1.3 a server refuses a client's certificate after the client believes to be connected.
            closed = asyncio.ensure_future(reader.read(1))
            await asyncio.wait((asyncio.ensure_future(asyncio.shield(seen)), closed), return_when=FIRST_COMPLETED)
            if closed.done() and (error := closed.exception()) is not None:
                raise error
            if not seen.done():
                raise ConnectionResetError("the server has closed the connection without an answer")
            return seen.result()
        finally:
            writer.transport.abort()


def test_the_authority_is_created_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first = ClusterAuthority.load_or_create(tmp_path / "ca", NOW)
    again = ClusterAuthority.load_or_create(tmp_path / "ca", NOW)
    assert fingerprint(first.certificate) == fingerprint(again.certificate)
    for file in (tmp_path / "ca").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_without_a_certificate_is_of_an_authority_that_has_signed_nothing(tmp_path: Path) -> None:
    ClusterAuthority.load_or_create(tmp_path, NOW)
    (tmp_path / "authority.pem").unlink()
    ClusterAuthority.load_or_create(tmp_path, NOW)
    assert (tmp_path / "authority.pem").exists()


@pytest.mark.parametrize("name", ["authority.key", "authority.pem"])
def test_a_damaged_authority_is_an_error_and_is_not_replaced(tmp_path: Path, name: str) -> None:
    ClusterAuthority.load_or_create(tmp_path, NOW)
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(Problem) as caught:
        ClusterAuthority.load_or_create(tmp_path, NOW)
    assert caught.value.code == Code.CLUSTER_IDENTITY_DAMAGED and str(tmp_path) in caught.value.cause
    assert (tmp_path / name).read_bytes() == b"nonsense"


def test_an_authority_with_the_key_of_another_is_an_error(tmp_path: Path) -> None:
    ClusterAuthority.load_or_create(tmp_path / "a", NOW)
    ClusterAuthority.load_or_create(tmp_path / "b", NOW)
    (tmp_path / "a" / "authority.key").write_bytes((tmp_path / "b" / "authority.key").read_bytes())
    with pytest.raises(Problem, match="not that of the certificate"):
        ClusterAuthority.load_or_create(tmp_path / "a", NOW)


def test_a_node_gets_its_own_name_whatever_its_request_says(tmp_path: Path) -> None:
    authority = ClusterAuthority.load_or_create(tmp_path / "ca", NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(node_name(SECOND))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    issued = x509.load_pem_x509_certificate(authority.issue(request, FIRST, NOW))
    node = peer_node(issued.public_bytes(serialization.Encoding.DER))
    assert node is not None and node[0] == FIRST
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("request_bytes", [b"", b"nonsense", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_a_damaged_signing_request_is_refused(tmp_path: Path, request_bytes: bytes) -> None:
    authority = ClusterAuthority.load_or_create(tmp_path, NOW)
    with pytest.raises(Problem) as caught:
        authority.issue(request_bytes, FIRST, NOW)
    assert caught.value.code == Code.INVALID_REQUEST


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    authority = ClusterAuthority.load_or_create(tmp_path, NOW)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    with pytest.raises(Problem, match="P-256"):
        authority.issue(request.public_bytes(serialization.Encoding.PEM), FIRST, NOW)


@pytest.mark.parametrize("node_id", ["", "n1", "n00000000000g", "n000000000001.evil", "*"])
def test_only_the_id_of_a_node_is_certified(tmp_path: Path, node_id: str) -> None:
    authority = ClusterAuthority.load_or_create(tmp_path / "ca", NOW)
    request = NodeIdentity(tmp_path / "n").signing_request()
    with pytest.raises(Problem):
        authority.issue(request, node_id, NOW)


def test_a_certificate_is_due_after_two_thirds_of_its_time(tmp_path: Path) -> None:
    authority = ClusterAuthority.load_or_create(tmp_path / "ca", NOW)
    identity = _joined(tmp_path / "n", authority, FIRST)
    assert not identity.is_due(NOW + timedelta(days=NODE_DAYS * 0.6))
    assert identity.is_due(NOW + timedelta(days=NODE_DAYS * 0.7))
    identity.certificate_path.write_bytes(b"nonsense")
    assert identity.is_due(NOW)


async def test_two_nodes_of_a_cluster_know_each_other(tmp_path: Path) -> None:
    authority = ClusterAuthority.load_or_create(tmp_path / "ca", NOW)
    server, client = (_joined(tmp_path / name, authority, name) for name in (FIRST, SECOND))
    seen = await _connect(server, client.client_context(), node_name(FIRST))
    assert seen is not None and seen[0] == SECOND


async def test_a_node_does_not_pass_for_another(tmp_path: Path) -> None:
    authority = ClusterAuthority.load_or_create(tmp_path / "ca", NOW)
    server, client = (_joined(tmp_path / name, authority, name) for name in (FIRST, SECOND))
    with pytest.raises(ssl.SSLCertVerificationError):
        await _connect(server, client.client_context(), node_name(SECOND))


async def test_a_node_of_another_cluster_is_refused_by_both_ends(tmp_path: Path) -> None:
    ours, theirs = (ClusterAuthority.load_or_create(tmp_path / name, NOW) for name in ("a", "b"))
    server, stranger = _joined(tmp_path / "s", ours, FIRST), _joined(tmp_path / "c", theirs, SECOND)
    with pytest.raises(ssl.SSLCertVerificationError):
        await _connect(server, stranger.client_context(), node_name(FIRST))
    blind = stranger.client_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await _connect(server, blind, node_name(FIRST))


async def test_a_client_without_a_certificate_is_refused(tmp_path: Path) -> None:
    authority = ClusterAuthority.load_or_create(tmp_path / "ca", NOW)
    server = _joined(tmp_path / "s", authority, FIRST)
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.load_verify_locations(cadata=public_bytes(authority.certificate).decode())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await _connect(server, nameless, node_name(FIRST))


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    authority = ClusterAuthority.load_or_create(tmp_path / "ca", NOW - timedelta(days=60))
    server = _joined(tmp_path / "s", authority, FIRST, NOW - timedelta(days=40))
    client = _joined(tmp_path / "c", authority, SECOND)
    with pytest.raises(ssl.SSLCertVerificationError):
        await _connect(server, client.client_context(), node_name(FIRST))


def test_an_identity_without_files_says_so(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        NodeIdentity(tmp_path).server_context()
    assert caught.value.code == Code.CLUSTER_IDENTITY_DAMAGED


@pytest.mark.parametrize("certificate", [None, b"", b"nonsense"])
def test_what_is_no_certificate_of_a_node_names_none(certificate: bytes | None) -> None:
    assert peer_node(certificate) is None
