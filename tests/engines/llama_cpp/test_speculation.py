"""What the plan of a launch with speculative decoding says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engines.plans import plan_of
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.launch.request import LaunchRequest


@pytest.mark.parametrize(
    ("options", "warns"),
    [
        ({"speculative.types": ["COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE"]}, True),
        ({"speculative.types": ["COMMON_SPECULATIVE_TYPE_DRAFT_MTP"], "load_mtp": True}, True),
        ({"speculative.types": ["COMMON_SPECULATIVE_TYPE_NONE"]}, False),
        ({}, False),
    ],
)
def test_the_plan_says_that_drafted_tokens_have_no_log_probability(options: dict[str, Any], warns: bool) -> None:
    version = plan_of("llama-2-chat").version
    _, reasons = LlamaCpp().complete_options(version, LaunchRequest(model_name="m"), options)
    assert any("log probability" in reason for reason in reasons) is warns
