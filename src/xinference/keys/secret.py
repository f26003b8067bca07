"""A key as its holder has it, and the digest by which it is known here."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "sk-xinf-"
#: Random bytes in a key: 192 bits, 32 characters.
ENTROPY_BYTES = 24
#: A longer one is no key of ours, and not worth hashing.
MAX_LENGTH = 128


def new_secret() -> str:
    """A new key, such as ``sk-xinf-Zk3…``; it goes into a header or a variable without quoting."""
    return PREFIX + secrets.token_urlsafe(ENTROPY_BYTES)


def digest(secret: bytes) -> bytes:
    """What is kept of a key, and looked up.

    One SHA-256, not a slow hash for passwords: those make up for what people choose, and nobody can guess 192 random
    bits however fast the hash is. Neither does the time of a look-up help to guess: it depends on the digest, which
    whoever tries keys cannot steer.
    """
    return hashlib.sha256(secret).digest()
