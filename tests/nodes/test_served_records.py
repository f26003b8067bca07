"""The records of requests at a worker: none is lost while the supervisor is away, and none is counted twice."""

from __future__ import annotations

import msgspec
import pytest

from tests.records.samples import record
from xinference.nodes import messages, served_records
from xinference.nodes.served_records import CountedRecords, ServedRecords
from xinference.records.record import Record


def _records(first: int, last: int) -> list[Record]:
    return [record(request_id=f"p-{number}") for number in range(first, last + 1)]


def _served(records: list[Record]) -> tuple[ServedRecords, list[messages.Served]]:
    sent: list[messages.Served] = []
    served = ServedRecords(sent.append, "p")
    for each in records:
        served.add(each)
    return served, sent


def test_records_come_again_until_they_are_counted() -> None:
    served, sent = _served(_records(1, 2))
    served.send()
    served.send()
    assert sent == [messages.Served("p", 2, tuple(_records(1, 2)))] * 2
    served.counted("p", 2)
    served.send()
    assert len(sent) == 2, "nothing waits any more"


def test_what_an_earlier_process_has_sent_counts_nothing_here() -> None:
    served, sent = _served(_records(1, 1))
    served.counted("earlier", 1)
    served.send()
    assert len(sent) == 1


def test_many_records_are_sent_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_records, "BATCH", 2)
    served, sent = _served(_records(1, 5))
    served.send()
    assert [(each.number, len(each.records)) for each in sent] == [(2, 2), (4, 2), (5, 1)]


def test_the_oldest_are_dropped_when_the_supervisor_stays_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served_records, "MAX_WAITING", 2)
    served, sent = _served(_records(1, 4))
    served.send()
    assert sent == [messages.Served("p", 4, tuple(_records(3, 4)))]
    assert "only the last 2 are counted" in caplog.text


def test_each_record_is_counted_once() -> None:
    counted = CountedRecords()
    assert list(counted.take(messages.Served("p", 2, tuple(_records(1, 2))), 0.5)) == _records(1, 2)
    assert list(counted.take(messages.Served("p", 2, tuple(_records(1, 2))), 0.5)) == []
    assert list(counted.take(messages.Served("p", 3, tuple(_records(1, 3))), 0.5)) == _records(3, 3)
    assert list(counted.take(messages.Served("q", 1, tuple(_records(1, 1))), 0.5)) == _records(1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"started": float("inf")},
        {"started": float("nan")},
        {"started": 1e300},
        {"started": 3600.0},
        {"total": float("nan")},
        {"total": -1.0},
        {"first_token": float("inf")},
        {"wait_quota": float("nan")},
        {"prompt_tokens": 2**64 - 1},
        {"output_tokens": -1},
        {"bytes_out": 2**63},
        {"status": 2**63},
        {"status": -1},
        {"model": "m" * 100_000},
        {"trace": "t" * 100_000},
    ],
)
def test_a_record_that_no_request_can_have_is_not_counted(
    changes: dict[str, float | str], caplog: pytest.LogCaptureFixture
) -> None:
    impossible = msgspec.structs.replace(record(), **changes)
    counted = CountedRecords().take(messages.Served("p", 2, (impossible, record())), 0.5)
    assert counted == (record(),)
    assert "1 records of requests are not counted" in caplog.text


def test_a_node_that_invents_models_does_not_fill_the_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_records, "MAX_SUBJECTS", 2)
    counted = CountedRecords()
    invented = [record(model=f"model-{number}") for number in range(5)]
    assert counted.take(messages.Served("p", 5, tuple(invented)), 0.5) == tuple(invented[:2])
    assert counted.take(messages.Served("p", 7, (invented[0], invented[4])), 0.5) == (invented[0],)
    later = msgspec.structs.replace(invented[4], started=3600.0)
    assert counted.take(messages.Served("p", 8, (later,)), 3600.5) == (later,)
