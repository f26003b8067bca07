"""The figures of a model's engine over REST: an entry for each replica that answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.control.test_engine_metrics import Engines
from xinference.api.engine_schemas import EngineReplica
from xinference.api.routes.engine_metrics import engine


def controller(*replicas: str | None) -> Any:
    """One with the model `m0`, known as `alias` too; each replica has the id of its process, or none."""
    processes = [None if each is None else SimpleNamespace(replica_id=each) for each in replicas]
    snapshot = SimpleNamespace(
        replicas=[SimpleNamespace(number=number, process=each) for number, each in enumerate(processes)]
    )
    entries = [{"replica_id": number, "node": "local"} for number, _ in enumerate(replicas)]
    deployment = SimpleNamespace(snapshot=snapshot, replicas=entries)
    return SimpleNamespace(uid_of=lambda name: "m0", deployment=lambda uid: deployment, cluster=None)


async def test_an_engine_shows_its_requests_its_caches_and_its_tokens() -> None:
    engines = Engines("vLLM", "llama.cpp")
    (entry,) = await engine(controller("r0", None, "loading"), engines.scraper, "alias")
    assert EngineReplica.model_validate(entry).model_dump(exclude_unset=True) == entry
    assert (entry["node"], entry["replica"], entry["replica_id"], entry["engine"]) == ("local", 0, "r0", "vLLM")
    assert (entry["running"], entry["waiting"], entry["kv_cache_ratio"], entry["prefix_hits"]) == (3, 4, 0.375, 40)
    assert (entry["prompt_tokens"], entry["output_tokens"], entry["problem"]) == (120, 60, None)


async def test_an_engine_that_does_not_answer_has_the_reason() -> None:
    engines = Engines("vLLM")
    engines.silent["r0"] = "timeout"
    (entry,) = await engine(controller("r0"), engines.scraper, "m0")
    assert (entry["problem"], entry["running"]) == ("timeout", None)


async def test_a_model_that_is_not_loaded_has_no_figures() -> None:
    assert await engine(controller(), Engines("vLLM").scraper, "m0") == []
