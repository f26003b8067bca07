"""Memory of Transformers and vLLM on the CPU compared with a dry run's estimate: `benchmarks/memory.py --engines`.

Every case has a separate home and server, so that no earlier measurement corrects its estimate. The dry run's
`loaded` is compared with `memory_used_bytes` of the ready instance. Two models separate the fixed part from the part
that grows with the weights: the tests' tiny one, and SmolLM2-135M's shape with random weights.

Calibration of the overheads in `xinference.engines.torch_memory` and `xinference.engines.transformers.memory_model`,
as MiB estimated / measured (2 cores, AVX-512, Transformers 5.23.0, vLLM 0.32.0); 440M is 6 layers of 2048 with a
vocabulary of 32000, at 1024 tokens and 4 slots:

| engine | quantization | tiny | 135M | 440M |
|---|---|---|---|---|
| Transformers | none | 385 / 384 | 889 / 890 | 2052 / 2052 |
| Transformers | 8-bit | 425 / 422 | 577 / 579 | 966 / 965 |
| Transformers | 4-bit | 424 / 423 | 533 / 536 | 837 / 837 |
| vLLM | none | 1720 / 1720 | 2339 / 2352 | 3054 / 3041 |
| vLLM | gptq Int4 | 1747 / 1751 | 2185 / 2185 | 2808 / 2769 |
| vLLM | awq Int4 | 1747 / 1756 | 2183 / 2224 | 2806 / 2797 |
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.formats.awq_writer import write_awq
from tests.formats.gptq_writer import write_gptq
from tests.support.home import Home
from tests.support.ports import free_port

from benchmarks.transformers_batching import MAKE_MODEL, TOKENIZER
from xinference.config import Settings
from xinference.engines.registry import all_engines
from xinference.environments.environments import Environments
from xinference.hardware.devices import read_host

MIB = 1024 * 1024
START_SECONDS = 600
CONTEXT_OPTIONS = {"Transformers": "--context_length", "vLLM": "--max_model_len"}
VERSIONS = {
    "Transformers": (("pytorch", "none"), ("pytorch", "8-bit"), ("pytorch", "4-bit")),
    "vLLM": (("pytorch", "none"), ("gptq", "Int4"), ("awq", "Int4")),
}
#: Context and slots for the tiny model and for the larger one.
SIZES = {"tiny": (400, 16), "135M": (2048, 4)}
#: Packs arbitrary numbers: they are loaded and never used. The hidden size is not a multiple of the usual group of 128.
MAKE_INT4 = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
source, out, kind, group = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], 64
tensors = {}
for name, tensor in load_file(source / "model.safetensors").items():
    layer = name.removesuffix(".weight")
    if not layer.endswith("_proj"):
        tensors[name] = tensor
        continue
    outputs, inputs = tensor.shape
    packed = (inputs // 8, outputs) if kind == "gptq" else (inputs, outputs // 8)
    tensors[f"{layer}.qweight"] = torch.randint(-2**31, 2**31 - 1, packed, dtype=torch.int32)
    tensors[f"{layer}.qzeros"] = torch.full((inputs // group, outputs // 8), 0x77777777, dtype=torch.int32)
    tensors[f"{layer}.scales"] = torch.full((inputs // group, outputs), 0.01, dtype=torch.float16)
    if kind == "gptq":
        tensors[f"{layer}.g_idx"] = torch.arange(inputs, dtype=torch.int32) // group
save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
config = json.loads((source / "config.json").read_text())
more = {"desc_act": False, "sym": True} if kind == "gptq" else {"zero_point": True, "version": "gemm"}
config["quantization_config"] = {"quant_method": kind, "bits": 4, "group_size": group} | more
(out / "config.json").write_text(json.dumps(config))
"""


@dataclass(frozen=True)
class Case:
    engine: str
    model_format: str
    quantization: str
    model: str
    path: Path


def table(environments: Path) -> bool:
    """Measure every case whose environment is built in `environments`; returns whether all are within a tenth."""
    print("| engine | quantization | model | estimated | measured | ratio |")
    print("|---|---|---|---|---|---|")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(environments, Path(folder)):
            estimated, measured = measure(case, environments)
            good = good and abs(estimated / measured - 1) <= 0.1
            name = f"{case.model_format} {case.quantization}"
            numbers = f"{estimated / MIB:.0f} | {measured / MIB:.0f} | {estimated / measured:.2f}"
            print(f"| {case.engine} | {name} | {case.model} | {numbers} |", flush=True)
    return good


def cases(environments: Path, folder: Path) -> Iterator[Case]:
    for engine, versions in VERSIONS.items():
        spec = all_engines()[engine].environment(read_host())
        assert spec is not None
        with tempfile.TemporaryDirectory() as home:
            (Path(home) / "environments").symlink_to(environments.resolve())
            linked = Environments(Settings(home=Path(home))).find(spec)
            built = environments / linked.relative_to(Path(home) / "environments") if linked else None
        if built is None:
            print(f"{engine}: {spec.name} is not built in {environments}")
            continue
        for model_format, quantization in versions:
            for model in SIZES:
                path = folder / f"{model}-{model_format}"
                if not path.exists():
                    write(model, model_format, path, built, folder / "135M-pytorch")
                yield Case(engine, model_format, quantization, model, path)


def write(model: str, model_format: str, path: Path, python: Path, larger: Path) -> None:
    """Make one folder; the int4 folders of the larger model are made from its first."""
    if model == "tiny":
        if model_format == "pytorch":
            path.symlink_to(TOKENIZER)
        else:
            (write_gptq if model_format == "gptq" else write_awq)(TOKENIZER, path)
        return
    path.mkdir()
    if not (larger / "model.safetensors").exists():
        larger.mkdir(exist_ok=True)
        subprocess.run([python, "-c", MAKE_MODEL, larger, "float16"], check=True)
    if model_format != "pytorch":
        subprocess.run([python, "-c", MAKE_INT4, larger, path, model_format], check=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (path / name).write_bytes((TOKENIZER / name).read_bytes())


def measure(case: Case, environments: Path) -> tuple[int, int]:
    """Bytes: the estimate of a dry run, and the memory once the model is ready."""
    context, slots = SIZES[case.model]
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), free_port())
        (home.path / "environments").symlink_to(environments.resolve())
        words = (
            *("launch", "-n", "llama-2-chat", "-s", "7", "-f", case.model_format, "-q", case.quantization),
            *("-en", case.engine, "-u", "measured", "--model-path", str(case.path), "--n-gpu", "none"),
            *(CONTEXT_OPTIONS[case.engine], str(context), "--max_num_seqs", str(slots)),
        )
        try:
            home.serve()
            planned = home.cli(*words, "--dry-run", "--json")
            launched = home.cli(*words, seconds=START_SECONDS)
            if planned.returncode or launched.returncode:
                raise SystemExit(f"{case}: {planned.stderr}{launched.stderr}")
            return json.loads(planned.stdout)["memory"]["loaded"], home.instance("measured")["memory_used_bytes"]
        finally:
            home.cli("stop")
            home.clean_up()
