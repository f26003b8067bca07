"""Small catalogs for tests."""

from __future__ import annotations

import copy
import json
from typing import Any

from tests.catalog.test_registry import ENTRY

Json = dict[str, Any]
NEW = "2099.1.1"


def entry(name: str = "some-chat", **changes: Any) -> Json:
    """A family as a document has it."""
    return {**copy.deepcopy(ENTRY), "model_name": name, **changes}


def catalog(*families: Json, version: str = NEW, **changes: Any) -> bytes:
    """The document of these families."""
    return json.dumps({"format": 1, "version": version, "families": list(families or [entry()]), **changes}).encode()


def with_source(**changes: Any) -> Json:
    """A family whose first source is changed."""
    family = entry()
    family["model_specs"][0]["sources"][0] |= changes
    return family


#: Documents that are refused, each with a part of the reason.
BROKEN: dict[str, tuple[bytes, str]] = {
    "truncated": (catalog()[:-20], "truncated"),
    "empty": (b"", "truncated"),
    "not JSON": (b"<html>404</html>", "malformed"),
    "not UTF-8": (catalog().replace(b"some-chat", b"some\xffchat"), "utf-8"),
    "a list": (b"[]", "object"),
    "nested deeply": (b'{"format": 1, "version": "2099", "families": ' + b"[" * 100_000, "array"),
    "duplicate family": (catalog(entry("a"), entry("a")), "two families"),
    "duplicate family in other letters": (catalog(entry("abc"), entry("ABC")), "two families"),
    "built-in name in other letters": (catalog(entry("LLAMA-2-chat")), "built-in family in other letters"),
    "hostile file": (catalog(with_source(file="../../etc/{quantization}")), "outside the model's folder"),
    "absolute file": (catalog(with_source(file="/etc/{quantization}")), "outside the model's folder"),
    "hostile repository": (catalog(with_source(model_id="owner/..")), "owner/name"),
    "hostile revision": (catalog(with_source(revision="--upload-file=/etc/passwd")), "revision"),
    "path of this machine": (catalog(with_source(hub="local", model_id="/etc")), "path of this machine"),
    "hostile name": (catalog(entry("../../x")), "contains a space or one of"),
    "long name": (catalog(entry("x" * 5000)), "more than 100 characters"),
    "huge": (catalog(entry(model_description="x" * (8 << 20))), "more than 8388608 bytes"),
    "older": (catalog(version="2001.1.1"), "2001.1.1"),
    "version that is a word": (catalog(version="latest"), "not numbers"),
    "huge version": (catalog(version="9" * 5000), "not numbers"),
    "later form": (catalog(format=2), "format"),
    "unknown field": (catalog(surprise=1), "surprise"),
    "unknown field of a family": (catalog(entry(command="rm")), "command"),
    "wrong type": (catalog(entry(context_length="many")), "context_length"),
    "negative context": (catalog(entry(context_length=-1)), "context_length"),
    "huge number": (catalog().replace(b"4096", b"9" * 4000), "too large"),
    "no families": (catalog().replace(json.dumps([entry()]).encode(), b"[]"), "0 families"),
    "no specs": (catalog(entry(model_specs=[])), "model_specs"),
}
