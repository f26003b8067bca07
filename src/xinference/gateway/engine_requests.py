"""Fields that older clients of Xinference send, in the words of the engine that gets them.

A body is decoded and written anew only where such a field is in it; every other request's bytes go on as they came.
What an engine can't do is refused by name: a field that is dropped in silence is a wrong answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from xinference.engines.llama_cpp import choices
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import (
    AnthropicMessages,
    Chat,
    Document,
    Embeddings,
    Generation,
    Request,
    Rerank,
    text_of,
)
from xinference.routing.table import Route, RoutingTable

Body = dict[str, Any]
Say = Callable[[Body, Any], None]

#: Fields that choose how an answer is bound, as older vLLMs called them; the last two have nothing to bind.
GUIDED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_json_object")
_GENERATION = ("repetition_penalty", "stop_token_ids", "lora_name", *GUIDED)
_CHAT = (*_GENERATION, "enable_thinking", "chat_template_kwargs", "tool_choice")


def translate(table: RoutingTable, route: Route, request: Request, body: bytes) -> tuple[Route, bytes]:
    """The route and the body for the engine.

    Raises:
        Refusal: 400, naming a field that the engine has no word for.
    """
    body = _with_ends(route, request, body)
    given = _given(request)
    together = choices.concerns(route, request) and not request.stream
    if not given and not together:
        return route, body
    changed: Body = msgspec.json.decode(body)
    before = dict(changed)
    if "lora_name" in given:
        route = _adapter(table, route, given["lora_name"])
        changed["model"] = route.uid
        del changed["lora_name"]
    words = DIALECTS.get(route.engine, {})
    for name, value in given.items():
        say = words.get(name) or COMMON.get(name)
        if say is not None:
            say(changed, value if name in SHAPED else changed[name])
    if together:
        changed = choices.as_stream(changed)
    return route, body if changed == before else msgspec.json.encode(changed)


def _with_ends(route: Route, request: Request, body: bytes) -> bytes:
    """Add to a chat what ends an answer of this model, where neither the request nor its engine's start says it."""
    if not (route.stop or route.stop_token_ids) or route.engine in TOLD_AT_START:
        return body
    ends: dict[str, Any] = {}
    if isinstance(request, Chat):
        if route.stop and request.stop is None:
            ends["stop"] = route.stop
        if route.stop_token_ids and request.stop_token_ids is None and not request.ignore_eos:
            ends["stop_token_ids"] = route.stop_token_ids
    elif isinstance(request, AnthropicMessages) and route.stop and request.stop_sequences is None:
        ends["stop_sequences"] = route.stop
    if not ends:
        return body
    # At the end: what stands last counts, should the client have sent null.
    return body[: body.rindex(b"}")] + b"," + msgspec.json.encode(ends)[1:]


def _given(request: Request) -> dict[str, Any]:
    """The fields of `request` that may need other words."""
    if isinstance(request, Generation):
        names = _CHAT if isinstance(request, Chat) else _GENERATION
        given = {name: value for name in names if (value := getattr(request, name)) is not None}
        if isinstance(given.get("tool_choice"), str):
            del given["tool_choice"]
        return given
    if isinstance(request, Rerank) and any(isinstance(text, Document) for text in (request.query, *request.documents)):
        return {"documents": request}
    if isinstance(request, Embeddings):
        cut = request.truncate_prompt_tokens
        given = {} if cut is None else {"truncate_prompt_tokens": cut}
        texts = request.input if isinstance(request.input, list) else []
        return given | ({"input": texts} if any(isinstance(text, Document) for text in texts) else {})
    return {}


def _adapter(table: RoutingTable, route: Route, name: str) -> Route:
    """The route of the adapter `name` of the model that was asked for."""
    base = route.parent or route.uid
    found = table.routes.get(name)
    if found is not None and base in (found.uid, found.parent):
        return found
    adapters = sorted(uid for uid, other in table.routes.items() if other.parent == base)
    has = f"it has {', '.join(adapters)}" if adapters else "it was launched without any"
    raise Refusal("adapter_not_found", 400, f"The model {base!r} has no adapter {name!r}: {has}.", param="lora_name")


def _renamed(old: str, new: str) -> Say:
    def say(body: Body, value: Any) -> None:
        body[new] = body.pop(old)

    return say


def _refused(name: str, engine: str, hint: str) -> Say:
    def say(body: Body, value: Any) -> None:
        if value or value == 0:
            raise Refusal("unsupported_field", 400, f"{engine} has no {name}.", hint=hint, param=name)
        del body[name]

    return say


def _into(group: str, old: str, new: str) -> Say:
    """Put the value into the object `group`, as vLLM wants what binds an answer."""

    def say(body: Body, value: Any) -> None:
        body[group] = {**(body.get(group) or {}), new: _parsed(old, body.pop(old))}

    return say


def _parsed(name: str, value: Any) -> Any:
    """A schema may come as JSON in a string."""
    if name != "guided_json" or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise Refusal("invalid_request", 400, f"{name} is a string that is not JSON.", param=name) from None


def _schema_as(new: str) -> Say:
    def say(body: Body, value: Any) -> None:
        body[new] = _parsed("guided_json", body.pop("guided_json"))

    return say


def _json_object(body: Body, value: Any) -> None:
    if body.pop("guided_json_object"):
        body["response_format"] = {"type": "json_object"}


def _choice_as_grammar(body: Body, value: list[str]) -> None:
    """llama.cpp's GBNF quotes as JSON does, for what a choice is made of."""
    del body["guided_choice"]
    body["grammar"] = "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in value)


def _choice_as_regex(body: Body, value: list[str]) -> None:
    escaped = ("".join(f"\\{c}" if c in r"\.^$*+?{}[]|()" else c for c in choice) for choice in value)
    body["regex"] = f"({'|'.join(escaped)})"
    del body["guided_choice"]


def _thinking(body: Body, value: bool) -> None:
    """The switch is the template's own; some templates call it ``thinking``."""
    kwargs = _template_kwargs(body.get("chat_template_kwargs"))
    body["chat_template_kwargs"] = {"enable_thinking": value, "thinking": value} | kwargs
    del body["enable_thinking"]


def _template(body: Body, value: Any) -> None:
    body["chat_template_kwargs"] = _template_kwargs(body.get("chat_template_kwargs"))


def _template_kwargs(value: Any) -> Body:
    """The object, which older clients send as JSON in a string."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else {}
        except ValueError:
            value = None
        if not isinstance(value, dict):
            param = "chat_template_kwargs"
            raise Refusal("invalid_request", 400, f"{param} is neither an object nor one as JSON text.", param=param)
    return value or {}


def _one_tool(body: Body, value: Any) -> None:
    """llama.cpp takes a named tool for ``auto``: give it that tool alone, and ``required``."""
    if not isinstance(value, dict):
        return
    name = (value.get("function") or {}).get("name")
    tools = [tool for tool in body.get("tools") or [] if (tool.get("function") or {}).get("name") == name]
    if not tools:
        raise Refusal(
            "invalid_request", 400, f"tool_choice names {name!r}, which is not in tools.", param="tool_choice"
        )
    body["tools"], body["tool_choice"] = tools, "required"


def _texts(body: Body, request: Rerank) -> None:
    """Documents and query as the plain texts that engines take."""
    body["query"] = text_of(request.query, "query")
    body["documents"] = [text_of(document, f"documents[{n}]") for n, document in enumerate(request.documents)]


def _inputs(body: Body, value: list[Any]) -> None:
    body["input"] = [text_of(one, f"input[{n}]") if isinstance(one, Document) else one for n, one in enumerate(value)]


#: Told from the request's shape, not from the field of that name.
SHAPED = frozenset({"documents", "input"})
_ONLY_JSON = "Use response_format with a json_schema."

#: These know their model's stop texts without being told in a request.
TOLD_AT_START = frozenset({"llama.cpp"})

#: What every engine is told the same way.
COMMON: dict[str, Say] = {
    "enable_thinking": _thinking,
    "chat_template_kwargs": _template,
    "documents": _texts,
    "input": _inputs,
    "guided_json_object": _json_object,
}
#: Engine -> field -> its own word for it. A field that is not here goes on under its name.
DIALECTS: dict[str, dict[str, Say]] = {
    "llama.cpp": {
        "repetition_penalty": _renamed("repetition_penalty", "repeat_penalty"),
        "stop_token_ids": _refused("stop_token_ids", "llama.cpp", "Give the texts to stop at in stop."),
        "truncate_prompt_tokens": _refused(
            "truncate_prompt_tokens", "llama.cpp", "Send shorter texts, or lists of token ids that are cut already."
        ),
        "guided_json": _schema_as("json_schema"),
        "guided_choice": _choice_as_grammar,
        "guided_grammar": _renamed("guided_grammar", "grammar"),
        "guided_regex": _refused("guided_regex", "llama.cpp", "Use guided_grammar in GBNF, or guided_json."),
        "tool_choice": _one_tool,
    },
    "vLLM": {
        "guided_json": _into("structured_outputs", "guided_json", "json"),
        "guided_regex": _into("structured_outputs", "guided_regex", "regex"),
        "guided_choice": _into("structured_outputs", "guided_choice", "choice"),
        "guided_grammar": _into("structured_outputs", "guided_grammar", "grammar"),
    },
    "SGLang": {
        "guided_json": _schema_as("json_schema"),
        "guided_regex": _renamed("guided_regex", "regex"),
        "guided_choice": _choice_as_regex,
        "guided_grammar": _renamed("guided_grammar", "ebnf"),
    },
    "Transformers": {
        "guided_regex": _refused("guided_regex", "Transformers", _ONLY_JSON),
        "guided_choice": _refused("guided_choice", "Transformers", _ONLY_JSON),
        "guided_grammar": _refused("guided_grammar", "Transformers", _ONLY_JSON),
    },
}
