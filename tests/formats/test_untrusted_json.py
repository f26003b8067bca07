"""A model's small files may be missing or contain anything."""

from __future__ import annotations

from tests.support.cases import in_one_test
from xinference.formats.untrusted_json import decoded, decoded_object


def test_a_file_that_is_not_json_is_no_file() -> None:
    assert decoded(None) is decoded(b"{") is decoded(b"\xff") is None
    assert decoded(b'{"a": 1}') == {"a": 1}


@in_one_test("data", [None, b"", b"{", b"\xff", b"[1]", b"null", b"[" * 100_000])
def test_what_is_no_object_is_an_empty_one(data: bytes | None) -> None:
    assert decoded_object(data) == {}


def test_an_object_is_returned_as_it_is() -> None:
    assert decoded_object(b'{"a": [1]}') == {"a": [1]}
