"""What a file is, judged by its first bytes: for telling a user what they gave us instead of a weight file."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: Bytes of a file's start that `describe` wants to see.
SNIFF_BYTES = 512
_GGML = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}
_FETCH_AGAIN = "Delete the file and fetch it again from its hub."


class Finding(NamedTuple):
    """What a file seems to be, and what its owner can do."""

    what: str
    hint: str


def describe(head: bytes, size: int, wanted: Literal["GGUF", "ggml"] = "GGUF") -> Finding:
    """Name the format of a file that starts with `head`, has `size` bytes, and is not of the `wanted` format."""
    if size == 0:
        return Finding("is empty", _FETCH_AGAIN)
    if head.startswith(b"GGUF"):
        return Finding("is GGUF, not the older ggml format", "Use --model-format ggufv2.")
    if head[:4] in _GGML:
        name = _GGML[head[:4]]
        return Finding(f"is not GGUF but the older ggml format ({name})", "Use --model-format ggmlv3.")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return Finding(
            "is a git-lfs pointer, not the weights it points to", "Run `git lfs pull` in its repository, or fetch it."
        )
    if head.startswith(b"PK\x03\x04"):
        return Finding(
            f"is not {wanted} but a zip archive (a PyTorch checkpoint or a wheel)",
            "Use --model-format pytorch with its folder.",
        )
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Finding(
            f"is not {wanted} but a Python pickle (an old PyTorch checkpoint)",
            "Use --model-format pytorch with its folder.",
        )
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return Finding(f"is not {wanted} but safetensors", "Use --model-format pytorch with its folder.")
    return _describe_text(head, wanted)


def _describe_text(head: bytes, wanted: str) -> Finding:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return Finding(f"is not {wanted} but an HTML page, probably an error page saved as a file", _FETCH_AGAIN)
    if text.startswith(b"{"):
        return Finding(f"is not {wanted} but JSON text, probably an error message saved as a file", _FETCH_AGAIN)
    if not head.strip(b"\0"):
        return Finding("starts with zero bytes: an interrupted download left it", _FETCH_AGAIN)
    # Its bytes are not quoted: the file may be anything that the server's user can read.
    return Finding(f"is not {wanted}", f"Give a {'.gguf' if wanted == 'GGUF' else 'ggmlv3 .bin'} file.")
