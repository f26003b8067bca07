"""The problems that a repository hub can answer with, each with its way out."""

from __future__ import annotations

from dataclasses import dataclass

from xinference.errors import Problem


@dataclass(frozen=True)
class Words:
    """What a hub's problems call things."""

    hub: str
    """As in ``--download-hub``."""
    endpoint: str
    """Its address, without a trailing slash."""
    token_variable: str
    endpoint_variable: str
    cache_variable: str


def gated(words: Words, model_id: str, *, has_token: bool) -> Problem:
    """The licence was not accepted, or the token is missing, wrong or not entitled."""
    url = f"{words.endpoint}/{'models/' if words.hub == 'modelscope' else ''}{model_id}"
    why = f"the token in {words.token_variable} is not entitled to it" if has_token else "no token was given"
    return Problem(
        "gated_model",
        403,
        f"{model_id} on {words.hub} is only for those who were let in, and {why}.",
        hint=f"Accept its licence at {url}, and set {words.token_variable} to a token of that account.",
    )


def repo_not_found(words: Words, model_id: str, *, has_token: bool) -> Problem:
    """No such repository, or none that the token may see: hubs do not tell which."""
    private = "" if has_token else f" If it is private, set {words.token_variable}."
    return Problem(
        "repo_not_found",
        404,
        f"{words.hub} has no repository {model_id} ({words.endpoint}).",
        hint=f"Check the id, upper and lower case matter.{private}",
    )


def revision_not_found(words: Words, model_id: str, revision: str, there: tuple[str, ...] = ()) -> Problem:
    """The repository has no such branch, tag or commit."""
    hint = f"It has {', '.join(there[:8])}." if there else "Correct the revision in the model's entry."
    cause = f"{model_id} on {words.hub} has no revision {revision}."
    return Problem("revision_not_found", 404, cause, hint=hint)


def file_gone(words: Words, model_id: str, name: str) -> Problem:
    """The hub listed a file and then did not have it."""
    cause = f"{words.hub} lists {name} in {model_id}, but does not have it."
    return Problem("file_not_found", 404, cause, hint="Try again later, or choose another hub with --download-hub.")


def unreachable(words: Words, why: str) -> Problem:
    """No answer, or none of the hub's."""
    return Problem(
        "hub_unreachable",
        503,
        f"{words.hub} could not be reached at {words.endpoint}: {why.rstrip('.')}.",
        hint=f"Check the network and the proxy (HTTPS_PROXY), set {words.endpoint_variable} to a mirror, "
        "or choose another hub with --download-hub.",
    )


def offline(words: Words, what: str, why: str) -> Problem:
    """Nothing may be fetched, and not everything is here."""
    return Problem(
        "offline",
        503,
        f"{why} is set, and {what} is not in the cache.",
        hint=f"Unset {why}, or give the weights with --model-path.",
    )


def no_room(words: Words, cause: str) -> Problem:
    """The disk of the hub's cache is full."""
    hint = f"Free some space, or set {words.cache_variable} to a folder on a larger disk."
    return Problem("disk_full", 507, cause, hint=hint)
