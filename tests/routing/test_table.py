from __future__ import annotations

from dataclasses import replace

from tests.routing.routes import TARGET, route
from xinference.routing.table import owner_of, with_other_names

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
ROUTES = with_other_names({"base": BASE, "other": route(uid="other")})


def test_an_adapters_route_is_its_deployments_but_for_its_name_and_parent() -> None:
    assert ROUTES["mine"] == replace(BASE, uid="mine", parent="base", adapters=())
    assert (ROUTES["mine"].engine, ROUTES["mine"].request_limits, ROUTES["mine"].targets) == ("vLLM", 3, (TARGET,))
    assert ROUTES["base"] is BASE and BASE.parent is None


def test_a_uid_wins_over_an_adapter_of_its_name() -> None:
    assert ROUTES["other"] == route(uid="other")


def test_an_alias_has_the_route_of_its_deployment() -> None:
    base = replace(BASE, aliases=("gpt-4o", "other"))
    routes = with_other_names({"base": base, "other": route(uid="other")})
    assert routes["gpt-4o"] is base and routes["other"].uid == "other", "a uid wins over an alias"
    owners = {name: owner_of(name, each) for name, each in routes.items()}
    assert owners == {"base": None, "other": None, "mine": "base", "gpt-4o": "base"}
