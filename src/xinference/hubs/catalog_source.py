"""Fetches a catalog of models from an ``https:`` address or from a package index, within limits of bytes and time."""

from __future__ import annotations

import asyncio
import re
import stat
import tempfile
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xinference.catalog.catalog_document import MAX_BYTES, bad_catalog, sha256_of
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request

if TYPE_CHECKING:
    from xinference.https.network import Network

#: The file of a wheel that is the catalog, in the folder of the package.
MEMBER = "catalog.json"
#: Maximum bytes of a wheel: its other members are not read.
MAX_WHEEL = 4 * MAX_BYTES
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==(?P<version>[A-Za-z0-9](?:[A-Za-z0-9.!+_-]*[A-Za-z0-9])?))?"
)


@dataclass(frozen=True)
class CatalogSource:
    """The place of a catalog: an ``https:`` address or a package, and its hash."""

    text: str
    """The address without its fragment, or ``NAME`` or ``NAME==VERSION``."""
    sha256: str | None
    """Of the catalog at an address, or of the wheel of a package; None: the package index has the hash."""

    @property
    def is_address(self) -> bool:
        return "://" in self.text


def read_source(text: str, sha256: str | None) -> CatalogSource:
    """The source that a user names; an address may have its hash at its end, as ``#sha256=…``.

    Raises:
        Problem: 400 ``no_catalog_source``, the source has another form, or it is an address without a hash.
    """
    address, _, fragment = text.strip().partition("#")
    digest = (sha256 or fragment.removeprefix("sha256=") or "").strip().lower() or None
    if digest is not None and not _SHA256.fullmatch(digest):
        raise bad_request(
            f"{digest[:80]!r} is not a sha256 in 64 hexadecimal digits.",
            hint="`sha256sum FILE` prints it.",
            code=Code.NO_CATALOG_SOURCE,
        )
    source = CatalogSource(address, digest)
    if source.is_address and digest is None:
        raise bad_request(
            f"The catalog at {address[:200]} is not pinned by a hash.",
            hint="Pass --sha256 with the hash from the publisher of the catalog, or use a package.",
            code=Code.NO_CATALOG_SOURCE,
        )
    if not source.is_address and not _REQUIREMENT.fullmatch(address):
        raise bad_request(
            f"{address[:200]!r} is neither an https: address nor a package.",
            hint="Use https://HOST/PATH with --sha256, NAME or NAME==VERSION.",
            code=Code.NO_CATALOG_SOURCE,
        )
    return source


async def fetch_catalog(source: CatalogSource, settings: Settings, network: Network | None = None) -> bytes:
    """The document of a source, whose hash is verified.

    Raises:
        Problem: 400 ``bad_catalog``; 503 ``offline`` or ``hub_unreachable``; 504 ``hub_timeout``; or a problem of pip.
    """
    if settings.offline:
        raise Problem(
            Code.OFFLINE,
            f"XINFERENCE_OFFLINE is set, and the catalog {source.text} is on another machine.",
            hint="Unset XINFERENCE_OFFLINE, or use a file.",
        )
    if source.is_address:
        text = await _fetch_address(source, settings, network)
        check_sha256(text, source.sha256, source.text)
        return text
    return await asyncio.to_thread(_fetch_package, source, settings.hub_seconds)


def check_sha256(text: bytes, sha256: str | None, origin: str) -> None:
    """Compare a document with its hash; None: there is none.

    Raises:
        Problem: 400 ``bad_catalog``, with both hashes.
    """
    if sha256 is not None and (found := sha256_of(text)) != sha256.strip().lower():
        raise bad_catalog(origin, f"its sha256 is {found}, and not {sha256}")


async def _fetch_address(source: CatalogSource, settings: Settings, network: Network | None) -> bytes:
    from xinference.https.answer import AnswerError
    from xinference.https.fetcher import Fetcher
    from xinference.https.network import real_network

    network = network or real_network()
    fetcher = Fetcher(
        lambda _: True, MAX_BYTES, settings.hub_seconds, network, accept="application/json", noun="catalog"
    )
    url = fetcher.allowed(source.text)
    if url is None:
        raise bad_request(
            f"{source.text[:200]} is not an https: address.",
            hint="Fetch the file yourself, and pass it as --from FILE.",
            code=Code.NO_CATALOG_SOURCE,
        )
    try:
        return await fetcher.fetch(url)
    except AnswerError as error:
        raise Problem(
            Code.HUB_UNREACHABLE,
            f"The catalog can't be fetched: {url.host} {error}.",
            hint="Nothing is changed. A file of this machine can be passed as --from FILE.",
        ) from None


def _fetch_package(source: CatalogSource, seconds: float) -> bytes:
    """The catalog in the wheel of a package. Blocks."""
    from xinference.hubs.package_index.pip_process import pip_download

    stopped, too_large = threading.Event(), threading.Event()

    def on_progress(done: int, total: int | None) -> None:
        if max(done, total or 0) > MAX_WHEEL:
            too_large.set()
            stopped.set()

    timer = threading.Timer(seconds, stopped.set)
    timer.daemon = True
    timer.start()
    try:
        with tempfile.TemporaryDirectory(prefix="xinference-catalog-") as folder:
            pip_download(source.text, source.sha256, Path(folder), on_progress=on_progress, cancelled=stopped)
            return _read_wheel(Path(folder), source.text)
    except Problem as problem:
        if problem.code != Code.CANCELLED:
            raise
        if too_large.is_set():
            raise bad_catalog(source.text, f"its wheel has more than {MAX_WHEEL} bytes") from None
        raise Problem(
            Code.HUB_TIMEOUT,
            f"The package index did not send {source.text} within {seconds:g} s.",
            hint="Nothing is changed. Try again, or raise XINFERENCE_HUB_SECONDS.",
        ) from None
    finally:
        timer.cancel()


def _read_wheel(folder: Path, origin: str) -> bytes:
    """The catalog of the only wheel in a folder; no other member is read, and none is written to the disk."""
    wheel = next(iter(folder.glob("*.whl")), None)
    if wheel is None or wheel.is_symlink() or wheel.stat().st_size > MAX_WHEEL:
        raise bad_catalog(origin, f"the index has no wheel of at most {MAX_WHEEL} bytes")
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if info.filename.split("/")[1:] == [MEMBER]]
            if len(members) != 1:
                raise bad_catalog(origin, f"its wheel has {len(members)} members PACKAGE/{MEMBER}, and needs one")
            return _read_member(archive, members[0], origin)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        if isinstance(error, Problem):
            raise
        # zipfile raises NotImplementedError for an unknown compression, and RuntimeError for an encrypted member.
        raise bad_catalog(origin, f"its wheel can't be read: {error}") from None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, origin: str) -> bytes:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise bad_catalog(origin, f"{info.filename} in its wheel is a link or no file")
    if info.file_size > MAX_BYTES:
        raise bad_catalog(origin, f"{info.filename} in its wheel has {info.file_size} bytes, and may have {MAX_BYTES}")
    with archive.open(info) as member:
        text = member.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise bad_catalog(origin, f"{info.filename} in its wheel has more than {MAX_BYTES} bytes")
    return text
