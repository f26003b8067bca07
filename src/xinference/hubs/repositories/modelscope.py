"""ModelScope, through its own client, which resumes, verifies and cancels. Its own tool uses the same cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from xinference.catalog.models import HubName
from xinference.errors import Problem, system_reason
from xinference.files.locks import locked
from xinference.hubs import problems
from xinference.hubs.cached_files import CachedFile
from xinference.hubs.listing import ListedFile, Listing
from xinference.hubs.offer import Copy
from xinference.hubs.repositories.modelscope_bars import without_bars
from xinference.hubs.repositories.repository import RepositoryHub
from xinference.hubs.transfer.bounded_answer import Allowance, count_answers
from xinference.hubs.transfer.parallel import Report, Stopped
from xinference.hubs.transfer.verified_copy import hash_mismatch

if TYPE_CHECKING:
    from modelscope_hub import HubApi

DEFAULT_BRANCH = "master"


class ModelScopeHub(RepositoryHub):
    """Downloads to the cache of ModelScope's own tool, so that both use the same files."""

    @property
    def name(self) -> HubName:
        return "modelscope"

    @property
    def terms(self) -> problems.HubTerms:
        endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or "modelscope.cn"
        if "://" not in endpoint:
            endpoint = f"https://{endpoint}"
        variables = ("MODELSCOPE_API_TOKEN", "MODELSCOPE_ENDPOINT", "MODELSCOPE_CACHE")
        return problems.HubTerms("modelscope", endpoint.rstrip("/"), *variables)

    @property
    def _root(self) -> Path:
        return cache_folder() if self._shared_folder is None else self._shared_folder.resolve()

    def _can_be(self, requested: str | None, revision: str) -> bool:
        return revision == (requested or DEFAULT_BRANCH)

    def _cache_folders(self, model_id: str) -> Iterable[str]:
        base = self._shared_folder or os.path.expanduser(_cache_setting())  # noqa: PTH111 -- it is called for thousands of versions
        owner, _, name = model_id.partition("/")
        older = f"{owner}/{name.replace('.', '___')}"
        return (
            f"{base}/models/{model_id.replace('/', '--')}",
            f"{base}/models/{older}",
            f"{base}/hub/models/{older}",
        )

    def _folder(self, model_id: str, revision: str) -> Path:
        """The client's layout. Releases before 0.1 had no revision in the path; such folders are still used."""
        base = self._root
        owner, _, name = model_id.partition("/")
        for models in (base / "models", base / "hub" / "models"):
            older = models / owner / name.replace(".", "___")
            if older.is_dir() and any(older.iterdir()):
                return older
        return base / "models" / model_id.replace("/", "--") / "snapshots" / revision

    def _cached_revisions(self, model_id: str, revision: str | None) -> Sequence[str]:
        return (revision or DEFAULT_BRANCH,)

    def _cached_bytes(self, model_id: str, listing: Listing, file: ListedFile) -> int:
        path = self._folder(model_id, listing.revision) / file.name
        unfinished = path.with_name(f"{path.name}.incomplete")
        sizes = [each.stat().st_size for each in (path, unfinished) if each.is_file()]
        return min(file.size, max(sizes, default=0))

    def _list_cached(self, model_id: str, revision: str, files: Sequence[ListedFile]) -> Sequence[CachedFile]:
        paths = [self._folder(model_id, revision) / file.name for file in files]
        both = [each for path in paths for each in (path, path.with_name(f"{path.name}.incomplete"))]
        return [CachedFile(path, path, self._root) for path in both if path.is_file()]

    def _list(self, model_id: str, revision: str | None) -> Listing:
        from modelscope_hub.errors import NotExistError

        requested = revision or DEFAULT_BRANCH
        with self._convert_errors(model_id):
            try:
                listed = _list_api().list_repo_files(model_id, "model", revision=requested)
            except NotExistError:
                raise self._missing(model_id, requested) from None
        files = (
            ListedFile(each.path, each.size or 0, (each.sha256 or "").lower() or None)
            for each in listed
            if each.type != "tree" and each.path
        )
        return Listing(requested, tuple(files))

    def _missing(self, model_id: str, revision: str) -> Problem:
        """The problem of a missing repository or of a missing revision; the hub's first answer does not tell which."""
        from modelscope_hub.errors import NotExistError

        try:
            revisions = _list_api().list_repo_revisions(model_id, "model")
        except NotExistError:
            return problems.repo_not_found(self.terms, model_id, has_token=_has_token())
        names = [each.get("Revision") or each.get("name") for each in revisions]
        return problems.revision_not_found(self.terms, model_id, revision, tuple(str(name) for name in names if name))

    def _fetch_one(
        self,
        model_id: str,
        listing: Listing,
        file: ListedFile,
        report: Report,
        stop: threading.Event,
        copy: Copy | None = None,
    ) -> None:
        if copy is None:
            self._download(model_id, listing, file, report, stop)
            return
        path = self._folder(model_id, listing.revision) / file.name
        with locked(self._locks / model_id.replace("/", "--"), stop, file.name):
            if path.is_file() and path.stat().st_size == file.size:
                report(file.size)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"{path.name}.incomplete")
            copy(file, unfinished, report, stop)
            unfinished.replace(path)

    def _download(
        self, model_id: str, listing: Listing, file: ListedFile, report: Report, stop: threading.Event
    ) -> None:
        from modelscope_hub import ProgressCallback
        from modelscope_hub.errors import FileIntegrityError, NotExistError

        received = 0

        class Counter(ProgressCallback):
            def __init__(self, filename: str, file_size: int) -> None:
                super().__init__(filename, file_size)
                self.update(-received)  # a file with a wrong hash is fetched again from its beginning

            def update(self, size: int) -> None:
                nonlocal received
                received += size
                report(size)

        fetch = partial(
            _api(cache_folder()).downloader.download_file,
            model_id,
            "model",
            file.name,
            listing.revision,
            expected_sha256=file.sha256,
            file_size=file.size,
            progress_callbacks=[Counter],
            _cancel_event=stop,
        )
        with self._convert_errors(model_id), without_bars():
            try:
                _repeat_while_bytes_arrive(fetch, lambda: received)
            except NotExistError:
                raise problems.file_not_found(self.terms, model_id, file.name) from None
            except FileIntegrityError as error:
                raise hash_mismatch(
                    f"{file.name} of {model_id} on modelscope differs from its listing: {error}."
                ) from None
        report(file.size - received)

    def _fetch_range(self, model_id: str, listing: Listing, file: ListedFile, start: int, count: int) -> bytes:
        import httpx2

        from xinference.hubs.transfer.range_reader import fetch_range

        api = _api(cache_folder())
        url = api.downloader._client.get_download_url(model_id, "model", file.name, listing.revision)
        token = api._config.token
        try:
            with httpx2.Client(cookies={"m_session_id": token} if token else None, timeout=30) as client:
                return fetch_range(client, url, {}, start, count, lambda response: response.raise_for_status())
        except httpx2.HTTPStatusError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise problems.gated_model(self.terms, model_id, has_token=_has_token()) from None
            raise problems.unreachable(self.terms, f"it answered {status} for {file.name}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise problems.unreachable(self.terms, system_reason(error)) from error

    @contextmanager
    def _convert_errors(self, model_id: str) -> Iterator[None]:
        """Convert the client's and the network's errors to problems."""
        from modelscope_hub import errors
        from modelscope_hub._download_control import _DownloadCancelledError
        from requests import RequestException

        try:
            yield
        except (errors.AuthenticationError, errors.PermissionDeniedError):
            raise problems.gated_model(self.terms, model_id, has_token=_has_token()) from None
        except (errors.HubError, RequestException) as error:
            raise problems.unreachable(self.terms, _reason(error)) from error
        except _DownloadCancelledError:
            raise Stopped from None


def _repeat_while_bytes_arrive(fetch: Callable[[], object], received: Callable[[], int]) -> None:
    """Fetch a file, and go on after an interruption if bytes have arrived since the one before.

    The client stops after five interruptions or an hour, even if bytes arrived meanwhile.
    """
    from modelscope_hub.errors import NetworkError

    while True:
        before = received()
        try:
            fetch()
            return
        except NetworkError:
            if received() <= before:
                raise


def _reason(error: Exception) -> str:
    """The reason of a client's error: that of the system under it, else the client's own words."""
    from requests import RequestException

    reason = getattr(error, "message", str(error))
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and not isinstance(below, RequestException):
            reason = system_reason(below)
        below = below.__cause__ or below.__context__
    return reason


def cache_folder() -> Path:
    """The cache folder, by the variable that the client itself reads."""
    return Path(_cache_setting()).expanduser().resolve()


def _cache_setting() -> str:
    return os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope"


def _has_token() -> bool:
    return _api(cache_folder())._config.token is not None


def _api(cache: Path) -> HubApi:
    """A client for the current environment variables; the same one for all files of a fetch."""
    variables = ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "MODELSCOPE_API_TOKEN", "MODELSCOPE_HOME")
    return _api_of(cache, *(os.environ.get(name) for name in variables))


def _list_api() -> HubApi:
    """A client for one list, whose answers are limited: the client itself would read answers of any size."""
    api = _new_api(cache_folder())
    allowance = Allowance()
    for session in (api.legacy._session, api.legacy._read_session):
        count_answers(session, allowance)
    return api


@lru_cache(maxsize=2)
def _api_of(cache: Path, *_: str | None) -> HubApi:
    return _new_api(cache)


def _new_api(cache: Path) -> HubApi:
    from modelscope_hub import HubApi, HubConfig

    api = HubApi(HubConfig(cache_dir=cache))
    # Otherwise the client asks the hub for an address, reads it, and sends the hub what it has read there.
    api.downloader._cached_region = ""
    return api
