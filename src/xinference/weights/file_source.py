"""A folder or a repository behind one interface: names and sizes, small files, and headers of large ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from xinference.catalog.safe_names import is_inside
from xinference.errors import bad_request
from xinference.formats.gguf import GgufHeader, read_header, read_header_of
from xinference.formats.weight_file import weight_file
from xinference.hubs.listing import Listing
from xinference.hubs.repositories.repository import RepositoryHub


class FileSource(Protocol):
    """A folder or a repository. Every method but the properties blocks and raises `Problem`."""

    @property
    def title(self) -> str:
        """The name of the folder or repository in messages."""
        ...

    @property
    def files(self) -> Mapping[str, int]:
        """Name inside the folder or repository -> bytes."""
        ...

    def small(self, name: str, max_bytes: int) -> bytes | None:
        """The content of a file of at most `max_bytes` bytes; None if it does not exist or is larger."""
        ...

    def gguf(self, name: str) -> GgufHeader:
        """The header of a GGUF file."""
        ...


class FolderSource:
    """A folder on this machine, without its subfolders, which may belong to other models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            paths = sorted(path for path in folder.iterdir() if path.is_file())
            self._files = {path.name: path.stat().st_size for path in paths}
        except OSError as error:
            raise bad_request(
                f"{folder} can't be read: {error.strerror}.", hint="Check the path and its permissions."
            ) from None

    @property
    def title(self) -> str:
        return str(self.folder)

    @property
    def files(self) -> Mapping[str, int]:
        return self._files

    def small(self, name: str, max_bytes: int) -> bytes | None:
        if not 0 <= self._size(name) <= max_bytes:
            return None
        with weight_file(self.folder / name, f"a readable {name}") as (file, size):
            return file.read(min(size, max_bytes))

    def _size(self, name: str) -> int:
        """Bytes of a file, which may be in a subfolder if its path is known; -1: it does not exist."""
        if "/" not in name or not is_inside(name):
            return self._files.get(name, -1)
        path = self.folder / name
        return path.stat().st_size if path.is_file() else -1

    def gguf(self, name: str) -> GgufHeader:
        return read_header(self.folder / name)


class RepositorySource:
    """A repository at one revision."""

    def __init__(self, hub: RepositoryHub, model_id: str, listing: Listing) -> None:
        self.hub = hub
        self.model_id = model_id
        self.listing = listing
        self._files = {file.name: file.size for file in listing.files if is_inside(file.name)}

    @property
    def title(self) -> str:
        return f"{self.model_id} on {self.hub.name}"

    @property
    def files(self) -> Mapping[str, int]:
        return self._files

    def small(self, name: str, max_bytes: int) -> bytes | None:
        return self.hub.small_file(self.model_id, self.listing, name, max_bytes) if name in self._files else None

    def gguf(self, name: str) -> GgufHeader:
        file = next(each for each in self.listing.files if each.name == name)
        with self.hub.open_file(self.model_id, self.listing, file) as opened:
            return read_header_of(opened, file.size, Path(name))
