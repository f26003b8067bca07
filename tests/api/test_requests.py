"""The records of requests over REST: what a key sees, filters and pages, totals over a restart, aborts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.application import application, request_log
from tests.records.samples import record
from xinference.api.rate_answers import MAX_KEPT, RateAnswers
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.gateway.app import Gateway
from xinference.keys.keyring import Keyring
from xinference.records.hub import RecordHub
from xinference.records.rates import Counts, Rates, Snapshot
from xinference.routing.active_requests import ActiveRequest
from xinference.store.database import Store
from xinference.store.usage import KEPT_MINUTES, add_usage, read_usage


class Running:
    """Active requests, and the ids of those that were aborted."""

    def __init__(self, *requests: ActiveRequest) -> None:
        self.requests = list(requests)
        self.aborted: list[str] = []

    async def active(self) -> list[ActiveRequest]:
        return self.requests

    async def abort_request(self, request_id: str) -> bool:
        self.aborted.append(request_id)
        return True

    async def collect(self) -> None:
        pass


class Api:
    """A server whose requests a test makes up."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home, offline=True)
        self.store = Store(home / "x.db")
        self.hub, self.running = RecordHub(), Running()
        self.log = request_log(self.store, self.hub, self.running)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        controller, keys = Controller(self.settings, self.store), Keyring(self.store)
        app = application(controller, self.settings, keys, requests=self.log)
        gateway = Gateway(controller, self.settings, app, keys, is_owner=lambda scope: True)
        transport = httpx2.ASGITransport(gateway, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client
        await gateway.close()
        await controller.close("stop")


@pytest.fixture
def api(tmp_path: Path) -> Any:
    made = Api(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
async def client(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    async with api.client() as client:
        yield client


async def key(client: httpx2.AsyncClient, name: str, *scopes: str, **login: str) -> tuple[str, dict[str, str]]:
    """The id of a new key, and the header with it."""
    answer = (await client.post("/v1/keys", json={"name": name, "scopes": list(scopes)}, headers=login)).json()
    return answer["id"], {"authorization": f"Bearer {answer['key']}"}


def ids(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()]


async def test_a_key_sees_its_own_requests_and_an_overseer_those_of_all(api: Api, client: httpx2.AsyncClient) -> None:
    _, owner = await key(client, "owner", "manage")
    one, mine = await key(client, "one", "use", **owner)
    other, others = await key(client, "other", "use", **owner)
    _, monitor = await key(client, "monitor", "monitor", **owner)
    now = time.time()
    for request_id, key_id in (("p-1", one), ("p-2", other), ("p-3", one)):
        api.hub.publish(record(ended=now, request_id=request_id, key_id=key_id))
        active = ActiveRequest(request_id, now, key_id, "m", "r0", "/v1/embeddings", False, 0.1, None, None, "")
        api.running.requests.append(active)
    assert ids(await client.get("/v1/requests", headers=mine)) == ["p-3", "p-1"]
    assert ids(await client.get("/v1/requests", headers=others)) == ["p-2"]
    assert ids(await client.get("/v1/requests/active", headers=mine)) == ["p-1", "p-3"]
    for all_of_them in (owner, monitor):
        assert ids(await client.get("/v1/requests", headers=all_of_them)) == ["p-3", "p-2", "p-1"]
        assert ids(await client.get("/v1/requests/active", headers=all_of_them)) == ["p-1", "p-2", "p-3"]
        assert ids(await client.get("/v1/requests?key=one", headers=all_of_them)) == ["p-3", "p-1"]
        (row,) = (await client.get("/v1/usage", headers=all_of_them)).json()
        assert row["requests"] == 3 and row["model"] == "m"
    (row,) = (await client.get("/v1/usage?by=key", headers=mine)).json()
    assert (row["key"], row["key_id"], row["requests"], row["prompt_tokens"]) == ("one", one, 2, 10)
    for path in ("/v1/requests", "/v1/usage"):
        assert (await client.get(f"{path}?key=other", headers=mine)).status_code == 403
        assert (await client.get(f"{path}?key={other}", headers=mine)).status_code == 403
        assert (await client.get(path)).status_code == 401


async def test_a_key_of_one_model_is_shown_nothing_of_another_model_or_key(
    api: Api, client: httpx2.AsyncClient
) -> None:
    _, owner = await key(client, "owner", "manage")
    other, _ = await key(client, "other", "use", **owner)
    body = {"name": "one", "scopes": ["use"], "models": ["mine"]}
    made = (await client.post("/v1/keys", json=body, headers=owner)).json()
    one, login = made["id"], {"authorization": f"Bearer {made['key']}"}
    now = time.time()
    for key_id, model in ((one, "mine"), (other, "mine"), (other, "secret-model"), ("", "secret-model")):
        request_id = f"p-{key_id}-{model}"
        api.hub.publish(record(ended=now, request_id=request_id, key_id=key_id, model=model, replica="secret-replica"))
        api.running.requests.append(
            ActiveRequest(f"a{request_id}", now, key_id, model, "r0", "/v1/embeddings", False, 0.1, None, None, "")
        )
    paths = [
        *(f"/v1/requests{query}" for query in ("", "?model=secret-model", "?limit=5000", f"?before=p-{other}-mine")),
        *(f"/v1/requests/active{query}" for query in ("", "?model=secret-model")),
        *(f"/v1/usage{query}" for query in ("", "?by=key", "?by=model,key,path", "?model=secret-model")),
    ]
    for path in paths:
        answer = await client.get(path, headers=login)
        assert answer.status_code == 200, answer.text
        rows = answer.json()
        assert {row.get("key_id", one) for row in rows} <= {one}
        assert {row.get("model", "mine") for row in rows} <= {"mine"}, path
        assert sum(row.get("requests", 1) for row in rows) <= 1
        assert "secret-model" not in answer.text and other not in answer.text
    for path in ("/v1/stats", "/metrics", "/metrics/engines"):
        assert (await client.get(path, headers=login)).status_code == 403


async def test_a_request_is_aborted_by_its_own_key_or_by_a_manager_only(api: Api, client: httpx2.AsyncClient) -> None:
    _, owner = await key(client, "owner", "manage")
    one, mine = await key(client, "one", "use", **owner)
    _, others = await key(client, "other", "use", **owner)
    _, monitor = await key(client, "monitor", "monitor", **owner)
    _, both = await key(client, "both", "monitor", "use", **owner)
    api.running.requests.append(ActiveRequest("p-1", 0.0, one, "m", "", "/x", False, 0.1, None, None, "permit"))
    statuses = []
    for headers in (others, both, monitor, mine, owner):
        statuses.append((await client.post("/v1/requests/p-1/abort", headers=headers)).status_code)
    assert statuses == [404, 404, 403, 200, 200] and api.running.aborted == ["p-1", "p-1"]
    answer = await client.post("/v1/requests/p-2/abort", headers=owner)
    assert (answer.status_code, answer.json()["problem"]["code"]) == (404, "request_not_found")


async def test_requests_are_filtered_and_read_page_by_page(api: Api, client: httpx2.AsyncClient) -> None:
    changes: list[dict[str, Any]] = [
        {"status": 404, "code": "model_not_found", "model": ""},
        {"stream": True, "first_token": 0.1, "total": 5.0},
        {"status": 503, "code": "model_loading"},
        {"path": "/v1/embeddings"},
        {},
    ]
    for n, change in enumerate(changes):
        api.hub.publish(record(request_id=f"p-{n}", **change))
    for query, expected in {
        "model=m": "4321",
        "status=error": "20",
        "status=4xx": "0",
        "status=503": "2",
        "code=model_loading": "2",
        "stream=true": "1",
        "path=/v1/embeddings": "3",
        "min_seconds=2": "1",
        "limit=2": "43",
        "limit=2&before=p-3": "21",
        "before=p-0": "",
        "before=x": "",
        "after=p-2": "43",
        "after=x": "43210",
        "after=p-4": "",
        "key=nobody": "",
    }.items():
        answer = ids(await client.get(f"/v1/requests?{query}"))
        assert "".join(each.removeprefix("p-") for each in answer) == expected, query
    for query in ("status=abc", "limit=0", "limit=5001", "min_seconds=-1", "stream=maybe", "min_seconds=nan"):
        assert (await client.get(f"/v1/requests?{query}")).status_code == 400, query


async def test_a_record_in_json(api: Api, client: httpx2.AsyncClient) -> None:
    streamed = {"stream": True, "first_token": 0.2, "total": 1.2, "output_tokens": 11, "cached_tokens": 3}
    api.hub.publish(record(**streamed))
    api.hub.publish(record(model="", key_id="", replica="", status=499, client_left=True, output_tokens=None))
    left, whole = (await client.get("/v1/requests")).json()
    assert whole["per_token"] == pytest.approx(0.1) and whole["tokens_per_second"] == pytest.approx(10)
    assert whole["node"] == "local" and whole["cached_tokens"] == 3 and whole["code"] is None
    assert [left[name] for name in ("model", "key", "key_id", "replica", "output_tokens", "per_token")] == [None] * 6
    assert set(whole["waited"]) == {"load", "recovery", "permit", "quota"}


async def test_the_usage_is_grouped_by_time_and_the_rest(api: Api, client: httpx2.AsyncClient) -> None:
    day = (int(time.time()) // 86400 - 5) * 86400
    for ended in (day + 10, day + 70, day + 3700, day + 86400):
        api.hub.publish(record(ended=ended, model="m" if ended < day + 100 else "n", stream=True, first_token=0.2))
    span = f"from={day}&to={day + 2 * 86400}"
    for by, expected in {
        "model": [("m", 2), ("n", 2)],
        "day": [(day, 3), (day + 86400, 1)],
        "hour": [(day, 2), (day + 3600, 1), (day + 86400, 1)],
        "minute": [(day, 1), (day + 60, 1), (day + 3660, 1), (day + 86400, 1)],
        "path": [("/v1/chat/completions", 4)],
        "status": [(200, 4)],
    }.items():
        for stored in (False, True):
            if stored:
                api.log.usage.flush(current=True)
            rows = (await client.get(f"/v1/usage?by={by}&{span}")).json()
            name = "time" if by in ("day", "hour", "minute") else by
            assert [(row[name], row["requests"]) for row in rows] == expected, (by, stored)
            assert all(0.1 <= row["first_token_p50"] <= 0.25 for row in rows)
    rows = (await client.get(f"/v1/usage?by=model,day&{span}&model=n")).json()
    assert [(row["model"], row["time"], row["requests"]) for row in rows] == [("n", day, 1), ("n", day + 86400, 1)]
    assert (await client.get(f"/v1/usage?by=&{span}")).json()[0]["requests"] == 4
    assert (await client.get(f"/v1/usage?from={day + 70}&to={day + 70}")).json()[0]["requests"] == 1
    for query in ("by=color", "by=day,hour", "from=-1", "to=inf", "from=x"):
        assert (await client.get(f"/v1/usage?{query}")).status_code == 400, query


async def test_totals_stay_over_a_restart_and_nothing_counts_twice(tmp_path: Path) -> None:
    now = time.time()
    for _ in range(3):  # three servers, one after the other
        api = Api(tmp_path)
        for _ in range(2):
            api.hub.publish(record(ended=now))
            api.log.usage.flush(current=True)
        api.hub.publish(record(ended=now))
        async with api.client() as client:
            rows = (await client.get("/v1/usage")).json()
        api.log.usage.flush(current=True)
        api.store.close()
    assert rows[0]["requests"] == 9 and rows[0]["output_tokens"] == 63


def test_totals_have_an_end_and_a_store_that_cannot_be_written_loses_none(tmp_path: Path) -> None:
    api = Api(tmp_path)
    now = time.time()
    api.hub.publish(record(ended=now - KEPT_MINUTES * 60 - 120))
    add_usage(api.store, api.hub.totals.take(current=True), now)
    assert read_usage(api.store, ["model"], 0, int(now)) == {}
    api.store._db.execute("ALTER TABLE usage_minutes RENAME TO moved")
    api.hub.publish(record(ended=now))
    api.log.usage.flush(current=True)
    api.store._db.execute("ALTER TABLE moved RENAME TO usage_minutes")
    api.hub.publish(record(ended=now))
    api.log.usage.flush(current=True)
    found = read_usage(api.store, ["model", "key"], int(now) // 60, int(now) // 60 + 1)
    assert {group: amounts.requests for group, amounts in found.items()} == {("m", "k1"): 2}
    api.store.close()


async def test_a_long_answer_is_compressed_for_a_client_that_accepts_it(api: Api, client: httpx2.AsyncClient) -> None:
    for n in range(20):
        api.hub.publish(record(request_id=f"p-{n}"))
    plain = await client.get("/v1/requests", headers={"accept-encoding": "identity"})
    packed = await client.get("/v1/requests", headers={"accept-encoding": "br, gzip;q=0.5"})
    refused = await client.get("/v1/requests", headers={"accept-encoding": "gzip;q=0"})
    short = await client.get("/v1/requests?limit=1", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and packed.json() == plain.json()
    assert int(packed.headers["content-length"]) < len(plain.content) / 4
    assert packed.headers["vary"].lower() == "accept-encoding"
    for answer in (plain, refused, short):
        assert "content-encoding" not in answer.headers


async def test_the_rates_are_columns_and_are_sampled_while_somebody_reads(
    api: Api, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    sampler = api.log.sampler
    monkeypatch.setattr(sampler, "_now", lambda: clock[0])
    assert (await client.get("/v1/stats")).json()["t"] == []
    api.hub.publish(record(output_tokens=8, stream=True, first_token=0.2))
    active = ActiveRequest("p-1", 0.0, "", "m", "r0", "/v1/completions", True, 1.0, 0.5, 2, "")
    api.running.requests += [active, ActiveRequest("p-2", 0.0, "", "m", "", "/x", False, 1.0, None, None, "permit")]
    clock[0] += 2
    answer = (await client.get("/v1/stats")).json()
    assert (answer["node"], answer["step"], answer["t"]) == ("local", 2.0, [1002.0])
    for series in (answer["all"], answer["models"]["m"]):
        assert series["output_tokens_per_second"] == [5.0], "with the tokens of the stream that has not ended"
        assert (series["in_flight"], series["waiting"]) == ([1], [1])
        assert 0.1 <= series["first_token_p50"][0] <= 0.25
    clock[0] += 1
    assert (await client.get("/v1/stats")).json()["t"] == [1002.0]
    assert list((await client.get("/v1/stats?model=n")).json()["models"]) == ["n"]
    tag = (await client.get("/v1/stats")).headers["etag"]
    known = await client.get("/v1/stats", headers={"If-None-Match": f'"x", W/{tag}'})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    clock[0] += 2
    assert (await client.get("/v1/stats", headers={"If-None-Match": tag})).json()["t"] == [1002.0, 1005.0]
    for query in ("since=-1", "step=601", "step=x", "since=inf"):
        assert (await client.get(f"/v1/stats?{query}")).status_code == 400, query


def test_all_readers_of_the_rates_between_two_samples_get_one_answer() -> None:
    rates, answers = Rates(), RateAnswers()
    for seconds in range(0, 200, 2):
        rates.add(Snapshot(1000.0 + seconds, {"m": Counts(requests=seconds)}))
    first = answers.read(rates, (2.0, 0.0, None))
    assert answers.read(rates, (2.0, 0.0, None)) is first
    assert first.packed is not None and len(first.packed) < len(first.body) / 4
    assert answers.read(rates, (2.0, 1198.0, None)).packed is None, "a short answer is sent as it is"
    assert answers.read(rates, (2.0, 0.0, "m")) is not first
    for number in range(1000):
        answers.read(rates, (2.0, float(number), None))
    assert len(answers._answers) <= MAX_KEPT
    rates.add(Snapshot(1202.0, {}))
    assert answers.read(rates, (2.0, 0.0, None)).tag != first.tag
