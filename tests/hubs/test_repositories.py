"""What holds for Hugging Face and ModelScope alike, with their real clients against the loopback hub."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import huggingface_hub
import pytest

from tests.fakes.hub.loopback import LoopbackHub
from tests.fakes.hub.repositories import Fault
from tests.hubs.loopback_fetch import BYTES, CHOSEN, COMMIT, FOLDER, Fetching, version_of
from tests.support.polling import until
from xinference.catalog.models import FileFacts, Source
from xinference.hubs.repositories.huggingface import HuggingFaceHub
from xinference.hubs.repositories.modelscope import ModelScopeHub
from xinference.hubs.transfer import resumable

HALF = len(BYTES) // 2


def pinned(fetching: Fetching) -> str:
    return COMMIT if fetching.name == "huggingface" else "v1.0"


def test_one_quantization_is_one_file_and_the_others_are_not_asked_for(fetching: Fetching) -> None:
    fetching.serve({"tiny.q4_0.bin": BYTES, "tiny.q8_0.bin": BYTES})
    path = fetching(fetching.version("tiny.q4_0.bin"))
    assert path.read_bytes() == BYTES
    assert not fetching.server.counters.of("q8_0")


def test_a_folder_has_the_weights_once_and_what_the_engine_reads_beside_them(fetching: Fetching) -> None:
    fetching.serve(FOLDER)
    folder = fetching(fetching.version())
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == CHOSEN
    assert (folder / "model-00002-of-00002.safetensors").read_bytes() == BYTES[::-1]


def test_progress_grows_to_the_sum_of_all_files(fetching: Fetching) -> None:
    fetching.serve(FOLDER)
    folder = fetching(fetching.version())
    total = sum(p.stat().st_size for p in folder.iterdir())
    counts = [done for done, _, _ in fetching.seen]
    assert counts == sorted(counts)
    assert counts[-1] == total
    assert {each for _, each, _ in fetching.seen} == {total}


def test_what_was_fetched_is_found_again_without_a_request(fetching: Fetching) -> None:
    fetching.serve(FOLDER)
    version = fetching.version(revision=pinned(fetching))
    assert fetching.cached(version) is None
    path = fetching(version)
    asked = len(fetching.server.counters.requests)
    assert fetching.cached(version) == path == fetching(version)
    assert len(fetching.server.counters.requests) == asked


def test_a_connection_cut_in_the_middle_goes_on_from_there(fetching: Fetching) -> None:
    fetching.serve({"tiny.bin": BYTES})
    fetching.server.faults["tiny.bin"] = Fault(cut_at=HALF)
    assert fetching(fetching.version("tiny.bin")).read_bytes() == BYTES
    assert fetching.server.counters.of("tiny.bin")[-1][2] == f"bytes={HALF}-"
    assert fetching.server.counters.sent["tiny.bin"] == len(BYTES)


def test_a_fetch_that_gave_up_is_continued_by_the_next_one(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "RETRIES", 0)
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 0)
    fetching.serve({"tiny.bin": BYTES})
    fetching.server.faults["tiny.bin"] = Fault(cut_at=HALF, times=3)
    version = fetching.version("tiny.bin")
    assert fetching.problem(version).code == "hub_unreachable"
    assert fetching.cached(version) is None
    fetching.server.faults.clear()
    assert fetching(version).read_bytes() == BYTES
    assert fetching.server.counters.sent["tiny.bin"] == len(BYTES)


def test_a_flipped_byte_is_found_and_the_file_removed(fetching: Fetching) -> None:
    fetching.serve({"tiny.bin": BYTES})
    fetching.server.faults["tiny.bin"] = Fault(flip_at=HALF, times=9)
    version = fetching.version("tiny.bin")
    assert fetching.problem(version).code == "hash_mismatch"
    assert fetching.cached(version) is None
    fetching.server.faults.clear()
    assert fetching(version).read_bytes() == BYTES


def test_a_flipped_byte_in_a_small_text_file_is_found(fetching: Fetching) -> None:
    fetching.serve(FOLDER)
    fetching.server.faults["config.json"] = Fault(flip_at=3, times=9)
    assert fetching.problem(fetching.version()).code == "hash_mismatch"
    assert fetching.cached(fetching.version()) is None


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=429, retry_after=0)])
def test_a_busy_hub_is_asked_again(fetching: Fetching, fault: Fault) -> None:
    fetching.serve({"tiny.bin": BYTES})
    fetching.server.faults["tiny.bin"] = Fault(status=fault.status, retry_after=fault.retry_after)
    assert fetching(fetching.version("tiny.bin")).read_bytes() == BYTES


def test_a_cached_file_of_the_wrong_size_is_fetched_again(fetching: Fetching) -> None:
    fetching.serve({"tiny.bin": BYTES})
    version = fetching.version("tiny.bin")
    path = fetching(version)
    os.truncate(path, HALF)
    assert fetching.cached(version) is None
    assert fetching(version).read_bytes() == BYTES


def test_a_folder_that_lost_a_file_is_not_whole(fetching: Fetching) -> None:
    fetching.serve(FOLDER)
    (fetching(fetching.version()) / "config.json").unlink()
    assert fetching.cached(fetching.version()) is None
    assert (fetching(fetching.version()) / "config.json").exists()


def test_parts_are_joined_in_their_order(fetching: Fetching) -> None:
    fetching.serve({"tiny.bin-split-a": BYTES[:HALF], "tiny.bin-split-b": BYTES[HALF:]})
    version = fetching.version("tiny.bin", parts={"none": ("tiny.bin-split-a", "tiny.bin-split-b")})
    path = fetching(version)
    assert path.name == "tiny.bin"
    assert path.read_bytes() == BYTES
    assert fetching.cached(version) == path


def test_parts_that_llama_cpp_reads_itself_stay_apart(fetching: Fetching) -> None:
    names = ("tiny-00001-of-00002.gguf", "tiny-00002-of-00002.gguf")
    fetching.serve({names[0]: BYTES[:HALF], names[1]: BYTES[HALF:]})
    path = fetching(fetching.version("tiny.gguf", parts={"none": names}))
    assert path.name == names[0]
    assert (path.parent / names[1]).read_bytes() == BYTES[HALF:]


def test_cancelling_in_the_middle_of_a_file_does_not_wait_for_the_server(fetching: Fetching) -> None:
    fetching.serve({"tiny.bin": BYTES})
    fetching.server.faults["tiny.bin"] = Fault(silent_seconds=1)

    def cancel_when_it_is_sent() -> None:
        until("a part of the file is sent", lambda: "tiny.bin" in fetching.server.counters.sent)
        fetching.cancelled.set()

    threading.Thread(target=cancel_when_it_is_sent).start()
    version = fetching.version("tiny.bin")
    assert fetching.problem(version).code == "cancelled"
    assert fetching.server.counters.sent["tiny.bin"] < len(BYTES)
    assert fetching.cached(version) is None
    fetching.cancelled.clear()
    fetching.server.faults.clear()
    assert fetching(version).read_bytes() == BYTES


def test_cancelling_while_the_hub_is_asked_for_its_list_does_not_wait(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = threading.Event()
    for hub in (HuggingFaceHub, ModelScopeHub):
        monkeypatch.setattr(hub, "_list", lambda *_: slow.wait(60))
    threading.Timer(0.2, fetching.cancelled.set).start()
    assert fetching.problem(fetching.version("tiny.bin")).code == "cancelled"
    slow.set()


def test_a_damaged_beginning_of_an_earlier_run_is_thrown_away(huggingface: Fetching) -> None:
    huggingface.serve({"tiny.bin": BYTES})
    path = huggingface(huggingface.version("tiny.bin"))
    blob = path.resolve()
    blob.with_name(f"{blob.name}.incomplete").write_bytes(bytes(HALF))
    blob.unlink()
    assert huggingface(huggingface.version("tiny.bin")).read_bytes() == BYTES
    assert huggingface.seen[-1][:2] == (len(BYTES), len(BYTES))


@pytest.mark.process
def test_a_kill_in_the_middle_costs_nothing_that_was_whole(fetching: Fetching, tmp_path: Path) -> None:
    fetching.serve(FOLDER)
    big = "model-00002-of-00002.safetensors"
    fetching.server.faults[big] = Fault(seconds_a_chunk=0.5)
    program = (
        "import sys, threading; from pathlib import Path; from tests.hubs.loopback_fetch import Fetching\n"
        f"fetching = Fetching({fetching.name!r}, None, Path({str(fetching.home)!r}))\n"
        "fetching(fetching.version())"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    sent = fetching.server.counters.sent
    whole = sum(len(b) for n, b in FOLDER.items() if n in CHOSEN and n != big and isinstance(b, bytes))

    def enough_is_sent() -> bool:
        assert process.poll() is None
        return sum(n for f, n in dict(sent).items() if f != big) >= whole and sent.get(big, 0) >= 200_000

    until("all but the large file is sent", enough_is_sent, 30)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert fetching.cached(fetching.version()) is None
    before = dict(sent)
    folder = fetching(fetching.version())
    assert sorted(p.name for p in folder.iterdir()) == CHOSEN
    assert (folder / big).read_bytes() == FOLDER[big]
    assert {n for n in sent if sent[n] != before.get(n)} == {big}
    assert int(fetching.server.counters.of(big)[-1][2].removeprefix("bytes=").removesuffix("-")) > 0


def test_a_missing_repository_is_named(fetching: Fetching) -> None:
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert (problem.code, problem.status) == ("repo_not_found", 404)
    assert "tiny/llama" in problem.cause


def test_a_missing_revision_is_named(fetching: Fetching) -> None:
    fetching.serve(FOLDER)
    problem = fetching.problem(fetching.version(revision="v9"))
    assert (problem.code, problem.status) == ("revision_not_found", 404)
    assert "v9" in problem.cause


def test_a_missing_file_is_named_with_the_hub_that_has_it(fetching: Fetching) -> None:
    fetching.serve({"tiny.q4_0.bin": BYTES})
    other = Source(hub="package_index", model_id="tiny", file="tiny.bin")
    source = fetching.version("tiny.q4_K.bin").spec.sources[0]
    problem = fetching.problem(version_of("ggmlv3", source, other))
    assert (problem.code, problem.status) == ("file_not_found", 404)
    assert "tiny.q4_K.bin" in problem.cause
    assert "tiny.q4_0.bin" in (problem.hint or "")
    assert "--download-hub package_index" in (problem.hint or "")


@pytest.mark.parametrize("token", [None, "refused"])
def test_a_gated_model_says_how_to_be_let_in(
    fetching: Fetching, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "HF_TOKEN" if fetching.name == "huggingface" else "MODELSCOPE_API_TOKEN"
    if token:
        monkeypatch.setenv(variable, token)
    fetching.serve(FOLDER, admitted=("good",))
    problem = fetching.problem(fetching.version())
    assert (problem.code, problem.status) == ("gated_model", 403)
    assert variable in (problem.hint or "")
    assert "tiny/llama" in (problem.hint or "")
    monkeypatch.setenv(variable, "good")
    assert (fetching(fetching.version()) / "config.json").exists()


def test_offline_opens_no_socket(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching.serve(FOLDER)
    path = fetching(fetching.version())

    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    monkeypatch.setattr(socket, "create_connection", no_socket)
    monkeypatch.setattr(socket, "getaddrinfo", no_socket)
    fetching.offline = True
    assert fetching(fetching.version()) == path
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert (problem.code, problem.status) == ("offline", 503)
    assert "tiny--1B--ggmlv3--none" in problem.cause


def test_a_hub_that_does_not_answer_is_named_by_its_address(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    variable = "HF_ENDPOINT" if fetching.name == "huggingface" else "MODELSCOPE_ENDPOINT"
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert (problem.code, problem.status) == ("hub_unreachable", 503)
    # The reason is the system's, without the classes and retries of the hub's client.
    assert problem.cause == f"{fetching.name} could not be reached at http://127.0.0.1:9: Connection refused."
    assert variable in (problem.hint or "")


def test_a_hub_whose_name_cannot_be_resolved_is_reported_without_words_of_the_client(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unresolved(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unresolved)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://hub.invalid")
    cause = fetching.problem(fetching.version("tiny.bin")).cause
    assert cause == f"{fetching.name} could not be reached at http://hub.invalid: the host name cannot be resolved."


def test_a_proxy_is_used(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub.close_session()  # the client reads the variable when it is made
    monkeypatch.setenv("HTTP_PROXY", fetching.server.url)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://hub.invalid")
    fetching.serve({"tiny.txt": BYTES})
    assert fetching(fetching.version("tiny.txt")).read_bytes() == BYTES
    assert fetching.server.counters.requests[-1][1].startswith("http://hub.invalid/")
    huggingface_hub.close_session()


def test_a_full_disk_is_seen_before_the_fetch(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching.serve({"tiny.bin": BYTES})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert (problem.code, problem.status) == ("disk_full", 507)
    assert str(len(BYTES)) in problem.cause
    assert not fetching.server.counters.of("tiny.bin")


def test_a_disk_that_runs_full_meanwhile_is_told(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    fetching.serve({"tiny.bin": BYTES})
    monkeypatch.setattr(resumable, "transfer", full)
    monkeypatch.setattr("modelscope_hub._download._finish_download", full)
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert (problem.code, problem.status) == ("disk_full", 507)


def test_a_file_name_that_leaves_the_folder_is_refused(fetching: Fetching, tmp_path: Path) -> None:
    fetching.serve({**FOLDER, "x/../../../../evil.json": b"{}"})
    assert fetching.problem(fetching.version()).code == "unsafe_file_name"
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("changes", [{"model_id": "../../etc"}, {"revision": "../x"}, {"file": "../x.bin"}])
def test_an_entry_that_leaves_the_cache_is_refused(fetching: Fetching, changes: dict[str, str]) -> None:
    assert fetching.problem(fetching.version(**{"file": "tiny.bin", **changes})).code == "bad_source"


def test_a_known_size_is_checked_of_a_file_that_another_tool_brought(fetching: Fetching) -> None:
    fetching.serve({"tiny.bin": BYTES})
    version = fetching.version("tiny.bin")
    path = fetching(version)
    shutil.rmtree(fetching.home)
    assert fetching.cached(version) == path
    assert fetching.cached(fetching.version("tiny.bin", facts={"none": FileFacts(size=7)})) is None


#: Answers that are no list of files: of Hugging Face's form, and of ModelScope's.
ODD_LISTS = (
    *(b"[]", b"null", b"7", b'"text"', b"<html>", b"", b'{"a":' * 20_000),
    b'{"id": "o/m", "sha": 5, "siblings": []}',
    *(
        b'{"id": "o/m", "sha": "%s", "siblings": %s}' % (COMMIT.encode(), siblings)
        for siblings in (
            *(b'{"a": 1}', b'"text"', b"[7]", b'[{"rfilename": 5, "size": 1}]', b'[{"rfilename": null, "size": 1}]'),
            b'[{"rfilename": "a.bin", "size": "12"}]',
            b'[{"rfilename": "a.bin", "size": -5}]',
            b'[{"rfilename": "a.bin", "size": 1%s}]' % (b"0" * 30),
            b'[{"rfilename": "a.bin", "size": 5, "lfs": 7}]',
        )
    ),
    *(
        b'{"Code": 200, "Success": true, "Data": %s}' % data
        for data in (
            *(b"7", b"null", b'{"Files": 7}', b'{"Files": [7]}', b'{"Files": [{"Path": 5, "Size": 1}]}'),
            b'{"Files": [{"Path": "a.bin", "Type": "blob", "Size": "x"}]}',
            b'{"Files": [{"Path": "a.bin", "Type": "blob", "Size": -5}]}',
        )
    ),
)


@pytest.mark.parametrize("answer", ODD_LISTS, ids=range(len(ODD_LISTS)))
def test_an_answer_that_is_no_list_of_files_is_a_problem_of_the_hub(
    fetching: Fetching, server: LoopbackHub, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    server.odd_answer = answer
    problem = fetching.problem(fetching.version("tiny.bin"))
    assert problem.code in ("hub_unreachable", "file_not_found", "repo_not_found", "revision_not_found")
