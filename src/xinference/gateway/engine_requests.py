"""Converts a client's request to the engine's form.

A body is decoded only if it has a field that needs a rewrite, once for all steps, and encoded only if a step has
changed it; the bytes of every other request are passed on unchanged. A field that the engine cannot serve is refused by
name, because an answer without it would be wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET

from xinference.engines.dialect import Body, BytesRewrite, Dialect, Exchange, FieldRewrite
from xinference.engines.dialects import dialect_of
from xinference.error_codes import Code
from xinference.gateway.canonical_requests import make_canonical
from xinference.gateway.common_rewrites import rewrite_common, thinking_arguments
from xinference.gateway.continuation import CONTINUE, NEW_ANSWER, settle_continuation
from xinference.gateway.engine_answers import answer_rewrite, events_rewrite
from xinference.gateway.part_fields import check_messages, other_members
from xinference.gateway.priority import NORMAL
from xinference.gateway.request_document import RequestDocument
from xinference.gateway.thinking_fields import replace_thinking
from xinference.gateway.token_biases import check_biases
from xinference.gateway.tool_support import check_tools
from xinference.protocol import exact_requests
from xinference.protocol.common_chats import CommonChat, native_fields
from xinference.protocol.constraint_fields import (
    CONSTRAINTS,
    EFFECTS,
    PROMPT_EFFECTS,
    RANK_EFFECTS,
    VECTOR_EFFECTS,
    check_constraint_fields,
    check_one_constraint,
    constrains,
    has_effect,
)
from xinference.protocol.errors import Refusal
from xinference.protocol.request_check import wrong_field
from xinference.protocol.requests import (
    AnthropicMessages,
    Chat,
    Completion,
    Document,
    Embeddings,
    Generation,
    Request,
    Rerank,
    Template,
    Tokenize,
    text_of,
)
from xinference.routing.table import Route, RoutingTable

#: Fields that constrain the text of an answer, under the names that older clients of Xinference use.
GUIDED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_json_object")
_CONSTRAINING = frozenset({"response_format", *GUIDED})
#: Fields of the APIs that no engine reads and whose contents have no form. In a body of an exact form they are plain
#: values; any other is not passed on.
UNREAD = (
    "audio", "betas", "cache_control", "container", "context_management", "inference_geo", "prediction",
    "web_search_options",
)  # fmt: skip
_GENERATION = ("repetition_penalty", "stop_token_ids", "lora_name", "response_format", *GUIDED)
#: Those of them whose JSON is not decoded by the form.
_UNDECODED = ("guided_json", "response_format")
#: Those that a common chat may have, and that some engines read under other names.
_RENAMED = ("repetition_penalty", "stop_token_ids")
#: Those of a conversation that is only rendered or counted.
_OF_TEMPLATES = ("enable_thinking", "chat_template_kwargs")
#: Values that set nothing: -1 is the default of a number that an engine chooses itself.
_NOTHING: tuple[Any, ...] = (None, "", [], {}, -1)


class _Rewritten:
    """The fields of one API that may need a rewrite."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.values = attrgetter(*names)
        """Returns the values of all of them; one call, because every request has it."""
        self.absent = tuple(UNSET if name in _UNDECODED else None for name in names)
        """The values in a request without such a field."""


_COMPLETION = _Rewritten(*_GENERATION, "suffix")
_CHAT = _Rewritten(*_GENERATION, "enable_thinking", "chat_template_kwargs", "tool_choice")


class EngineCall(msgspec.Struct, frozen=True):
    """A request in its engine's dialect. A struct, because every request makes one: a frozen dataclass costs more."""

    route: Route
    """The route of the adapter if the request names one, else the model's."""
    body: bytes
    answer: BytesRewrite | None
    """Applied to the whole answer; None: its bytes are passed on as they arrive."""
    events: BytesRewrite | None
    """Applied to the complete server-sent events of a stream; None: they are passed on unchanged."""
    choices: int = 1
    """The number of choices, if the engine computes no more of them than it has slots."""


def prepare(
    table: RoutingTable, route: Route, request: Request, document: RequestDocument, priority: int = NORMAL
) -> EngineCall:
    """Rewrite a request for the engine of `route`, and choose the rewrites of its answer.

    Args:
        request: the checked fields of the document.
        priority: its level; see `gateway.priority`.

    Raises:
        Refusal: 400, naming a field that the engine cannot serve.
    """
    dialect = dialect_of(route.engine)
    is_common = request.is_common  # most requests, which need none of the steps below
    if is_common:
        chat: Any = request  # a `CommonChat`
        if chat.has_native or chat.typical_p is not UNSET or chat.skip_special_tokens is not UNSET:
            _check_native_fields(dialect, chat, document)
        if chat.enable_thinking is not None or chat.response_format is not UNSET:
            rewrite_common(dialect, chat, document)
    else:
        make_canonical(request, document)
        check_biases(request, document, dialect)
        if request.has_further_fields and isinstance(request, Chat):
            replace_thinking(request, document)
    if route.tools_refused is not None:
        check_tools(route, request, document, forces_calls=dialect.forces_calls)
    exchange = dialect.exchange(request, route.uid)
    if not request.is_common and request.has_further_fields:
        _check_extra_fields(dialect, request, document)
    if request.priority is not None:  # for the gateway's queue; an engine may refuse it, or have another order
        document.remove(document.fields, "priority")
    if (route.stop or route.stop_token_ids) and not dialect.has_stops_at_start:
        _add_stops(route, request, document)
    fields: dict[str, Any] = {}
    if is_common:
        if chat.has_native:
            fields = {name: value for name in _RENAMED if (value := getattr(chat, name)) is not None}
    else:
        fields = _fields_to_rewrite(request)
        if isinstance(request, Generation) and (request.has_further_fields or len(fields.keys() & _CONSTRAINING) > 1):
            check_one_constraint(document.fields)
    if fields:  # an engine reads most of them under their own names
        fields = {name: fields[name] for name in fields if name in dialect.fields or name in _REWRITTEN}
    if fields or exchange.body is not None:
        route = _rewrite(table, route, document, fields, dialect, exchange)
    if priority != NORMAL and dialect.has_priority_field and isinstance(request, (Chat, Completion)):
        document.add({"priority": priority - NORMAL})
    if is_common and not request.stream:
        answer, events = exchange.answer, None
    else:
        answer, events = answer_rewrite(request, route.uid, exchange), events_rewrite(request, exchange)
    return EngineCall(route, document.encoded(), answer, events, exchange.choices)


def for_deployment(route: Route, request: Request, body: bytes) -> tuple[Request, bytes]:
    """A request for an alias as one for its deployment: the engine knows only the uid."""
    changed: Body = msgspec.json.decode(body)
    changed["model"] = route.uid
    return msgspec.structs.replace(request, model=route.uid), msgspec.json.encode(changed)


def _rewrite(
    table: RoutingTable,
    route: Route,
    document: RequestDocument,
    fields: dict[str, Any],
    dialect: Dialect,
    exchange: Exchange,
) -> Route:
    """Rewrite the body for its engine; returns the route of the adapter if the request names one."""
    # A copy, because the rewrites of the dialects change an object without a mark. They replace its members, which
    # they leave unchanged.
    changed = dict(document.fields)
    if "lora_name" in fields:
        route = _adapter(table, route, fields.pop("lora_name"))
        changed["model"] = route.uid
        del changed["lora_name"]
    for name, value in fields.items():
        rewrite = dialect.fields.get(name) or COMMON[name]
        if name in DECODED or name in changed:
            rewrite(changed, value if name in DECODED else changed[name])
    if exchange.body is not None:
        changed = exchange.body(changed)
    document.replace(changed)
    return route


def _check_extra_fields(dialect: Dialect, request: Request, document: RequestDocument) -> None:
    """Check the fields that the API does not define, and remove those that the engine does not define either.

    Members of the parts of messages that no form defines are removed, too.

    Raises:
        Refusal: 400, naming a field with a wrong value, or one that no client may set.
    """
    fields = document.fields
    known = request.__struct_fields__
    further = {name: value for name, value in fields.items() if name not in known}
    unread = _check_further(dialect, request, further)
    _settle(dialect, request, further, document)
    for name in (*unread, *UNREAD):
        document.remove(fields, name)
    check_messages(fields.get("messages"))
    for holder, name in list(other_members(fields)):
        document.remove(holder, name)


def _check_native_fields(dialect: Dialect, chat: CommonChat, document: RequestDocument) -> None:
    """The same for a common chat with fields of engines. It is decoded only if its engine lacks one of them."""
    further = native_fields(chat)
    if dialect.native.of_texts.issuperset(further):
        _check_native_form(dialect, further)
        _settle(dialect, chat, further, document)
        return
    unread = _check_further(dialect, chat, further)
    _settle(dialect, chat, further, document)
    for name in unread:
        document.remove(document.fields, name)


def _settle(dialect: Dialect, request: Request, further: Body, document: RequestDocument) -> None:
    """Check fields of engines in further ways, and convert those that the engine reads in another form."""
    if isinstance(request, (Chat, Template)) and (CONTINUE in further or NEW_ANSWER in further):
        settle_continuation(dialect, request, further, document)
    if dialect.native.rewrite is not None:
        for name, value in dialect.native.rewrite(further, isinstance(request, Chat)).items():
            document.put(document.fields, name, value)


def _check_further(dialect: Dialect, request: Request, further: Body) -> Set[str]:
    """Check the fields that the API does not define; returns those that the engine does not define either."""
    native = dialect.native
    for name, value in further.items():
        if name in native.refused and value not in _NOTHING:
            cause = f"{name[:100]}: a request cannot set this field of {dialect.engine}."
            raise Refusal(Code.UNSUPPORTED_FIELD, cause, param=name)
    _check_native_form(dialect, further)
    not_of_texts = native.not_of_texts if isinstance(request, Generation) else ()
    taken = {name: value for name, value in further.items() if name in native.taken and name not in not_of_texts}
    check_constraint_fields(taken)
    for name in CONSTRAINTS & (further.keys() - taken.keys()):
        if constrains(name, further[name]):  # without it the answer would look like one that obeys it
            cause = f"{name} is no field of {dialect.engine}, so that the answer would not be constrained."
            raise Refusal(Code.UNSUPPORTED_FIELD, cause, hint="Use response_format.", param=name)
    unread = further.keys() - taken.keys()
    _refuse_effects(dialect, request, further, unread)
    return unread


def _check_native_form(dialect: Dialect, further: Body) -> None:
    """Check the types and bounds of the fields that the engine defines."""
    form = dialect.native.form
    try:
        msgspec.convert(further, form)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error), form) from None


def _refuse_effects(dialect: Dialect, request: Request, further: Body, unread: Set[str]) -> None:
    """Refuse a field that the engine does not read and without which the answer is another one."""
    effects: Mapping[str, str | None]
    if isinstance(request, Generation):
        effects = EFFECTS
        if isinstance(request, Completion):
            effects = EFFECTS | PROMPT_EFFECTS
            unread = unread - {"raw"}  # a prompt is one
    elif isinstance(request, Embeddings):
        effects = VECTOR_EFFECTS
    elif isinstance(request, Rerank):
        effects = RANK_EFFECTS
        unread = unread | (further.keys() & {"top_k"})  # engines have it for texts only
    else:
        return
    for name in effects.keys() & unread:
        if has_effect(name, further[name]):
            cause = f"{name}: {dialect.engine} does not read it here, so that the answer would be another one."
            raise Refusal(Code.UNSUPPORTED_FIELD, cause, hint=effects[name], param=name)


def _add_stops(route: Route, request: Request, document: RequestDocument) -> None:
    """Add the model's stop texts and token ids to a chat, unless the request has set them."""
    stops: dict[str, Any] = {}
    if isinstance(request, Chat):
        if route.stop and request.stop is None:
            stops["stop"] = route.stop
        if route.stop_token_ids and request.stop_token_ids is None and not request.ignore_eos:
            stops["stop_token_ids"] = route.stop_token_ids
    elif isinstance(request, AnthropicMessages) and route.stop and request.stop_sequences is None:
        stops["stop_sequences"] = route.stop
    if stops:
        document.add(stops)


def _fields_to_rewrite(request: Request) -> dict[str, Any]:
    """The fields of `request` that may need a rewrite, with their values."""
    if type(request) is exact_requests.Chat and _is_plain(request):
        return {}
    if isinstance(request, Generation):
        api = _CHAT if isinstance(request, Chat) else _COMPLETION
        values = api.values(request)
        if values == api.absent:
            return {}
        named = zip(api.names, values, strict=True)
        fields = {name: value for name, value in named if value is not None and value is not UNSET}
        for name in _UNDECODED:
            if name in fields and bytes(fields[name]) == b"null":
                del fields[name]
        if isinstance(fields.get("tool_choice"), str):
            del fields["tool_choice"]
        return fields
    if isinstance(request, Rerank) and any(isinstance(text, Document) for text in (request.query, *request.documents)):
        return {"documents": request}
    if isinstance(request, Embeddings):
        limit = request.truncate_prompt_tokens
        fields = {} if limit is None else {"truncate_prompt_tokens": limit}
        texts = request.input if isinstance(request.input, list) else []
        return fields | ({"input": texts} if any(isinstance(text, Document) for text in texts) else {})
    if isinstance(request, (Template, Tokenize)):
        names = _OF_TEMPLATES if request.messages is not None else ()
        fields = {name: value for name in names if (value := getattr(request, name)) is not None}
        return fields if isinstance(request, Template) else {"text": request, **fields}
    return {}


def _is_plain(chat: exact_requests.Chat) -> bool:
    """Whether a chat has none of the fields of `_CHAT`."""
    return (
        chat.repetition_penalty is None
        and chat.stop_token_ids is None
        and chat.lora_name is None
        and chat.guided_json is UNSET
        and chat.response_format is UNSET
        and chat.guided_regex is None
        and chat.guided_choice is None
        and chat.guided_grammar is None
        and chat.guided_json_object is None
        and chat.enable_thinking is None
        and chat.chat_template_kwargs is None
        and (chat.tool_choice is None or type(chat.tool_choice) is str)
    )


def _adapter(table: RoutingTable, route: Route, name: str) -> Route:
    """The route of the adapter `name` of the requested model.

    Raises:
        Refusal: 400, with the names of the model's adapters.
    """
    base = route.parent or route.uid
    adapter = table.routes.get(name)
    if adapter is not None and base in (adapter.uid, adapter.parent):
        return adapter
    adapters = sorted(uid for uid, other in table.routes.items() if other.parent == base)
    has = f"it has {', '.join(adapters)}" if adapters else "it was launched without any"
    raise Refusal(Code.ADAPTER_NOT_FOUND, f"The model {base!r} has no adapter {name!r}: {has}.", param="lora_name")


def _json_object(body: Body, value: Any) -> None:
    if body.pop("guided_json_object"):
        body["response_format"] = {"type": "json_object"}


def _thinking(body: Body, value: bool) -> None:
    """Pass the switch as a template argument."""
    kwargs = _template_kwargs(body.get("chat_template_kwargs"))
    body["chat_template_kwargs"] = thinking_arguments(value, kwargs)
    del body["enable_thinking"]


def _template(body: Body, value: Any) -> None:
    body["chat_template_kwargs"] = _template_kwargs(body.get("chat_template_kwargs"))


def _template_kwargs(value: Any) -> Body:
    """The template's arguments as an object; older clients send JSON in a string."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else {}
        except (ValueError, RecursionError):
            value = 0
    if value is None:
        return {}
    if not isinstance(value, dict):
        param = "chat_template_kwargs"
        raise Refusal(Code.INVALID_REQUEST, f"{param} is neither an object nor one as JSON text.", param=param)
    for name in ("messages", "tools"):  # an engine would render them in place of those of the request
        if name in value:
            cause = f"chat_template_kwargs.{name}: it is a field of the request itself."
            raise Refusal(Code.INVALID_REQUEST, cause, hint=f"Use {name}.", param=f"chat_template_kwargs.{name}")
    return value


def _texts(body: Body, request: Rerank) -> None:
    """Replace document objects by texts, the only form that engines accept."""
    body["query"] = text_of(request.query, "query")
    body["documents"] = [text_of(document, f"documents[{n}]") for n, document in enumerate(request.documents)]


def _inputs(body: Body, value: list[Any]) -> None:
    body["input"] = [text_of(one, f"input[{n}]") if isinstance(one, Document) else one for n, one in enumerate(value)]


#: Fields whose rewrite gets the decoded value, not the value of the body's JSON.
DECODED = frozenset({"documents", "input", "text"})

#: Rewrites that are the same for every engine.
COMMON: dict[str, FieldRewrite] = {
    "enable_thinking": _thinking,
    "chat_template_kwargs": _template,
    "documents": _texts,
    "input": _inputs,
    "guided_json_object": _json_object,
}
_REWRITTEN = frozenset({"lora_name", *COMMON})
