"""The access log has one line for each request, without secrets, and refusals are counted for the server's log."""

from __future__ import annotations

import logging

import pytest

from tests.gateway.auth.test_authentication import ALL, KEYS, ask, bearer, busy_router, keys_of
from tests.gateway.harness import call, gateway_of
from xinference.gateway.http.access_log import AccessLog
from xinference.log_setup import ACCESS, FIELDS


async def test_a_request_is_logged_with_client_key_path_status_and_seconds(caplog: pytest.LogCaptureFixture) -> None:
    keys = keys_of()
    caplog.set_level(logging.INFO, ACCESS)
    async with gateway_of(busy_router(), keys=keys) as gateway:
        app = AccessLog(gateway, lambda: keys.table)
        assert (await call(app, "/v1/models", method="GET", headers=bearer(ALL))).status == 200
        assert (await call(app, "/v1/models", method="GET", headers=bearer("wrong-secret"))).status == 401
    first, second = (record.__dict__[FIELDS] for record in caplog.records)
    assert first | {"seconds": 0, "client": ""} == {
        "client": "", "key": KEYS[ALL].name, "method": "GET", "path": "/v1/models", "status": 200, "seconds": 0,
    }  # fmt: skip
    assert (second["key"], second["status"]) == (None, 401)
    assert ALL not in caplog.text and "wrong-secret" not in caplog.text


async def test_refused_requests_are_counted_and_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with gateway_of(busy_router(), keys=keys_of()) as gateway:
        for _ in range(3):
            await ask(gateway, "/v1/chat/completions", "m", "wrong")
        await ask(gateway, "/v1/chat/completions", "m", ALL)  # a 503, which is no refusal
        assert caplog.records == []
        gateway.refusals.report()
        gateway.refusals.report()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "refused requests in the last 60 s: 3 invalid_api_key"
