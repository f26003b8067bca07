"""The requests to models: those that run, the last ones, and the usage by model and key."""

from __future__ import annotations

import time
from itertools import chain
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response

from xinference.api import request_schemas as schemas
from xinference.api.compression import accepts_gzip
from xinference.api.dependencies import KeyDep, KeyringDep, RateAnswersDep, RequestLogDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.rate_answers import is_known
from xinference.api.request_log import abortable_id, own_id
from xinference.api.strict import StrictRoute
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.keys.keyring import Keyring
from xinference.records.filter import RecordFilter
from xinference.records.hub import RECORDS_KEPT
from xinference.records.view import amounts_view, record_view
from xinference.routing.active_requests import active_view
from xinference.store.usage import Group

router = APIRouter(tags=["requests"], route_class=StrictRoute, responses=ERROR_RESPONSES)

DAY_SECONDS = 86400.0
#: Maximum number of groups in an answer.
MAX_GROUPS = 20_000
_TIMES = frozenset({"minute", "hour", "day"})


@router.get("/v1/requests", response_model=list[schemas.EndedRequest])
async def ended(
    requests: RequestLogDep,
    keyring: KeyringDep,
    holder: KeyDep,
    after: str | None = None,
    before: str | None = None,
    model: str | None = None,
    key: str | None = None,
    path: str | None = None,
    status: Annotated[str | None, Query(pattern="^([1-5]xx|[1-5][0-9][0-9]|error)$")] = None,
    code: str | None = None,
    stream: bool | None = None,
    min_seconds: Annotated[float, Query(ge=0)] = 0.0,
    limit: Annotated[int, Query(ge=1, le=RECORDS_KEPT)] = 100,
) -> list[dict[str, Any]]:
    """List the last requests that have ended, newest first; a key sees its own. `after` and `before` are ids."""
    await requests.running.collect()
    names = _names(keyring)
    key_id = _chosen_key(own_id(holder), key, names)
    chosen = RecordFilter(key_id, model, path, stream, _statuses(status), code, min_seconds, after, before)
    page = chosen.page(requests.hub.newest(), limit)
    return [record_view(record, names.get(record.key_id)) for record in page]


@router.get("/v1/requests/active", response_model=list[schemas.RunningRequest])
async def active(
    requests: RequestLogDep, keyring: KeyringDep, holder: KeyDep, model: str | None = None
) -> list[dict[str, Any]]:
    """List the requests that have not ended, oldest first; a key sees its own."""
    names = _names(keyring)
    running = [each for each in await requests.active(own_id(holder)) if model in (None, each.model)]
    return [active_view(each, names.get(each.key_id)) for each in running]


@router.post("/v1/requests/{request_id}/abort", response_model=schemas.AbortedRequest, responses=problems(404))
async def abort(requests: RequestLogDep, holder: KeyDep, request_id: str) -> dict[str, Any]:
    """Abort a request by the id that the list of active requests has; its client gets an error."""
    found = any(each.request_id == request_id for each in await requests.active(abortable_id(holder)))
    if not found or not await requests.running.abort_request(request_id):
        raise Problem(
            Code.REQUEST_NOT_FOUND,
            f"There is no active request {request_id[:100]!r}.",
            hint="GET /v1/requests/active lists the requests that have not ended.",
        )
    return {"id": request_id, "aborted": True}


@router.get("/v1/usage", response_model=list[schemas.Usage], response_model_exclude_unset=True)
async def usage(
    requests: RequestLogDep,
    keyring: KeyringDep,
    holder: KeyDep,
    by: str = "model",
    begin: Annotated[float | None, Query(alias="from", ge=0, le=1e11)] = None,
    end: Annotated[float | None, Query(alias="to", ge=0, le=1e11)] = None,
    model: str | None = None,
    key: str | None = None,
) -> list[dict[str, Any]]:
    """Sum up the requests of the last 30 days by `model`, `key`, `path`, `status`, `minute`, `hour` or `day` (UTC).

    `by` names one or several of them, separated by commas. `from` and `to` are seconds since the epoch; the default is
    the last day. A key sees its own requests.
    """
    groups = _groups(by)
    now = time.time()
    until = now if end is None else end
    since = until - DAY_SECONDS if begin is None else begin
    await requests.running.collect()
    names = _names(keyring)
    key_id = _chosen_key(own_id(holder), key, names)
    found = requests.usage.read(groups, since, until, key_id=key_id, model=model)
    if len(found) > MAX_GROUPS:
        raise bad_request(
            f"The answer would have {len(found)} rows, and at most {MAX_GROUPS} are sent.",
            hint="Choose a shorter time, or fewer names in `by`.",
        )
    answer = []
    for values, amounts in found.items():
        named = (_named(group, value, names) for group, value in zip(groups, values, strict=True))
        answer.append(dict(chain.from_iterable(named)) | amounts_view(amounts))
    return answer


@router.get("/v1/stats", response_model=schemas.Stats, responses={304: {"description": "No newer points"}})
async def stats(
    requests: RequestLogDep,
    answers: RateAnswersDep,
    since: Annotated[float | None, Query(ge=0, le=1e11)] = None,
    step: Annotated[float | None, Query(ge=0, le=600)] = None,
    model: str | None = None,
    if_none_match: Annotated[str | None, Header(description="The `ETag` of an earlier answer")] = None,
    accept_encoding: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """The rates of requests and the load of the machine over time, as columns.

    There are points of 2 s for 15 minutes, of 30 s for 6 hours and of 10 minutes for 7 days; `step` (seconds) and
    `since` (seconds since the epoch) choose the finest ones that fit. Without a reader, the finest ones are 30 s apart.
    """
    rates = await requests.sampler.read()
    answer = answers.read(rates, (rates.step_for(step, since, time.time()), since or 0.0, model))
    headers = {"ETag": answer.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if is_known(answer.tag, if_none_match):
        return Response(status_code=304, headers=headers)
    if answer.packed is not None and accepts_gzip(accept_encoding):
        headers["Content-Encoding"] = "gzip"
        return Response(answer.packed, media_type="application/json", headers=headers)
    return Response(answer.body, media_type="application/json", headers=headers)


def _names(keyring: Keyring) -> dict[str, str]:
    """The names of keys by id."""
    return {key.key_id: key.name for key in keyring.all()}


def _chosen_key(own: str | None, key: str | None, names: dict[str, str]) -> str | None:
    """The id of the key whose requests are listed; None: those of all keys."""
    if key is None:
        return own
    chosen = key if key in names else next((key_id for key_id, name in names.items() if name == key), key)
    if own not in (None, chosen):
        raise Problem(Code.PERMISSION_DENIED, f"Not enough permissions: {key[:100]!r} is not the key of this request.")
    return chosen


def _statuses(status: str | None) -> tuple[int, int] | None:
    if status is None:
        return None
    if status == "error":
        return 400, 599
    if status.endswith("xx"):
        return int(status[0]) * 100, int(status[0]) * 100 + 99
    return int(status), int(status)


def _groups(by: str) -> list[Group]:
    names = [name.strip() for name in by.split(",") if name.strip()]
    known: dict[str, Group] = {group: group for group in get_args(Group)}
    for name in names:
        if name not in known:
            raise bad_request(f"Usage can't be grouped by {name[:100]!r}.", hint=f"Use some of {', '.join(known)}.")
    if len(_TIMES.intersection(names)) > 1:
        raise bad_request(f"Usage is grouped by one time only, not by {by[:100]!r}.", hint="Use minute, hour or day.")
    return [known[name] for name in dict.fromkeys(names)]


def _named(group: Group, value: Any, names: dict[str, str]) -> list[tuple[str, Any]]:
    """The fields of one value of a group."""
    if group == "key":
        return [("key", names.get(value)), ("key_id", value or None)]
    if group in _TIMES:
        return [("time", value * 60)]
    return [(group, value if value != "" else None)]
