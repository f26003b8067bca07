"""Why a Ray cluster cannot be used: the code, the cause and the way out for the errors of Ray. Pure."""

from __future__ import annotations

import re

from xinference.error_codes import Code
from xinference.fabric.ray_messages import RayLost


def lost_of(address: str, error: BaseException) -> RayLost:
    """What an error at the connection to Ray means."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImportError) or "grpcio" in text:
        return RayLost(
            Code.RAY_NOT_INSTALLED,
            f"Ray's client for {address} is not installed: {text[:200]}",
            'pip install "ray[client]", of the version of the Ray cluster.',
        )
    if "ersion mismatch" in text:
        return RayLost(
            Code.RAY_VERSION_DIFFERS,
            f"The Ray cluster at {address} has another version: {_shortened(text)}",
            "Use exactly the same versions of Ray and Python for this server as for the cluster.",
        )
    if re.search(r"[Aa]uthenticat|[Tt]oken|UNAUTHENTICATED", text):
        return RayLost(
            Code.RAY_REFUSED,
            f"The Ray cluster at {address} refuses this server: {_shortened(text)}",
            "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the token of the cluster for this server.",
        )
    return unreachable(_shortened(text), address)


def unreachable(cause: str, address: str = "") -> RayLost:
    """Ray does not answer."""
    where = f" at {address}" if address else ""
    return RayLost(
        Code.RAY_UNREACHABLE,
        f"The Ray cluster{where} does not answer: {cause}.",
        "Start it, or give another --ray-address: auto, HOST:PORT of its head from one of its nodes, or ray://HOST:10001.",
    )


def _shortened(text: str) -> str:
    return text[:300].rstrip(". ")
