"""Finds the uv program."""

from __future__ import annotations

import shutil

from xinference.error_codes import Code
from xinference.errors import Problem


def uv_program() -> str:
    """The path of the bundled uv, or else of the one on PATH.

    Raises:
        Problem: 500 ``uv_missing``.
    """
    try:
        from uv import find_uv_bin
    except ImportError:
        program = shutil.which("uv")
    else:
        try:
            return find_uv_bin()
        except FileNotFoundError:
            program = shutil.which("uv")
    if program is None:
        raise Problem(
            Code.UV_MISSING,
            "uv, which builds the engines' environments, is not installed.",
            hint="Install it: `pip install uv`.",
        )
    return program
