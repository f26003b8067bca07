"""A hub on loopback: the HTTP protocols of Hugging Face and ModelScope, well enough for their real clients.

As a program: ``python -m tests.fakes.hub.loopback --port 8000 --assets DIR`` serves llama-2-chat under its real ids,
made from the tiny model; ``HF_ENDPOINT`` and ``MODELSCOPE_ENDPOINT`` set to its address make every client use it.
There is no Xet: its API does not speak of it, and so clients fetch by HTTP.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.fakes.hub.repositories import Counters, Fault, Padded, Repository, StoredFile, is_lfs

_CHUNK = 1 << 16


class LoopbackHub:
    """The repositories of both hubs, what should go wrong, and what was asked for."""

    def __init__(self, huggingface: Iterable[Repository] = (), modelscope: Iterable[Repository] = ()) -> None:
        self.huggingface = {r.model_id: r for r in huggingface}
        self.modelscope = {r.model_id: r for r in modelscope}
        self.faults: dict[str, Fault] = {}
        self.counters = Counters()
        self.odd_answer: bytes | None = None
        """The JSON of every answer of the APIs, in place of the right one."""
        self.odd_handler: Callable[[BaseHTTPRequestHandler], None] | None = None
        """Sends every answer of the APIs, in place of the right one. It may close the connection by its header only."""
        self.lock = threading.Lock()
        self.url = ""

    def fault_for(self, name: str) -> Fault:
        """The fault to show now; one that was shown often enough is over."""
        with self.lock:
            fault = self.faults.get(name)
            if fault is None or fault.times <= 0:
                return Fault()
            fault.times -= 1
            return fault


@contextmanager
def serve(hub: LoopbackHub, port: int = 0) -> Iterator[LoopbackHub]:
    """Serve on loopback until the block ends; ``hub.url`` is the endpoint for both hubs' clients."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the counters tell."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        with self.hub.lock:
            self.hub.counters.requests.append((self.command, self.path, self.headers.get("Range", "")))
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        match parts:
            case ["api", *_] if self.hub.odd_handler is not None:
                self.hub.odd_handler(self)
            case ["api", *_] if self.hub.odd_answer is not None:
                self._raw(self.hub.odd_answer)
            case ["api", "v1", "models", owner, name, *rest]:
                self._modelscope(f"{owner}/{name}", rest, query)
            case ["api", "models", owner, name, *rest]:
                self._huggingface_api(f"{owner}/{name}", rest)
            case [owner, name, "resolve", revision, *file]:
                self._resolve(f"{owner}/{name}", revision, "/".join(file))
            case ["cdn", kind, owner, name, *file]:
                repos = self.hub.huggingface if kind == "huggingface" else self.hub.modelscope
                stored = repos[f"{owner}/{name}"].files["/".join(file)]
                self._bytes(stored, "/".join(file), {})
            case _:
                self._json(404, {})

    def _raw(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    # -- Hugging Face -----------------------------------------------------------------------------------------

    def _huggingface_api(self, model_id: str, rest: list[str]) -> None:
        repo = self.hub.huggingface.get(model_id)
        if repo is None:
            self._refuse(401, "RepoNotFound", "Invalid username or password.")
            return
        revision = rest[1] if len(rest) > 1 else "main"
        if not repo.has(revision):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif rest[:1] == ["tree"]:
            self._json(200, [_tree_entry(name, file) for name, file in repo.files.items()])
        else:
            siblings = [_sibling(name, file) for name, file in repo.files.items()]
            about = {"id": model_id, "modelId": model_id, "sha": repo.commit, "private": False, "tags": []}
            self._json(200, {**about, "gated": "manual" if repo.gated else False, "siblings": siblings})

    def _resolve(self, model_id: str, revision: str, name: str) -> None:
        repo = self.hub.huggingface.get(model_id)
        if repo is None:
            self._refuse(401, "RepoNotFound", "Invalid username or password.")
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repo.gated and token not in repo.admitted:
            self._refuse(403 if token else 401, "GatedRepo", f"Access to model {model_id} is restricted.")
        elif not repo.has(revision):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif name not in repo.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif is_lfs(name):
            file = repo.files[name]
            linked = {"X-Linked-Size": str(len(file.data)), "X-Linked-Etag": f'"{file.sha256}"'}
            self._redirect("huggingface", model_id, name, {"X-Repo-Commit": repo.commit, **linked})
        else:
            file = repo.files[name]
            self._bytes(file, name, {"X-Repo-Commit": repo.commit, "ETag": f'"{file.git_sha1}"'})

    # -- ModelScope -------------------------------------------------------------------------------------------

    def _modelscope(self, model_id: str, rest: list[str], query: dict[str, str]) -> None:
        repo = self.hub.modelscope.get(model_id)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repo is None:
            self._json(404, {"Code": 10010205001, "Message": "Model does not exist", "Success": False})
        elif rest == ["revisions"]:
            branches = [{"Revision": r} for r in repo.revisions if r == "master"]
            tags = [{"Revision": r} for r in repo.revisions if r != "master"]
            self._data({"RevisionMap": {"Branches": branches, "Tags": tags}})
        elif repo.gated and token not in repo.admitted:
            self._json(403 if token else 401, {"Code": 403, "Message": "no permission", "Success": False})
        elif query.get("Revision", "master") not in repo.revisions:
            self._json(404, {"Code": 10010205002, "Message": "Revision does not exist", "Success": False})
        elif rest == ["repo", "files"]:
            self._data({"Files": [_modelscope_entry(name, file) for name, file in repo.files.items()]})
        elif rest == ["repo"] and query.get("FilePath") in repo.files:
            name = query["FilePath"]
            if is_lfs(name):
                self._redirect("modelscope", model_id, name, {"X-Linked-ETag": f'"{repo.files[name].sha256}"'})
            else:
                self._bytes(repo.files[name], name, {})
        else:
            self._json(404, {"Code": 10010205003, "Message": "File does not exist", "Success": False})

    def _data(self, data: dict[str, Any]) -> None:
        self._json(200, {"Code": 200, "Data": data, "Message": "success", "Success": True})

    # -- answers ----------------------------------------------------------------------------------------------

    def _redirect(self, kind: str, model_id: str, name: str, headers: dict[str, str]) -> None:
        # Another host name, as with the real ones: tokens must not follow, and clients read the headers here.
        host, _, port = self.headers["Host"].partition(":")
        other = "localhost" if host == "127.0.0.1" else "127.0.0.1"
        self._start(302, {**headers, "Location": f"http://{other}:{port}/cdn/{kind}/{model_id}/{quote(name)}"}, 0)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._json(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._start(status, {"Content-Type": "application/json", **(headers or {})}, len(body))
        if self.command == "GET":
            self.wfile.write(body)

    def _start(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _bytes(self, file: StoredFile, name: str, headers: dict[str, str]) -> None:
        data = file.data
        fault = self.hub.fault_for(name) if self.command == "GET" else Fault()
        if fault.status is not None:
            after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            self._json(fault.status, {"error": "scripted"}, after)
            return
        start, end = _range(self.headers.get("Range"), len(data))
        if start >= len(data) > 0:
            self._start(416, {"Content-Range": f"bytes */{len(data)}"}, 0)
            return
        status = 206 if self.headers.get("Range") else 200
        ranged = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} if status == 206 else {}
        self._start(status, {**headers, **ranged, "Accept-Ranges": "bytes"}, end - start)
        if self.command == "GET":
            self._send(data, name, start, end, fault)

    def _send(self, data: bytes | Padded, name: str, start: int, end: int, fault: Fault) -> None:
        stop = end if fault.cut_at is None else max(start, min(end, fault.cut_at))
        if fault.flip_at is not None:
            whole = data[:]
            data = whole[: fault.flip_at] + bytes([whole[fault.flip_at] ^ 1]) + whole[fault.flip_at + 1 :]
        try:
            for position in range(start, stop, _CHUNK):
                chunk = data[position : min(position + _CHUNK, stop)]
                self.wfile.write(chunk)
                with self.hub.lock:
                    self.hub.counters.sent[name] = self.hub.counters.sent.get(name, 0) + len(chunk)
                if fault.seconds_a_chunk or fault.silent_seconds:
                    time.sleep(fault.seconds_a_chunk + (fault.silent_seconds if position == start else 0))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if stop < end:
            self.close_connection = True


def _range(header: str | None, size: int) -> tuple[int, int]:
    """The first byte and the one after the last."""
    if not header or not header.startswith("bytes="):
        return 0, size
    first, _, last = header.removeprefix("bytes=").partition("-")
    return int(first), min(size, int(last) + 1) if last else size


def _sibling(name: str, file: StoredFile) -> dict[str, Any]:
    size = len(file.data)
    entry: dict[str, Any] = {"rfilename": name, "size": size, "blobId": file.git_sha1}
    return {**entry, "lfs": {"sha256": file.sha256, "size": size, "pointerSize": 134}} if is_lfs(name) else entry


def _tree_entry(name: str, file: StoredFile) -> dict[str, Any]:
    size = len(file.data)
    entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": file.git_sha1}
    return {**entry, "lfs": {"oid": file.sha256, "size": size, "pointerSize": 134}} if is_lfs(name) else entry


def _modelscope_entry(name: str, file: StoredFile) -> dict[str, Any]:
    about = {"Name": name.rpartition("/")[2], "Path": name, "Type": "blob", "Revision": "0" * 40}
    return {**about, "Size": len(file.data), "Sha256": file.sha256, "IsLFS": is_lfs(name)}


def main() -> None:
    """Serve llama-2-chat until interrupted."""
    from tests.fakes.hub.llama2 import llama2_hub

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--assets", type=Path, required=True, help="the tiny model's Hugging Face folder")
    parser.add_argument("--made", type=Path, default=Path(gettempdir()) / "xinference-loopback-hub")
    arguments = parser.parse_args()
    with serve(llama2_hub(arguments.assets, arguments.made), arguments.port) as hub:
        print(hub.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
