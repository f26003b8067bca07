"""Where a model's files are, as one kind of thing: names and sizes, small files, and headers of large ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from xinference.errors import bad_request
from xinference.formats.gguf import GgufHeader, read_header, read_header_of
from xinference.formats.weight_file import weight_file
from xinference.hubs.listing import Listing, is_inside
from xinference.hubs.repositories.repository import RepositoryHub


class Place(Protocol):
    """A folder or a repository. Every method but the properties blocks and raises `Problem`."""

    @property
    def title(self) -> str:
        """What it is called in sentences."""
        ...

    @property
    def files(self) -> Mapping[str, int]:
        """Name inside the place -> bytes."""
        ...

    def small(self, name: str, most: int) -> bytes | None:
        """A file of at most `most` bytes; None if it is not there or larger."""
        ...

    def gguf(self, name: str) -> GgufHeader:
        """The header of a GGUF file."""
        ...


class FolderPlace:
    """A folder on this machine; without subfolders, which are other models' or none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            found = sorted(path for path in folder.iterdir() if path.is_file())
            self._files = {path.name: path.stat().st_size for path in found}
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

    def small(self, name: str, most: int) -> bytes | None:
        if not 0 <= self._files.get(name, -1) <= most:
            return None
        with weight_file(self.folder / name, f"a readable {name}") as (file, size):
            return file.read(min(size, most))

    def gguf(self, name: str) -> GgufHeader:
        return read_header(self.folder / name)


class HubPlace:
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

    def small(self, name: str, most: int) -> bytes | None:
        return self.hub.small_file(self.model_id, self.listing, name, most) if name in self._files else None

    def gguf(self, name: str) -> GgufHeader:
        file = next(each for each in self.listing.files if each.name == name)
        with self.hub.open_file(self.model_id, self.listing, file) as opened:
            return read_header_of(opened, file.size, Path(name))
