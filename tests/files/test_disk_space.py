"""The free space that a download needs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from xinference.errors import Problem
from xinference.files.disk_space import RESERVE_BYTES, need_space


def test_a_refusal_has_the_reserve_that_must_stay_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=RESERVE_BYTES + 99))
    need_space(tmp_path, 99, "m")
    with pytest.raises(
        Problem, match=rf"m needs 100 more bytes, and {RESERVE_BYTES} must stay free, but .* has 67108963"
    ):
        need_space(tmp_path, 100, "m")
