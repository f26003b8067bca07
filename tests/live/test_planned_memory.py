"""Twenty launches: what the page shows before, what the dry run says, and what is measured when the model is ready.

The page shows the bytes of the dry run (tests/ui/test_launch_stories.py). Here they are compared with the memory of the
engine: `memory.loaded`, which is the plan without what only requests write (saved states of prompts, buffers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.live.transformers_engine import HF
from tests.support.built_environments import require_environment
from tests.support.home import UID, Home
from tests.support.polling import until
from xinference.units import MIB

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
Json = dict[str, Any]
#: docs/planning.md has these bounds: share of the plan, and bytes.
FIRST = (0.05, 16 * MIB)
CORRECTED = (0.02, 4 * MIB)

SMOLLM2 = {"model_name": UID, "model_format": "ggufv2", "quantization": "Q4_1", "model_engine": "llama.cpp"}
TINY = {"model_name": "llama-2-chat", "model_size_in_billions": 7}
FOLDER = TINY | {"model_format": "pytorch", "model_engine": "Transformers", "model_path": str(HF)}
MINILM = {"model_name": "all-MiniLM-L6-v2", "model_type": "embedding", "model_engine": "Transformers"}
CONTEXTS = {
    "SmolLM2": [(512, 1), (512, 8), (1023, 4), (2048, 1), (4096, 1), (4096, 2), (8191, 1), (8191, 4)],
    "tiny": [(256, 1), (1024, 4), (4095, 1), (4095, 8)],
}


@dataclass(frozen=True)
class Launched:
    """One launch: its plan, and the model's share of the machine when it is ready."""

    planned: Json
    owner: Json
    is_first: bool
    """No launch of this version on this engine was measured before."""


def contexts(base: Json, name: str) -> list[Json]:
    return [base | {"n_ctx": context, "n_parallel": slots} for context, slots in CONTEXTS[name]]


def on_llama_cpp(gguf: Path) -> list[Json]:
    tiny = TINY | {"model_format": "ggufv2", "quantization": "Q8_0", "model_engine": "llama.cpp"}
    return [*contexts(SMOLLM2, "SmolLM2"), *contexts(tiny | {"model_path": str(gguf)}, "tiny")]


def on_transformers() -> list[Json]:
    return [
        *(FOLDER | {"quantization": "none", "context_length": context} for context in (300, 2048, 4095)),
        *(FOLDER | {"quantization": packed, "context_length": 1000} for packed in ("8-bit", "4-bit")),
        *(MINILM | {"context_length": context} for context in (128, 256, 512)),
    ]


def owner_of(home: Home, uid: str) -> Json:
    """The model's share of the host, once it is measured."""
    found: list[Json] = []

    def is_measured() -> bool:
        host = httpx2.get(f"{home.url}/v1/devices", timeout=30).json()["host"]
        found[:] = [each for each in host["owners"] if each["model_uid"] == uid and each["measured"] is not None]
        return bool(found)

    until("the memory of the model is measured", is_measured)
    return found[0]


def launched(home: Home, body: Json, uid: str, *, is_first: bool) -> Launched:
    """Plan a launch, launch it, measure it and terminate it."""
    body = body | {"model_uid": uid}
    plan = httpx2.post(f"{home.url}/v1/models", params={"dry_run": "true"}, json=body, timeout=90)
    assert plan.status_code == 200, plan.text
    answer = httpx2.post(f"{home.url}/v1/models", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    owner = owner_of(home, uid)
    assert httpx2.delete(f"{home.url}/v1/models/{uid}", timeout=60).status_code == 200
    return Launched(plan.json()["memory"], owner, is_first)


def all_launched(home: Home, bodies: list[Json]) -> dict[str, Launched]:
    found: dict[str, Launched] = {}
    seen: set[tuple[str, ...]] = set()
    for number, body in enumerate(bodies):
        version = tuple(str(body.get(name)) for name in ("model_name", "model_format", "quantization", "model_engine"))
        found[str(body)] = launched(home, body, f"m{number}", is_first=version not in seen)
        seen.add(version)
    return found


def check(found: dict[str, Launched]) -> None:
    wrong = {}
    for body, each in found.items():
        share, least = FIRST if each.is_first else CORRECTED
        planned, owner = each.planned, each.owner
        assert (owner["planned"], owner["planned_loaded"], owner["planned_states"]) == (
            planned["total"],
            planned["loaded"],
            planned["saved_states"],
        ), f"the running model has another plan than the dry run of {body}"
        assert (owner["measured_states"] or 0) < MIB, "no state is saved before the first prompt"
        off = owner["measured"] - planned["loaded"]
        if abs(off) > max(share * planned["loaded"], least):
            wrong[body] = f"planned {planned['loaded']}, measured {owner['measured']}: {off / MIB:+.1f} MiB"
    assert not wrong, "\n".join(f"{body}: {text}" for body, text in wrong.items())


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home]) -> Home:
    made = make_home()
    made.serve()
    return made


def test_twelve_launches_on_llama_cpp_take_what_their_plans_say(home: Home, tiny: Json) -> None:
    bodies = on_llama_cpp(Path(tiny["model_path"]))
    assert len(bodies) == 12
    check(all_launched(home, bodies))


def test_eight_launches_on_transformers_take_what_their_plans_say(make_home: Callable[..., Home], minilm: Path) -> None:
    home = make_home()
    require_environment(home.path, "Transformers")
    home.serve()
    bodies = on_transformers()
    assert len(bodies) == 8
    check(all_launched(home, bodies))


def test_saved_states_fill_their_part_of_the_plan_as_prompts_come(home: Home) -> None:
    """The measured memory grows from `loaded` towards the plan, and stays within it."""
    body = SMOLLM2 | {"n_ctx": 1024, "n_parallel": 2, "model_uid": "saving"}
    planned = httpx2.post(f"{home.url}/v1/models", params={"dry_run": "true"}, json=body, timeout=90).json()["memory"]
    assert planned["saved_states"] > 0
    assert httpx2.post(f"{home.url}/v1/models", json=body, timeout=90).status_code == 200
    beginnings = [
        f"Story {number}. " + f"The llama number {number} eats grass on its hill. " * 30 for number in range(2)
    ]

    def ask(text: str) -> None:
        fields = {"model": "saving", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
        answer = httpx2.post(f"{home.url}/v1/chat/completions", json=fields, timeout=300)
        assert answer.status_code == 200, answer.text

    for again in range(3):
        for text in beginnings:
            ask(f"{text} Question {again}.")
    until("states are measured", lambda: (owner_of(home, "saving")["measured_states"] or 0) > MIB)
    owner = owner_of(home, "saving")
    assert owner["measured_states"] <= owner["planned_states"] == planned["saved_states"]
    assert planned["loaded"] < owner["measured"] <= planned["total"] * (1 + FIRST[0])
    assert httpx2.delete(f"{home.url}/v1/models/saving", timeout=60).status_code == 200
