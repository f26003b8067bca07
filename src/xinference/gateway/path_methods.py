"""The methods of the paths that the gateway itself serves for reading."""

from __future__ import annotations

from xinference.error_codes import Code
from xinference.gateway import anthropic
from xinference.protocol.errors import Refusal

_READ = ("GET", "HEAD")
_ALLOWED = {"/metrics": _READ, "/v1/models": ("GET", "HEAD", "POST"), anthropic.MODELS: _READ}


def refused_method(method: str, path: str) -> Refusal | None:
    """The refusal of a method that one of these paths does not have; None: another path or method."""
    allowed = _READ if path.startswith(f"{anthropic.MODELS}/") else _ALLOWED.get(path)
    if allowed is None or method in allowed:
        return None
    names = ", ".join(allowed)
    headers = ((b"allow", names.encode()),)
    return Refusal(Code.METHOD_NOT_ALLOWED, f"{path[:200]} accepts {names}, not {method}.", headers=headers)
