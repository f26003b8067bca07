"""The stored responses: their requests as chats, and the answers to requests that read or delete one."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.gateway.http.asgi import Reply
from xinference.gateway.http.error_replies import refuse
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.responses.answer import ResponseBuilder
from xinference.gateway.responses.request import translate
from xinference.gateway.responses.store import ResponseStore
from xinference.gateway.routes import READ_METHODS, RESPONSE_AS_CHAT
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import check
from xinference.protocol.requests import Request


class ResponseResource:
    """The responses of all owners, each of whom sees its own."""

    def __init__(self) -> None:
        self._responses = ResponseStore()

    async def answer(self, reply: Reply, method: str, response_id: str, owner: str | None) -> None:
        """Read or delete a response that is kept."""
        try:
            if method in READ_METHODS:
                await reply.whole(200, self._responses.response(owner, response_id), head=method == "HEAD")
            elif method == "DELETE":
                self._responses.delete(owner, response_id)
                deleted = {"id": response_id, "object": "response", "deleted": True}
                await reply.whole(200, msgspec.json.encode(deleted))
            else:
                allow = ((b"allow", b"GET, HEAD, DELETE"),)
                cause = f"A response takes GET and DELETE, not {method}."
                raise Refusal(Code.METHOD_NOT_ALLOWED, cause, headers=allow)
        except Refusal as refusal:
            await refuse(reply, refusal)

    def as_chat(self, body: bytes, model: str, owner: str | None) -> tuple[ResponseBuilder, Request, RequestDocument]:
        """Translate a response's request to a chat, which is checked as any other.

        Raises:
            Refusal: 400; 404 for an unknown response that it continues.
        """
        document = msgspec.json.decode(body)
        previous = document.get("previous_response_id")
        earlier = [] if previous is None else self._responses.items(owner, previous)
        translation = translate(document, earlier, lambda item_id: self._responses.item(owner, item_id))
        keeps = document.get("store") is not False

        def keep(response: dict[str, Any]) -> None:
            if keeps:
                self._responses.keep(owner, response, translation.items)

        chat = msgspec.json.encode(translation.chat)
        request = check(RESPONSE_AS_CHAT.decoder, chat)
        return ResponseBuilder(translation, model, keep), request, RequestDocument(chat, translation.chat)
