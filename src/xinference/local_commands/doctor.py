"""`xinference doctor`: the check of this machine, and of the server's port."""

from __future__ import annotations

import socket

from xinference.config import Settings
from xinference.control import checkup
from xinference.control.checkup import Finding

PROBE_SECONDS = 1.0


def examine(settings: Settings) -> list[Finding]:
    """Check all requirements of a launch and of a server. Blocks for some seconds while hubs are probed."""
    return [*checkup.examine(settings), port_finding(settings)]


def port_finding(settings: Settings) -> Finding:
    about = f"port {settings.port}"
    try:
        with socket.create_connection((settings.host, settings.port), PROBE_SECONDS):
            pass
    except OSError:
        return Finding(about, "ok", "free: no server runs here")
    import httpx2

    try:
        answer = httpx2.get(f"{settings.url}/status", timeout=PROBE_SECONDS, trust_env=False)
        if answer.status_code in (401, 403):  # once there are keys; this route needs none
            auth = httpx2.get(f"{settings.url}/v1/cluster/auth", timeout=PROBE_SECONDS, trust_env=False)
            if auth.json()["auth"] is True:
                return Finding(about, "ok", "a server runs; it requires an API key")
        running = answer.json()["version"] if answer.status_code == 200 else None
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        running = None
    if running is None:
        return Finding(about, "lack", "another program listens there", "`xinference serve` needs another --port")
    return Finding(about, "ok", f"a server runs, version {running}")
