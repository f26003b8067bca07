"""The secret of a key, and the digest by which the server identifies it."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "sk-xinf-"
#: Random bytes in a key: 192 bits, 32 characters.
ENTROPY_BYTES = 24
#: Size of a digest by SHA-256.
DIGEST_BYTES = 32
#: A longer text cannot be a key, and is not hashed.
MAX_LENGTH = 128


def new_secret() -> str:
    """A new key, such as ``sk-xinf-Zk3…``; it needs no quoting in a header or a variable."""
    return PREFIX + secrets.token_urlsafe(ENTROPY_BYTES)


def digest(secret: bytes) -> bytes:
    """The stored digest of a key, used for look-ups.

    One SHA-256, not a slow hash for passwords: those protect weak passwords, and 192 random
    bits cannot be guessed however fast the hash is. The time of a look-up does not help to guess either: it depends on
    the digest, which an attacker cannot choose.
    """
    return hashlib.sha256(secret).digest()
