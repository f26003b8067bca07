"""Serves the page of an Xinference wheel by the wheel's own code, with the answers of one of our servers.

    python -m benchmarks.peer_page FOLDER PORT UPSTREAM

FOLDER is the unpacked wheel. Its files are served by its own `api/frontend_static.py` (FastAPI's static files, no
compression), in the order and with the CORS layer of its own server, on uvicorn. Its API is simulated: a request for
data is answered by the server at UPSTREAM, which has the same routes. Routes that only the wheel's server has are
answered by what a fresh server without users and keys answers.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from tests.support.end_signals import end_as_ctrl_c

#: Answers of a fresh server to requests that ours does not serve.
OWN_ANSWERS: dict[str, Any] = {
    "v1/admin/setup/status": {"initialized": True, "auth_advanced": False, "needs_setup": False},
    "v1/cluster/auth": {"auth": False, "auth_advanced": False},
    "v1/cluster/ui_config": {"auth": False, "auth_advanced": False},
    "v1/cluster/runtime": {"auth": False, "auth_advanced": False},
    "v1/model_favorites": [],
}


def build(folder: Path, upstream: str) -> FastAPI:
    """The wheel's page with the data of `upstream`."""
    app = FastAPI()
    app.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
    )
    client = httpx2.AsyncClient(base_url=upstream, timeout=60)

    @app.api_route("/v1/{path:path}", methods=["GET", "POST"])
    async def data(path: str, request: Request) -> Response:
        own = OWN_ANSWERS.get(f"v1/{path}")
        if own is not None:
            return JSONResponse(own)
        answer = await client.request(
            request.method, f"/v1/{path}", params=request.query_params, content=await request.body()
        )
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    mount = _module(folder / "xinference" / "api" / "frontend_static.py").mount_frontend
    assert mount(app, folder / "xinference" / "ui" / "web" / "dist"), "the wheel has no page"
    return app


def _module(path: Path) -> Any:
    """A module of the wheel by its file: the package itself needs all of its dependencies."""
    spec = importlib.util.spec_from_file_location("peer_frontend", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    folder, port, upstream = sys.argv[1:]
    uvicorn.run(build(Path(folder), upstream), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
