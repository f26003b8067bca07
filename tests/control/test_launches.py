"""A launch stores a row and begins a deployment, or gives back the one that is the same launch."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from tests.control.parts import Parts
from tests.control.test_controller import DIED
from tests.deployments.doubles import launch_of
from xinference.control.planned_launch import planned_entry
from xinference.control.same_launch import find_similar
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.deployments.snapshot import Status
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.plan import ResolvedLaunch
from xinference.launch.request import LaunchRequest


class _StandIn:
    """A deployment of which only the request is read."""

    def __init__(self, request: LaunchRequest) -> None:
        self.plan = SimpleNamespace(request=request)


@pytest.fixture
def request_(begun: list[Deployment]) -> LaunchRequest:
    return launch_of("m").request


async def test_a_launch_is_stored_published_and_begun(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest
) -> None:
    launched = await parts.launches.launch(request_, warnings=["It is slow."])
    assert (launched.uid, launched.found) == ("m", None)
    assert parts.rows() == [deployment.uid for deployment in begun] == ["m"] and "m" in parts.publisher.table.routes
    assert [event["event_content"] for event in parts.events.stored("m")][-1] == "It is slow."
    assert [row.uid for row in parts.history.all()] == ["m"]


async def test_a_plan_stores_and_begins_nothing(parts: Parts, begun: list[Deployment], request_: LaunchRequest) -> None:
    planned = await parts.launches.plan(request_)
    assert (planned.launch.uid, planned.sized, planned.forecast) == ("m", None, None)
    assert begun == [] and parts.rows() == []
    assert (planned.found, planned.copy) == (None, None)


async def test_the_plan_of_a_launch_that_exists_is_its_own_plan_and_that_of_a_copy(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest
) -> None:
    await parts.launches.launch(request_)
    entry = planned_entry(await parts.launches.plan(request_))
    assert (entry["model_uid"], entry["found"], entry["problem_of_copy"]) == ("m", "launching", None)
    copy = entry["plan_of_copy"]
    assert copy["model_uid"].startswith("m-") and copy["found"] is copy["plan_of_copy"] is None
    record = parts.registry.running("m")._record
    record.change(launching=False, status=Status.READY)
    planned = await parts.launches.plan(request_)
    assert planned.found == "running" and (await parts.launches.launch(request_)).found == "running"
    alone = await parts.launches.plan(request_, new=True)
    assert alone.launch.uid.startswith("m-") and (alone.found, alone.copy) == (None, None)
    with pytest.raises(Problem, match="request_limits") as refused:
        await parts.launches.plan(msgspec.structs.replace(request_, request_limits=7))
    assert refused.value.code == "model_uid_taken"
    record.change(problem=DIED, ran=True)
    planned = await parts.launches.plan(request_)
    assert (planned.launch.uid, planned.found, planned.copy) == ("m", "failed", None)
    assert len(begun) == 1 and parts.rows() == ["m"]


async def test_the_plan_of_a_second_model_of_a_name_says_what_the_first_one_has_differently(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest
) -> None:
    first = msgspec.structs.replace(request_, model_uid=None)
    name = (await parts.launches.launch(first)).uid
    second = msgspec.structs.replace(first, request_limits=7)
    planned = (await parts.launches.plan(second)).launch.draft
    uid = (await parts.launches.launch(second)).uid
    launched = begun[1].plan
    assert isinstance(launched, ResolvedLaunch)
    for draft in (planned, launched.draft):
        reason = f"uid {draft.uid}: {name} has other values (request_limits: not set, and 7 in this launch)"
        assert draft.choices[0] == draft.reasons[0] == reason
    assert uid == launched.uid != name
    copy = (await parts.launches.plan(first, new=True)).launch.draft
    assert not any(choice.startswith("uid") for choice in copy.choices)


async def test_a_plan_without_a_uid_finds_the_same_launch_under_another_uid(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest
) -> None:
    await parts.launches.launch(msgspec.structs.replace(request_, model_uid="mine"))
    planned = await parts.launches.plan(msgspec.structs.replace(request_, model_uid=None))
    assert (planned.launch.uid, planned.found) == ("mine", "launching")


async def test_the_plan_says_why_a_copy_would_be_refused(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest
) -> None:
    request = msgspec.structs.replace(request_, aliases=("a",))
    await parts.launches.launch(request)
    entry = planned_entry(await parts.launches.plan(request))
    assert entry["found"] == "launching" and entry["plan_of_copy"] is None
    assert "alias a is taken" in entry["problem_of_copy"]["cause"]


async def test_the_same_launch_is_found_in_each_state(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest
) -> None:
    await parts.launches.launch(request_)
    record = parts.registry.running("m")._record
    assert (await parts.launches.launch(request_)).found == "launching"
    for status in (Status.CREATING, Status.LOADING, Status.RECOVERING):  # a model of an earlier server loads again
        record.change(launching=False, status=status)
        assert (await parts.launches.launch(request_)).found == "launching"
    for status in (Status.READY, Status.UNLOADED):
        record.change(status=status)
        assert (await parts.launches.launch(request_)).found == "running" and len(begun) == 1
    record.change(problem=DIED, ran=True)
    assert (await parts.launches.launch(request_)).found == "failed" and len(begun) == 2
    assert parts.registry.running("m").problem is None and parts.rows() == ["m"]


@pytest.mark.parametrize("uid", [None, "m"])
async def test_the_family_of_the_same_files_is_used_only_for_a_launch_of_the_same_type(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest, uid: str | None
) -> None:
    vectors = msgspec.structs.replace(request_, model_type="embedding", asked_name="./model")
    sent = msgspec.structs.replace(vectors, asked={"model_name": "./model", "model_type": "Embedding"})
    asked = LaunchRequest(model_name="./model", model_uid=uid)
    for stored in (vectors, sent):
        running = [_StandIn(stored)]
        for model_type in ("embedding", "Embedding"):
            again = msgspec.structs.replace(asked, model_type=model_type)
            assert find_similar(again, running) is stored  # type: ignore[arg-type]  # only its plan is read
        for model_type in ("LLM", "rerank"):
            other = msgspec.structs.replace(asked, model_type=model_type)
            assert find_similar(other, running) is None  # type: ignore[arg-type]  # only its plan is read


async def test_another_launch_of_the_uid_is_refused_unless_the_first_has_failed(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest
) -> None:
    other = msgspec.structs.replace(request_, request_limits=7)
    await parts.launches.launch(request_)
    with pytest.raises(Problem, match="request_limits") as refused:
        await parts.launches.launch(other)
    assert refused.value.code == "model_uid_taken"
    parts.registry.running("m")._record.change(problem=DIED, ran=True)
    assert (await parts.launches.launch(other)).found is None
    assert parts.registry.running("m").plan.request.request_limits == 7


async def test_a_broken_deployment_is_replaced(parts: Parts, begun: list[Deployment], request_: LaunchRequest) -> None:
    parts.store.add_deployment("m", "no request")
    parts.registry.add(BrokenDeployment("m", DIED, 0.0))
    assert (await parts.launches.launch(request_)).found is None
    assert isinstance(parts.registry.deployment("m"), Deployment) and len(parts.store.deployments()) == 1


async def test_a_failed_launch_stays_when_the_next_one_cannot_be_planned(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest
) -> None:
    failed = parts.add("m", DIED)
    parts.fake_planner.problem = Problem(Code.DOES_NOT_FIT, "Too large.")
    with pytest.raises(Problem, match="Too large"):
        await parts.launches.launch(request_)
    assert parts.registry.running("m") is failed


async def test_a_name_that_is_taken_while_the_row_is_written_takes_the_row_back(
    parts: Parts, begun: list[Deployment], request_: LaunchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = parts.store.add_deployment

    def add_deployment(uid: str, request: str, created: float | None = None) -> None:
        add(uid, request, created)
        monkeypatch.undo()
        parts.add("n", aliases=("a",))

    monkeypatch.setattr(Deployment, "begin", lambda deployment: None)
    monkeypatch.setattr(parts.store, "add_deployment", add_deployment)
    with pytest.raises(Problem, match="is taken by"):
        await parts.launches.launch(msgspec.structs.replace(request_, aliases=("a",)))
    assert parts.rows() == parts.uids() == ["n"]
