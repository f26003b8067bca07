"""The list of models for people who choose one."""

from __future__ import annotations

import httpx2

from tests.support.cases import in_one_test


@in_one_test("model_type", ["LLM", "embedding", "rerank"])
async def test_a_summary_has_the_sizes_and_formats_of_the_details(empty: httpx2.AsyncClient, model_type: str) -> None:
    answer = await empty.get(f"/v1/model_registrations/{model_type}", params={"summary": True})
    assert len(answer.content) < 120_000
    details = (await empty.get(f"/v1/model_registrations/{model_type}", params={"detailed": True})).json()
    summaries = answer.json()
    assert [each["model_name"] for each in summaries] == [each["model_name"] for each in details]
    for summary, detail in zip(summaries, details, strict=True):
        assert set(summary["model_formats"]) == {spec["model_format"] for spec in detail["model_specs"]}
        assert set(summary["model_sizes"]) == {spec["model_size_in_billions"] for spec in detail["model_specs"]}
        for name in summary.keys() - {"model_formats", "model_sizes"}:
            assert summary[name] == detail[name], name
