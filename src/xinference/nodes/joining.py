"""How a machine becomes a node: it checks the cluster's authority against its token, and gets a certificate."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from cryptography import x509

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, system_reason
from xinference.fabric.frames import FrameError, read_frame, to_frame
from xinference.files.private_file import write_private
from xinference.hosts import is_server_url, node_name, server_url
from xinference.nodes.certificates import NodeIdentity, fingerprint, now, trusting_context
from xinference.nodes.hello import HELLO_SECONDS, MAX_FIRST_MESSAGE, Hello, Join, Joined, Refusal, Welcome
from xinference.nodes.join_tokens import parse_token
from xinference.tcp_keepalive import NODE

#: Path of the server's API with what a machine needs to know before it joins.
INVITATION_PATH = "/v1/cluster/join"
_URL_HINT = "Give the URL of the supervisor with --endpoint, such as http://10.0.0.1:9997."
_DECODER: msgspec.msgpack.Decoder[Joined | Welcome | Refusal] = msgspec.msgpack.Decoder(Joined | Welcome | Refusal)


class Invitation(msgspec.Struct, frozen=True):
    """What a server says of its cluster to everybody."""

    supervisor: str
    """The node id in the certificate of the supervisor."""
    port: int
    """To which workers connect."""
    authority: str
    """The certificate of the cluster's authority, as PEM."""


class Membership(msgspec.Struct, frozen=True):
    """What a worker stores of the cluster that it has joined."""

    node_id: str
    supervisor: str
    host: str
    port: int


@dataclass(frozen=True)
class WorkerHome:
    """The files of a worker's membership."""

    folder: Path

    @property
    def identity(self) -> NodeIdentity:
        return NodeIdentity(self.folder / "identity")

    def load(self) -> Membership | None:
        """The cluster that this worker has joined; None: none. Blocks.

        Raises:
            Problem: 500 ``cluster_identity_damaged``.
        """
        file = self.folder / "membership.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=Membership)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(
                Code.CLUSTER_IDENTITY_DAMAGED,
                f"{file} cannot be read: {error}.",
                hint=f"Delete the folder {self.folder}, and join with a new token.",
            ) from error

    def is_of(self, authority: str) -> bool:
        """Whether the certificate of this worker is valid, and of the cluster with this fingerprint. Blocks."""
        return self.identity.is_valid(now()) and self.identity.authority_fingerprint() == authority

    @property
    def _link_file(self) -> Path:
        return self.folder / "linked"

    def note_link(self, *, is_up: bool) -> None:
        """Tell the probes of a container whether the worker is linked: a file exists as long as it is. Blocks."""
        with suppress(OSError):
            if is_up:
                self._link_file.touch()
            else:
                self._link_file.unlink(missing_ok=True)

    def save(self, membership: Membership) -> None:
        """Store the membership. Blocks."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.folder / "membership.json", msgspec.json.encode(membership))


def invitation_of(endpoint: str) -> Invitation:
    """Ask a server for its cluster. Blocks.

    Raises:
        Problem: 400 ``bad_endpoint``; 503 ``server_unreachable``; 409 ``not_a_cluster``; 502 ``not_our_server``.
    """
    import httpx2  # a worker that has joined does without it

    url = server_url(endpoint)
    if not is_server_url(url):
        raise bad_request(f"The endpoint {endpoint!r} is not a URL.", hint=_URL_HINT, code=Code.BAD_ENDPOINT)
    try:
        answer = httpx2.get(url + INVITATION_PATH, timeout=HELLO_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Problem(
            Code.SERVER_UNREACHABLE,
            f"No server answers at {url}: {system_reason(error)}.",
            hint=_URL_HINT,
        ) from None
    try:
        if answer.status_code != 200:
            raise Problem.from_dict(_problem_in(answer.json()))
        return msgspec.json.decode(answer.content, type=Invitation)
    except (ValueError, KeyError, TypeError, msgspec.DecodeError):
        raise Problem(
            Code.NOT_OUR_SERVER, f"The server at {url} is not a supervisor of Xinference, or has an earlier release."
        ) from None


def _problem_in(body: Any) -> dict[str, Any]:
    problem = body["problem"]
    if not isinstance(problem, dict):
        raise TypeError(problem)
    return problem


async def join(endpoint: str, token_text: str, name: str, home: WorkerHome) -> Membership:
    """Join the cluster of a server, and store certificate and membership.

    Raises:
        Problem: the token is refused, or is of another cluster; the supervisor is not reached.
    """
    token = parse_token(token_text)
    invitation = await asyncio.to_thread(invitation_of, endpoint)
    host = urlsplit(server_url(endpoint)).hostname or ""
    _check_authority(invitation, token.fingerprint, endpoint)
    request = await asyncio.to_thread(home.identity.signing_request)
    context = trusting_context(invitation.authority.encode())
    stream = await connect(host, invitation.port, context, invitation.supervisor)
    try:
        answer = await ask(stream, Join(token_text, request, name))
    finally:
        stream[1].close()
    assert isinstance(answer, Joined)  # the only answer to `Join` that is no refusal
    membership = Membership(answer.node_id, invitation.supervisor, host, invitation.port)
    home.identity.save(answer.certificate, invitation.authority.encode())
    home.save(membership)
    return membership


async def find_supervisor(membership: Membership, endpoint: str, home: WorkerHome) -> Membership:
    """Store where the supervisor of a cluster that this worker has joined is now.

    Raises:
        Problem: no server answers; 502 ``wrong_cluster``.
    """
    invitation = await asyncio.to_thread(invitation_of, endpoint)
    _check_authority(invitation, home.identity.authority_fingerprint(), endpoint)
    host = urlsplit(server_url(endpoint)).hostname or membership.host
    moved = msgspec.structs.replace(membership, host=host, port=invitation.port)
    home.save(moved)
    return moved


def _check_authority(invitation: Invitation, expected: str, endpoint: str) -> None:
    try:
        found = fingerprint(x509.load_pem_x509_certificate(invitation.authority.encode()))
    except ValueError:
        found = "damaged"
    if found != expected:
        raise Problem(
            Code.WRONG_CLUSTER,
            f"The token is not from the cluster at {endpoint}: its certificate authority is {found}, and the token is "
            f"for {expected}.",
            hint="Use the URL that was printed with the token. With that URL, somebody may intercept the connection.",
        )


async def connect(
    host: str, port: int, context: ssl.SSLContext, supervisor: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the door of a supervisor, and check its name.

    Raises:
        Problem: 503 ``server_unreachable``.
    """
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            stream = await asyncio.open_connection(host, port, ssl=context, server_hostname=node_name(supervisor))
    except OSError as error:  # TimeoutError and SSLError are such errors
        raise Problem(
            Code.SERVER_UNREACHABLE,
            f"The supervisor is not reached at {host}:{port}: {system_reason(error)}.",
            hint="Open the port in its firewall. XINFERENCE_SUPERVISOR_PORT sets its number.",
        ) from None
    NODE.set_on(stream[1].get_extra_info("socket"))
    return stream


async def ask(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], message: Join | Hello) -> Joined | Welcome:
    """Send the first message of a connection; returns the answer.

    Raises:
        Problem: that of the supervisor; 503 ``server_unreachable``: it closed the connection.
    """
    reader, writer = stream
    try:
        writer.write(to_frame(message))
        async with asyncio.timeout(HELLO_SECONDS):
            answer = await read_frame(reader, _DECODER, MAX_FIRST_MESSAGE)
    except (OSError, FrameError) as error:
        raise _closed(system_reason(error)) from None
    if answer is None:
        raise _closed("it closed the connection without an answer")
    if isinstance(answer, Refusal):
        raise Problem.from_dict(answer.problem)
    return answer


def _closed(cause: str) -> Problem:
    return Problem(
        Code.SERVER_UNREACHABLE, f"The supervisor does not answer: {cause}.", hint="Its log may have the reason."
    )
