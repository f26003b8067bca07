from __future__ import annotations

import json

import pytest

from xinference.client.answers import ServerSentEvents


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_events_are_split_at_newlines_only(step: int) -> None:
    text = "a\u2028b\x85c"
    stream = f": ping\r\n\r\nevent: x\ndata:{json.dumps(text, ensure_ascii=False)}\r\n\r\ndata: 1\ndata: 2\n\n".encode()
    reader = ServerSentEvents()
    got = [data for at in range(0, len(stream), step) for data in reader.feed(stream[at : at + step])]
    assert [got[0], got[1]] == [json.dumps(text, ensure_ascii=False), "1\n2"]
    assert len(got) == 2
