"""The traffic of a soak run: what ordinary, careless and impatient clients do, for as long as it lasts."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2

from tests.support.home import Home

#: Names of the models that come and go; each comes again before its series in /metrics end.
NAMES = 60
MESSAGES = [{"role": "user", "content": "Who are you?"}]


class Traffic:
    """Several clients, each in a thread of its own."""

    def __init__(self, home: Home, owner_key: str, launch: dict[str, Any], *, launch_seconds: float) -> None:
        """
        Args:
            launch: the body of the launch of a model that comes and goes.
            launch_seconds: between two launches.
        """
        self._home = home
        self._owner = owner_key
        self._launch = launch
        self._launch_seconds = launch_seconds
        self._ended = threading.Event()
        self._key = owner_key
        self.counts: Counter[str] = Counter()
        """Number of requests by kind."""
        self.faults: list[str] = []
        """Answers that no client should get."""

    def run(self, seconds: float) -> None:
        """Let all clients work for this time."""
        clients: list[tuple[Callable[[int], None], float]] = [
            (self._chat, 0.3),
            (self._stream, 0.4),
            (self._complete, 0.5),
            (self._embed, 0.5),
            (self._be_refused, 0.3),
            (self._abort, 0.7),
            (self._change_keys, 2.0),
            (self._change_models, self._launch_seconds),
        ]
        threads = [threading.Thread(target=self._repeat, args=client) for client in clients]
        for thread in threads:
            thread.start()
        self._ended.wait(seconds)
        self._ended.set()
        for thread in threads:
            thread.join()

    def _repeat(self, action: Callable[[int], None], pause: float) -> None:
        name = action.__name__.lstrip("_")
        for number in itertools.count():
            if self._ended.is_set():
                return
            began = time.monotonic()
            try:
                action(number)
            except (httpx2.HTTPError, OSError, http.client.HTTPException, KeyError) as error:
                self.faults.append(f"{name}: {error!r}")
            self.counts[name] += 1
            self._ended.wait(max(0.0, pause - (time.monotonic() - began)))

    def _ask(
        self, method: str, path: str, expected: int | tuple[int, ...] = 200, key: str | None = None, **options: Any
    ) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key or self._owner}", **options.pop("headers", {})}
        answer = httpx2.request(method, f"{self._home.url}{path}", headers=headers, timeout=120, **options)
        if answer.status_code not in ((expected,) if isinstance(expected, int) else expected):
            self.faults.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer

    # -- clients ----------------------------------------------------------------------------------------------

    def _chat(self, number: int) -> None:
        self._ask("POST", "/v1/chat/completions", json={"model": "llama", "messages": MESSAGES, "max_tokens": 8})

    def _stream(self, number: int) -> None:
        body = {"model": "llama", "messages": MESSAGES, "max_tokens": 16, "stream": True}
        answer = self._ask("POST", "/v1/chat/completions", json=body)
        if "[DONE]" not in answer.text:
            self.faults.append(f"a stream without an end: {answer.text[-300:]}")

    def _complete(self, number: int) -> None:
        self._ask("POST", "/v1/completions", json={"model": "llama", "prompt": f"{number} a", "max_tokens": 8, "n": 2})

    def _embed(self, number: int) -> None:
        self._ask("POST", "/v1/embeddings", json={"model": "llama", "input": ["a", f"{number}"]})

    def _be_refused(self, number: int) -> None:
        part = {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:9/{number}"}}
        refused: tuple[tuple[int, dict[str, Any]], ...] = (
            (400, {"content": b"{" + str(number).encode()}),
            (404, {"json": {"model": f"unknown-{number}", "messages": MESSAGES}}),
            (401, {"json": {"model": "llama", "messages": MESSAGES}, "key": f"wrong-{number}"}),
            (400, {"json": {"model": "llama", "messages": [{"role": "user", "content": [part]}]}}),
            (400, {"json": {"model": "llama", "messages": [], f"field-{number}": number}}),
            (400, {"json": {"model": "llama", "messages": MESSAGES, "guided_grammar": "(" * 9_000}}),
            (415, {"content": b"a", "headers": {"content-type": f"text/x-{number}"}}),
        )
        status, options = refused[number % len(refused)]
        options["headers"] = {"content-type": "application/json", **options.get("headers", {})}
        self._ask("POST", "/v1/chat/completions", status, **options)

    def _abort(self, number: int) -> None:
        """Leave after the first piece of a long answer, or before it."""
        body = {"model": "llama", "messages": MESSAGES, "max_tokens": 400, "stream": True, "ignore_eos": True}
        connection = http.client.HTTPConnection("127.0.0.1", self._home.port, timeout=120)
        try:
            headers = {"Authorization": f"Bearer {self._owner}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            if number % 3:
                connection.getresponse().read(10)
        finally:
            connection.close()

    def _change_keys(self, number: int) -> None:
        """Make a key, use it, revoke it, and find that it has no use any more."""
        fields = {"name": f"soak-{number}", "scopes": ["use"], "requests_per_minute": 5}
        made = self._ask("POST", "/v1/keys", json=fields).json()
        body = {"model": "llama", "messages": MESSAGES, "max_tokens": 2}
        self._ask("POST", "/v1/chat/completions", json=body, key=made["key"])
        self._ask("DELETE", f"/v1/keys/{made['id']}")
        self._ask("POST", "/v1/chat/completions", 401, json=body, key=made["key"])

    def _change_models(self, number: int) -> None:
        """Launch a model, use it, terminate it."""
        uid = f"soak-{number % NAMES}"
        self._ask("POST", "/v1/models", json={**self._launch, "model_uid": uid})
        self._ask("POST", "/v1/chat/completions", json={"model": uid, "messages": MESSAGES})
        self._ask("GET", f"/v1/models/{uid}")
        self._ask("DELETE", f"/v1/models/{uid}")
