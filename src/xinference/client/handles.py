"""Handles: the requests to one model, by its type and abilities.

The methods of `Client`'s handles wait for the answer, those of `AsyncClient`'s (``Async…``) are awaited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from xinference.client import model_requests
from xinference.client.answers import Json
from xinference.client.calls import model_call, model_stream_call
from xinference.client.connection import AsyncRunner, Runner, SyncRunner
from xinference.error_codes import Code
from xinference.errors import Problem

SERVED = "LLM, embedding and rerank models"


class UnrecognizedModelError(Problem, ValueError):
    """There is no handle for the type or the abilities of a model."""


class _Handle(Runner):
    """A model of a server. The handle has its own connections.

    Args:
        model_uid: the model's uid.
        base_url: the server's URL.
        auth_headers: sent with every request.
        options: ``timeout`` (seconds), ``retries`` and ``url_name``, as of `Runner`.
    """

    def __init__(
        self, model_uid: str, base_url: str, auth_headers: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(base_url, auth_headers, **options)
        self._model_uid = model_uid
        self._base_url = self.base_url

    @property
    def model_uid(self) -> str:
        return self._model_uid

    def __getattr__(self, name: str) -> Any:
        """Explain a method that other kinds of models have. An AttributeError, so that `hasattr` is False."""
        kind = METHOD_KINDS.get(name)
        if kind is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        own = [method for method in METHOD_KINDS if hasattr(type(self), method)]
        has = f" It has {', '.join(f'{method}()' for method in own)}." if own else ""
        raise AttributeError(f"{name}() is for {kind}, and {self._model_uid!r} is {self.model_kind}.{has}")

    model_kind = "a model of another kind"
    """The kind of model, for messages."""


#: The methods of all handles -> the kind of model that has them.
METHOD_KINDS = {
    "chat": "language models with the ability chat",
    "generate": "language models",
    "create_embedding": "embedding models (model_type embedding)",
    "convert_ids_to_tokens": "embedding models (model_type embedding)",
    "rerank": "rerank models (model_type rerank)",
}


class _Generates(_Handle):
    model_kind = "a language model that completes prompts"
    generate = model_stream_call(model_requests.generate)


class _Chats(_Generates):
    model_kind = "a language model for chats"
    chat = model_stream_call(model_requests.chat)


class _Embeds(_Handle):
    model_kind = "an embedding model"
    create_embedding = model_call(model_requests.create_embedding)
    convert_ids_to_tokens = model_call(model_requests.convert_ids_to_tokens)


class _Reranks(_Handle):
    model_kind = "a rerank model"
    rerank = model_call(model_requests.rerank)


class _Unserved(_Handle):
    """A model of a type that only other versions serve: every method raises a Problem."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise Problem(
            Code.UNSERVED_MODEL_TYPE,
            f"{name}() of {self._model_uid!r}: this version serves {SERVED}, no images, audio or video.",
            hint="Run such models with another server.",
        )


class RESTfulModelHandle(_Handle, SyncRunner):
    """A model of any type."""


class RESTfulGenerateModelHandle(_Generates, RESTfulModelHandle):
    """A language model that completes prompts."""


class RESTfulChatModelHandle(_Chats, RESTfulGenerateModelHandle):
    """A language model for conversations."""


class RESTfulEmbeddingModelHandle(_Embeds, RESTfulModelHandle):
    """A model that computes embeddings."""


class RESTfulRerankModelHandle(_Reranks, RESTfulModelHandle):
    """A model that ranks documents by their relevance to a query."""


class RESTfulUnservedModelHandle(_Unserved, RESTfulModelHandle):
    """A model of a type that this version does not serve."""


class AsyncRESTfulModelHandle(_Handle, AsyncRunner):
    """A model of any type."""


class AsyncRESTfulGenerateModelHandle(_Generates, AsyncRESTfulModelHandle):
    """A language model that completes prompts."""


class AsyncRESTfulChatModelHandle(_Chats, AsyncRESTfulGenerateModelHandle):
    """A language model for conversations."""


class AsyncRESTfulEmbeddingModelHandle(_Embeds, AsyncRESTfulModelHandle):
    """A model that computes embeddings."""


class AsyncRESTfulRerankModelHandle(_Reranks, AsyncRESTfulModelHandle):
    """A model that ranks documents by their relevance to a query."""


class AsyncRESTfulUnservedModelHandle(_Unserved, AsyncRESTfulModelHandle):
    """A model of a type that this version does not serve."""


SYNC: dict[str, type[RESTfulModelHandle]] = {
    "chat": RESTfulChatModelHandle,
    "generate": RESTfulGenerateModelHandle,
    "embedding": RESTfulEmbeddingModelHandle,
    "rerank": RESTfulRerankModelHandle,
    "unserved": RESTfulUnservedModelHandle,
}
ASYNC: dict[str, type[AsyncRESTfulModelHandle]] = {
    "chat": AsyncRESTfulChatModelHandle,
    "generate": AsyncRESTfulGenerateModelHandle,
    "embedding": AsyncRESTfulEmbeddingModelHandle,
    "rerank": AsyncRESTfulRerankModelHandle,
    "unserved": AsyncRESTfulUnservedModelHandle,
}
_UNSERVED = ("image", "audio", "video", "flexible", "world")


def kind(model_uid: str, description: Json) -> str:
    """The kind of a model's handle, a key of `SYNC` and `ASYNC`.

    Raises:
        UnrecognizedModelError: there is none.
    """
    model_type = str(description.get("model_type"))
    abilities = description.get("model_ability") or []
    match model_type:
        case "LLM":
            for ability in ("chat", "generate"):
                if ability in abilities:
                    return ability
            raise UnrecognizedModelError(
                Code.UNRECOGNIZED_ABILITY, f"Unrecognized model ability of {model_uid!r}: {abilities}."
            )
        case "embedding" | "rerank":
            return model_type
        case _ if model_type in _UNSERVED:
            return "unserved"
    raise UnrecognizedModelError(
        Code.UNRECOGNIZED_TYPE,
        f"Unrecognized model type of {model_uid!r}: {model_type}.",
        hint=f"This version serves {SERVED}.",
    )
