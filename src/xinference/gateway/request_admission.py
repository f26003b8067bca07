"""Decides which requests are admitted: by their origin, by their key, or by the user who sends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from xinference.config import Settings
from xinference.gateway.auth import origin_check
from xinference.gateway.auth.authentication import admit, admit_without_keys, check_readable
from xinference.gateway.auth.browser_sessions import BrowserSessions
from xinference.gateway.auth.own_addresses import OwnAddresses
from xinference.gateway.auth.peer import is_forwarded
from xinference.gateway.auth.permissions import Access, Need
from xinference.gateway.auth.proxied import refusal_of_proxy
from xinference.gateway.http.asgi import Scope
from xinference.hosts import is_loopback
from xinference.keys.key import Key
from xinference.keys.table import Keys, KeyTable
from xinference.keys.visibility import FROM_OWNER
from xinference.protocol.errors import Header, Refusal
from xinference.routing.interfaces import Router


class RequestAdmission:
    """Checks the origin and the permission of each request."""

    def __init__(self, router: Router, settings: Settings, keys: Keys, is_owner: Callable[[Scope], bool]) -> None:
        """
        Args:
            is_owner: whether a request without a key is from the server's own user.
        """
        self._router = router
        self._settings = settings
        self._keys = keys
        self._is_owner = is_owner
        self._addresses = OwnAddresses(settings.allowed_origins)
        self._browsers = BrowserSessions(settings.port, self._addresses)
        self.guarded = is_loopback(settings.host)
        """Whether only programs of this machine reach the server: the origin of their requests is checked."""

    def refusal_of_origin(self, headers: Iterable[Header], *, is_allowed: bool = False) -> Refusal | None:
        """Why a request with these headers is refused, whatever its key; None: it is not.

        Args:
            is_allowed: whether its origin is one of the setting `allow_origin`.
        """
        refusal = origin_check.refusal(headers, is_allowed=is_allowed, addresses=self._addresses)
        return refusal or refusal_of_proxy(self._keys.table, headers, self._settings)

    def admit(self, access: Access, scope: Scope) -> Key | None:
        """The key of this request, after one look-up; None: no key is required.

        Raises:
            Refusal: 401, 403.
        """
        table = self._keys.table
        if not table.required:
            if not self.guarded or access.need is Need.ASK or access.need is Need.NOTHING:
                return None
            return self._admit_without_keys(table, access, scope)
        now = time.time()
        key = admit(
            table, access, scope.get("headers", ()), now, method=scope.get("method", ""), browsers=self._browsers
        )
        if key is None:
            return None
        self._keys.used(key, now)
        if access.model is not None:
            check_readable(key, access.model, self._router.table.routes)
        return key

    def _admit_without_keys(self, table: KeyTable, access: Access, scope: Scope) -> Key | None:
        headers = scope.get("headers", ())

        def is_owner() -> bool:
            scope[FROM_OWNER] = not is_forwarded(headers) and self._is_owner(scope)
            return bool(scope[FROM_OWNER])

        return admit_without_keys(
            table,
            access,
            headers,
            time.time(),
            is_owner=is_owner,
            method=scope.get("method", ""),
            browsers=self._browsers,
        )
