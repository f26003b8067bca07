"""The token that `xinference login` saves for an endpoint, in a file that only the user can read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from xinference.config import Settings
from xinference.files.small_file import read_small_text


def token_file(settings: Settings) -> Path:
    """The file of the token for this endpoint."""
    return settings.home / "auth" / hashlib.sha256(settings.url.encode()).hexdigest()


def saved_token(settings: Settings) -> str | None:
    """The token of the last login to this endpoint, or None."""
    try:
        return read_small_text(token_file(settings)).strip() or None
    except OSError:
        return None


def save_token(settings: Settings, token: str) -> None:
    """Save a token, in place of an older one."""
    file = token_file(settings)
    settings.make_home()
    file.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=file.parent)  # made with mode 0600
    with os.fdopen(descriptor, "w") as opened:
        opened.write(token)
    Path(draft).replace(file)
