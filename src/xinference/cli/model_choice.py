"""Chooses the model that a command talks to, from its arguments and the models of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xinference.error_codes import Code
from xinference.errors import Problem, bad_request

if TYPE_CHECKING:
    from xinference.client import Client

Json = dict[str, Any]


def choose_model(client: Client, words: Sequence[str], model_uid: str | None) -> tuple[str, str | None, Json]:
    """The uid of the model, the prompt, and the model's entry in the list of the server if it was asked for.

    Whether the model exists is not checked, because it may be loading.
    """
    if model_uid is not None:
        return model_uid, words[0] if words else None, {}
    instances = client.list_instances()
    named = _named(instances, words[0]) if words else None
    prompt = words[1] if len(words) == 2 else None
    if named is not None:
        return str(named["model_uid"]), prompt, named
    if prompt is not None:
        return words[0], prompt, {}
    chosen = _only_ready(instances)
    return str(chosen["model_uid"]), words[0] if words else None, chosen


def _named(instances: Sequence[Json], name: str) -> Json | None:
    """The instance with the uid `name`, else the only one of the model `name`.

    If the former does not answer, because it has failed or is unloaded, a ready one of that model takes its place.
    """
    exact = next((instance for instance in instances if instance["model_uid"] == name), None)
    of_model = [instance for instance in instances if instance.get("model_name") == name]
    ready = [instance for instance in of_model if instance.get("status") == "READY"]
    if exact is not None:
        return ready[0] if ready and _is_idle(exact) else exact
    return of_model[0] if len(of_model) == 1 else ready[0] if len(ready) == 1 else None


def _is_idle(instance: Json) -> bool:
    """Whether a model answers no request until a user does something."""
    status = instance.get("status")
    return status == "ERROR" or (status == "UNLOADED" and not instance.get("on_demand"))


def _only_ready(instances: Sequence[Json]) -> Json:
    ready = [instance for instance in instances if instance.get("status") == "READY"]
    if len(ready) == 1:
        return ready[0]
    if ready:
        names = ", ".join(str(instance["model_uid"]) for instance in ready)
        raise bad_request(f"Several models are ready: {names}.", hint="Choose one: `xinference chat NAME`.")
    loading = [i["model_uid"] for i in instances if i.get("status") not in ("ERROR", "TERMINATING")]
    raise Problem(
        Code.NO_MODEL_READY,
        "No model is ready" + (f"; still loading: {', '.join(loading)}." if loading else "."),
        hint="To wait for a model, give its name: `xinference chat NAME`." if loading
        else "Launch one with `xinference launch` or `xinference run`.",
    )  # fmt: skip
