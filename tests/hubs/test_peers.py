"""Nodes of a cluster get weights from each other: real hub client, real caches, real TLS on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import pytest
from cryptography import x509

from tests.engines.plans import launch_of
from tests.fakes.hub.repositories import Fault
from tests.hubs.loopback_fetch import CHOSEN, COMMIT, FOLDER, Fetching
from tests.support.weight_nodes import TakenReport, WeightMachine, weight_site
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.plan import ResolvedLaunch

BYTES = random.Random(2).randbytes(3_000_000)


def launch(huggingface: Fetching, file: str | None = "tiny.bin") -> ResolvedLaunch:
    """A launch of the served repository."""
    version = huggingface.version(file)
    return launch_of(version=version, origin=version.spec.sources[0])


async def test_four_nodes_that_want_one_file_ask_the_hub_for_each_byte_once(
    huggingface: Fetching, tmp_path: Path
) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    wanted = launch(huggingface)
    async with weight_site(tmp_path / "site", 4) as site:
        reports = [TakenReport() for _ in site]
        paths = await asyncio.gather(
            *(site.weights.fetch(each.node_id, wanted, report) for each, report in zip(site, reports, strict=True))
        )
        assert [path.read_bytes() for path in paths] == [BYTES] * 4
        assert all(path.is_relative_to(each.home) for path, each in zip(paths, site, strict=True))
    assert huggingface.server.counters.sent["tiny.bin"] == len(BYTES)
    last_sources = [report.sources[-1] for report in reports]
    assert sorted(last_sources) == ["huggingface", "peer", "peer", "peer"]
    fetcher = last_sources.index("huggingface") + 1
    copying = [report.begun[-1] for report in reports if report.sources[-1] == "peer"]
    assert copying == [("fetch", f"copying {wanted.version.version_id} from box{fetcher}")] * 3
    for report in reports:
        assert report.files[-1] == ("tiny.bin", len(BYTES), len(BYTES))


async def test_a_download_waits_for_the_launch_that_fetches_the_same_and_copies_from_it(
    huggingface: Fetching, tmp_path: Path
) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    wanted = launch(huggingface)
    assert wanted.source is not None
    async with weight_site(tmp_path / "site", 2) as site:
        first, second = site
        launched, downloaded = TakenReport(), TakenReport()
        paths = await asyncio.gather(
            site.weights.fetch(first.node_id, wanted, launched),
            site.weights.fetch_version(wanted.version, wanted.source, downloaded, second.node_id),
        )
        assert [path.read_bytes() for path in paths] == [BYTES] * 2
    assert huggingface.server.counters.sent["tiny.bin"] == len(BYTES)
    assert {launched.sources[-1], downloaded.sources[-1]} == {"huggingface", "peer"}


async def test_a_folder_is_copied_with_the_same_files_and_the_same_hashes(
    huggingface: Fetching, tmp_path: Path
) -> None:
    huggingface.serve(FOLDER)
    wanted = launch(huggingface, None)
    async with weight_site(tmp_path / "site", 2) as site:
        for each in site:
            folder = await site.weights.fetch(each.node_id, wanted, TakenReport())
            assert sorted(path.name for path in folder.iterdir()) == CHOSEN
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == {n: content_of(n) for n in CHOSEN}
            assert folder.name == COMMIT and await each.node.find_weights(wanted) == folder
    assert huggingface.server.counters.sent == {name: len(content_of(name)) for name in CHOSEN}


async def test_a_node_without_access_to_the_hub_gets_all_from_another_one(
    huggingface: Fetching, tmp_path: Path
) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    wanted = launch(huggingface)
    async with weight_site(tmp_path / "site", 3, offline=frozenset({1, 3})) as site:
        for number in (0, 2):
            path = await site.weights.fetch(site.machines[number].node_id, wanted, TakenReport())
            assert path.read_bytes() == BYTES
    assert huggingface.server.counters.sent["tiny.bin"] == len(BYTES)


async def test_a_node_that_says_nothing_of_hubs_and_reaches_none_gets_all_from_another_one(
    huggingface: Fetching, tmp_path: Path
) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    async with weight_site(tmp_path / "site", 2, offline=frozenset({1})) as site:
        site.hubs[site.machines[0].node_id] = None
        path = await site.weights.fetch(site.machines[0].node_id, launch(huggingface), TakenReport())
        assert path.read_bytes() == BYTES


async def test_if_the_node_that_fetches_for_another_one_is_lost_the_next_one_fetches(
    huggingface: Fetching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface.serve({"tiny.bin": BYTES, "other.bin": BYTES})

    async def end(*_: object) -> Path:
        raise Problem(Code.NODE_GONE, "The node is lost.")

    async with weight_site(tmp_path / "site", 3, offline=frozenset({1})) as site:
        monkeypatch.setattr(site.machines[1].as_seen, "fetch_weights", end)
        path = await site.weights.fetch(site.machines[0].node_id, launch(huggingface), TakenReport())
        assert path.read_bytes() == BYTES
        monkeypatch.setattr(site.machines[2].as_seen, "fetch_weights", end)
        with pytest.raises(Problem, match="is lost"):
            await site.weights.fetch(site.machines[2].node_id, launch(huggingface, "other.bin"), TakenReport())


async def test_without_access_anywhere_the_problem_says_what_to_do(huggingface: Fetching, tmp_path: Path) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    async with weight_site(tmp_path / "site", 2, offline=frozenset({1, 2})) as site:
        with pytest.raises(Problem) as raised:
            await site.weights.fetch(site.machines[0].node_id, launch(huggingface), TakenReport())
    assert raised.value.code == "offline" and "XINFERENCE_SHARED_CACHE" in (raised.value.hint or "")


async def test_a_copy_that_nobody_can_give_ends_with_the_reason(huggingface: Fetching, tmp_path: Path) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    async with weight_site(tmp_path / "site", 2, offline=frozenset({1})) as site:
        first, second = site.machines
        await second.door.close()
        with pytest.raises(Problem) as raised:
            await site.weights.fetch(first.node_id, launch(huggingface), TakenReport())
    assert raised.value.code == "peer_copy_failed" and "box2" in raised.value.cause


async def test_a_copy_whose_source_ends_goes_on_from_the_next_peer(huggingface: Fetching, tmp_path: Path) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    wanted = launch(huggingface)
    async with weight_site(tmp_path / "site", 3) as site:
        first, second, third = site.machines
        for each in (first, second):
            await site.weights.fetch(each.node_id, wanted, TakenReport())
        cut = len(BYTES) // 3
        target = partial_of(third)
        target.parent.mkdir(parents=True)
        target.write_bytes(BYTES[:cut])  # what arrived before the first node died
        await first.door.close()
        report = TakenReport()
        path = await site.weights.fetch(third.node_id, wanted, report)
        assert path.read_bytes() == BYTES and report.sources == ["peer"]
    assert huggingface.server.counters.sent["tiny.bin"] == len(BYTES)


async def test_a_copy_without_any_source_goes_on_from_the_hub(huggingface: Fetching, tmp_path: Path) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    wanted = launch(huggingface)
    async with weight_site(tmp_path / "site", 2) as site:
        first, second = site.machines
        await site.weights.fetch(first.node_id, wanted, TakenReport())
        cut = len(BYTES) // 3
        target = partial_of(second)
        target.parent.mkdir(parents=True)
        target.write_bytes(BYTES[:cut])
        await first.door.close()
        report = TakenReport()
        path = await site.weights.fetch(second.node_id, wanted, report)
        assert path.read_bytes() == BYTES and report.sources == ["peer", "huggingface"]
    assert huggingface.server.counters.of("tiny.bin")[-1][2] == f"bytes={cut}-", "the hub is asked for the rest only"


async def test_if_the_hub_does_not_answer_one_node_another_one_fetches_for_both(
    huggingface: Fetching, tmp_path: Path
) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    huggingface.server.faults["tiny.bin"] = Fault(times=1, status=404)
    wanted = launch(huggingface)
    async with weight_site(tmp_path / "site", 2) as site:
        paths = await asyncio.gather(*(site.weights.fetch(each.node_id, wanted, TakenReport()) for each in site))
        assert [path.read_bytes() for path in paths] == [BYTES] * 2
    assert huggingface.server.counters.sent["tiny.bin"] == len(BYTES)


async def test_weights_whose_bytes_are_damaged_at_the_peer_come_from_the_hub(
    huggingface: Fetching, tmp_path: Path
) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    wanted = launch(huggingface)
    async with weight_site(tmp_path / "site", 2) as site:
        first, second = site.machines
        path = await site.weights.fetch(first.node_id, wanted, TakenReport())
        damaged = bytearray(BYTES)
        damaged[1000] ^= 1
        path.resolve().write_bytes(damaged)
        report = TakenReport()
        assert (await site.weights.fetch(second.node_id, wanted, report)).read_bytes() == BYTES
        assert report.sources == ["peer", "huggingface"]


async def test_a_removed_node_gets_no_weights(huggingface: Fetching, tmp_path: Path) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    wanted = launch(huggingface)
    async with weight_site(tmp_path / "site", 2) as site:
        first, second = site.machines
        await site.weights.fetch(first.node_id, wanted, TakenReport())
        first.removed.add((second.node_id, serial_of(second)))
        report = TakenReport()
        await site.weights.fetch(second.node_id, wanted, report)
        assert report.sources == ["peer", "huggingface"]


def content_of(name: str) -> bytes:
    content = FOLDER[name]
    assert isinstance(content, bytes)
    return content


def partial_of(machine: WeightMachine) -> Path:
    """Where a file arrives on a machine."""
    return machine.home / "hub" / "models--tiny--llama" / "blobs" / f"{hashlib.sha256(BYTES).hexdigest()}.incomplete"


def serial_of(machine: WeightMachine) -> int:
    return x509.load_pem_x509_certificate(machine.identity.certificate_path.read_bytes()).serial_number
