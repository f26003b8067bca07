"""SmolLM2 on two hosts, asked by OpenAI's own client through a worker on a third one."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from tests.support.cluster_processes import ClusterProcesses
from tests.support.home import UID
from tests.support.network_hosts import missing, network_hosts
from tests.support.polling import until

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def test_a_worker_without_the_model_answers_with_the_replicas_of_two_others(
    tmp_path: Path, weights_cache: Path
) -> None:
    with network_hosts(4) as hosts:
        cluster = ClusterProcesses(tmp_path / "homes", cache=weights_cache, hosts=hosts)
        try:
            cluster.start()
            first, second = cluster.add_worker(), cluster.add_worker()
            third = cluster.add_worker("--serve")
            answer = cluster.home.launch(
                model_name=UID,
                quantization="Q4_1",
                replica=2,
                n_ctx=512,
                n_parallel=1,
                worker_ip=f"{first.node_id},{second.node_id}",
            )
            assert answer.status_code == 200, answer.text
            both = {first.node_id, second.node_id}
            until("both replicas are ready", lambda: cluster.ready_on(UID).keys() == both)
            client = openai.OpenAI(base_url=f"{third.home.url}/v1", api_key="none", max_retries=0)
            until("the worker has the routes", lambda: [each.id for each in client.models.list()] == [UID])
            for _ in range(4):
                chat = client.chat.completions.create(
                    model=UID,
                    messages=[{"role": "user", "content": "How many days are in a week?"}],
                    max_tokens=24,
                    temperature=0,
                )
                assert "7 days" in (chat.choices[0].message.content or "")
            requests = until(
                "they are counted", lambda: [*cluster.get("/v1/requests")][3:] and cluster.get("/v1/requests")
            )
            assert {each["node"] for each in requests} == {third.node_id}
            assert len({each["replica"] for each in requests}) == 2, "both hosts have answered"
        finally:
            cluster.close()
