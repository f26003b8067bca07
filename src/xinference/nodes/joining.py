"""How a machine becomes a node: it checks the cluster's authority against its token, and gets a certificate."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from cryptography import x509

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, system_reason
from xinference.fabric.frames import FrameError, read_frame, to_frame
from xinference.files.private_file import write_private
from xinference.files.small_file import read_small
from xinference.hosts import is_server_url, node_name, server_url
from xinference.nodes.certificates import NODE_ID, NodeIdentity, fingerprint, now, public_bytes, trusting_context
from xinference.nodes.hello import HELLO_SECONDS, MAX_FIRST_MESSAGE, Hello, Join, Joined, Refusal, Welcome
from xinference.nodes.join_tokens import parse_token
from xinference.tcp_keepalive import NODE
from xinference.timestamps import utc_time

#: Path of the server's API with what a machine needs to know before it joins.
INVITATION_PATH = "/v1/cluster/join"
_URL_HINT = "Give the URL of the supervisor with --endpoint, such as http://10.0.0.1:9997."
#: OpenSSL's numbers for a certificate that is used outside of its time -> the words for it.
_OUTSIDE_OF_ITS_TIME = {9: "not valid yet", 10: "not valid any more"}
_DECODER: msgspec.msgpack.Decoder[Joined | Welcome | Refusal] = msgspec.msgpack.Decoder(Joined | Welcome | Refusal)


class Invitation(msgspec.Struct, frozen=True):
    """What a server says of its cluster to everybody."""

    supervisor: Annotated[str, msgspec.Meta(pattern=f"^{NODE_ID.pattern}\\Z")]
    """The node id in the certificate of the supervisor."""
    port: Annotated[int, msgspec.Meta(ge=1, lt=2**16)]
    """To which workers connect."""
    authority: str
    """The certificate of the cluster's authority, as PEM."""


class _ProblemAnswer(msgspec.Struct, frozen=True):
    problem: dict[str, Any]


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
            return msgspec.json.decode(read_small(file), type=Membership)
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


async def invitation_of(endpoint: str) -> Invitation:
    """Ask a server for its cluster.

    Raises:
        Problem: 400 ``bad_endpoint``; 503 ``server_unreachable``; 409 ``not_a_cluster``; 502 ``not_our_server``.
    """
    import httpx2  # a worker that has joined does without it

    url = server_url(endpoint)
    if not is_server_url(url):
        raise bad_request(f"The endpoint {endpoint!r} is not a URL.", hint=_URL_HINT, code=Code.BAD_ENDPOINT)
    try:
        async with (
            asyncio.timeout(HELLO_SECONDS),
            httpx2.AsyncClient(timeout=HELLO_SECONDS, headers={"accept-encoding": "identity"}) as client,
            client.stream("GET", url + INVITATION_PATH) as answer,
        ):
            content = await _content(answer.aiter_raw())
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        slow = isinstance(error, TimeoutError | httpx2.TimeoutException)
        cause = f"it has not answered within {HELLO_SECONDS:g} s" if slow else _reason(error)
        raise Problem(
            Code.SERVER_UNREACHABLE,
            f"No server answers at {url}: {cause}.",
            hint=_URL_HINT,
        ) from None
    try:
        if answer.status_code != 200:
            raise Problem.from_dict(msgspec.json.decode(content, type=_ProblemAnswer).problem)
        return msgspec.json.decode(content, type=Invitation)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise Problem(
            Code.NOT_OUR_SERVER, f"The server at {url} is not a supervisor of Xinference, or has an earlier release."
        ) from None


def _reason(error: BaseException) -> str:
    """Why a connection failed: the client's own error says only that every attempt has failed."""
    behind: BaseException | None = error
    while behind is not None:
        number = behind.errno if isinstance(behind, OSError) and not isinstance(behind, ssl.SSLError) else None
        if number is not None and number > 0:
            return os.strerror(number)
        first = behind.exceptions[0] if isinstance(behind, BaseExceptionGroup) else None  # of several addresses
        behind = first or behind.__cause__ or behind.__context__
    return system_reason(error)


async def _content(pieces: AsyncIterator[bytes]) -> bytes:
    """The body of an answer; nothing if it is too long for an invitation."""
    content = b""
    async for piece in pieces:
        content += piece
        if len(content) > MAX_FIRST_MESSAGE:
            return b""
    return content


async def join(endpoint: str, token_text: str, name: str, home: WorkerHome) -> Membership:
    """Join the cluster of a server, and store certificate and membership.

    Raises:
        Problem: the token is refused, or is of another cluster; the supervisor is not reached.
    """
    token = parse_token(token_text)
    invitation = await invitation_of(endpoint)
    host = urlsplit(server_url(endpoint)).hostname or ""
    authority = _checked_authority(invitation, token.fingerprint, endpoint)
    request = await asyncio.to_thread(home.identity.signing_request)
    context = trusting_context(authority)
    stream = await connect(host, invitation.port, context, invitation.supervisor)
    try:
        answer = await ask(stream, Join(token_text, request, name))
    finally:
        stream[1].close()
    if not isinstance(answer, Joined) or NODE_ID.fullmatch(answer.node_id) is None:
        raise _closed("it has sent another answer than a certificate for this machine")
    membership = Membership(answer.node_id, invitation.supervisor, host, invitation.port)
    home.identity.save(answer.certificate, authority)
    home.save(membership)
    return membership


async def find_supervisor(membership: Membership, endpoint: str, home: WorkerHome) -> Membership:
    """Store where the supervisor of a cluster that this worker has joined is now.

    Raises:
        Problem: no server answers; 502 ``wrong_cluster``.
    """
    invitation = await invitation_of(endpoint)
    _checked_authority(invitation, home.identity.authority_fingerprint(), endpoint)
    host = urlsplit(server_url(endpoint)).hostname or membership.host
    moved = msgspec.structs.replace(membership, host=host, port=invitation.port)
    home.save(moved)
    return moved


def _checked_authority(invitation: Invitation, expected: str, endpoint: str) -> bytes:
    """The authority of an invitation, as PEM.

    It is written anew: the text may have the certificates of other authorities after the one with the fingerprint, and
    TLS would trust all of them.

    Raises:
        Problem: 502 ``wrong_cluster``.
    """
    found = "damaged"
    with suppress(ValueError):
        certificate = x509.load_pem_x509_certificate(invitation.authority.encode())
        found = fingerprint(certificate)
        if found == expected:
            return public_bytes(certificate)
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
    except ssl.SSLCertVerificationError as error:
        raise _untrusted(host, port, error) from None
    except OSError as error:  # TimeoutError and SSLError are such errors
        raise Problem(
            Code.SERVER_UNREACHABLE,
            f"The supervisor is not reached at {host}:{port}: {system_reason(error)}.",
            hint="Open the port in its firewall. XINFERENCE_SUPERVISOR_PORT sets its number.",
        ) from None
    NODE.set_on(stream[1].get_extra_info("socket"))
    return stream


def _untrusted(host: str, port: int, error: ssl.SSLCertVerificationError) -> Problem:
    """The problem of a certificate that this machine does not accept."""
    if error.verify_code in _OUTSIDE_OF_ITS_TIME:
        return Problem(
            Code.SERVER_UNREACHABLE,
            f"The certificate of the supervisor at {host}:{port} is {_OUTSIDE_OF_ITS_TIME[error.verify_code]} by the "
            f"clock of this machine, which shows {utc_time(time.time())}.",
            hint="Set the clocks of both machines; those of a cluster may differ by 60 s.",
        )
    return Problem(
        Code.SERVER_UNREACHABLE,
        f"The server at {host}:{port} is not the supervisor of this cluster: {system_reason(error)}.",
        hint="XINFERENCE_SUPERVISOR_PORT sets the number of the port of a supervisor.",
    )


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
