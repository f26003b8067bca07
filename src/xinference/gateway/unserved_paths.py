"""Paths that clients of other servers use and that are not served here, with the path to use instead.

Without this, a client would read only "404", or a key for models would be told that it may not manage the server.
"""

from __future__ import annotations

import re

from xinference.error_codes import Code
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol.errors import Refusal

#: The first parts of paths -> what the server lacks.
LACKS = {
    "/v1/images": "image models",
    "/sdapi/v1": "image models",
    "/v1/audio": "audio models",
    "/v1/video": "video models",
    "/v1/videos": "video models",
    "/v1/flexible": "flexible models",
    "/v1/moderations": "moderation models",
    "/v1/realtime": "realtime sessions",
    "/v1/files": "store of files",
    "/v1/uploads": "store of files",
    "/v1/containers": "store of files",
    "/v1/vector_stores": "store of vectors",
    "/v1/batches": "batches",
    "/v1/fine_tuning": "fine-tuning",
    "/v1/evals": "evaluations",
    "/v1/assistants": "assistants",
    "/v1/threads": "assistants",
    "/v1/conversations": "store of conversations",
    "/v1/agents": "agents",
    "/v1/chatkit": "chat sessions",
    "/v1/live": "realtime sessions",
    "/v1/organization": "organizations",
    "/v1/projects": "projects",
    "/v1/safety": "safety checks",
    "/v1/skills": "store of skills",
    "/v1/vaults": "store of secrets",
    "/v1/webhook_endpoints": "webhooks",
}
#: Paths below those of the API -> what the server lacks, and what to use instead.
_BELOW = (
    (re.compile(r"/v1/chat/completions/.+"), "store of chat completions", "Keep the answer in the client."),
    (re.compile(r"(/anthropic)?/v1/messages/batches(/.*)?"), "batches", "Send each message on /v1/messages."),
    (re.compile(r"/v1/responses/compact"), "compaction of responses", "Ask for a summary in a response."),
    (
        re.compile(r"/v1/responses/input_tokens"),
        "count of a response's tokens",
        "/v1/messages/count_tokens counts the tokens of messages.",
    ),
    (re.compile(r"/v1/responses/[^/]+/cancel"), "background responses", "Close the connection to stop a response."),
    (re.compile(r"/v1/responses/[^/]+/.+"), "list of a response's parts", "GET /v1/responses/ID has the response."),
)
_BELOW_FIRST = ("/v1/chat/", "/v1/messages/", "/anthropic/v1/messages/", "/v1/responses/")
SERVED = "It serves language, embedding and rerank models, such as on /v1/chat/completions and /v1/embeddings."
OLLAMA = "/api/"
_CHATS, _TEXTS, _VECTORS = "Use /v1/chat/completions.", "Use /v1/completions.", "Use /v1/embeddings."
#: The own paths of engines, of other servers and of older APIs -> the path to use.
_OF_OTHERS = {
    "/completion": _TEXTS,
    "/completions/render": _TEXTS,
    "/embedding": _VECTORS,
    "/embed": _VECTORS,
    "/embed_all": _VECTORS,
    "/v1/embed": _VECTORS,
    "/v2/embed": _VECTORS,
    "/pooling": _VECTORS,
    "/v1/pooling": _VECTORS,
    "/encode": _VECTORS,
    "/generate": _TEXTS,
    "/generate_stream": _TEXTS,
    "/v1/generate": _TEXTS,
    "/v1/complete": "Use /v1/messages.",
    "/v1/chat": _CHATS,
    "/v2/chat": _CHATS,
    "/invocations": _CHATS,
    "/predict": "Use /v1/rerank or /v1/score.",
    "/v2/score": "Use /v1/score.",
    "/classify": SERVED,
    "/v1/classify": SERVED,
    "/props": "GET /v1/models/MODEL describes a model.",
    "/slots": "GET /v1/models/MODEL/engine has the figures of the engine.",
    "/get_model_info": "GET /v1/models/MODEL describes a model.",
    "/model_info": "GET /v1/models/MODEL describes a model.",
    "/info": "GET /v1/models lists the models.",
}
#: Gemini's API.
GEMINI = "/v1beta/"
TWICE = "/v1/v1/"
AZURE = "/openai/"
#: Served, although its end is a path of OpenAI's API.
ANTHROPIC_MODELS = "/anthropic/v1/models"
#: The paths that clients of OpenAI's and Anthropic's APIs ask.
_PUBLIC = frozenset({path for path in DATA_PATHS if path.startswith("/v1/")} | {"/v1/models"})


def unserved(path: str) -> Refusal | None:
    """The refusal of a path that is known and not served; None: another path.

    It does not depend on the method: nothing on such a path is served.
    """
    if path in DATA_PATHS:
        return None
    first = "/".join(path.split("/", 3)[:3])
    if first in LACKS:
        return _refusal(f"This server has no {LACKS[first]}: {path[:200]} is not served.", SERVED)
    for below, lacks, hint in _BELOW if path.startswith(_BELOW_FIRST) else ():
        if below.fullmatch(path):
            return _refusal(f"This server has no {lacks}: {path[:200]} is not served.", hint)
    if f"/v1{path}" in DATA_PATHS or path == "/models":
        return _refusal(f"{path[:200]} is not served.", f"The path is /v1{path}: add /v1 to the base URL.")
    if path.startswith(TWICE):
        right = path.removeprefix("/v1")
        return _refusal(f"{path[:200]} is not served.", f"The path is {right[:200]}: /v1 is in the base URL twice.")
    if (known := _misplaced(path)) is not None:
        return _refusal(f"{path[:200]} is not served.", f"The path is {known}: the base URL ends with /v1.")
    if path.startswith(AZURE):
        return _refusal(f"{path[:200]} is not served.", "Use OpenAI's form: /v1, with the model in the body.")
    if path in _OF_OTHERS:
        return _refusal(f"{path[:200]} is not served.", _OF_OTHERS[path])
    if path.startswith(GEMINI):
        return _refusal(f"This server does not have Gemini's API: {path[:200]} is not served.", _CHATS)
    if path.startswith(OLLAMA):
        cause = f"This server does not have Ollama's API: {path[:200]} is not served."
        return _refusal(cause, "Use OpenAI's API: the path of chats is /v1/chat/completions.")
    return None


def _misplaced(path: str) -> str | None:
    """The path that clients of other servers ask below another base URL, or in capitals; None: another path."""
    if path.startswith("/v1/") or path == ANTHROPIC_MODELS:
        return None
    lowered = path.lower()
    return next((known for known in (*DATA_PATHS, "/v1/models") if known in _PUBLIC and lowered.endswith(known)), None)


def _refusal(cause: str, hint: str) -> Refusal:
    return Refusal(Code.UNKNOWN_PATH, cause, hint=hint)
