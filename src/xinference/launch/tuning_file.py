"""The file with the measurements of `xinference tune`, in the home."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from xinference.files.private_file import write_private
from xinference.files.small_file import read_small
from xinference.launch.tuning import Tuning

log = logging.getLogger(__name__)

FILE = "tuned.json"
_DECODER = msgspec.json.Decoder(list[Tuning])


def read_tunings(home: Path) -> list[Tuning]:
    """The entries; none if there is no file, or it can't be read."""
    try:
        return _DECODER.decode(read_small(home / FILE))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        log.warning("the measurements of `xinference tune` are not used: %s: %s", home / FILE, error)
        return []


def write_tunings(home: Path, entries: Sequence[Tuning]) -> None:
    """Replace the entries.

    Raises:
        OSError: nothing is changed.
    """
    home.mkdir(parents=True, exist_ok=True)
    write_private(home / FILE, msgspec.json.format(msgspec.json.encode(list(entries))))
