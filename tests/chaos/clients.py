"""The clients of a chaos run: their requests, and what the answers have promised them."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from tests.support.polling import until

#: Scripts of the engines, by how they behave.
SCRIPTS: tuple[dict[str, Any], ...] = (
    {},
    {"ignore_sigterm": True},
    {"listen_delay": 0.5},
    {"health_delay": 0.5, "children": 1, "detached_children": 1},
    {"chunks": 40, "interval": 0.05},
)
UIDS = ("a", "b", "c", "d")
#: Answers that a client may get while faults happen. Any other status breaks an invariant.
EXPECTED = {200, 400, 404, 409, 429, 499, 502, 503, 507}


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(eq=False)
class Change:
    """A request that changes a uid."""

    runs: bool | None = None
    """Whether the uid runs after it; None: no answer says so."""
    before: bool | None = None
    """Whether the uid was promised to run when the request began."""


class ServerHome(Protocol):
    """The server that the clients ask."""

    @property
    def url(self) -> str: ...

    def request(self, uid: str, **fields: Any) -> dict[str, Any]: ...


class Clients:
    """The clients of one run, and what they have been promised."""

    def __init__(self, server: ServerHome, seed: int, scripts: Sequence[dict[str, Any]] = SCRIPTS) -> None:
        """`scripts` are those of the engines that are launched."""
        self.server = server
        self._scripts = scripts
        self.random = random.Random(seed)
        self.promised: dict[str, bool | None] = dict.fromkeys(UIDS, False)
        """Whether each uid runs, by the last answer; None: no answer came, so either is right."""
        self.changed: set[str] = set()
        """The uids that a request may have changed, until a run clears it."""
        self._changes: dict[str, list[Change]] = {uid: [] for uid in UIDS}
        self._mixed: set[str] = set()
        """The uids with several requests at one time."""
        self.disk_fills: list[threading.Event] = []
        """One for each time that the disk was filled; set when it was freed."""
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(16)

    def close(self) -> None:
        self._pool.shutdown()

    def ask(self, method: str, path: str, **fields: Any) -> httpx2.Response | None:
        """Send a request; None: the connection failed, as it may while the server is killed.

        Raises:
            Broken: the answer is none that a client can expect.
        """
        try:
            answer = httpx2.request(method, f"{self.server.url}{path}", timeout=120, **fields)
        except httpx2.TransportError:
            return None
        if answer.status_code not in EXPECTED:
            raise Broken(f"{method} {path}: {answer.status_code} {answer.text}")
        if answer.status_code != 200:
            answer.json()  # an error is JSON, never bare text
            if "internal_error" in answer.text:
                raise Broken(f"{method} {path}: {answer.text}")
        return answer

    @contextlib.contextmanager
    def _changing(self, uid: str) -> Iterator[Change]:
        """Record what a request makes of a uid. Of two requests at one time, either may be the last one."""
        change = Change()
        self.changed.add(uid)
        with self._lock:
            self._changes[uid].append(change)
            if len(self._changes[uid]) > 1:
                self._mixed.add(uid)
            change.before, self.promised[uid] = self.promised[uid], None
        try:
            yield change
        finally:
            with self._lock:
                self._changes[uid].remove(change)
                self.promised[uid] = None if uid in self._mixed else change.runs
                if not self._changes[uid]:
                    self._mixed.discard(uid)

    def launch(self) -> None:
        uid, script = self.random.choice(UIDS), self.random.choice(self._scripts)
        wait_ready, replica = self.random.random() < 0.7, self.random.choice((1, 1, 2))
        body = self.server.request(uid, script=script, replica=replica)
        if self.random.random() < 0.2:
            body["on_demand"] = True
        with self._changing(uid) as change:
            answer = self.ask("POST", "/v1/models", json=body, params={"wait_ready": str(wait_ready).lower()})
            if answer is not None and answer.status_code == 200:
                change.runs = True
            elif answer is not None and answer.json()["problem"]["code"] == "model_uid_taken":
                change.runs = change.before  # after any other refusal, its row may be stored or not

    def terminate(self) -> None:
        uid, fills = self.random.choice(UIDS), len(self.disk_fills)
        had_room = all(freed.is_set() for freed in self.disk_fills)
        with self._changing(uid) as change:
            answer = self.ask("DELETE", f"/v1/models/{uid}")
            # On a full disk the engines end, and the server stores this when there is room: not if it is killed before.
            is_stored = had_room and fills == len(self.disk_fills)
            if answer is not None and answer.status_code in (200, 404) and is_stored:
                change.runs = False

    def change_replicas(self) -> None:
        uid = self.random.choice(UIDS)
        self.changed.add(uid)
        if self.random.random() < 0.5:
            self.ask("POST", f"/v1/models/{uid}/replicas", json={})
        else:
            self.ask("DELETE", f"/v1/models/{uid}/replicas/{self.random.choice((0, 1, 2))}")

    def chat(self) -> None:
        uid = self.random.choice(UIDS)
        body = {"model": uid, "messages": [{"role": "user", "content": "hello"}]}
        list(self._pool.map(lambda _: self.ask("POST", "/v1/chat/completions", json=body), range(4)))

    def stream(self) -> None:
        uid, patience = self.random.choice(UIDS), self.random.choice((1, 1000))
        body = {"model": uid, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        with (
            contextlib.suppress(httpx2.TransportError),
            httpx2.stream("POST", f"{self.server.url}/v1/chat/completions", json=body, timeout=120) as answer,
        ):
            for number, _ in enumerate(answer.iter_raw()):
                if number >= patience:
                    break

    def read(self) -> None:
        for path in ("/v1/models", "/v1/models/instances", "/metrics", "/health"):
            answer = self.ask("GET", path)
            if answer is not None and answer.status_code not in (200, 503):  # 503: its socket is being created again
                raise Broken(f"GET {path}: {answer.status_code} {answer.text}")

    # -- promises ---------------------------------------------------------------------------------------------

    def instances(self) -> dict[str, dict[str, Any]]:
        answers: list[httpx2.Response] = []

        def look() -> bool:
            answer = self.ask("GET", "/v1/models/instances")
            if answer is not None and answer.status_code == 200:
                answers.append(answer)
            return bool(answers)

        until("models are listed", look, 30)
        return {entry["model_uid"]: entry for entry in answers[-1].json()}

    def compare_promises(self) -> None:
        there = self.instances()
        for uid, promised in self.promised.items():
            if promised and uid not in there and self._never_ran(uid):
                continue
            if promised is not None and promised != (uid in there):
                raise Broken(f"{uid}: promised {promised}, is there {uid in there}")

    def _never_ran(self, uid: str) -> bool:
        """Whether the last launch of a uid has failed before its model was ready: it leaves the list by itself."""
        answer = self.ask("GET", "/v1/launch_history")
        records = [] if answer is None else [record for record in answer.json() if record["model_uid"] == uid]
        return bool(records) and records[0]["status"] == "failed" and records[0]["ready_at"] is None

    def settled(self) -> bool:
        """No model is in between: each is ready, unloaded, or has failed with a reason."""
        for entry in self.instances().values():
            if entry["status"] == "ERROR":
                if not entry["problem"] or entry["problem"]["code"] == "internal_error":
                    raise Broken(f"{entry}")
            elif entry["status"] == "READY":
                if any(replica["status"] not in ("READY", "ERROR") for replica in entry["replicas"]):
                    return False
            elif entry["status"] != "UNLOADED":
                return False
        return True

    def listed_pids(self) -> set[int]:
        """The engines that the server lists."""
        entries = self.instances().values()
        return {each["engine_pid"] for entry in entries for each in entry["replicas"] if each["engine_pid"]}
