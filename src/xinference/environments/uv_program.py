"""Where uv is."""

from __future__ import annotations

import shutil

from xinference.errors import Problem


def uv_program() -> str:
    """The uv that came with us, or else the one on PATH.

    Raises:
        Problem: 500 ``uv_missing``.
    """
    try:
        from uv import find_uv_bin
    except ImportError:
        found = shutil.which("uv")
    else:
        try:
            return find_uv_bin()
        except FileNotFoundError:
            found = shutil.which("uv")
    if found is None:
        raise Problem(
            "uv_missing",
            500,
            "uv, which builds the engines' environments, is not there.",
            hint="Install it: `pip install uv`.",
        )
    return found
