"""One file or folder of a wheel, and its place in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from xinference.catalog.models import FileFacts


@dataclass(frozen=True)
class WheelMember:
    """One file or folder of one wheel, and its target folder."""

    requirement: str
    member: str
    """Path inside the wheel; that of a folder ends with ``/``."""
    facts: FileFacts
    archive_sha256: str | None
    folder: Path

    @property
    def is_folder(self) -> bool:
        return self.member.endswith("/")

    @property
    def target(self) -> Path:
        return self.folder / PurePosixPath(self.member).name

    @property
    def partial(self) -> Path:
        """The incomplete file or folder of an interrupted run."""
        return self.target.with_name(f".{self.target.name}.partial")

    @property
    def staging(self) -> Path:
        """Folder of the wheel until its member is extracted; an interrupted run does not delete it."""
        return self.folder / ".staging"


def is_inside_wheel(member: str) -> bool:
    """Whether a name in a wheel stays inside its folder, and is not hidden."""
    parts = member.split("/")
    return not any(part.startswith(".") or part == "" for part in parts) and "\\" not in member and "\0" not in member


def find_extracted(entry: WheelMember) -> Path | None:
    """The extracted file or folder, if it exists and has the expected size."""
    if entry.is_folder:
        return entry.target if entry.target.is_dir() else None
    try:
        size = entry.target.stat().st_size
    except OSError:
        return None
    return entry.target if entry.target.is_file() and entry.facts.size in (None, size) else None
