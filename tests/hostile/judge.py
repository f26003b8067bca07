"""What may reach an engine: judged by other code than that of the gateway."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tests.fakes.record import Recorded
from tests.hostile.canaries import Canaries
from xinference.engines.dialects import DIALECTS
from xinference.gateway.routes import DATA_PATHS

#: Fields that the gateway makes of others.
MADE = frozenset(
    {"chat_template_kwargs", "structured_outputs", "json_schema", "regex", "ebnf", "grammar", "reasoning_effort"}
)
#: Fields that engines read as the name of a schema, and labels of the request that they do not read.
NAMES_OF_SCHEMAS = ("$schema", "$id")
LABELS = ("metadata",)
#: Fields with a schema, and the only names inside that an engine could follow: addresses are common in the others.
SCHEMAS = frozenset({"json", "json_schema", "guided_json", "schema", "parameters", "input_schema"})
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class Judge:
    """Judges the requests that have reached the stand-in of one engine."""

    def __init__(self, engine: str, traps: Canaries) -> None:
        native = DIALECTS[engine].native
        self._engine = engine
        self._traps = traps
        self._native = native.taken.keys()
        self._refused = native.refused
        self._known: dict[str, set[str]] = {}
        for path in DATA_PATHS.values():
            form: Any = path.decoder.type
            names = {field.encode_name for field in msgspec.structs.fields(form)}
            self._known.setdefault(path.upstream, set()).update(names)

    def fault(self, request: Recorded) -> str | None:
        """What is wrong with a request that has arrived; None: nothing."""
        path = request.path.partition("?")[0]
        if path not in self._known:
            return f"{self._engine} got the path {path}"
        if request.headers.get("authorization") is None or "cookie" in request.headers:
            return f"{self._engine} got the headers {request.headers}"
        try:
            body = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            return f"{self._engine} got what is not JSON: {error}: {request.body[:300]!r}"
        if not isinstance(body, dict):
            return f"{self._engine} got no object: {request.body[:300]!r}"
        unknown = body.keys() - self._known[path] - self._native - MADE
        if unknown:
            return f"{self._engine} got fields that nobody has judged: {sorted(unknown)}"
        if forbidden := (body.keys() & self._refused) - self._known[path]:
            return f"{self._engine} got fields that no client may set: {sorted(forbidden)}"
        for name in LABELS:
            body.pop(name, None)
        if path.endswith("/chat/completions"):
            body.pop("documents", None)  # texts of the template: vLLM opens none of them
        where = self._trap_in(body, "", in_schema=False)
        return None if where is None else f"{self._engine} got the trap at {where}: {request.body[:2000]!r}"

    def _trap_in(self, value: Any, path: str, *, in_schema: bool) -> str | None:
        """Where a value has the trap's address or file. In a schema, only a reference can be followed."""
        if isinstance(value, str):
            return self._trap_in_text(value, path, in_schema=in_schema)
        if isinstance(value, list):
            inner = [(each, f"{path}[{n}]", in_schema) for n, each in enumerate(value)]
        elif isinstance(value, dict):
            inner = [
                (each, f"{path}.{name}", (in_schema or name in SCHEMAS) and name not in REFERENCES)
                for name, each in value.items()
                # The text of a text part is read by the model only: a document's title becomes one, for example.
                if name not in NAMES_OF_SCHEMAS and not (name == "text" and value.get("type") == "text")
            ]
        else:
            return None
        found = (self._trap_in(each, inner_path, in_schema=is_schema) for each, inner_path, is_schema in inner)
        return next((where for where in found if where), None)

    def _trap_in_text(self, text: str, path: str, *, in_schema: bool) -> str | None:
        if text.startswith("data:") or (f":{self._traps.port}" not in text and str(self._traps.file) not in text):
            return None
        if text.startswith("{"):  # a schema as a text
            try:
                return self._trap_in(json.loads(text), f"{path}(JSON)", in_schema=True)
            except (ValueError, RecursionError):
                pass
        return None if in_schema else path
