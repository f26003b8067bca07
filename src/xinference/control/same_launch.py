"""Finds the deployment that a launch would repeat, because the same launch is the same model. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from xinference.deployments.deployment import Deployment
from xinference.deployments.snapshot import Status
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.comparison import differences, is_same_launch
from xinference.launch.plan import LaunchDraft, LaunchPlan
from xinference.launch.request import LaunchRequest


class Found(StrEnum):
    """The state of the deployment that a launch has found instead of making a new one."""

    RUNNING = "running"
    LAUNCHING = "launching"
    UNLOADED = "unloaded"
    """It is loaded again."""
    FAILED = "failed"
    """It is launched again."""
    STORED = "stored"
    """No server runs; the next one loads it. Only in a plan that is made without a server."""


@dataclass(frozen=True)
class Launched:
    """The result of a launch."""

    uid: str
    found: Found | None = None
    """None: a new deployment."""


def launch_key(draft: LaunchDraft) -> str:
    """A text that is equal for equal launches, whatever their uids."""
    return msgspec.json.encode(msgspec.structs.replace(draft.request, model_uid=None, asked={})).decode()


def find_same(draft: LaunchDraft, deployments: Iterable[Deployment]) -> str | None:
    """The uid of the deployment that a draft without a uid would repeat; one that has not failed comes first."""
    same = [each for each in deployments if is_same_launch(draft.request, each.plan.request)]
    return min(same, key=lambda each: each.problem is not None).uid if same else None


def state_of(existing: Deployment) -> Found:
    """The state of a deployment that has not failed."""
    if existing.snapshot.unloaded:
        return Found.UNLOADED
    # Of an earlier server, or after a crash: the launch is complete, but the engine still loads the model.
    loads = existing.launching or existing.status in (Status.CREATING, Status.LOADING, Status.RECOVERING)
    return Found.LAUNCHING if loads else Found.RUNNING


def find_similar(request: LaunchRequest, deployments: Iterable[Deployment]) -> LaunchRequest | None:
    """The request of a deployment whose family a new request may use: that of its uid, or of the same name.

    It was sent with the same type: the same files may be those of a chat model, and make vectors or scores.
    """
    requests = [each.plan.request for each in deployments]
    running = [other for other in requests if _sent_type(other) == _sent_type(request)]
    if request.model_uid is not None:
        return next((other for other in running if other.model_uid == request.model_uid.strip()), None)
    named = [other for other in running if other.asked_name == request.model_name.strip()]
    named.sort(key=lambda other: other.asked != request.asked)
    return next((other for other in named if _has_choices_of(request, other)), None)


def uid_reason(uid: str, request: LaunchRequest, running: LaunchPlan) -> str:
    """The reason for the uid of a launch whose model's name is the uid of another launch, with all differences."""
    return f"uid {uid}: {running.uid} has other values ({'; '.join(differences(request, running.request))})"


def uid_taken(request: LaunchRequest, running: LaunchPlan) -> Problem:
    """The refusal of a launch whose uid has another launch, with all differences."""
    return Problem(
        Code.MODEL_UID_TAKEN,
        f"The model UID {running.uid} is taken by {running.version.version_id}, which was launched with other "
        f"values: {'; '.join(differences(request, running.request))}.",
        hint=f"Repeat the launch with --new (`new`) for a copy under another uid, or end the running model first: "
        f"`xinference terminate {running.uid}`.",
    )


def _sent_type(request: LaunchRequest) -> str:
    """The model's type as a request was sent, in lower case; that of the family if the sent fields are not known."""
    sent: str = request.asked.get("model_type", "LLM") if request.asked else request.model_type
    return sent.strip().lower()


def _has_choices_of(request: LaunchRequest, other: LaunchRequest) -> bool:
    """Whether `other` has the format, size and quantization that a request names."""
    fields = ("model_format", "quantization", "model_size_in_billions")
    wanted = [(getattr(request, name), getattr(other, name)) for name in fields]
    return all(asked is None or str(asked).lower() == str(chosen).lower() for asked, chosen in wanted)
