"""Hostile requests of a client with a key for models; each one follows from a seed and a number."""

from __future__ import annotations

import base64
import functools
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.hostile.canaries import Canaries
from tests.hostile.values import (
    INTEGERS,
    any_value,
    deep,
    encode,
    flood,
    grammar,
    number,
    pattern,
    schema,
    text,
    tree,
)
from tests.live.pictures import png
from xinference.engines.dialects import DIALECTS
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.addresses import MEDIA_FIELDS

Body = dict[str, Any]
CHAT_PATHS = ("/v1/chat/completions", "/v1/messages", "/anthropic/v1/messages", "/v1/responses")
#: Fields of the engines' APIs that are not in the tables of native fields, from their references and their sources.
FURTHER_FIELDS = (
    "best_of", "echo", "suffix", "logprobs", "top_logprobs", "logit_bias", "seed", "user", "stream_options",
    "functions",
    "function_call", "modalities", "audio", "prediction", "web_search_options", "parallel_tool_calls", "tool_choice",
    "encoding_format", "dimensions", "truncate", "pooling", "lora", "lora_request", "lora_name", "adapter", "adapters",
    "prompt_embeds", "input_embeds", "mm_processor_kwargs", "multi_modal_data", "multi_modal_uuids", "media_io_kwargs",
    "chat_template", "chat_template_kwargs", "tokenizer", "processor", "trust_remote_code", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "guided_json_object", "structural_tag", "response_format",
    "structured_outputs", "extra_body", "extra_args", "vllm_xargs", "kv_transfer_params", "sampling_params", "priority",
    "data_parallel_rank", "log_metrics", "return_logprob", "logprob_start_len", "token_ids_logprob", "stop_regex",
    "conversation", "previous_response_id", "background", "include", "truncation", "prompt", "moderation", "store",
    "max_tool_calls", "reasoning", "text", "thinking", "container", "mcp_servers", "betas", "context_management",
    "cache_control", "system_prompt", "image_data", "slot_id", "id_task", "speculative.n_max", "__verbose", "n_batch",
    "model_path", "path", "filename", "save_path", "callback_url", "webhook", "proxy", "headers", "__proto__",
    "constructor",
    "request_id", "metadata", "service_tier", "safety_identifier", "reasoning_effort", "enable_thinking",
)  # fmt: skip
CONSTRAINTS = (
    "response_format", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar", "json_schema",
    "regex", "ebnf", "structured_outputs", "structural_tag", "tools", "functions", "text", "output_config",
    "output_format", "bad_words",
)  # fmt: skip
PART_TYPES = (
    "text", "image_url", "input_image", "image", "audio_url", "input_audio", "video_url", "input_video", "video",
    "file",
    "input_file", "document", "tool_use", "tool_result", "thinking", "refusal", "image_embeds", "image_pil", "zzz", "",
    "web_search_tool_result", "container_upload", "mcp_tool_use", "output_text", "input_text", "reasoning",
)  # fmt: skip


@dataclass(frozen=True)
class HostileRequest:
    """One request."""

    number: int
    kinds: tuple[str, ...]
    """What is hostile about it."""
    model: str
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Generator:
    """Makes the requests of one seed."""

    def __init__(self, seed: int, models: tuple[str, ...], traps: Canaries) -> None:
        self._seed = seed
        self._models = models
        self._traps = traps
        self._native = sorted({name for dialect in DIALECTS.values() for name in dialect.native.taken})
        self._refused = sorted({name for dialect in DIALECTS.values() for name in dialect.native.refused})

    def request(self, number: int) -> HostileRequest:
        """The request of this number, the same each time."""
        random = Random(f"{self._seed}:{number}")
        path = random.choice((*DATA_PATHS, *CHAT_PATHS * 3, "/v1/completions", "/v1/completions"))
        model = random.choice(self._models)
        body = base_body(path, model, random)
        headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
        changes: list[Callable[[str, Body, Random], None]] = random.choices(
            [change for change, _ in self._changes()],
            [weight for _, weight in self._changes()],
            k=random.choice((1, 1, 1, 2, 2, 3)),
        )
        for change in changes:
            change(path, body, random)
        kinds = [change.__name__.lstrip("_") for change in changes]
        encoded = encode(body).encode("utf-8", "surrogatepass")
        if random.random() < 0.06:
            encoded, kind = _break_json(encoded, random)
            kinds.append(kind)
        if random.random() < 0.08:
            encoded, kind = _odd_http(encoded, headers, random)
            kinds.append(kind)
        return HostileRequest(number, tuple(kinds), model, path, encoded, headers)

    def _changes(self) -> tuple[tuple[Callable[[str, Body, Random], None], int], ...]:
        return (
            (self._native_field, 20),
            (self._constraint, 22),
            (self._media, 22),
            (self._further_field, 8),
            (_limits_of_sampling, 8),
            (_odd_messages, 10),
            (_wrong_type, 6),
            (_many_of_one, 5),
            (_odd_tools, 6),
            (_odd_model, 1),
        )

    # -- fields that only engines know ------------------------------------------------------------------------

    def _native_field(self, path: str, body: Body, random: Random) -> None:
        for _ in range(random.choice((1, 1, 2, 5))):
            name = random.choice(self._native if random.random() < 0.85 else self._refused)
            body[name] = self._likely(name, random) if random.random() < 0.6 else any_value(random)

    def _likely(self, name: str, random: Random) -> Any:
        """A value of a type that the field has somewhere."""
        kinds = [dialect.native.taken[name] for dialect in DIALECTS.values() if name in dialect.native.taken]
        described = str(kinds[0]) if kinds else "str"
        if "bool" in described:
            return random.random() < 0.5
        if "list" in described:
            item = 1 if "int" in described else "a"
            return [item] * random.choice((0, 1, 3, 16, 64, 65))
        if "int" in described:
            return random.choice((*INTEGERS[:16], 1, 2, 4))
        if "float" in described:
            return random.choice((0, 0.01, 0.5, 0.99, 1, -1, 1.5, 5, 100, 1e9, -1e9, 1e-9))
        return schema(random, self._address(random)) if "dict" in described else text(random)

    def _further_field(self, path: str, body: Body, random: Random) -> None:
        value = any_value(random)
        if random.random() < 0.3:
            value = random.choice(({"url": self._address(random)}, [{"image": str(self._traps.file)}]))
        body[random.choice(FURTHER_FIELDS)] = value

    # -- constraints ------------------------------------------------------------------------------------------

    def _constraint(self, path: str, body: Body, random: Random) -> None:
        name = random.choice(CONSTRAINTS)
        made = schema(random, self._address(random))
        shapes: dict[str, Callable[[], Any]] = {
            "response_format": lambda: random.choice(
                (
                    {"type": "json_object"},
                    {"type": "json_object", "schema": made},
                    {"type": "json_schema", "json_schema": {"name": "a", "schema": made, "strict": True}},
                    {"type": "json_schema", "schema": made},
                    {"type": "structural_tag", "structures": [{"begin": "<", "schema": made, "end": ">"}]},
                    {"type": "regex", "regex": pattern(random)},
                    {"type": text(random)},
                    made,
                )
            ),
            "guided_json": lambda: random.choice((made, encode(made))),
            "guided_regex": lambda: pattern(random),
            "regex": lambda: pattern(random),
            "guided_choice": lambda: random.choice((["yes", "no"], flood(random), [""], [text(random)])),
            "guided_grammar": lambda: grammar(random),
            "grammar": lambda: grammar(random),
            "ebnf": lambda: grammar(random),
            "json_schema": lambda: random.choice((made, encode(made))),
            "structured_outputs": lambda: {
                random.choice(
                    ("json", "regex", "choice", "grammar", "json_object", "structural_tag", "zzz")
                ): random.choice((made, pattern(random), grammar(random), True, ["a"]))
            },
            "structural_tag": lambda: encode({"format": made}),
            "tools": lambda: [_tool(path, made, random) for _ in range(random.choice((1, 2, 30)))],
            "functions": lambda: [{"name": "f", "parameters": made}],
            "text": lambda: {"format": {"type": "json_schema", "name": "a", "schema": made}},
            "output_config": lambda: {"format": {"type": "json_schema", "schema": made}},
            "output_format": lambda: {"type": "json_schema", "schema": made},
            "bad_words": lambda: [text(random)] * random.choice((1, 64, 65)),
        }
        body[name] = shapes[name]()
        if name == "tools" and random.random() < 0.5:
            body["tool_choice"] = random.choice(("required", "auto", {"type": "function", "function": {"name": "f"}}))

    # -- media --------------------------------------------------------------------------------------------------

    def _address(self, random: Random) -> str:
        """The trap's address or file, in one of many spellings."""
        host, file = self._traps.host, self._traps.file
        return random.choice(
            (
                f"http://{host}/a.png", f"HTTP://{host}/a", f"http:/{host}/a", f"http:\\\\{host}\\a", f"//{host}/a",
                f"https://{host}/a.png", f" http://{host}", f"\thttp://{host}", f"http://user@{host}/", f"ftp://{host}/",
                f"file://{file}", f"file:{file}", f"FILE://localhost{file}", f"s3://{host}/a", f"unix:{file}",
                f"http://localhost:{self._traps.port}/", f"http://2130706433:{self._traps.port}/",
                f"http://[::ffff:127.0.0.1]:{self._traps.port}/", f"\x00http://{host}/", str(file), f"gopher://{host}/",
            )
        )  # fmt: skip

    def _piece(self, random: Random) -> Any:
        """What stands in a field for media: the trap, media of all kinds, or nonsense."""
        chosen = random.random()
        if chosen < 0.45:
            return self._address(random)
        if chosen < 0.55:
            return {"url": self._address(random), random.choice(("detail", "href", "format", "uuid")): "auto"}
        content = random.choice(
            (
                png(), png(1, 1), png()[:40], png(4000, 1), b"", b"\0" * 100, b"GIF89a\xff\xff\xff\xff",
                b"RIFF\0\0\0\0WAVEfmt ",
                b"\xff\xd8\xff\xe0" + b"a" * 50, b"BM" + b"\xff" * 60, b"ID3" + b"\xff" * 99, b"fLaC" + b"\xff" * 99,
                b"P6 99999 99999 255\n", b"#?RADIANCE\n", b"8BPS\0\1" + b"\xff" * 30, b"\0\0\x02" + b"\xff" * 30,
            )
        )  # fmt: skip
        encoded = base64.b64encode(content).decode()
        return random.choice(
            (
                encoded, f"data:image/png;base64,{encoded}", f"data:image/png;base64,{encoded}!", f"data:,{encoded}",
                f"DATA:image/png;base64,{encoded}", f"data:image/svg+xml;base64,{encoded}", "data:", "data:;base64,",
                f"data:audio/wav;base64,{encoded}", f"data:video/mp4;base64,{encoded}", f"data:{self._address(random)}",
                tree(random),
            )
        )  # fmt: skip

    def _part(self, random: Random) -> Body:
        kind = random.choice(PART_TYPES)
        piece = self._piece(random)
        name = random.choice((kind or "url", *sorted(MEDIA_FIELDS)))
        wrapped = random.choice((piece, {"url": piece}, {"data": piece, "format": "wav"}, [piece]))
        part: Body = random.choice(
            (
                {"type": kind, name: wrapped},
                {"type": kind, "text": "a", name: wrapped},
                {"type": "image_url", "image_url": {"url": piece}},
                {"type": "input_audio", "input_audio": {"data": piece, "format": "wav"}},
                {"type": "image", "source": {"type": "url", "url": piece}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": piece}},
                {"type": "file", "file": {"file_data": piece, "file_id": "a", "filename": str(self._traps.file)}},
                {"type": "video_url", "video_url": {"url": piece}},
                {"type": "input_video", "input_video": {"data": piece}},
                {name: wrapped},
            )
        )
        if random.random() < 0.2:
            part = {"type": "tool_result", "tool_use_id": "t", "content": [part]}
        return part

    def _media(self, path: str, body: Body, random: Random) -> None:
        parts = [self._part(random) for _ in range(random.choice((1, 1, 1, 2, 20)))]
        content = [{"type": "input_text" if path == "/v1/responses" else "text", "text": "a"}, *parts]
        chosen = random.random()
        if chosen < 0.55 and "messages" in body:
            body["messages"] = [{"role": "user", "content": content}]
        elif chosen < 0.55 and path == "/v1/responses":
            body["input"] = random.choice(
                (
                    [{"role": "user", "content": content}],
                    [{"type": "function_call_output", "call_id": "c", "output": parts}],
                    [
                        {
                            "type": random.choice(("computer_call_output", "image_generation_call", "zzz")),
                            "output": parts[0],
                        }
                    ],
                )
            )
        elif chosen < 0.65:
            body["messages"] = [{"role": "user", "content": content}]
        elif chosen < 0.75 and path == "/v1/embeddings":
            body["input"] = parts
        elif chosen < 0.75 and "rerank" in path:
            body["documents"] = parts
        elif chosen < 0.8:
            body["system"] = parts
        elif chosen < 0.85:
            body["prompt"] = random.choice((parts[0], {"prompt_string": "a", "multimodal_data": [self._piece(random)]}))
        else:
            name = random.choice((*sorted(MEDIA_FIELDS), "any_url", "documents", "input_extra", "prompt_embeds"))
            body[name] = random.choice((self._piece(random), [self._piece(random)], {"image": [self._piece(random)]}))


# -- other changes ----------------------------------------------------------------------------------------------


#: Paths with the bodies of another one.
SAME = {
    "/anthropic/v1/messages": "/v1/messages",
    "/anthropic/v1/messages/count_tokens": "/v1/messages/count_tokens",
    "/v1/reranking": "/v1/rerank",
    "/v2/rerank": "/v1/rerank",
    "/rerank": "/v1/rerank",
    "/v1/tokenize": "/tokenize",
    "/v1/detokenize": "/detokenize",
}


def base_body(path: str, model: str, random: Random) -> Body:
    """An ordinary body for a path."""
    messages = [{"role": "user", "content": "Say a word."}]
    if random.random() < 0.2:
        messages.insert(0, {"role": "system", "content": "Be short."})
    short: Body = {"max_tokens": 3}
    bodies: dict[str, Body] = {
        "/v1/chat/completions": {"messages": messages, **short},
        "/v1/completions": {"prompt": random.choice(("a word", ["a", "b"], [1, 2, 3], [[1], [2]])), **short},
        "/v1/embeddings": {"input": random.choice(("a", ["a", "b"], [1, 2]))},
        "/v1/responses": {"input": random.choice(("a", messages)), "max_output_tokens": 3},
        "/v1/messages": {"messages": messages, **short},
        "/v1/messages/count_tokens": {"messages": messages},
        "/v1/rerank": {"query": "a", "documents": ["a", "b"]},
        "/v1/score": {"text_1": "a", "text_2": ["a", "b"]},
        "/v1/convert_ids_to_tokens": {"input": [1, 2]},
        "/tokenize": random.choice(({"content": "a"}, {"prompt": "a"}, {"messages": messages})),
        "/detokenize": {"tokens": [1, 2]},
        "/apply-template": {"messages": messages},
        "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 3},
    }
    body: Body = {"model": model, **bodies[SAME.get(path, path)]}
    if path in (*CHAT_PATHS, "/v1/completions") and random.random() < 0.3:
        body["stream"] = True
    return body


def _limits_of_sampling(path: str, body: Body, random: Random) -> None:
    """Numbers at and beyond the limits of fields that every API has."""
    names = (
        "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of", "temperature", "top_p", "top_k",
        "min_p",
        "presence_penalty", "frequency_penalty", "repetition_penalty", "seed", "logprobs", "top_logprobs", "top_n",
        "dimensions", "truncate_prompt_tokens", "n_predict", "n_probs", "min_tokens", "samplers", "mirostat",
    )  # fmt: skip
    for _ in range(random.choice((1, 2, 4))):
        name = random.choice(names)
        body[name] = random.choice((number(random), number(random), "top_k;top_p", ["temperature"] * 17, None, True))


def _odd_messages(path: str, body: Body, random: Random) -> None:
    """Texts, roles and orders that a template does not expect."""
    field = next((name for name in ("messages", "input", "prompt", "query", "content") if name in body), "messages")
    roles = ("user", "assistant", "system", "tool", "developer", "function", "zzz", "")
    made: list[Body] = [
        {
            "role": random.choice(roles),
            "content": random.choice((text(random), None, [], "", {"type": "text", "text": "a"})),
        }
        for _ in range(random.choice((0, 1, 2, 5, 300)))
    ]
    for message in made:
        if random.random() < 0.2:
            message["tool_calls"] = random.choice(
                (
                    [{"id": "c", "type": "function", "function": {"name": "f", "arguments": text(random)}}],
                    [{"id": "c", "function": {"name": text(random), "arguments": tree(random)}}],
                    tree(random),
                )
            )
        if random.random() < 0.1:
            message[random.choice(("name", "reasoning_content", "tool_call_id", "refusal", "prefix", "weight"))] = tree(
                random
            )
    plain: Any = random.choice(
        (text(random), [text(random)] * 3, "word " * random.choice((600, 60_000)), [], [[]], [2**40])
    )
    body[field] = made if field == "messages" or (field == "input" and path == "/v1/responses") else plain


def _wrong_type(path: str, body: Body, random: Random) -> None:
    """Any value in a field that the request has."""
    names = [name for name in body if name != "model"]
    body[random.choice(names)] = any_value(random)


def _many_of_one(path: str, body: Body, random: Random) -> None:
    names = (
        "stop", "logit_bias", "tools", "stop_token_ids", "stop_sequences", "metadata", "preserved_tokens", "documents",
        "dry_sequence_breakers", "samplers", "allowed_token_ids", "response_fields", "input", "prompt", "tokens",
        "include",
    )  # fmt: skip
    body[random.choice(names)] = flood(random)


def _odd_tools(path: str, body: Body, random: Random) -> None:
    body["tools"] = random.choice(
        (
            [_tool(path, {"type": "object", "properties": {"a": {"type": "string"}}}, random)],
            [{"type": random.choice(("mcp", "web_search", "computer_use", "code_interpreter", "custom", "zzz", None))}],
            [{"type": "function", "function": {"name": text(random), "description": text(random)}}] * 3,
            tree(random),
        )
    )
    body["tool_choice"] = random.choice(("required", "none", "f", {"type": "tool", "name": "f"}, tree(random)))


def _odd_model(path: str, body: Body, random: Random) -> None:
    body["model"] = random.choice(
        (text(random), "../../etc/passwd", "a" * 10_000, 7, None, "/etc/passwd", [], "m:lora")
    )


def _tool(path: str, parameters: Any, random: Random) -> Body:
    if "messages" in path:
        return {"name": "f", "input_schema": parameters}
    if path == "/v1/responses":
        return {"type": "function", "name": "f", "parameters": parameters, "strict": random.random() < 0.5}
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@functools.cache
def _bomb() -> bytes:
    """80 MB that are small when they are compressed."""
    return gzip.compress(b'{"user":"' + b" " * 80_000_000 + b'"}', 1, mtime=0)


# -- bytes ------------------------------------------------------------------------------------------------------


def _break_json(body: bytes, random: Random) -> tuple[bytes, str]:
    at = random.randrange(len(body))
    kinds = {
        "truncated": body[:at],
        "bytes after the end": body + random.choice((b"}", b" {}", b"\0", b",", b"\n\n")),
        "not UTF-8": body[:at] + random.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5")) + body[at:],
        "a lone surrogate": body[:-1] + b',"user":"\\ud800"}',
        "a byte order mark": b"\xef\xbb\xbf" + body,
        "a name twice": body[:-1]
        + b',"model":'
        + random.choice((b'"zzz"', b"1", b"null"))
        + b',"stop":null,"stop":[1]}',
        "spaces": b" " * 100_000 + body,
        "no object": random.choice((b"[]", b"1", b"null", b'"a"', b"", b"{}", b"[" * 200_000)),
        "deep": body[:-1] + b',"deep":' + str(deep(random)).encode() + b"}",
        "another byte": body[:at] + bytes([random.randrange(256)]) + body[at + 1 :],
    }
    kind = random.choice(sorted(kinds))
    return kinds[kind], kind


def _odd_http(body: bytes, headers: dict[str, str], random: Random) -> tuple[bytes, str]:
    kinds: dict[str, tuple[dict[str, str], bytes]] = {
        "gzip": ({"content-encoding": "gzip"}, gzip.compress(body, mtime=0)),
        "a gzip bomb": ({"content-encoding": "gzip"}, _bomb()),
        "deflate cut short": ({"content-encoding": "deflate"}, zlib.compress(body)[:-4]),
        "an unknown encoding": ({"content-encoding": "br"}, body),
        "another type": ({"content-type": random.choice(("text/plain", "multipart/form-data", "",
        "application/JSON; a=b"))}, body),
        "another version": ({"anthropic-version": random.choice(("1900-01-01", "zzz", ""))}, body),
        "a long id": ({"x-request-id": "a" * 8_000}, body),
        "a long header": ({"accept": "a" * 50_000}, body),
        "hop by hop": ({"te": "trailers", "proxy-connection": "close", "x-forwarded-for": "1.2.3.4"}, body),
    }  # fmt: skip
    kind = random.choice(sorted(kinds))
    more, changed = kinds[kind]
    headers.update(more)
    return changed, kind
