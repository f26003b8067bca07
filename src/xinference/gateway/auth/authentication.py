"""Finds the key of a request and checks what the key permits.

An unknown key costs one hash and one look-up: nothing is written, logged or cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec

from xinference.error_codes import Code
from xinference.gateway.auth.browser_sessions import BrowserSessions
from xinference.gateway.auth.permissions import Access, Need
from xinference.keys.key import Key
from xinference.keys.table import KeyTable
from xinference.keys.visibility import sees
from xinference.protocol.errors import Header, Refusal
from xinference.routing.table import Route, RoutingTable, owner_of

#: Headers that may contain the key, in addition to OpenAI's: Anthropic's, and those of older clients.
KEY_HEADERS = (b"x-api-key", b"api_key", b"api-key")
CHALLENGE: tuple[Header, ...] = ((b"www-authenticate", b"Bearer"),)
#: Maximum number of cached views; one more empties the cache.
MAX_VIEWS = 1000
#: The permissions of a request without a key, on a server without keys, that is not from the server's own user.
ANYONE = Key("anyone", "anyone", b"", frozenset({"use"}))
HINT = "Pass one as `Authorization: Bearer KEY`; `xinference keys create` makes one."


def admit(
    table: KeyTable,
    access: Access,
    headers: Iterable[Header],
    now: float,
    *,
    method: str = "GET",
    browsers: BrowserSessions | None = None,
) -> Key | None:
    """The key or the session of an admitted request; None if the request requires no key.

    A cookie is read only if no key was sent, so a wrong key is refused whatever the cookie is.

    Raises:
        Refusal: 401 without a valid key, 403 if the key does not permit the request.
    """
    if not table.required or access.need is Need.NOTHING:
        return None
    secret = _secret(headers)
    if not secret:
        session = browsers.find(table, method, headers) if browsers is not None else None
        if session is None:
            end = browsers.end_of(table, headers) if browsers is not None else None
            raise _unknown("no key was given") if end is None else _ended(end)
        if session.expires is not None and session.expires <= now:
            raise _ended(Code.SESSION_EXPIRED)
        _check_reach(session, access)
        return session
    key = table.find(secret)
    if key is None:
        raise _unknown("this server does not know the key")
    if key.expires is not None and key.expires <= now:
        raise _unknown(f"the key expired on {datetime.fromtimestamp(key.expires, UTC):%Y-%m-%d %H:%M} UTC")
    _check_reach(key, access)
    return key


def admit_without_keys(
    table: KeyTable,
    access: Access,
    headers: Iterable[Header],
    now: float,
    *,
    is_owner: Callable[[], bool],
    method: str = "GET",
    browsers: BrowserSessions | None = None,
) -> Key | None:
    """The permissions of a request to a server on loopback without keys; None: those of the server's own user.

    Other users may use the models. For more they need a key: the owner's key, as this server has no other.

    Args:
        is_owner: whether the server's own user has sent the request.

    Raises:
        Refusal: 401.
    """
    secret = _secret(headers)
    key = table.find(secret) if secret else None
    if not secret and browsers is not None:
        key = browsers.find(table, method, headers)
    if key is not None and (key.expires is None or key.expires > now):
        _check_reach(key, access)
        return key
    if is_owner():
        return None
    if access.need is Need.MANAGE:
        cause = "without a key, only the user who runs this server may manage it, from a program on this machine"
        raise Refusal(
            Code.INVALID_API_KEY,
            f"Could not validate credentials: {cause}.",
            hint="That user can make one with `xinference keys create --scope manage`.",
            headers=CHALLENGE,
        )
    return ANYONE


#: Why a session has ended.
_ENDS = {
    Code.SESSION_EXPIRED: "it has expired",
    Code.SESSION_LOGGED_OUT: "its user has logged out",
    Code.SESSION_KEY_REVOKED: "its key is revoked",
    Code.SESSION_KEY_EXPIRED: "its key has expired",
    Code.SESSION_REPLACED: "its key has too many newer sessions",
    Code.SESSION_ENDED: "this server does not know it",
}


def _ended(code: Code) -> Refusal:
    cause = f"Could not validate credentials: the session has ended: {_ENDS[code]}."
    return Refusal(code, cause, hint="Log in again.", headers=CHALLENGE)


class Views:
    """The parts of the routing table that keys of certain models may see; cached for each key and table."""

    def __init__(self) -> None:
        self._views: dict[str, tuple[RoutingTable, Key, RoutingTable]] = {}

    def for_use(self, key: Key | None, table: RoutingTable) -> RoutingTable:
        """The part of `table` with the models that `key` may use, so that errors and fields name no other model."""
        if key is None or key.models is None:
            return table
        name = key.session or key.key_id
        known = self._views.get(name)
        if known is None or known[0] is not table or known[1] is not key:
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            known = self._views[name] = (table, key, _view(key, table))
        return known[2]

    def for_reading(self, key: Key | None, table: RoutingTable) -> RoutingTable:
        """The part of `table` that `key` may read."""
        return table if key is None or "manage" in key.scopes else self.for_use(key, table)


def _view(key: Key, table: RoutingTable) -> RoutingTable:
    routes = {uid: route for uid, route in table.routes.items() if key.may_ask(uid, owner_of(uid, route))}
    document = msgspec.json.decode(table.listing)
    document["data"] = [entry for entry in document["data"] if entry["id"] in routes]
    return RoutingTable(MappingProxyType(routes), msgspec.json.encode(document))


def check_model(key: Key, model: str, table: RoutingTable) -> None:
    """Check that `key` may use `model`; `table` is the key's view.

    Raises:
        Refusal: 403, which does not disclose whether the model exists.
    """
    if model not in table.routes and not key.may_ask(model):
        raise _no_model(key, model)


def check_readable(key: Key | None, model: str, routes: Mapping[str, Route]) -> None:
    """Check that `key` may read the state of `model`.

    Raises:
        Refusal: 403.
    """
    route = routes.get(model)
    if key is not None and not sees(key, model, owner_of(model, route) if route else None):
        raise _no_model(key, model)


def find_key(table: KeyTable, headers: Iterable[Header]) -> Key | None:
    """The key in the headers, if the table has it, whatever it permits."""
    secret = _secret(headers)
    return table.find(secret) if secret else None


def _secret(headers: Iterable[Header]) -> bytes:
    """The key in the headers; a bearer token overrides the other headers."""
    secret = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credentials = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                return credentials.strip()
        elif name in KEY_HEADERS:
            secret = value.strip()
    return secret


def _check_reach(key: Key, access: Access) -> None:
    may_use, may_manage = "use" in key.scopes, "manage" in key.scopes
    permitted = "management" if may_manage else "requests to models" if may_use else "monitoring"
    match access.need:
        case Need.ASK:
            if not may_use:
                raise _forbidden(f"this key permits {permitted}, not requests to models")
        case Need.READ:
            if not may_use and not may_manage:
                raise _forbidden(f"this key permits {permitted}, not the reading of models")
        case Need.OVERSEE:
            if not may_manage and key.models is not None and "monitor" not in key.scopes:
                raise _forbidden("this key permits certain models, not the whole server")
        case Need.MANAGE:
            if not may_manage:
                raise _forbidden(f"this key permits {permitted}, not management")
        case _:
            return


def _unknown(why: str) -> Refusal:
    return Refusal(Code.INVALID_API_KEY, f"Could not validate credentials: {why}.", hint=HINT, headers=CHALLENGE)


def _forbidden(why: str) -> Refusal:
    return Refusal(Code.PERMISSION_DENIED, f"Not enough permissions: {why}.")


def _no_model(key: Key, model: str) -> Refusal:
    allowed = ", ".join(sorted(key.models or ()))
    shown = model if len(model) <= 100 else model[:100] + "…"
    return Refusal(
        Code.PERMISSION_DENIED,
        f"Not enough permissions: this key does not permit the model {shown!r}.",
        hint=f"It permits {allowed}.",
        param="model",
    )
