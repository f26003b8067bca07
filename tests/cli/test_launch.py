from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cli.canned import Answer, Asked, Canned, events, problem
from tests.cli.conftest import Run, Terminal
from tests.engines.plans import launch_of, sized
from tests.support.polling import until
from tests.support.ports import free_port
from xinference.catalog.models import Source
from xinference.cli.main import cli
from xinference.launch.plan_entry import plan_entry
from xinference.launch.request import LaunchRequest

MODEL = {"model_uid": "m", "model_engine": "llama.cpp", "context_length": 4096}
READY = {"event_type": "READY", "stage": "health", "event_ts": 9.0, "model": MODEL}


@pytest.fixture
def loading(canned: Canned) -> Iterator[threading.Event]:
    """A launch whose events stop after the first one, until the event is set."""
    go_on = threading.Event()
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "m"})
    canned.answers["DELETE", "/v1/models/m"] = Answer(None)
    first = {"event_type": "WARNING", "stage": "fetch", "event_content": "slow hub"}
    canned.answers["GET", "/v1/models/m/events"] = events(first, then=lambda: go_on.wait(30))
    yield go_on
    go_on.set()


def told(canned: Canned, *items: dict[str, Any]) -> None:
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "m"})
    canned.answers["GET", "/v1/models/m/events"] = events(*items)


def test_every_option_reaches_the_server(canned: Canned, run: Run) -> None:
    told(canned, READY)
    line = "-n llama -en vLLM -s 7 -f pytorch -q none -u m -r 2 --n-gpu none --model_path /no/such --download_hub local"
    assert run("launch", *line.split(), "--max-model-len", "512", "--enforce_eager", "--self", "x").exit_code == 0
    (asked,) = canned.asked_for("POST", "/v1/models")
    assert asked.query == "wait_ready=false"
    assert asked.body == {
        "model_name": "llama",
        "model_type": "LLM",
        "model_engine": "vLLM",
        "model_size_in_billions": 7,
        "model_format": "pytorch",
        "quantization": "none",
        "model_uid": "m",
        "replica": 2,
        "n_gpu": None,
        "model_path": "/no/such",
        "download_hub": "local",
        "max_model_len": 512,
        "enforce_eager": True,
        "self": "x",
    }


def test_every_option_of_newer_versions_reaches_the_server(canned: Canned, run: Run) -> None:
    told(canned, READY)
    line = (
        "--model-name llama --n-worker 2 --worker-ip 10.0.0.1 --enable-thinking --disable-virtual-env -vp a==1 -vp b "
        "-ev A 1 --env B x=y -qc load_in_4bit true -qc bnb_4bit_quant_type nf4 --virtual-env-find-link /wheels "
        "--gpu-idx 0,1 --trust-remote-code True --request-limits 3 --label gpu=h100 --label rack=a=1"
    )
    assert run("launch", *line.split()).exit_code == 0
    assert canned.asked_for("POST", "/v1/models")[0].body == {
        "model_name": "llama",
        "model_type": "LLM",
        "replica": 1,
        "n_gpu": "auto",
        "n_worker": 2,
        "worker_ip": "10.0.0.1",
        "labels": {"gpu": "h100", "rack": "a=1"},
        "gpu_idx": [0, 1],
        "enable_thinking": True,
        "enable_virtual_env": False,
        "virtual_env_packages": ["a==1", "b"],
        "virtual_env_find_links": ["/wheels"],
        "envs": {"A": "1", "B": "x=y"},
        "quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        "trust_remote_code": True,
        "request_limits": 3,
    }


@pytest.mark.parametrize("labels", [["gpu"], ["=h100"], ["gpu=h100", "gpu=a100"]])
def test_a_label_of_another_form_or_with_two_values_is_refused(canned: Canned, run: Run, labels: list[str]) -> None:
    result = run("launch", "-n", "m", *(word for label in labels for word in ("--label", label)))
    assert result.exit_code == 2 and canned.asked == []


@pytest.mark.parametrize("option", ["-ld", "-fd", "--image-lora-load-kwargs", "--image-lora-fuse-kwargs"])
def test_options_of_image_models_are_refused_with_the_reason(canned: Canned, run: Run, option: str) -> None:
    result = run("launch", "-n", "m", option, "a", "b")
    assert result.exit_code == 2
    assert "Image models are not served" in " ".join(result.stderr.split())
    assert canned.asked == []


@pytest.mark.parametrize(("text", "value"), [("7", 7), ("1_8", "1_8"), ("1.5", "1.5")])
def test_a_size_is_a_number_unless_it_has_a_fraction(canned: Canned, run: Run, text: str, value: int | str) -> None:
    told(canned, READY)
    run("launch", "-n", "m", "--size-in-billions", text)
    assert canned.asked_for("POST", "/v1/models")[0].body["model_size_in_billions"] == value


@pytest.mark.parametrize(
    "option",
    [
        *(["-s", "many"], ["--n-gpu", "all"], ["-r", "0"], ["stray"], ["-ngl", "9"], ["--wait-ready"]),
        *(["-lm", "a"], ["-lm", "", "/x"], ["-lm", "a", "/x", "-lm", "a", "/y"]),
    ],
)
def test_a_launch_that_makes_no_sense_is_not_sent(canned: Canned, run: Run, option: list[str]) -> None:
    result = run("launch", "-n", "m", *option)
    assert result.exit_code == 2
    assert canned.asked == []


def test_weights_that_are_here_are_named_absolutely(
    canned: Canned, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(canned, READY)
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    run("launch", "-n", "m", "-mp", "weights")
    assert canned.asked_for("POST", "/v1/models")[0].body["model_path"] == str(tmp_path / "weights")


def test_the_context_and_a_draft_model_are_sent(
    canned: Canned, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "draft.gguf").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("--context-length", "--context_length"):
        told(canned, READY)
        assert run("launch", "-n", "m", name, "4096", "--draft_model_path", "draft.gguf").exit_code == 0
        body = canned.asked_for("POST", "/v1/models")[-1].body
        assert (body["context_length"], body["draft_model_path"]) == (4096, str(tmp_path / "draft.gguf"))
    assert run("launch", "-n", "m", "--context-length", "0").exit_code == 2


def test_adapters_are_sent_by_name_with_absolute_paths(
    canned: Canned, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(canned, READY)
    monkeypatch.chdir(tmp_path)
    line = "-n m -lm a /x --lora-modules b y --max-model-len 512"
    assert run("launch", *line.split()).exit_code == 0
    body = canned.asked_for("POST", "/v1/models")[0].body
    assert (body["lora_modules"], body["max_model_len"]) == ({"a": "/x", "b": str(tmp_path / "y")}, 512)


def test_a_ready_launch_prints_its_uid_alone_on_stdout(canned: Canned, run: Run) -> None:
    told(
        canned,
        {"event_type": "INFO", "stage": "fetch", "event_ts": 1.0, "event_content": "from huggingface"},
        {"event_type": "INFO", "stage": "start", "event_ts": 3.5, "event_content": "pid 5"},
        READY,
    )
    result = run("launch", "-n", "m")
    assert (result.exit_code, result.stdout) == (0, "m\n")
    assert result.stderr.splitlines() == [
        "  fetch            2.5 s  from huggingface",
        "  start            5.5 s  pid 5",
        f"Ready at {canned.url}/v1, context length 4096, engine llama.cpp",
    ]


def test_a_launch_on_demand_does_not_say_that_its_model_is_ready(canned: Canned, run: Run) -> None:
    told(canned, {"event_type": "READY", "stage": "health", "event_ts": 9.0, "model": MODEL | {"status": "UNLOADED"}})
    result = run("launch", "-n", "m", "--on-demand")
    assert (result.exit_code, result.stdout) == (0, "m\n")
    last = (
        f"Launched; the first request loads the model. Endpoint: {canned.url}/v1, context length 4096, engine llama.cpp"
    )
    assert result.stderr.splitlines()[-1] == last


def test_the_choices_of_a_launch_have_a_line_each(canned: Canned, run: Run) -> None:
    choices = "m 7B ggufv2 Q4_K_M on llama.cpp\nsize 7B: the smallest of 7B, 13B (-s)\n2 slots x 4096 tokens of context"
    plan = {"event_type": "INFO", "stage": "plan", "event_ts": 1.0, "event_content": choices}
    told(canned, plan, {"event_type": "INFO", "stage": "start", "event_ts": 1.0, "event_content": "pid 5"}, READY)
    assert run("launch", "-n", "m").stderr.splitlines()[:4] == [
        "  plan             0.0 s  m 7B ggufv2 Q4_K_M on llama.cpp",
        "    size 7B: the smallest of 7B, 13B (-s)",
        "    2 slots x 4096 tokens of context",
        "  start            8.0 s  pid 5",
    ]


def test_with_json_the_description_is_printed(canned: Canned, run: Run) -> None:
    told(canned, READY)
    assert json.loads(run("launch", "-n", "m", "--json").stdout) == MODEL


def test_a_description_that_no_event_brought_is_asked_for(canned: Canned, run: Run) -> None:
    told(canned, {**READY, "model": None})
    canned.answers["GET", "/v1/models/m"] = Answer(MODEL)
    assert json.loads(run("launch", "-n", "m", "--json").stdout) == MODEL


def test_without_waiting_the_uid_comes_at_once(canned: Canned, run: Run) -> None:
    told(canned)
    result = run("launch", "-n", "m", "--no-wait")
    assert (result.exit_code, result.stdout) == (0, "m\n")
    assert canned.asked_for("GET", "/v1/models/m/events") == []


def test_progress_in_a_log_is_a_line_for_each_tenth(canned: Canned, run: Run) -> None:
    moves = [
        {
            "event_type": "PROGRESS",
            "stage": "fetch",
            "progress": {"file": "w.gguf", "bytes_done": done << 20, "bytes_total": 100 << 20},
        }
        for done in range(0, 101, 2)
    ]
    told(canned, *moves, READY)
    lines = [line for line in run("launch", "-n", "m").stderr.splitlines() if "w.gguf" in line]
    assert len(lines) == 10
    assert lines[-1] == "  w.gguf: 100.0 MiB of 100.0 MiB (100 %)"


def test_a_failed_launch_shows_cause_hint_and_last_words(canned: Canned, run: Run) -> None:
    failure = {"code": "engine_died", "status": 500, "cause": "It died.", "hint": "Add RAM.", "log_tail": ["oom"]}
    told(canned, {"event_type": "FAILED", "stage": "start", "problem": failure})
    result = run("launch", "-n", "m")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: It died.\nHint: Add RAM.\nLast lines of the engine:\n    oom\n"


def test_a_launch_that_someone_else_ended_is_an_error(canned: Canned, run: Run) -> None:
    told(canned, {"event_type": "TERMINATED"})
    result = run("launch", "-n", "m")
    assert result.exit_code == 1
    assert "terminated while it was loading" in result.stderr


def test_a_server_that_dies_during_a_launch_is_an_error(canned: Canned, run: Run) -> None:
    told(canned, {"event_type": "INFO", "stage": "fetch"})
    result = run("launch", "-n", "m")
    assert result.exit_code == 1
    assert "closed the connection" in result.stderr


def test_a_refused_launch_exits_with_1(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/models"] = problem(400, "model_not_found", "No such model.", hint="Did you mean n?")
    result = run("launch", "-n", "m")
    assert result.exit_code == 1
    assert "Did you mean n?" in result.stderr


SOURCE = Source(hub="huggingface", model_id="a/b", parts={"Q4_0": ("m.gguf", "n.gguf")})
REQUEST = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2", quantization="Q4_0")
LAUNCH = replace(
    launch_of(uid="m", engine="llama.cpp", request=REQUEST, origin=SOURCE, options={"n_ctx": 4096}),
    reasons=("no GPU was found", "it fits"),
)
PLAN = plan_entry(LAUNCH, None)


def test_a_dry_run_prints_the_plan_with_its_reasons(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/models"] = Answer(PLAN)
    result = run("launch", "-n", "m", "--dry-run")
    assert result.exit_code == 0
    assert canned.asked_for("POST", "/v1/models")[0].query == "dry_run=true"
    for text in (
        "Would launch m:",
        "llama-2-chat--7B--ggufv2--Q4_0",
        "huggingface – a/b",
        "  Files:      m.gguf\n              n.gguf\n              The hub did not report the sizes of the files.\n",
        "  Memory:     not known before the download\n",
        "n_ctx=4096",
        "Why:\n  - no GPU was found\n  - it fits",
    ):
        assert text in result.stdout


def test_a_dry_run_prints_the_warnings_of_the_launch(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/models"] = Answer(PLAN | {"warnings": ["worker_ip box9 is ignored"]})
    result = run("launch", "-n", "m", "--worker-ip", "box9", "--dry-run")
    assert "Warnings:\n  - worker_ip box9 is ignored\n" in result.stdout


def test_a_dry_run_names_the_node_and_the_gpus_of_each_replica_of_a_cluster(canned: Canned, run: Run) -> None:
    places = [
        {"replica": 0, "rank": 0, "node": "n-1a", "devices": [0, 1]},
        {"replica": 0, "rank": 1, "node": "n-2b", "devices": [3]},
        {"replica": 1, "rank": 0, "node": "local", "devices": []},
    ]
    canned.answers["POST", "/v1/models"] = Answer({**PLAN, "devices": [[0, 1], []], "places": places})
    stdout = run("launch", "-n", "m", "--dry-run").stdout
    assert "  Devices:    n-1a: GPU 0, 1 (replica 0)\n" in stdout
    assert "              n-2b: GPU 3 (replica 0, rank 1)\n              local: CPU (replica 1)\n" in stdout


@pytest.mark.parametrize(
    ("files", "total", "source", "lines"),
    [
        ([("m.gguf", 5 << 30)], 5 << 30, "hub", ["m.gguf (5.0 GiB)"]),
        ([("m.gguf", None)], 5 << 30, "estimate",
         ["m.gguf", "about 5.0 GiB, estimated: the hub did not report the sizes"]),
        ([("m.gguf", None), ("n.gguf", None)], 5 << 30, "registry",
         ["m.gguf", "n.gguf", "5.0 GiB in total according to the registry"]),
        ([], 5 << 30, "registry", ["5.0 GiB in total according to the registry"]),
        ([(f"{n}.bin", 1 << 30) for n in range(9)], 9 << 30, "hub",
         [*(f"{n}.bin (1.0 GiB)" for n in range(6)), "and 3 more files", "9.0 GiB in total"]),
    ],
)  # fmt: skip
def test_the_files_of_a_plan_have_their_sizes_or_a_sentence_why_not(
    canned: Canned, run: Run, files: Any, total: int, source: str, lines: list[str]
) -> None:
    entries = [{"name": name, "size": size} for name, size in files]
    plan = PLAN | {"files": entries, "files_bytes": total, "files_source": source}
    canned.answers["POST", "/v1/models"] = Answer(plan)
    printed = run("launch", "-n", "m", "--dry-run").stdout
    shown = printed[printed.index("Files:") :].split("Threads:")[0].removeprefix("Files:")
    assert [line.strip() for line in shown.rstrip().split("\n")] == lines


def test_a_dry_run_of_weights_that_are_here_prints_their_path_and_all_numbers(canned: Canned, run: Run) -> None:
    plan = sized(LAUNCH, path=Path("/w/m.gguf"), devices=((0,), (1,)), weights_bytes=1 << 30, reasons=("4 slots",))
    canned.answers["POST", "/v1/models"] = Answer(plan_entry(LAUNCH, plan))
    printed = run("launch", "-n", "m", "--dry-run").stdout
    for text in ("/w/m.gguf", "4095 tokens", "1.0 GiB weights", "4.0 GiB KV cache", "[0], [1]", "  - 4 slots"):
        assert text in printed


def test_a_dry_run_as_json_is_the_plan_itself(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/models"] = Answer(PLAN)
    assert json.loads(run("launch", "-n", "m", "--dry-run", "--json").stdout) == PLAN


def test_a_missing_server_is_started_only_at_the_default_endpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[str] = []

    def fake_ensure(settings: Any, announce: Callable[[], None]) -> None:
        announce()
        started.append(settings.url)

    monkeypatch.setattr("xinference.client.local_server.ensure_server", fake_ensure)
    url = f"http://127.0.0.1:{free_port()}"
    named = run("launch", "-n", "m", "-e", url)
    assert named.exit_code == 1
    assert started == []
    monkeypatch.setenv("XINFERENCE_ENDPOINT", "")
    monkeypatch.setenv("XINFERENCE_PORT", url.rpartition(":")[2])
    result = CliRunner().invoke(cli, ["launch", "-n", "m"])
    assert started == [url]
    assert f"Starting a server at {url} …" in result.stderr


@pytest.mark.parametrize(("uids", "said"), [((), False), (("old", "older"), True)])
def test_a_server_that_a_launch_starts_names_the_models_that_it_starts_again(
    canned: Canned, run: Run, monkeypatch: pytest.MonkeyPatch, uids: tuple[str, ...], said: bool
) -> None:
    monkeypatch.setattr("xinference.client.local_server.ensure_server", lambda settings, announce: True)
    monkeypatch.setenv("XINFERENCE_ENDPOINT", "")
    monkeypatch.setenv("XINFERENCE_PORT", canned.url.rpartition(":")[2])
    entries = [{"model_uid": uid, "status": "LOADING"} for uid in uids]
    entries += [{"model_uid": "on-demand", "status": "UNLOADED"}, {"model_uid": "broken", "status": "ERROR"}]
    canned.answers["GET", "/v1/models/instances"] = Answer(entries)
    result = CliRunner().invoke(cli, ["launch", "-n", "m", "--no-wait"])
    assert ("The server restarts the models of its last run: old, older.\n" in result.stderr) is said
    assert ("of its last run" in result.stderr) is said


@pytest.mark.process
def test_an_interrupted_script_cancels_its_launch(
    canned: Canned, loading: threading.Event, piped: Callable[..., subprocess.Popen[str]]
) -> None:
    process = piped("launch", "-n", "m")
    assert process.stderr is not None
    assert "slow hub" in process.stderr.readline()
    process.send_signal(2)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "Cancelled the launch of m." in err
    assert len(canned.asked_for("DELETE", "/v1/models/m")) == 1


@pytest.mark.process
@pytest.mark.parametrize(("answer", "status", "cancelled"), [("y", 130, 1), ("", 0, 0)])
def test_at_a_terminal_an_interrupt_asks_first(
    canned: Canned,
    loading: threading.Event,
    terminal: Callable[..., Terminal],
    answer: str,
    status: int,
    cancelled: int,
) -> None:
    shown = terminal("launch", "-n", "m")
    shown.until("slow hub")
    shown.interrupt()
    shown.until("Cancel the launch? [y/N]")
    shown.type(answer + "\n")
    if not cancelled:
        loading.set()  # the launch goes on, and ends
    assert shown.end() == (status, "" if cancelled else "m\n")
    assert len(canned.asked_for("DELETE", "/v1/models/m")) == cancelled


@pytest.mark.process
def test_an_interrupt_of_the_question_leaves_the_launch_and_says_so(
    canned: Canned, loading: threading.Event, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal("launch", "-n", "m")
    shown.until("slow hub")
    shown.interrupt()
    shown.until("Cancel the launch? [y/N]")
    shown.interrupt_until("cancels the launch.")
    assert shown.end() == (0, "m\n")
    assert not canned.asked_for("DELETE", "/v1/models/m")


@pytest.fixture
def unanswered(canned: Canned) -> Iterator[threading.Event]:
    """A launch whose uid the server names once the event is set, as while it asks a slow hub."""
    named = threading.Event()

    def answer(asked: Asked) -> Answer:
        named.wait(30)
        return Answer({"model_uid": "m"})

    canned.answers["POST", "/v1/models"] = answer
    canned.answers["DELETE", "/v1/models/m"] = Answer(None)
    yield named
    named.set()


@pytest.mark.process
def test_a_script_that_is_interrupted_before_the_uid_is_known_cancels_its_launch(
    canned: Canned, unanswered: threading.Event, piped: Callable[..., subprocess.Popen[str]]
) -> None:
    process = piped("launch", "-n", "m")
    until("the launch is asked for", lambda: canned.asked_for("POST", "/v1/models"))
    process.send_signal(2)
    assert process.stderr is not None
    while "Waiting for the answer of the server" not in process.stderr.readline():
        pass
    unanswered.set()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "Cancelled the launch of m." in err
    assert len(canned.asked_for("DELETE", "/v1/models/m")) == 1


@pytest.mark.process
def test_a_second_interrupt_before_the_uid_is_known_says_that_the_launch_may_continue(
    canned: Canned, unanswered: threading.Event, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal("launch", "-n", "m")
    until("the launch is asked for", lambda: canned.asked_for("POST", "/v1/models"))
    shown.interrupt()
    shown.until("Cancel the launch? [y/N]")
    shown.type("y\n")
    shown.until("Waiting for the answer of the server")
    shown.interrupt_until("The launch may continue on the server")
    assert shown.end() == (130, "")


@pytest.mark.process
def test_an_interrupted_load_says_that_the_server_continues(
    canned: Canned, piped: Callable[..., subprocess.Popen[str]]
) -> None:
    ready = threading.Event()

    def answer(asked: Asked) -> Answer:
        ready.wait(30)
        return Answer({})

    canned.answers["POST", "/v1/models/m/load"] = answer
    process = piped("load", "m")
    until("the load is asked for", lambda: canned.asked_for("POST", "/v1/models/m/load"))
    process.send_signal(2)
    _, err = process.communicate(timeout=20)
    ready.set()
    assert process.returncode == 130
    assert "The server continues to load m" in err


@pytest.mark.process
def test_at_a_terminal_moving_bytes_are_a_bar(canned: Canned, terminal: Callable[..., Terminal]) -> None:
    moves = [
        {
            "event_type": "PROGRESS",
            "stage": "fetch",
            "progress": {"file": "w[1].gguf", "bytes_done": done << 20, "bytes_total": 100 << 20},
        }
        for done in (0, 50, 100)
    ]
    told(canned, {"event_type": "INFO", "stage": "plan", "event_content": "on the [cpu]"}, *moves, READY)
    shown = terminal("launch", "-n", "m")
    shown.until("Ready at")
    assert shown.end() == (0, "m\n")
    assert "w[1].gguf" in shown.seen
    assert "100.0/100.0 MiB" in shown.seen
    assert "on the [cpu]" in shown.seen
    until("the command has ended", lambda: shown.process.poll() is not None)


@pytest.mark.parametrize("words", [["llama"], ["-n", "llama"], ["llama", "-n", "llama"], ["--n_ctx", "9", "llama"]])
def test_the_name_is_an_argument_or_an_option(canned: Canned, run: Run, words: list[str]) -> None:
    told(canned, READY)
    assert run("launch", *words).exit_code == 0
    assert canned.asked_for("POST", "/v1/models")[0].body["model_name"] == "llama"


@pytest.mark.parametrize("words", [[], ["a", "-n", "b"]])
def test_no_name_and_two_names_are_usage_errors(canned: Canned, run: Run, words: list[str]) -> None:
    result = run("launch", *words)
    assert (result.exit_code, canned.asked) == (2, [])
    assert "name" in result.stderr


@pytest.mark.parametrize("name", ["./nope.gguf", "nope.gguf", "~/nope.gguf", "../nope"])
def test_a_missing_file_is_sent_as_the_path_where_it_should_be(canned: Canned, run: Run, name: str) -> None:
    told(canned, READY)
    run("launch", name)
    sent = canned.asked_for("POST", "/v1/models")[0].body["model_name"]
    assert sent == str(Path(name).expanduser().absolute())


@pytest.mark.parametrize("name", ["hf.co/org/repo:Q4_K_M", "org/repo:Q8_0", "https://huggingface.co/org/repo", "qwen3"])
def test_a_name_that_is_no_path_is_sent_as_it_is(canned: Canned, run: Run, name: str) -> None:
    told(canned, READY)
    run("launch", name)
    assert canned.asked_for("POST", "/v1/models")[0].body["model_name"] == name


def test_a_dry_run_without_a_server_is_planned_here_and_starts_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planned: list[Any] = []

    def plan_here(body: Any, settings: Any) -> Any:
        planned.append(body)
        return PLAN | {"models_of_home": [{"model_uid": "earlier", "memory_bytes": 1 << 30}]}

    def refuse_start(*arguments: Any, **named: Any) -> None:
        raise AssertionError("a server is started")

    monkeypatch.setattr("xinference.local_commands.plan.plan_launch", plan_here)
    monkeypatch.setattr("xinference.client.local_server.ensure_server", refuse_start)
    monkeypatch.setenv("XINFERENCE_ENDPOINT", "")
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    monkeypatch.setenv("XINFERENCE_PORT", str(free_port()))
    result = CliRunner().invoke(cli, ["launch", "llama-2-chat", "-f", "ggufv2", "--n_ctx", "4096", "--dry-run"])
    assert result.exit_code == 0, result.stderr
    assert planned == [
        {"model_name": "llama-2-chat", "model_type": "LLM", "replica": 1, "n_gpu": "auto", "model_format": "ggufv2",
         "n_ctx": 4096}
    ]  # fmt: skip
    assert "Others:     earlier is loaded first, 1.0 GiB" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_a_refusal_shows_the_commands_that_would_fit_each_on_one_line(canned: Canned, run: Run) -> None:
    command = "xinference launch qwen2.5-instruct -s 3B -f ggufv2 -q q4_k_m --n_ctx 8192 -u " + "long" * 20
    suggestion = {"change": "size", "description": "Size 3B in q4_k_m, 2.1 GiB of memory", "command": command}
    refusal = problem(400, "does_not_fit", "It needs 5 GiB of memory, and 3 GiB are free.", suggestions=[suggestion])
    canned.answers["POST", "/v1/models"] = refusal
    result = run("launch", "-n", "m")
    assert result.exit_code == 1
    assert f"What would fit:\n  Size 3B in q4_k_m, 2.1 GiB of memory:\n    {command}\n" in result.stderr
    as_json = run("launch", "-n", "m", "--json")
    assert json.loads(as_json.stdout)["error"]["suggestions"] == [suggestion]


def test_a_missing_file_is_sent_with_its_whole_path(canned: Canned, run: Run, tmp_path: Path) -> None:
    for arguments in (["./nope.gguf"], ["m", "-mp", "./nope.gguf"]):
        run("launch", *arguments, "--no-wait")
        body = canned.asked_for("POST", "/v1/models")[-1].body
        assert str(Path("nope.gguf").absolute()) in (body["model_name"], body.get("model_path"))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ("running", "m is already running"),
        ("launching", "m is already being launched"),
        ("unloaded", "m was unloaded; loading it again."),
        ("failed", "m has failed; launching it again."),
        (None, ""),
    ],
)
def test_the_same_launch_prints_the_uid_and_says_what_was_found(
    canned: Canned, run: Run, found: str | None, text: str
) -> None:
    told(canned, READY)
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "m", "found": found})
    canned.answers["GET", "/v1/models/m"] = Answer(MODEL)
    result = run("launch", "llama")
    assert (result.exit_code, result.stdout) == (0, "m\n") and text in result.stderr
    assert ("already" in result.stderr) == (found in ("running", "launching"))
    assert bool(canned.asked_for("GET", "/v1/models/m/events")) == (found != "running")
    assert "new" not in canned.asked_for("POST", "/v1/models")[0].body


def test_a_copy_is_launched_on_request(canned: Canned, run: Run) -> None:
    told(canned, READY)
    assert run("launch", "llama", "--new").exit_code == 0
    assert canned.asked_for("POST", "/v1/models")[0].body["new"] is True


def test_aliases_are_sent(canned: Canned, run: Run) -> None:
    told(canned, READY)
    assert run("launch", "llama", "--alias", "gpt-4o", "--alias", "claude").exit_code == 0
    assert canned.asked_for("POST", "/v1/models")[0].body["aliases"] == ["gpt-4o", "claude"]


def test_a_dry_run_of_a_model_that_runs_names_it_and_then_the_copy(canned: Canned, run: Run) -> None:
    plan = {"model_uid": "m", "version": "llama--7B--ggufv2--Q4_0", "engine": "llama.cpp", "found": "running"}
    copy = {**plan, "model_uid": "m-12345678", "found": None}
    canned.answers["POST", "/v1/models"] = Answer({**plan, "plan_of_copy": copy, "problem_of_copy": None})
    text = run("launch", "llama", "--dry-run").stdout
    first, _, second = text.partition("With --new, a copy:\n")
    assert first.startswith("m is already running; the launch would return it:\n")
    assert "llama--7B--ggufv2--Q4_0" in first and second.startswith("Would launch m-12345678:\n")
    refusal = {"code": "does_not_fit", "cause": "It does not fit.", "hint": "Unload m."}
    canned.answers["POST", "/v1/models"] = Answer({**plan, "plan_of_copy": None, "problem_of_copy": refusal})
    text = run("launch", "llama", "--dry-run").stdout
    assert text.endswith("With --new, a copy would be refused:\nIt does not fit.\nHint: Unload m.\n")


def test_the_address_of_the_server_is_no_option_of_a_launch(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/models"] = problem(400, "unknown_option", "llama.cpp has no option --host.", hint="x")
    result = run("launch", "smollm2-instruct", "--host", "0.0.0.0")
    assert "Hint: `xinference serve --host` sets the address of the server." in result.stderr


@pytest.mark.parametrize(
    ("code", "cause", "flag", "hint"),
    [
        ("bad_option", "--port is reserved: Xinference sets it itself.", "--port", "`xinference serve --port` sets"),
        ("unknown_option", "llama.cpp has no option --served_model_name.", "--served-model-name", "--model-uid sets"),
        (
            "bad_option",
            "--served_model_name is reserved: Xinference sets it itself.",
            "--served-model-name",
            "--model-uid sets",
        ),
        ("bad_option", "--port is 'x', and must be a number.", "--port", "as the server says"),
    ],
)
def test_an_option_of_another_server_is_refused_with_what_takes_its_place(
    canned: Canned, run: Run, code: str, cause: str, flag: str, hint: str
) -> None:
    canned.answers["POST", "/v1/models"] = problem(400, code, cause, hint="as the server says")
    assert f"Hint: {hint}" in run("launch", "smollm2-instruct", flag, "x").stderr


def test_run_says_where_the_options_of_an_engine_belong(run: Run) -> None:
    assert "belong to `xinference launch NAME`" in run("run", "m", "--n_ctx", "2048").stderr
    assert "Did you mean" in run("run", "m", "--max-token", "5").stderr


def test_a_hint_names_the_similar_options_of_the_engine_before_those_of_the_command(canned: Canned, run: Run) -> None:
    cause = "llama.cpp has no option --n_gpu_layer."
    hint = "Did you mean --speculative.draft.n_gpu_layers or --n_gpu_layers?"
    canned.answers["POST", "/v1/models"] = problem(400, "unknown_option", cause, hint=hint)
    result = run("launch", "smollm2-instruct", "--n_gpu_layer", "5")
    assert (
        "Did you mean --speculative.draft.n_gpu_layers, --n_gpu_layers or --n-gpu? See `xinference launch --help`."
        in result.stderr
    )


def test_an_option_that_no_engine_has_is_compared_with_those_of_the_command(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/models"] = problem(400, "unknown_option", "llama.cpp has no option --quant.", hint="x")
    result = run("launch", "smollm2-instruct", "--quant", "Q4_1")
    assert result.exit_code == 1
    assert "Hint: Did you mean --quantization" in result.stderr and "xinference launch --help" in result.stderr


@pytest.mark.parametrize("option", ["--model-nam", "--model_nmae", "--modelname"])
def test_a_misspelled_option_of_the_name_is_not_taken_for_one_of_the_engine(run: Run, option: str) -> None:
    result = run("launch", option, "qwen2.5-instruct")
    assert result.exit_code == 2
    assert f"No such option '{option.replace('_', '-')}'. Did you mean '--model-name'?" in result.stderr
    assert "Give the name of a model" in run("launch", "--model_loader", "x").stderr
