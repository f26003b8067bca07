"""The changes that `xinference tune` tries: options that a launch takes, and no other ones."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from xinference.engines.llama_cpp.engine import PROGRAM, LlamaCpp
from xinference.engines.llama_cpp.tuning import groups
from xinference.hardware.devices import Host


@pytest.mark.parametrize("cores", [1, 2, 3, 64])
def test_no_group_is_empty_or_repeats_a_change(cores: int) -> None:
    made = groups(Host(cores, 1, 1), 4, any_answers=True)
    assert made
    for group in made:
        assert group
        assert len({json.dumps(change) for change in group}) == len(group)
        assert len({tuple(change) for change in group}) == 1


def test_only_any_answers_tries_other_types_of_the_cache_and_speculation() -> None:
    """Speculation changes no text, but the log probabilities."""
    names = {name for group in groups(Host(4, 1, 1), 4, any_answers=False) for change in group for name in change}
    more = {name for group in groups(Host(4, 1, 1), 4, any_answers=True) for change in group for name in change}
    assert more - names == {"cache_type_k", "cache_type_v", "speculative.types"}


@pytest.mark.process
def test_a_launch_takes_every_change() -> None:
    described = subprocess.run([sys.executable, "-I", str(PROGRAM), "--describe"], capture_output=True, check=True)
    known = json.loads(described.stdout)["options"]
    for group in groups(Host(4, 1, 1), 4, any_answers=True):
        for change in group:
            assert LlamaCpp().check_options(change, known) == change
