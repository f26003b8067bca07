from __future__ import annotations

from dataclasses import replace

from tests.routing.routes import TARGET, route
from xinference.routing.table import with_adapters

BASE = route(
    TARGET,
    uid="base",
    engine="vLLM",
    context_length=2048,
    request_limits=3,
    stop=("USER:",),
    stop_token_ids=(7,),
    paths=frozenset({"/v1/completions"}),
    adapters=("mine", "other"),
)
ROUTES = with_adapters({"base": BASE, "other": route(uid="other")})


def test_an_adapters_route_is_its_deployments_but_for_its_name_and_parent() -> None:
    assert ROUTES["mine"] == replace(BASE, uid="mine", parent="base", adapters=())
    assert (ROUTES["mine"].engine, ROUTES["mine"].request_limits, ROUTES["mine"].targets) == ("vLLM", 3, (TARGET,))
    assert ROUTES["base"] is BASE and BASE.parent is None


def test_a_uid_wins_over_an_adapter_of_its_name() -> None:
    assert ROUTES["other"] == route(uid="other")
