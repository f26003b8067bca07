"""The routes of a model that makes vectors, or scores of documents."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import requests
from .common_routes import CommonRoutes, cancel_on_disconnect, no_such_model
from .errors import RefusedError
from .input_encoder import InputEncoder
from .pooled_model import Input, PooledModel
from .pooled_scheduler import Job, PooledScheduler
from .sparse import check_sparse, weights_by_token


class PooledRoutes(CommonRoutes):
    """The routes of one loaded model."""

    def __init__(self, loaded: PooledModel, uid: str, scheduler: PooledScheduler) -> None:
        self._encoder = InputEncoder(loaded)
        super().__init__((uid,), loaded.context_length, self._encoder, scheduler)
        self._loaded, self._scheduler = loaded, scheduler

    def routes(self) -> list[Route]:
        """All routes."""
        if self._loaded.scores:
            own = [Route(path, self.rerank, methods=["POST"]) for path in ("/v1/rerank", "/rerank")]
        else:
            own = [Route("/v1/embeddings", self.embeddings, methods=["POST"])]
        return [*super().routes(), *own]

    async def embeddings(self, request: Request) -> Response:
        body = requests.read(await request.body(), requests.EmbeddingRequest)
        self._check(body.model)
        length = self._vector_length(body.dimensions)
        if body.return_sparse:
            check_sparse(body, self._loaded)
        inputs = await self._run_encoder(self._encoder.texts, body)
        if body.return_sparse:
            return await cancel_on_disconnect(request, self._weigh(body, inputs))
        return await cancel_on_disconnect(request, self._embed(body, inputs, length))

    async def rerank(self, request: Request) -> Response:
        body = requests.read(await request.body(), requests.RerankRequest)
        self._check(body.model)
        inputs = await self._run_encoder(self._encoder.pairs, body)
        return await cancel_on_disconnect(request, self._score(body, inputs))

    async def _embed(self, body: requests.EmbeddingRequest, inputs: list[Input], length: int) -> Response:
        vectors = numpy.stack(await self._rows(inputs))[:, :length]
        if body.normalize_embeddings is not False:
            vectors = vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
        vectors = numpy.ascontiguousarray(vectors, dtype="<f4")
        if body.encoding_format == "base64":
            shown: list[Any] = [base64.b64encode(vector.tobytes()).decode("ascii") for vector in vectors]
        elif body.normalize_embeddings is False:
            shown = vectors.tolist()
        else:  # the digits that numbers of 32 bits and at most 1 have: half as many as Python writes
            shown = vectors.astype("f8").round(8).tolist()
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(shown)]
        return _json({"object": "list", "data": data, "model": body.model, "usage": _usage(inputs)})

    async def _weigh(self, body: requests.EmbeddingRequest, inputs: list[Input]) -> Response:
        rows = await self._rows([replace(each, weighs_tokens=True) for each in inputs])
        special = frozenset(self._loaded.tokenizer.all_special_ids)
        data = [
            {"object": "sparse_embedding", "index": i, "embedding": weights_by_token(each.tokens, row, special)}
            for i, (each, row) in enumerate(zip(inputs, rows, strict=True))
        ]
        return _json({"object": "list", "data": data, "model": body.model, "usage": _usage(inputs)})

    async def _score(self, body: requests.RerankRequest, inputs: list[Input]) -> Response:
        scores = [float(row[0]) for row in await self._rows(inputs)]
        order = sorted(range(len(scores)), key=lambda position: -scores[position])[: body.top_n]
        results = [{"index": position, "relevance_score": scores[position]} for position in order]
        answer_id = f"rerank-{secrets.token_hex(12)}"
        return _json({"id": answer_id, "model": body.model, "results": results, "usage": _usage(inputs)})

    async def _rows(self, inputs: list[Input]) -> list[Any]:
        job = Job(inputs)
        self._scheduler.submit(job)
        rows = await job.rows()
        if rows is None:
            raise RefusedError("The model failed; its log has the reason.", status=500, kind="server_error")
        return rows

    def _vector_length(self, wanted: int | None) -> int:
        own = self._loaded.dimensions
        if wanted is not None and wanted > own:
            raise RefusedError(
                f"The model returns vectors of at most {own} numbers, not {wanted}.",
                code="unsupported_dimensions",
                param="dimensions",
            )
        return wanted or own

    def _check(self, model: str) -> None:
        if model not in self._names:
            raise no_such_model(model, self._names)


def _usage(inputs: Sequence[Input]) -> dict[str, int]:
    tokens = sum(len(each.tokens) for each in inputs)
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _json(answer: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
