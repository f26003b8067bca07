"""The benchmark's own parts: a figure that is wrong is worse than none."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.cluster.figures import Figure
from benchmarks.cluster.figures import row as row_of_budget
from benchmarks.gateway.cells import Cell, Figures
from benchmarks.gateway.load import Load, Result
from benchmarks.gateway.report import table, write_picture
from benchmarks.gateway.stand_in import xllamacpp
from benchmarks.gateway.targets import costless
from benchmarks.shared_beginnings.client import Server, in_threads
from benchmarks.shared_beginnings.nothing_shared import apart
from benchmarks.shared_beginnings.trained_context import weights_for
from benchmarks.speculation import WITHOUT, Answer
from benchmarks.speculation import table as table_of_speculation

from tests.formats.gguf_writer import Gguf
from xinference.formats.gguf import read_header

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
#: Programs that a benchmark starts, and ends itself.
PARTS = {"several.py", "engine.py", "load.py", "server.py", "upstream_xinference.py"}


@pytest.mark.process
def test_a_command_that_is_ended_by_a_signal_runs_its_last_blocks() -> None:
    code = """
import time
from tests.support.end_signals import end_as_ctrl_c
end_as_ctrl_c()
try:
    print("begun", flush=True)
    time.sleep(60)
finally:
    print("the servers are ended", flush=True)
"""
    for number in (signal.SIGTERM, signal.SIGHUP):
        command = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=BENCHMARKS.parent,
        )  # fmt: skip
        assert command.stdout is not None and command.stdout.readline() == "begun\n"
        command.send_signal(number)
        assert command.communicate(timeout=30)[0] == "the servers are ended\n"


def test_each_benchmark_ends_its_servers_when_it_is_ended_by_a_signal() -> None:
    commands = [each for each in BENCHMARKS.rglob("*.py") if '__name__ == "__main__"' in each.read_text()]
    without = {each.name for each in commands if "    end_as_ctrl_c()\n" not in each.read_text()}
    assert without <= PARTS, f"`end_as_ctrl_c()` is missing in {without - PARTS}"


def figures(target: str, *events_a_second: int, cpu: float = 0.0) -> Figures:
    cell = Cell("stream", 8, Load(0, 8, 8))
    rounds = [Result(seconds=2.0, events=2 * n, cpu={"server": cpu}) for n in events_a_second]
    return Figures(cell, target, rounds)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    assert figures("ours", 50, 60, 10).ratio(figures("alone", 100, 80, 100)) == 0.5


def test_cpu_is_told_for_each_event() -> None:
    assert figures("ours", 100, cpu=0.01).median("server_cpu") == pytest.approx(50e-6)


def test_cpu_is_that_of_all_processes_but_the_engine() -> None:
    spent = {"server": 0.01, "server's 0": 0.03, "engine": 5.0}
    both = Figures(Cell("stream", 8, Load(0, 8, 8)), "theirs", [Result(seconds=1.0, events=100, cpu=spent)])
    assert both.median("server_cpu") == pytest.approx(400e-6)


def test_the_library_that_stands_in_answers_with_a_chunk_a_token_and_an_end() -> None:
    engine = xllamacpp.Server(xllamacpp.CommonParams())
    streamed: list[dict[str, object]] = []
    engine.handle_chat_completions({"stream": True, "max_tokens": 3}, streamed.append)
    assert streamed == [xllamacpp.TOKEN] * 3 + [xllamacpp.END]
    assert streamed[0] is not xllamacpp.TOKEN, "the server writes into the first"
    whole: list[dict[str, object]] = []
    engine.handle_chat_completions({"stream": False, "max_tokens": 3}, whole.append)
    assert whole == [xllamacpp.ANSWER]


def test_the_table_has_a_line_a_target_and_the_picture_a_bar() -> None:
    both = [figures("alone", 100), figures("ours", 50)]
    lines = table(both).splitlines()
    assert [line.split("|")[4].strip() for line in lines[2:]] == ["", "0.500"]


def test_the_picture_is_svg_with_a_bar_for_each_figure(tmp_path: Path) -> None:
    write_picture(tmp_path / "p.svg", [figures("alone", 100), figures("ours", 50)])
    drawn = (tmp_path / "p.svg").read_text()
    assert drawn.startswith("<svg") and drawn.count('height="200.0"') == 1 and drawn.count('height="100.0"') == 1


@pytest.mark.process
@pytest.mark.parametrize("stream", [True, False])
def test_every_event_and_answer_arrives_from_the_engine_and_through_us(stream: bool) -> None:
    load = Load(0, 4, 12, stream=stream, tokens=30)
    with costless({}) as targets:
        results = [target.measure(load) for target in targets]
    assert [r.errors for r in results] == [{}, {}]
    assert [r.requests for r in results] == [12, 12]
    assert [r.events for r in results] == [360 if stream else 0] * 2
    assert results[1].cpu["server"] > 0


@pytest.mark.process
def test_an_answer_with_too_few_events_is_an_error() -> None:
    load = Load(0, 1, 1, tokens=5, extra={"max_tokens": 4})
    with costless({}) as targets:
        assert targets[0].measure(load).errors == {"4 events": 1}


def test_the_accepted_share_and_a_different_text_are_shown() -> None:
    timings = {"predicted_per_second": 12.0, "draft_n": 40, "draft_n_accepted": 30}
    faster = Answer.of({"choices": [{"text": "a"}], "timings": timings})
    other = Answer.of({"choices": [{"text": "b"}], "timings": {"predicted_per_second": 9.0}})
    plain = Answer("a", 8.0)
    found = {("new", WITHOUT): [plain], ("new", "draft model"): [faster], ("new", "n-gram"): [other]}
    assert table_of_speculation(found).splitlines()[2:] == [
        "| new | without | 8.00 | 1.00 | - | yes |",
        "| new | draft model | 12.00 | 1.50 | 30 of 40 (75%) | yes |",
        "| new | n-gram | 9.00 | 1.12 | - | NO |",
    ]


def test_a_budget_of_a_cluster_is_shown_with_its_figure_and_whether_it_holds() -> None:
    assert row_of_budget(Figure("first", 2.0, "s", 2)) == "| first | 2 s | 2 s | yes |  |"
    assert row_of_budget(Figure("second", 2.1, "s", 2, "of three")) == "| second | 2.1 s | 2 s | NO | of three |"


def test_a_stream_without_an_answer_has_no_time_to_its_first_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b'data: {"error":{"code":500}}\n\n'))
    with pytest.raises(RuntimeError, match="ended its stream without an answer"):
        Server("http://127.0.0.1:1").first_token({})


def test_prompts_with_nothing_in_common_are_compared_request_by_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {"own": 3.0, "other": 2.0}
    passed = [0.0]

    def post(server: Server, path: str, body: object) -> None:
        passed[0] += seconds[server.url]

    monkeypatch.setattr(Server, "post", post)
    own, other = (Server(name, clock=lambda: passed[0]) for name in seconds)
    apart(own, other, "before", 8)
    assert capsys.readouterr().out == ("nothing shared: shared / before 1.500 (median of 7; mean 1.500 +- 0.000)\n")


def test_calls_at_the_same_time_give_their_results_in_order() -> None:
    assert in_threads(int.__mul__, (1, 2, 3), (4, 5, 6)) == [4, 10, 18]


def test_weights_with_a_longer_context_are_a_copy_that_differs_in_that_number_only(tmp_path: Path) -> None:
    weights = Gguf().write(tmp_path / "m.gguf")
    with weights_for(weights, 16384) as copy:
        assert read_header(copy).context_length == 16384
        assert read_header(weights).context_length == 128
        old, new = weights.read_bytes(), copy.read_bytes()
        assert sum(a != b for a, b in zip(old, new, strict=True)) <= 4
    assert not copy.exists()


def test_weights_that_have_the_context_are_not_copied(tmp_path: Path) -> None:
    weights = Gguf().write(tmp_path / "m.gguf")
    with weights_for(weights, 128) as same:
        assert same == weights
