from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.formats.ggml_writer import GGML_QUANTIZATIONS, minimal_ggml, write_ggml
from tests.formats.gguf_model import GGUF_QUANTIZATIONS, write_gguf
from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion
from xinference.catalog.registry import builtin_families
from xinference.errors import Problem
from xinference.formats.convert import convert_ggml, gguf_name
from xinference.formats.ggml import read_ggml
from xinference.formats.gguf import read_header
from xinference.formats.llama_facts import LlamaFacts, disagreements, facts_for

ASSETS = Path(__file__).parent.parent / "assets"
HF = ASSETS / "tiny-llama2-chat-hf"
Q4_0 = ASSETS / "tiny-llama2-chat-ggmlv3" / "tiny-llama2-chat.ggmlv3.q4_0.bin"
FACTS = LlamaFacts("tiny", 4096, 1e-5, chat_template="{{ messages }}")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "m.gguf"


def test_the_result_says_what_the_file_and_the_facts_say(target: Path) -> None:
    assert convert_ggml(Q4_0, target, FACTS) == target
    header = read_header(target)
    assert (header.architecture, header.quantization, header.version) == ("llama", "Q4_0", 3)
    assert (header.n_layers, header.n_heads, header.n_kv_heads, header.head_dim) == (2, 4, 4, 64)
    assert (header.context_length, header.embedding_length, header.vocab_size) == (4096, 256, 1024)
    assert header.chat_template == "{{ messages }}"
    assert header.metadata["llama.feed_forward_length"] == 768
    assert header.metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert header.metadata["llama.rope.freq_base"] == 10000.0
    assert header.metadata["general.quantization_version"] == 2
    assert os.listdir(target.parent) == ["m.gguf"]


@pytest.mark.thorough
@pytest.mark.parametrize("quantization", [*GGML_QUANTIZATIONS, "f16", "f32"])
def test_every_quantization_keeps_its_tensors_bytes(tmp_path: Path, target: Path, quantization: str) -> None:
    source = write_ggml(HF, quantization, tmp_path / "m.bin")
    data = source.read_bytes()
    convert_ggml(source, target, FACTS)
    header, old = read_header(target), read_ggml(source)
    assert header.bytes_by_type == old.bytes_by_type
    assert (header.quantization or "").lower() == quantization.lower()
    padded = (data[t.offset : t.offset + t.size] + bytes(-t.size % 32) for t in old.tensors)
    assert target.read_bytes()[header.data_offset :] == b"".join(padded)


@pytest.mark.parametrize("quantization", GGUF_QUANTIZATIONS)
def test_conversion_gives_the_weights_that_gguf_has_from_the_start(
    tmp_path: Path, target: Path, quantization: str
) -> None:
    direct = write_gguf(HF, quantization, tmp_path / "direct.gguf")
    convert_ggml(write_ggml(HF, quantization, tmp_path / "m.bin"), target, FACTS)
    assert (
        target.read_bytes()[read_header(target).data_offset :]
        == (direct.read_bytes()[read_header(direct).data_offset :])
    )


def test_the_vocabulary_is_the_one_of_the_original_tokenizer(tmp_path: Path, target: Path) -> None:
    """Pieces, scores and types: the three arrays, byte for byte as from tokenizer.model."""
    direct = write_gguf(HF, "Q4_0", tmp_path / "direct.gguf").read_bytes()
    converted = convert_ggml(Q4_0, target, FACTS).read_bytes()
    start, end = b"tokenizer.ggml.tokens", b"tokenizer.ggml.bos_token_id"
    assert converted[converted.index(start) : converted.index(end)] == direct[direct.index(start) : direct.index(end)]


def test_tokens_that_are_no_text_or_occur_twice_still_make_a_vocabulary(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "m.bin"
    source.write_bytes(minimal_ggml(vocab=7))
    data = convert_ggml(source, target, FACTS).read_bytes()
    for text in (b"<unk>", b"<s>", b"</s>", b"<0x00>", "▁a".encode(), b"\xff\xfe", b"<unused_6>"):
        assert len(text).to_bytes(8, "little") + text in data
    types = data[data.index(b"tokenizer.ggml.token_type") + 25 + 16 :][: 7 * 4]
    assert list(types[::4]) == [2, 3, 3, 6, 1, 1, 5]


def test_names_are_those_of_gguf() -> None:
    assert gguf_name("tok_embeddings.weight") == "token_embd.weight"
    assert gguf_name("layers.12.feed_forward.w2.weight") == "blk.12.ffn_down.weight"


def test_grouped_heads_come_from_the_shapes_and_a_disagreement_is_told(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "m.bin"
    source.write_bytes(minimal_ggml(heads=8, kv_heads=1))
    header = read_ggml(source)
    assert read_header(convert_ggml(source, target, FACTS)).n_kv_heads == 1
    (sentence,) = disagreements(header, FACTS)
    assert "registry has 1" in sentence and "8 for 1" in sentence
    assert disagreements(header, LlamaFacts("tiny", 4096, 1e-5, n_gqa=8)) == ()


def test_special_tokens_outside_the_vocabulary_are_refused(target: Path) -> None:
    with pytest.raises(Problem, match="1024"):
        convert_ggml(Q4_0, target, LlamaFacts("tiny", 4096, 1e-5, eos_token_id=1024))
    assert os.listdir(target.parent) == []


def test_a_damaged_source_leaves_no_target(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "m.bin"
    source.write_bytes(Q4_0.read_bytes()[:-1])
    with pytest.raises(Problem, match="truncated"):
        convert_ggml(source, target, FACTS)
    assert not target.exists()


def test_a_file_is_not_converted_onto_itself(tmp_path: Path) -> None:
    source = Path(shutil.copy(Q4_0, tmp_path / "m.bin"))
    with pytest.raises(Problem, match="to be converted"):
        convert_ggml(source, source, FACTS)
    assert read_ggml(source).quantization == "q4_0"


def test_an_existing_target_is_replaced_or_kept(target: Path) -> None:
    convert_ggml(Q4_0, target, FACTS)
    whole = target.read_bytes()
    target.write_bytes(b"older")
    convert_ggml(Q4_0, target, FACTS, keep_existing=True)
    assert target.read_bytes() == b"older"
    assert os.listdir(target.parent) == ["m.gguf"]
    convert_ggml(Q4_0, target, FACTS)
    assert target.read_bytes() == whole


def test_a_stale_temporary_is_overwritten(target: Path) -> None:
    target.parent.mkdir()
    (target.parent / ".m.gguf.partial").write_bytes(b"x" * (4 << 20))
    convert_ggml(Q4_0, target, FACTS)
    assert read_header(target).file_size < 2 << 20
    assert os.listdir(target.parent) == ["m.gguf"]


def test_progress_ends_with_the_whole_and_never_goes_back(target: Path) -> None:
    seen: list[tuple[int, int | None, str]] = []
    convert_ggml(Q4_0, target, FACTS, progress=lambda *step: seen.append(step))
    done = [step[0] for step in seen]
    assert done == sorted(done)
    assert seen[-1] == (read_header(target).weights_bytes, read_header(target).weights_bytes, "m.gguf")


def test_cancelling_leaves_nothing(target: Path) -> None:
    cancelled = threading.Event()
    with pytest.raises(Problem) as caught:
        convert_ggml(Q4_0, target, FACTS, progress=lambda *_: cancelled.set(), cancelled=cancelled)
    assert caught.value.code == "cancelled"
    assert os.listdir(target.parent) == []


def test_too_little_room_is_told_before_anything_is_written(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(Problem, match="has 1000 free") as caught:
        convert_ggml(Q4_0, target, FACTS)
    assert (caught.value.code, caught.value.status) == ("disk_full", 507)
    assert os.listdir(target.parent) == []


def test_a_target_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Problem) as caught:
        convert_ggml(Q4_0, tmp_path / "file" / "m.gguf", FACTS)
    assert caught.value.code == "cannot_write"


def test_without_help_from_the_kernel_the_result_is_the_same(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = convert_ggml(Q4_0, target, FACTS).read_bytes()
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    assert convert_ggml(Q4_0, target, FACTS).read_bytes() == whole


def test_two_at_once_take_turns_and_both_leave_a_whole_file(target: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(convert_ggml, Q4_0, target, FACTS) for _ in range(24)]:
            assert done.result() == target
    assert read_header(target).file_size == target.stat().st_size
    assert os.listdir(target.parent) == ["m.gguf"]


def test_waiting_for_a_turn_can_be_cancelled(target: Path) -> None:
    inside, leave, cancelled = threading.Event(), threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        inside.set()
        leave.wait(30)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(convert_ggml, Q4_0, target, FACTS, hold)
        assert inside.wait(30)
        cancelled.set()
        with pytest.raises(Problem, match="cancelled"):
            convert_ggml(Q4_0, target, FACTS, cancelled=cancelled)
        leave.set()
        assert first.result() == target


CHILD = """
import sys, time
from pathlib import Path
from xinference.formats.convert import convert_ggml
from xinference.formats.llama_facts import LlamaFacts
def stop(done, total, name):
    if done > total // 2:
        print("half", flush=True)
        time.sleep(60)
convert_ggml(Path(sys.argv[1]), Path(sys.argv[2]), LlamaFacts("tiny", 4096, 1e-5), progress=stop)
"""


@pytest.fixture
def killed_in_the_middle(target: Path) -> Iterator[Path]:
    with subprocess.Popen([sys.executable, "-c", CHILD, str(Q4_0), str(target)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        yield target


@pytest.mark.process
def test_a_kill_in_the_middle_leaves_no_target_and_the_next_run_is_whole(killed_in_the_middle: Path) -> None:
    target = killed_in_the_middle
    assert not target.exists()
    start = time.monotonic()
    convert_ggml(Q4_0, target, FACTS, keep_existing=True)
    assert time.monotonic() - start < 30  # the dead one's lock went with it
    assert read_header(target).file_size == target.stat().st_size
    assert os.listdir(target.parent) == ["m.gguf"]


def test_little_memory_is_used(target: Path) -> None:
    tracemalloc.start()
    try:
        convert_ggml(Q4_0, target, FACTS)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def version(family: ModelFamily, spec: ModelSpec) -> ModelVersion:
    return ModelVersion(family=family, spec=spec, quantization=spec.quantizations[0])


def test_the_registry_has_the_facts_of_every_ggmlv3_spec() -> None:
    found = [
        facts_for(version(family, spec))
        for family in builtin_families().values()
        for spec in family.model_specs
        if spec.model_format == "ggmlv3"
    ]
    llama2 = {facts.name: facts for facts in found if facts.name.startswith("llama-2-chat")}
    assert {name: facts.n_gqa for name, facts in llama2.items()} == {
        "llama-2-chat 7B": 1,
        "llama-2-chat 13B": 1,
        "llama-2-chat 70B": 8,
    }
    for facts in llama2.values():
        assert (facts.rms_norm_eps, facts.context_length, facts.rope_freq_base) == (1e-5, 4096, 10000.0)
        assert facts.chat_template


def test_a_spec_without_facts_says_what_to_add() -> None:
    spec = ModelSpec(model_format="ggmlv3", model_size_in_billions=7, quantizations=("q4_0",), sources=())
    family = ModelFamily(
        model_name="mine", context_length=2048, model_lang=("en",), model_ability=("chat",), model_specs=(spec,)
    )
    with pytest.raises(Problem, match="rms_norm_eps"):
        facts_for(version(family, spec))
