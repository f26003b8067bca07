from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.test_engine_answers import ask

pytestmark = pytest.mark.process


@pytest.mark.process
async def test_ids_are_turned_into_texts_in_the_form_of_the_question() -> None:
    body: dict[str, Any] = {"model": "m", "input": [5, 6, 5]}
    assert await ask("/v1/convert_ids_to_tokens", body, {"content": "x"}) == (200, ["x", "x", "x"])
    body["input"] = [[5], [6, 7]]
    assert await ask("/v1/convert_ids_to_tokens", body, {"prompt": "y"}) == (200, [["y"], ["y", "y"]])
