"""Parses answers with llama.cpp's own parser: a model replays the answer behind the server that a launch starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from tests.engines.recorded.streams import SPECIAL, TOOL
from tests.formats.replay_model import write_replay
from tests.support.home import sse_events
from tests.support.polling import until
from tests.support.ports import free_port
from xinference.engines.llama_cpp.engine import PROGRAM

_KEY = "key"
#: A control token that llama.cpp itself turns into text, in files of Gemma 4.
_TEXT_MARKS = frozenset({'<|"|>'})


def parse(template: str, answer: str, *, before: str = "", tools: bool, choice: Any = "auto") -> list[dict[str, Any]]:
    """The messages that llama.cpp makes of an answer under a chat template: whole, and joined from a stream.

    Args:
        before: see `tests.formats.replay_model.unique_pieces`.
        tools: the request has `TOOL`.

    Raises:
        AssertionError: the model did not say the whole answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "replay.gguf"
        pieces = write_replay(file, answer, SPECIAL, set(SPECIAL) - _TEXT_MARKS, before)
        port, log = free_port(), Path(folder) / "log"
        with log.open("wb") as output:
            server = _start(file, template, port, output)
        try:
            fields = {"tools": [TOOL], "tool_choice": choice} if tools else {}
            return _ask(port, server, log, len(pieces), fields)
        finally:
            server.terminate()
            server.wait()


def _start(file: Path, template: str, port: int, output: Any) -> subprocess.Popen[bytes]:
    params = {
        "model_alias": "replay", "model_path": str(file), "chat_template": template, "n_ctx": 4096, "n_parallel": 1,
        "n_gpu_layers": 0, "warmup": False, "ui": False, "cpuparams.n_threads": 1,
    }  # fmt: skip
    env = {**os.environ, "XINFERENCE_LLAMA_PARAMS": json.dumps(params), "XINFERENCE_ENGINE_KEY": _KEY}
    argv = [sys.executable, "-I", str(PROGRAM), "--port", str(port)]
    return subprocess.Popen(argv, env=env, stdout=output, stderr=subprocess.STDOUT)


def _ask(
    port: int, server: subprocess.Popen[bytes], log: Path, pieces: int, fields: Mapping[str, Any]
) -> list[dict[str, Any]]:
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {_KEY}"}, timeout=60
    ) as client:

        def is_ready() -> bool:
            assert server.poll() is None, log.read_text(errors="replace")[-2000:]
            try:
                return client.get("/health").status_code == 200
            except httpx2.TransportError:
                return False

        until("llama.cpp is ready", is_ready)
        body = {"messages": [{"role": "user", "content": "What is the weather?"}], "temperature": 0, "max_tokens": 200}
        whole = client.post("/v1/chat/completions", json={**body, **fields})
        assert whole.status_code == 200, whole.text
        # The end is a token, too. With a count that differs, the grammar of a call changed the answer.
        assert whole.json()["usage"]["completion_tokens"] == pieces + 1, whole.text
        streamed = client.post("/v1/chat/completions", json={**body, **fields, "stream": True})
        assert streamed.status_code == 200, streamed.text
        deltas = [choice["delta"] for event in sse_events(streamed.text)[:-1] for choice in event["choices"]]
        return [_message([whole.json()["choices"][0]["message"]]), _message(deltas)]


def _message(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """The text, the reasoning and the calls of an answer, joined."""
    calls: dict[int, dict[str, str]] = {}
    for delta in deltas:
        for number, call in enumerate(delta.get("tool_calls") or ()):
            known = calls.setdefault(call.get("index", number), {"name": "", "arguments": ""})
            known["name"] += call["function"].get("name") or ""
            known["arguments"] += call["function"].get("arguments") or ""
    joined = {name: "".join(delta.get(name) or "" for delta in deltas) for name in ("content", "reasoning_content")}
    return {**joined, "calls": [calls[index] for index in sorted(calls)]}
