"""ModelScope's client draws no bars while it fetches for us, and is left as it was."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from modelscope_hub import _download

from tests.hubs.loopback_fetch import BYTES, Fetching
from xinference.hubs.repositories.modelscope_bars import without_bars

CLIENT: Any = _download


def draw(capsys: pytest.CaptureFixture[str]) -> str:
    """What the client's bar writes to stderr."""
    with CLIENT.tqdm(total=2, desc="a bar") as bar:
        bar.update(1)
    return capsys.readouterr().err


def test_no_bar_is_drawn_in_the_block_and_one_is_drawn_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    original = CLIENT.tqdm
    with without_bars():
        assert draw(capsys) == ""
    assert CLIENT.tqdm is original
    assert "a bar" in draw(capsys)


def test_the_client_is_restored_after_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    original = CLIENT.tqdm
    with pytest.raises(OSError, match="cut"), without_bars():
        raise OSError("cut")
    assert CLIENT.tqdm is original


def test_the_last_of_several_fetches_restores_the_client() -> None:
    original = CLIENT.tqdm
    inside, may_end = threading.Event(), threading.Event()

    def fetch() -> None:
        with without_bars():
            inside.set()
            may_end.wait(30)

    other = threading.Thread(target=fetch)
    with without_bars():
        other.start()
        inside.wait(30)
    assert CLIENT.tqdm is not original
    may_end.set()
    other.join()
    assert CLIENT.tqdm is original


@pytest.mark.live
def test_a_fetch_draws_nothing_and_leaves_the_client_as_it_was(
    modelscope: Fetching, capsys: pytest.CaptureFixture[str]
) -> None:
    original = CLIENT.tqdm
    modelscope.serve({"tiny.bin": BYTES})
    assert modelscope(modelscope.version("tiny.bin")).read_bytes() == BYTES
    assert capsys.readouterr().err == ""
    assert CLIENT.tqdm is original
