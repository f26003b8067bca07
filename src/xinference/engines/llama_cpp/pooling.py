"""Checks that a GGUF file names the pooling by which llama.cpp makes vectors or scores."""

from __future__ import annotations

from xinference.error_codes import Code
from xinference.errors import bad_request
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import ResolvedLaunch

OPTION = "pooling_type"
#: The poolings that make one vector of an input.
VECTORS = ("mean", "cls", "last")
_NUMBERS = ("1", "2", "3")
#: How llama.cpp's own names of the poolings begin; a checked option has such a name.
_PREFIX = "llama_pooling_type_"
RANK = 4


def check_pooling(launch: ResolvedLaunch, shape: ModelShape) -> None:
    """Check that vectors or scores can be made of the weights.

    Without a pooling llama.cpp loads such a model, and then refuses every request.

    Raises:
        Problem: 400 ``engine_unsupported`` or ``bad_option``.
    """
    if not shape.architecture:
        return  # not read
    match launch.version.family.model_type:
        case "embedding":
            _check_vectors(launch, shape)
        case "rerank":
            _check_scores(launch, shape)
        case _:
            return


def _check_vectors(launch: ResolvedLaunch, shape: ModelShape) -> None:
    requested, name = launch.options.get(OPTION), launch.version.family.model_name
    choices = f"--{OPTION} {', '.join(VECTORS[:-1])} or {VECTORS[-1]}"
    if requested is not None:
        if str(requested).lower().removeprefix(_PREFIX) not in VECTORS + _NUMBERS:
            cause = f"--{OPTION} is {requested!r}, which makes no vectors of {name}."
            raise bad_request(cause, hint=f"Use {choices}.", code=Code.BAD_OPTION)
    elif shape.pooling_type == RANK:
        raise bad_request(
            f"{name} can't make vectors: its weight file is that of a reranker.",
            hint="Launch it with --model-type rerank.",
            code=Code.ENGINE_UNSUPPORTED,
        )
    elif not shape.pooling_type:
        raise bad_request(
            f"{name} can't make vectors: its weight file ({shape.architecture}) names no pooling, which turns the "
            "vectors of the tokens into one vector.",
            hint=f"Launch an embedding model; or, if you know the pooling of this one, add {choices}.",
            code=Code.ENGINE_UNSUPPORTED,
        )


def _check_scores(launch: ResolvedLaunch, shape: ModelShape) -> None:
    if shape.pooling_type != RANK:
        raise bad_request(
            f"{launch.version.family.model_name} can't rank: its weight file ({shape.architecture}) has no head that "
            "computes a score.",
            hint="Launch a reranker: its file names the pooling `rank`.",
            code=Code.ENGINE_UNSUPPORTED,
        )
