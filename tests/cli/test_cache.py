from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.canned import Answer, Asked, Canned, events, problem
from tests.cli.conftest import Run
from tests.support.polling import until
from tests.support.ports import free_port

CACHE = "/v1/cache/models"
VERSION = "tiny--7B--ggufv2--Q4_0"
MODEL = {"path": "/cache/tiny.gguf", "size_bytes": 2048, "hub": "modelscope"}
READY = {"event_type": "READY", "stage": "ready", "event_ts": 9.0, "model": MODEL}
ENTRY = {
    "model_name": "tiny",
    "model_format": "ggufv2",
    "model_size_in_billions": 7,
    "quantization": "Q4_0",
    "hub": "huggingface",
    "size_bytes": 2048,
    "complete": False,
    "model_version": VERSION,
    "path": "/cache/tiny.gguf",
}


def deletable(canned: Canned, shared: list[str]) -> None:
    path = "/cache/tiny.gguf"
    answer = {"paths": [path], "files": [{"path": path, "size_bytes": 2048}], "shared_with": shared}
    canned.answers["GET", f"{CACHE}/files"] = Answer(answer)
    canned.answers["DELETE", CACHE] = Answer({"result": True, "freed_bytes": 2048})


def test_a_download_prints_where_it_is(canned: Canned, run: Run) -> None:
    canned.answers["POST", CACHE] = Answer({"model_version": VERSION})
    canned.answers["GET", f"{CACHE}/{VERSION}/events"] = events(READY)
    result = run("download", "-n", "tiny", "-s", "7", "-f", "ggufv2", "-q", "Q4_0", "--download_hub", "modelscope")
    assert (result.exit_code, result.stdout) == (0, "/cache/tiny.gguf\n")
    assert f"{VERSION}: 2.0 KiB from modelscope" in result.stderr
    (asked,) = canned.asked_for("POST", CACHE)
    assert asked.body == {
        "model_name": "tiny",
        "model_type": "LLM",
        "model_size_in_billions": 7,
        "model_format": "ggufv2",
        "quantization": "Q4_0",
        "download_hub": "modelscope",
    }
    canned.answers["GET", f"{CACHE}/{VERSION}/events"] = events(READY)
    assert json.loads(run("download", "-n", "tiny", "--json").stdout) == MODEL


def test_a_download_that_fails_exits_with_1(canned: Canned, run: Run) -> None:
    canned.answers["POST", CACHE] = Answer({"model_version": VERSION})
    failed = {"code": "disk_full", "status": 507, "cause": "The disk is full.", "hint": "Free some space."}
    canned.answers["GET", f"{CACHE}/{VERSION}/events"] = events(
        {"event_type": "FAILED", "stage": "fetch", "problem": failed}
    )
    result = run("download", "-n", "tiny")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "The disk is full." in result.stderr and "Free some space." in result.stderr


@pytest.mark.process
def test_an_interrupt_cancels_a_download(canned: Canned, piped: Callable[..., subprocess.Popen[str]]) -> None:
    go_on = threading.Event()
    canned.answers["POST", CACHE] = Answer({"model_version": VERSION})
    canned.answers["DELETE", f"{CACHE}/{VERSION}/download"] = Answer(None)
    first = {"event_type": "WARNING", "stage": "fetch", "event_content": "slow hub"}
    canned.answers["GET", f"{CACHE}/{VERSION}/events"] = events(first, then=lambda: go_on.wait(30))
    process = piped("download", "-n", "tiny")
    until("the events are asked for", lambda: canned.asked_for("GET", f"{CACHE}/{VERSION}/events"))
    assert process.stderr is not None
    while "slow hub" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert canned.asked_for("DELETE", f"{CACHE}/{VERSION}/download")
    go_on.set()


def test_the_cache_is_a_table(canned: Canned, run: Run) -> None:
    canned.answers["GET", CACHE] = Answer({"list": [ENTRY]})
    header, _, row = run("cached", "--model_name", "tiny", "--worker-ip", "w").stdout.splitlines()
    assert header.split("  ")[0] == "Name"
    assert row.split() == ["tiny", "7B", "ggufv2", "Q4_0", "2.0", "KiB", "no"]
    result = run("cached", "--wide")
    assert result.stdout.splitlines()[2].split()[-3:] == ["no", VERSION, "/cache/tiny.gguf"]
    assert "Total: 2.0 KiB in 1 version;" in result.stderr
    assert canned.asked_for("GET", CACHE)[0].query == "model_name=tiny&worker_ip=w"
    assert json.loads(run("cached", "--model-name", "tiny", "--json").stdout) == [ENTRY]


def test_files_that_two_models_use_are_counted_once(canned: Canned, run: Run) -> None:
    other = {**ENTRY, "path": "/cache/other.gguf"}
    canned.answers["GET", CACHE] = Answer({"list": [ENTRY, {**ENTRY, "model_name": "same-files"}, other]})
    assert "Total: 4.0 KiB in 3 versions;" in run("cached").stderr


def test_an_empty_cache_is_said_to_be_so(canned: Canned, run: Run) -> None:
    canned.answers["GET", CACHE] = Answer({"list": []})
    assert run("cached").stdout == "There are no cache files.\n"


def test_a_removal_lists_the_files_and_asks(canned: Canned, run: Run) -> None:
    deletable(canned, ["tiny--7B--ggufv2--Q8_0"])
    result = run("remove-cache", "-n", VERSION, stdin="n\n")
    assert result.exit_code == 0 and "Nothing was deleted." in result.stderr
    assert "/cache/tiny.gguf (2.0 KiB)" in result.stderr and "tiny--7B--ggufv2--Q8_0" in result.stderr
    assert "Do you want to proceed with the deletion?" in result.stderr
    assert not canned.asked_for("DELETE", CACHE)
    result = run("remove-cache", "--model_version", VERSION, stdin="y\n")
    assert "freed 2.0 KiB" in result.stderr
    assert canned.asked_for("DELETE", CACHE)[0].query == f"model_version={VERSION}"


def test_a_checked_removal_does_not_ask(canned: Canned, run: Run) -> None:
    deletable(canned, [])
    result = run("remove-cache", "--model-version", VERSION, "--check", "--json")
    assert json.loads(result.stdout) == {"result": True, "freed_bytes": 2048, "paths": ["/cache/tiny.gguf"]}


def test_a_version_that_is_not_there_exits_with_1(canned: Canned, run: Run) -> None:
    canned.answers["GET", f"{CACHE}/files"] = problem(404, "not_cached", "tiny is not in the cache.", hint="Look.")
    canned.answers["GET", CACHE] = Answer({"list": [ENTRY | {"model_name": "other"}]})
    result = run("remove-cache", "-n", "tiny")
    assert result.exit_code == 1 and "tiny is not in the cache." in result.stderr


def test_the_cache_is_listed_without_a_server(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XINFERENCE_ENDPOINT")
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("XINFERENCE_PORT", str(free_port()))
    assert run("cached", "no-such-model").stdout == "There are no cache files.\n"
    monkeypatch.setenv("XINFERENCE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert "No server answers" in run("cached").stderr


def test_the_name_of_a_model_removes_all_its_versions(canned: Canned, run: Run) -> None:
    other = "tiny--7B--ggufv2--Q8_0"

    def files(asked: Asked) -> Answer:
        version = asked.query.removeprefix("model_version=")
        if version == "Tiny":
            return problem(404, "not_cached", "Tiny is not in the cache.")
        return Answer({"paths": [version], "files": [], "shared_with": [], "used_by": []})

    canned.answers["GET", f"{CACHE}/files"] = files
    canned.answers["GET", CACHE] = Answer({"list": [ENTRY, {**ENTRY, "model_version": other}]})
    canned.answers["DELETE", CACHE] = Answer({"result": True, "freed_bytes": 1024})
    result = run("remove-cache", "Tiny", "-y", "--json")
    assert json.loads(result.stdout) == {"result": True, "freed_bytes": 2048, "paths": [VERSION, other]}
    assert [asked.query for asked in canned.asked_for("DELETE", CACHE)] == [
        f"model_version={VERSION}", f"model_version={other}"
    ]  # fmt: skip


def test_weights_in_use_are_refused_before_the_question(canned: Canned, run: Run) -> None:
    canned.answers["GET", f"{CACHE}/files"] = Answer({"paths": [], "files": [], "used_by": ["the model m"]})
    result = run("remove-cache", VERSION, stdin="y\n")
    assert result.exit_code == 1
    assert f"{VERSION} is in use by the model m." in result.stderr
    assert "First terminate the model (`xinference terminate m`)." in " ".join(result.stderr.split())
    assert "proceed" not in result.stderr and not canned.asked_for("DELETE", CACHE)
