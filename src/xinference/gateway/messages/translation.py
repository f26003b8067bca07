"""Requests of Anthropic's API as chats: the request for the engine, and the translation of its answer.

This is for engines without this API, and for requests with fields of chats, such as a seed or a constraint of the
answer: the engines that have this API do not read all of them in a message.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from xinference.gateway.built_answers import with_builder
from xinference.gateway.canonical_requests import make_canonical
from xinference.gateway.engine_answers import chained
from xinference.gateway.engine_requests import GUIDED, EngineCall
from xinference.gateway.messages.answer import MessageBuilder, token_count
from xinference.gateway.messages.request import chat_of, text_to_count
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.routes import DataPath
from xinference.protocol.common_chats import NATIVE
from xinference.protocol.constraint_fields import CONSTRAINTS, EFFECTS
from xinference.protocol.request_check import check
from xinference.protocol.requests import AnthropicMessages, Request

#: Fields of chats that change which text is the answer. A message does not have them.
_OF_CHATS = (
    "seed", "presence_penalty", "frequency_penalty", "logit_bias", "min_p", "repetition_penalty", "stop_token_ids",
    "ignore_eos", "enable_thinking", "chat_template_kwargs", "reasoning_effort", "parallel_tool_calls",
)  # fmt: skip
_CHAT_FIELDS = frozenset({*CONSTRAINTS, *GUIDED, *_OF_CHATS, *NATIVE, *EFFECTS}) - set(
    AnthropicMessages.__struct_fields__
)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: Adds the rewrites of the answer to a call.
Complete = Callable[[EngineCall], EngineCall]


def needs_chat(request: Request, body: bytes) -> bool:
    """Whether a message has a field that engines read in chats only, such as a schema of the answer."""
    if not isinstance(request, AnthropicMessages):
        return False
    if request.output_format or (request.output_config and b'"format"' in bytes(request.output_config)):
        return True
    return request.has_further_fields and not _CHAT_FIELDS.isdisjoint(_MEMBERS.decode(body))


def translate(path: DataPath, request: Request, body: bytes) -> tuple[Request, RequestDocument, Complete]:
    """Translate a request of Anthropic's API to one of `path`, which is checked as any other.

    Raises:
        Refusal: 400, naming the field that is wrong or not served.
    """
    given = RequestDocument(body)
    make_canonical(request, given)
    if isinstance(request, AnthropicMessages):
        fields = chat_of(given.fields)
        builder = MessageBuilder(request.model, request.stop_sequences or [])
        complete: Complete = partial(with_builder, builder=builder, is_stream=bool(request.stream))
    else:
        fields, complete = text_to_count(given.fields), _with_count
    translated = msgspec.json.encode(fields)
    return check(path.decoder, translated), RequestDocument(translated, fields), complete


def _with_count(call: EngineCall) -> EngineCall:
    return msgspec.structs.replace(call, answer=chained(call.answer, token_count))
