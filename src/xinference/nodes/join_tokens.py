"""Join tokens: ``xt_<id>.<secret>@<fingerprint>``, with which a new node is let into the cluster.

The fingerprint is that of the cluster's authority, so that the node knows whom it talks to before it sends the token.
Of the secret only the hash is stored.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, replace

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.keys.secret import digest

_TOKEN = re.compile(r"xt_(?P<id>[0-9a-f]{8})\.(?P<secret>[A-Za-z0-9_-]{32,64})@(?P<fingerprint>[0-9a-f]{16})", re.ASCII)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token as a person types it."""

    token_id: str
    secret: str
    fingerprint: str

    @property
    def text(self) -> str:
        return f"xt_{self.token_id}.{self.secret}@{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as it is stored. Times are seconds since the epoch."""

    token_id: str
    digest: str
    """SHA-256 of the secret, hexadecimal; the secret is random, so it needs no salt."""
    expires: float
    uses_left: int | None
    """How many nodes may still join with it; None: any number."""
    revoked: bool = False


def parse_token(text: str) -> JoinToken:
    """Read a token.

    Raises:
        Problem: 400 ``invalid_join_token``.
    """
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise Problem(
            Code.INVALID_JOIN_TOKEN,
            "The join token is not complete: it has the form xt_<id>.<secret>@<fingerprint>.",
            hint="Copy the whole line that `xinference cluster token create` prints.",
        )
    return JoinToken(match["id"], match["secret"], match["fingerprint"])


def create_token(fingerprint: str, now: float, seconds: float, uses: int | None) -> tuple[JoinToken, TokenRow]:
    """A new token, and the row to store for it."""
    token = JoinToken(secrets.token_hex(4), secrets.token_urlsafe(32), fingerprint)
    return token, TokenRow(token.token_id, _digest(token.secret), now + seconds, uses)


def use_token(row: TokenRow | None, token: JoinToken, now: float) -> TokenRow:
    """The row after one more node has joined with `token`; `row` is the stored one of its id.

    Raises:
        Problem: 401 ``join_token_refused``, with the reason only if the secret is right.
    """
    if row is None or not hmac.compare_digest(row.digest, _digest(token.secret)):
        raise _refused("it is unknown to this cluster")
    if row.revoked:
        raise _refused("it has been revoked")
    if now >= row.expires:
        raise _refused("it has expired")
    if row.uses_left is not None and row.uses_left <= 0:
        raise _refused("it has been used as often as it may be")
    return row if row.uses_left is None else replace(row, uses_left=row.uses_left - 1)


def _digest(secret: str) -> str:
    return digest(secret.encode()).hex()


def _refused(cause: str) -> Problem:
    return Problem(
        Code.JOIN_TOKEN_REFUSED,
        f"The join token is refused: {cause}.",
        hint="Create one on the supervisor: xinference cluster token create",
    )
