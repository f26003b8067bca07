"""What a file is, judged by its first bytes: for telling a user what they gave us instead of a weight file."""

from __future__ import annotations

from typing import NamedTuple

#: Bytes of a file's start that `describe` wants to see.
SNIFF_BYTES = 512
_GGML = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}
_FETCH_AGAIN = "Delete the file and fetch it again from its hub."


class Finding(NamedTuple):
    """What a file seems to be, and what its owner can do."""

    what: str
    hint: str


def describe(head: bytes, size: int) -> Finding:
    """Name the format of a file that starts with `head` and has `size` bytes."""
    if size == 0:
        return Finding("is empty", _FETCH_AGAIN)
    if head[:4] in _GGML:
        name = _GGML[head[:4]]
        return Finding(f"is not GGUF but the older ggml format ({name})", "Use --model-format ggmlv3.")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return Finding(
            "is a git-lfs pointer, not the weights it points to", "Run `git lfs pull` in its repository, or fetch it."
        )
    if head.startswith(b"PK\x03\x04"):
        return Finding(
            "is not GGUF but a zip archive (a PyTorch checkpoint or a wheel)",
            "Use --model-format pytorch with its folder.",
        )
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Finding(
            "is not GGUF but a Python pickle (an old PyTorch checkpoint)", "Use --model-format pytorch with its folder."
        )
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return Finding("is not GGUF but safetensors", "Use --model-format pytorch with its folder.")
    return _describe_text(head)


def _describe_text(head: bytes) -> Finding:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return Finding("is not GGUF but an HTML page, probably an error page saved as a file", _FETCH_AGAIN)
    if text.startswith(b"{"):
        return Finding("is not GGUF but JSON text, probably an error message saved as a file", _FETCH_AGAIN)
    if not head.strip(b"\0"):
        return Finding("starts with zero bytes: an interrupted download left it", _FETCH_AGAIN)
    return Finding(f"is not GGUF: it starts with {head[:4]!r} instead of b'GGUF'", "Give a .gguf file.")
