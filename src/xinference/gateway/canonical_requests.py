"""Converts a body to the form that every engine reads, and refuses fields that no engine supports.

The APIs allow several forms for one meaning: null for an absent field, any string as the arguments of an earlier call,
an empty string among the stop texts, `functions` for tools. Engines read some of them only, and answer a mistake with a
status of their own choice. A body that cannot differ from the common form is not decoded.
"""

from __future__ import annotations

from msgspec import UNSET

from xinference.engines.dialect import Body
from xinference.gateway.canonical_chats import canonical_chat
from xinference.gateway.canonical_fields import check_format, invalid, unsupported
from xinference.gateway.canonical_messages import canonical_messages
from xinference.gateway.legacy_functions import replace_functions
from xinference.gateway.request_document import RequestDocument
from xinference.protocol import exact_requests
from xinference.protocol.field_types import Opaque
from xinference.protocol.requests import (
    AnthropicMessages,
    Chat,
    Completion,
    CountTokens,
    Request,
    Template,
    Tokenize,
)


def make_canonical(request: Request, document: RequestDocument) -> None:
    """Bring a body into the common form.

    Args:
        request: the checked fields of the document; empty stop texts are removed from it, too.

    Raises:
        Refusal: 400, naming the field.
    """
    if not _may_differ(request, document.raw):
        return
    fields = document.fields
    document.drop_nulls(fields)
    if isinstance(options := fields.get("stream_options"), dict):
        document.drop_nulls(options)
    _drop_empty_stops(request, document)
    if isinstance(request, Chat):
        if request.top_logprobs is not None and not request.logprobs:
            if request.top_logprobs:
                raise invalid("top_logprobs", "it needs logprobs: true.")
            document.remove(fields, "top_logprobs")
        _check_unserved(fields)
        replace_functions(document)
        if isinstance(request.function_call, dict):
            request.tool_choice = Opaque()
    if isinstance(request, (Chat, Template)) or (isinstance(request, Tokenize) and request.messages is not None):
        canonical_chat(document)
    elif isinstance(request, CountTokens | AnthropicMessages):
        canonical_messages(document)
    elif isinstance(request, Completion):
        _check_completion(document)
    check_format(document, fields.get("response_format"), "response_format")


def _may_differ(request: Request, body: bytes) -> bool:
    """Whether the body may have another form."""
    if body.find(b"null") >= 0 or body.find(b'"function') >= 0:  # `in` costs more: it first tries to read a number
        return True
    if type(request) is exact_requests.Chat:
        return _chat_may_differ(request)
    if (
        body.find(b'"type"') >= 0
        or body.find(b'"stop') >= 0
        or body.find(b'"tool_c') >= 0
        or body.find(b'"response_f') >= 0
    ):
        return True
    if isinstance(request, (Chat, Template)):
        messages = request.messages
        if len(messages) > 1 and messages[-1].role == "assistant" == messages[-2].role:
            return True
        for message in messages:
            if message.content is None or message.content == []:
                return True
        return isinstance(request, Chat) and (
            request.top_logprobs is not None
            or request.web_search_options is not None
            or request.modalities is not None
            or request.audio is not None
        )
    return isinstance(request, (Completion, AnthropicMessages, CountTokens))


def _chat_may_differ(chat: exact_requests.Chat) -> bool:
    """The same for a chat whose fields are all known, without null."""
    if (
        chat.stop is not None
        or chat.tools is not None
        or chat.tool_choice is not None
        or chat.response_format is not UNSET
        or chat.top_logprobs is not None
        or chat.web_search_options is not None
        or chat.modalities is not None
        or chat.audio is not None
    ):
        return True
    messages = chat.messages
    if len(messages) > 1 and messages[-1].role == "assistant" == messages[-2].role:
        return True
    for message in messages:  # noqa: SIM110 -- a generator takes longer
        if type(message.content) is not str or message.tool_calls is not None:
            return True
    return False


def _drop_empty_stops(request: Request, document: RequestDocument) -> None:
    """Remove empty stop texts: an engine would end the answer at once. Without another, the field is absent."""
    for name in ("stop", "stop_sequences", "stop_regex"):
        stops = document.fields.get(name)
        given = [stops] if isinstance(stops, str) else stops
        if not isinstance(given, list) or "" not in given:
            continue
        left = [stop for stop in given if stop != ""]
        if left:
            document.put(document.fields, name, left)
        else:
            document.remove(document.fields, name)
        if hasattr(request, name):
            setattr(request, name, left or None)


def _check_completion(document: RequestDocument) -> None:
    body = document.fields
    best_of = body.get("best_of")
    if best_of is not None:
        if best_of != 1 and best_of != body.get("n", 1):
            raise unsupported("best_of", "no engine here chooses among more answers than n.", "Ask for them by n.")
        document.remove(body, "best_of")
    if body.get("suffix") == "":
        document.remove(body, "suffix")


def _check_unserved(body: Body) -> None:
    """Refuse what would change the answer and no engine does; hints for a cache or a bill are passed over."""
    if body.get("web_search_options") is not None:
        raise unsupported("web_search_options", "models here cannot search the web.", "Leave it out.")
    modalities = body.get("modalities")
    if modalities not in (None, [], ["text"], "text") or body.get("audio") is not None:
        raise unsupported("modalities", "models here answer in text only.", "Leave modalities and audio out.")
