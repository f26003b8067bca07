"""The extracted files of a wheel between machines: offered by one, copied and checked by another."""

from __future__ import annotations

import threading
from pathlib import Path

from xinference.catalog.models import FileFacts
from xinference.files.disk_space import need_space
from xinference.files.durability import sync_folder
from xinference.files.progress import Progress
from xinference.hubs import problems
from xinference.hubs.listing import ListedFile, Listing
from xinference.hubs.offer import Copy, Offer, offer_of
from xinference.hubs.package_index.wheel_member import WheelMember, find_extracted, is_inside_wheel
from xinference.hubs.transfer.parallel import Report, fetch_all


def offer_member(entry: WheelMember, root: Path) -> Offer | None:
    """The extracted files for another machine, named as in their folder."""
    if find_extracted(entry) is None:
        return None
    tops = sorted(entry.target.rglob("*")) if entry.is_folder else [entry.target]
    facts = entry.facts if not entry.is_folder else FileFacts()
    listed = tuple(
        ListedFile(path.relative_to(entry.folder).as_posix(), path.stat().st_size, facts.sha256)
        for path in tops
        if path.is_file()
    )
    return offer_of(Listing(entry.requirement, listed), listed, entry.folder, [root]) if listed else None


def receive_member(
    entry: WheelMember, listing: Listing, copy: Copy, progress: Progress, cancelled: threading.Event
) -> Path:
    """Copy the listed files to the partial file or folder, which gets its name when it is complete."""
    _check_listing(entry, listing)
    need_space(entry.folder, sum(file.size for file in listing.files), entry.target.name)

    def copy_one(file: ListedFile, report: Report, stop: threading.Event) -> None:
        partial = entry.partial / file.name.removeprefix(f"{entry.target.name}/") if entry.is_folder else entry.partial
        partial.parent.mkdir(parents=True, exist_ok=True)
        copy(file, partial, report, stop)

    fetch_all(listing.files, copy_one, progress, cancelled, entry.requirement)
    for folder in {path.parent for path in entry.partial.rglob("*")}:
        sync_folder(folder)
    entry.partial.replace(entry.target)
    sync_folder(entry.folder)
    return entry.target


def _check_listing(entry: WheelMember, listing: Listing) -> None:
    """Refuse a list of another machine whose files are not those of the member, or have other facts.

    Raises:
        Problem: 502 ``peer_refused``.
    """
    names = [file.name for file in listing.files]
    name = entry.target.name
    if listing.revision != entry.requirement or not names:
        raise problems.peer_refused(f"{listing.revision!r} instead of {entry.requirement}")
    for file in listing.files:
        if entry.is_folder:
            good = file.name.startswith(f"{name}/") and is_inside_wheel(file.name)
        else:
            size, sha256 = entry.facts.size, entry.facts.sha256
            good = names == [name] and size in (None, file.size) and sha256 in (None, file.sha256)
        if not good:
            raise problems.peer_refused(f"the file {file.name!r} of {entry.requirement}")
