"""What was recorded of the engines, and the programs that record it or run in their environments."""

from __future__ import annotations

from pathlib import Path


def parse_with_vllm_path() -> Path:
    """The program that parses recorded answers in vLLM's environment."""
    return Path(__file__).with_name("parse_with_vllm.py")
