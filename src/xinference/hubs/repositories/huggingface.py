"""Hugging Face: its library lists repositories and reads the token; `transfer` downloads the files to its cache."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec

from xinference import __version__
from xinference.catalog.models import HubName
from xinference.error_codes import Code
from xinference.errors import Problem, system_reason
from xinference.hubs import problems
from xinference.hubs.cached_files import CachedFile
from xinference.hubs.listing import ListedFile, Listing
from xinference.hubs.offer import Copy
from xinference.hubs.repositories.huggingface_cache import DEFAULT_BRANCH, RepositoryCache, cache_folder, is_commit
from xinference.hubs.repositories.repository import RepositoryHub
from xinference.hubs.transfer.bounded_answer import ENCODING, MAX_LISTED_FILES, Allowance, read_error, read_list
from xinference.hubs.transfer.parallel import Report, check_stop, pause_seconds
from xinference.hubs.transfer.partial_file import TooLong, git_sha1
from xinference.hubs.transfer.verified_copy import hash_mismatch

if TYPE_CHECKING:
    import httpx2

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LIST_SECONDS = 30.0
_LIST_TRIES = 3
_LOCK_POLL_SECONDS = 0.2


class HuggingFaceHub(RepositoryHub):
    """Downloads to the cache of Hugging Face's own tools, so that both use the same files."""

    @property
    def name(self) -> HubName:
        return "huggingface"

    @property
    def terms(self) -> problems.HubTerms:
        endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        return problems.HubTerms("huggingface", endpoint, "HF_TOKEN", "HF_ENDPOINT", "HF_HOME")

    def offline_setting(self) -> str | None:
        for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
                return variable
        return super().offline_setting()

    @property
    def _root(self) -> Path:
        return cache_folder() if self._shared_folder is None else self._shared_folder / "hub"

    def _cache(self, model_id: str) -> RepositoryCache:
        return RepositoryCache(model_id, self._root)

    def _cache_folders(self, model_id: str) -> Iterable[str]:
        yield f"{self._root}/models--{model_id.replace('/', '--')}"

    def _can_be(self, requested: str | None, revision: str) -> bool:
        return is_commit(revision) and (requested == revision or not is_commit(requested or ""))

    def _folder(self, model_id: str, revision: str) -> Path:
        return self._cache(model_id).snapshot(revision)

    def _cached_revisions(self, model_id: str, revision: str | None) -> Sequence[str]:
        commit = self._cache(model_id).commit(revision)
        return (commit,) if commit else ()

    def _stored_listing(self, model_id: str, revision: str) -> Listing | None:
        return super()._stored_listing(model_id, revision) or self._cache(model_id).listing(revision)

    def _cached_bytes(self, model_id: str, listing: Listing, file: ListedFile) -> int:
        cache, etag = self._cache(model_id), _etag(model_id, file)
        if cache.blob(etag).is_file():
            return file.size
        unfinished = cache.partial(etag)
        return min(file.size, unfinished.stat().st_size) if unfinished.is_file() else 0

    def _list(self, model_id: str, revision: str | None) -> Listing:
        requested = revision or DEFAULT_BRANCH
        with self._convert_errors(model_id, requested):
            info = _request_info(self.terms.endpoint, model_id, requested)
        if not info.sha or not _HASH.fullmatch(info.sha):
            raise problems.unreachable(self.terms, f"its answer for {model_id} contains no commit")
        files = []
        for each in info.siblings:
            lfs = each.lfs
            size = lfs.size if lfs else each.size
            if size is not None:
                files.append(
                    ListedFile(each.rfilename, size, lfs.sha256 if lfs else None, None if lfs else each.blob_id)
                )
        return Listing(info.sha, tuple(files))

    def _finish(self, model_id: str, listing: Listing, requested: str | None) -> None:
        # Last: until all files are cached, the ref names an earlier commit, which may be complete.
        self._cache(model_id).set_commit(requested, listing.revision)

    def _list_cached(self, model_id: str, revision: str, files: Sequence[ListedFile]) -> Sequence[CachedFile]:
        return self._cache(model_id).list_cached(revision, {file.name: file.sha256 or file.git_sha1 for file in files})

    def _delete_metadata(self, model_id: str) -> None:
        self._cache(model_id).delete_stale_metadata()

    def _fetch_one(
        self,
        model_id: str,
        listing: Listing,
        file: ListedFile,
        report: Report,
        stop: threading.Event,
        copy: Copy | None = None,
    ) -> None:
        cache, etag = self._cache(model_id), _etag(model_id, file)
        blob = cache.blob(etag)
        with _lock(cache.lock(etag), stop):
            if blob.is_file() and blob.stat().st_size == file.size:
                report(file.size)
            else:
                blob.parent.mkdir(parents=True, exist_ok=True)
                get = copy or partial(self._download, model_id, listing.revision)
                get(file, cache.partial(etag), report, stop)
                cache.partial(etag).replace(blob)
            cache.link(listing.revision, file.name, etag)

    def _download(
        self, model_id: str, commit: str, file: ListedFile, target: Path, report: Report, stop: threading.Event
    ) -> None:
        from huggingface_hub import hf_hub_url

        from xinference.hubs.transfer.resumable import transfer

        url = hf_hub_url(model_id, file.name, revision=commit, endpoint=self.terms.endpoint)
        http = _http()
        headers = _headers()
        client = http.get_session()
        request = partial(client.build_request, "GET", url, headers=headers, timeout=_timeout())
        digest = partial(git_sha1, file.size) if file.sha256 is None else hashlib.sha256
        resumed = target.is_file() and target.stat().st_size > 0
        try:
            with self._convert_errors(model_id, commit, file.name):
                received = transfer(client, request, target, file.size, digest, report, stop, http.hf_raise_for_status)
        except TooLong:
            target.unlink()
            raise hash_mismatch(f"{file.name} has more than its {file.size} bytes.") from None
        expected = file.sha256 or file.git_sha1
        if received == expected:
            return
        target.unlink()
        if not resumed:
            raise hash_mismatch(f"{file.name} of {model_id} has the hash {received} instead of {expected}.")
        # The bytes of the earlier run may be damaged, e.g. by a power cut, so one download from the beginning follows.
        report(-file.size)
        self._download(model_id, commit, file, target, report, stop)

    def _fetch_range(self, model_id: str, listing: Listing, file: ListedFile, start: int, count: int) -> bytes:
        from huggingface_hub import hf_hub_url

        from xinference.hubs.transfer.range_reader import fetch_range

        url = hf_hub_url(model_id, file.name, revision=listing.revision, endpoint=self.terms.endpoint)
        http = _http()
        headers = _headers()
        with self._convert_errors(model_id, listing.revision, file.name):
            return fetch_range(http.get_session(), url, headers, start, count, http.hf_raise_for_status)

    @contextmanager
    def _convert_errors(self, model_id: str, revision: str, name: str | None = None) -> Iterator[None]:
        """Convert the library's and the network's errors to problems."""
        import httpx2
        from huggingface_hub import errors

        from xinference.hubs.transfer.resumable import Unavailable

        has_token = _token() is not None
        try:
            yield
        except errors.GatedRepoError:
            raise problems.gated_model(self.terms, model_id, has_token=has_token) from None
        except errors.RepositoryNotFoundError:
            raise problems.repo_not_found(self.terms, model_id, has_token=has_token) from None
        except errors.RevisionNotFoundError:
            raise problems.revision_not_found(self.terms, model_id, revision) from None
        except errors.EntryNotFoundError:
            raise problems.file_not_found(self.terms, model_id, name or "a file") from None
        except errors.HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise problems.gated_model(self.terms, model_id, has_token=has_token) from None
            raise problems.unreachable(self.terms, f"it answered {error.response.status_code}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, Unavailable) as error:
            raise problems.unreachable(self.terms, system_reason(error)) from error
        except ValueError as error:  # JSON: e.g. the page of a captive portal
            raise problems.unreachable(self.terms, f"its answer cannot be read ({error})") from error


def _etag(model_id: str, file: ListedFile) -> str:
    """The name of the file's blob; both hashes are checked, because they become a path."""
    etag = file.sha256 or file.git_sha1 or ""
    if not _HASH.fullmatch(etag):
        cause = f"huggingface reports no usable hash of {file.name} of {model_id} ({etag!r})."
        raise Problem(Code.DOWNLOAD_FAILED, cause, hint="Choose another hub, or another endpoint (HF_ENDPOINT).")
    return etag


def _http() -> Any:
    """The library's session, headers and errors of HTTP. They are loaded at their first use, and have no types."""
    import huggingface_hub.utils

    return huggingface_hub.utils


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _headers() -> dict[str, str]:
    """The headers of each request. The library's own ones would need one more request, whose answer has no limit."""
    token = _token()
    return {"User-Agent": f"xinference/{__version__}"} | ({"Authorization": f"Bearer {token}"} if token else {})


def _timeout() -> httpx2.Timeout:
    import httpx2
    from huggingface_hub import constants

    return httpx2.Timeout(float(constants.HF_HUB_DOWNLOAD_TIMEOUT))


class _Lfs(msgspec.Struct, gc=False):
    size: int | None = None
    sha256: str | None = None


class _Sibling(msgspec.Struct, rename={"blob_id": "blobId"}):
    rfilename: str
    size: int | None = None
    blob_id: str | None = None
    lfs: _Lfs | None = None


class _Info(msgspec.Struct):
    """What is read of the hub's answer about a model: other fields take no memory."""

    sha: str | None = None
    siblings: Annotated[list[_Sibling], msgspec.Meta(max_length=MAX_LISTED_FILES)] = []


def _request_info(endpoint: str, model_id: str, revision: str) -> _Info:
    """The repository's files; retried when the hub is busy or the connection broke: the library does not retry."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    allowance = Allowance()
    for failures in range(1, _LIST_TRIES + 1):
        try:
            return msgspec.json.decode(_request_list(endpoint, model_id, revision, allowance), type=_Info)
        except HfHubHTTPError as error:
            temporary = error.response.status_code == 429 or error.response.status_code >= 500
            if not temporary or failures == _LIST_TRIES:
                raise
        except httpx2.TransportError:
            if failures == _LIST_TRIES:
                raise
        time.sleep(pause_seconds(failures))
    raise AssertionError  # the last try returns or raises


def _request_list(endpoint: str, model_id: str, revision: str, allowance: Allowance) -> bytes:
    """The hub's answer about a model. The library itself would read an answer of any size."""
    url = f"{endpoint}/api/models/{model_id}/revision/{quote(revision, safe='')}"
    headers = _headers() | {"Accept-Encoding": ENCODING}
    http = _http()
    client: httpx2.Client = http.get_session()
    with client.stream("GET", url, headers=headers, params={"blobs": True}, timeout=_LIST_SECONDS) as response:
        if response.status_code >= 400:
            http.hf_raise_for_status(read_error(response))
        return read_list(response, allowance)


@contextmanager
def _lock(path: Path, stop: threading.Event) -> Iterator[None]:
    """Acquire the library's lock of a blob for the block; the lock of a process that dies is released."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, mode=0o664)
    while True:
        check_stop(stop)
        try:
            lock.acquire(timeout=_LOCK_POLL_SECONDS)
            break
        except Timeout:
            continue
    try:
        yield
    finally:
        lock.release()
