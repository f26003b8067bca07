"""A ready model says what it really takes, and the plan said so before."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest

from tests.support.home import UID, Home


def test_the_estimate_is_within_a_twentieth_and_the_next_one_is_corrected(make_home: Callable[..., Home]) -> None:
    home = make_home()
    home.serve()

    def planned() -> int:
        fields = {"model_name": UID, "quantization": "Q4_1", "n_ctx": 1023}
        answer = httpx2.post(f"{home.url}/v1/models", params={"dry_run": "true"}, json=fields, timeout=30)
        plan = answer.json()
        memory: dict[str, int] = (plan.get("plan_of_copy") or plan)["memory"]
        return memory["loaded"]

    before = planned()
    assert home.launch(model_name=UID, quantization="Q4_1", n_ctx=1023).status_code == 200
    used = home.instance()["memory_used_bytes"]
    assert before == pytest.approx(used, rel=0.05)
    assert planned() == used
