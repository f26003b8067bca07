"""The problems of a repository hub, each with a hint how to solve it."""

from __future__ import annotations

from dataclasses import dataclass

from xinference.error_codes import Code
from xinference.errors import Problem


@dataclass(frozen=True)
class HubTerms:
    """The hub's name, address and variables, for the texts of its problems."""

    hub: str
    """The hub's name in ``--download-hub``."""
    endpoint: str
    """The hub's address, without a trailing slash."""
    token_variable: str
    endpoint_variable: str
    cache_variable: str


def peer_refused(what: str) -> Problem:
    """A machine of the cluster offers something that cannot be what is wanted."""
    return Problem(
        Code.PEER_REFUSED,
        f"A machine of the cluster offers {what}, which was not requested.",
        hint="Install the same version of Xinference on all machines.",
    )


def gated_model(terms: HubTerms, model_id: str, *, has_token: bool) -> Problem:
    """The licence was not accepted, or the token is missing, wrong or without access."""
    url = f"{terms.endpoint}/{'models/' if terms.hub == 'modelscope' else ''}{model_id}"
    reason = f"the token in {terms.token_variable} has no access" if has_token else "no token is set"
    return Problem(
        Code.GATED_MODEL,
        f"{model_id} on {terms.hub} is gated, and {reason}.",
        hint=f"Accept its licence at {url}, and set {terms.token_variable} to a token of that account.",
    )


def repo_not_found(terms: HubTerms, model_id: str, *, has_token: bool) -> Problem:
    """The repository does not exist, or the token may not read it: hubs do not report which."""
    private = "" if has_token else f" If it is private, set {terms.token_variable}."
    return Problem(
        Code.REPO_NOT_FOUND,
        f"{terms.hub} has no repository {model_id} ({terms.endpoint}).",
        hint=f"Check the id; it is case-sensitive.{private}",
    )


def revision_not_found(terms: HubTerms, model_id: str, revision: str, existing: tuple[str, ...] = ()) -> Problem:
    """The repository has no such branch, tag or commit."""
    hint = f"It has {', '.join(existing[:8])}." if existing else "Correct the revision in the model's entry."
    cause = f"{model_id} on {terms.hub} has no revision {revision}."
    return Problem(Code.REVISION_NOT_FOUND, cause, hint=hint)


def file_not_found(terms: HubTerms, model_id: str, name: str) -> Problem:
    """The hub listed a file that it does not have."""
    cause = f"{terms.hub} lists {name} in {model_id}, but does not have it."
    return Problem(Code.FILE_NOT_FOUND, cause, hint="Try again later, or choose another hub with --download-hub.")


def unreachable(terms: HubTerms, reason: str) -> Problem:
    """The server did not answer, or the answer is not a hub's."""
    return Problem(
        Code.HUB_UNREACHABLE,
        f"{terms.hub} could not be reached at {terms.endpoint}: {reason.rstrip('.')}.",
        hint=f"Check the network and the proxy (HTTPS_PROXY), set {terms.endpoint_variable} to a mirror, "
        "or choose another hub with --download-hub.",
    )


def offline(terms: HubTerms, what: str, variable: str) -> Problem:
    """Connections are forbidden by `variable`, and files are missing in the cache."""
    return Problem(
        Code.OFFLINE,
        f"{variable} is set, and {what} is not in the cache.",
        hint=f"Unset {variable}, or pass the weights with --model-path.",
    )


def disk_full(terms: HubTerms, cause: str) -> Problem:
    """The disk of the hub's cache is full."""
    hint = f"Free some space, or set {terms.cache_variable} to a folder on a larger disk."
    return Problem(Code.DISK_FULL, cause, hint=hint)
