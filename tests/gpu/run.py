"""What needs an NVIDIA GPU, run and written down: the page's lines that no CPU can run, and two models on one card.

    python -m tests.gpu.run [--environments FOLDER] [--out FILE]

On a host with a GPU: launches the SGLang, GPTQ and AWQ lines of llama-2-chat's page (15 of its 103) and vLLM's own
weights on CUDA, each against the loopback hub, and asks questions whose answers must come word for word. Then each
packed format is launched on each engine that has kernels for it, and two vLLM models share a card, each with the
fraction of its memory that the plan gave. `--environments` names a folder in which the CUDA environments are built;
without it the first launches build them, which needs the package index. The table is printed, and written to FILE as
JSON. Exit status 1: a line went wrong; 2: there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conformance.__main__ import ASSETS, LINE_SECONDS, UID, Row, answer, hub_environment, show, try_line
from tests.conformance.page import LaunchLine, launch_lines
from tests.fakes.hub.llama2 import llama2_hub
from tests.fakes.hub.loopback import serve
from tests.formats.compressed_writer import WRITERS
from tests.support.home import Home
from tests.support.ports import free_port
from xinference.hardware.devices import Host, read_host
from xinference.local_commands import docs

PAIRS: list[dict[str, str]] = json.loads((ASSETS / "qa.json").read_text(encoding="utf-8"))
ASKED = [(pair["question"], pair["answer"]) for pair in PAIRS[::4]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, help="folder of engine environments that are built already")
    parser.add_argument("--out", type=Path, help="where the table goes as JSON")
    options = parser.parse_args(arguments)
    host = read_host()
    if not host.gpus:
        print(f"There is no GPU here: {host.no_gpu_reason}.", file=sys.stderr)
        return 2
    print(described(host))
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder, gpu_home(Path(folder), options.environments) as home:
        rows = [try_line(home, line, ASKED) for line in gpu_lines(Path(folder))]
        shared = two_models_share_a_card(home)
        packed = {launch.title: launch.outcome(home, Path(folder)) for launch in PACKED}
    show(rows)
    for title, outcome in packed.items():
        print(f"{title}: {outcome}")
    print(f"two models on one card: {shared}")
    if options.out is not None:
        options.out.write_text(json.dumps(written(host, rows, shared, packed), indent=2), encoding="utf-8")
    good = all(row.good for row in rows) and shared == "both answered word for word"
    return 0 if good and set(packed.values()) == {RIGHT} else 1


#: The outcome of a packed launch whose answers are those of the weights as trained.
RIGHT = "answered word for word"


@dataclass(frozen=True)
class PackedLaunch:
    """The tiny model in a packed form on one engine."""

    engine: str
    form: str | None
    """A key of `WRITERS`; None: the weights as trained, which the engine packs."""
    model_format: str
    quantization: str
    options: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        packed = self.form or " ".join((self.quantization, *self.options))
        return f"{packed} on {self.engine}"

    def words(self, folder: Path) -> tuple[str, ...]:
        """The arguments of `xinference`; the packed weights are written into `folder` first."""
        path = ASSETS
        if self.form is not None:
            path = folder / self.form.replace(" ", "-")
            if not path.exists():
                WRITERS[self.form][0](ASSETS, path)
        named = ("-n", str(path)) if self.form is not None else ("-n", UID, "--model-path", str(path))
        return (
            *("launch", *named, "-u", "packed", "-en", self.engine, "-f", self.model_format),
            *("-q", self.quantization, *self.options),
        )

    def outcome(self, home: Home, folder: Path) -> str:
        """Launch it, ask it, and terminate it; what became of it, in words."""
        ended = home.cli(*self.words(folder), seconds=LINE_SECONDS)
        if ended.returncode != 0:
            return ended.stderr.strip()[-300:]
        right = all(answer(home, question, "packed") == expected for question, expected in ASKED)
        home.cli("terminate", "--model-uid", "packed")
        return RIGHT if right else "started, and answered otherwise"


_PUBLISHED = tuple(
    PackedLaunch(engine, form, model_format, quantization)
    for engine in ("vLLM", "SGLang")
    for form, (_, model_format, quantization) in WRITERS.items()
)
PACKED = (
    *_PUBLISHED,
    PackedLaunch("vLLM", None, "pytorch", "fp8"),
    PackedLaunch("SGLang", None, "pytorch", "fp8"),
    PackedLaunch("SGLang", None, "pytorch", "none", ("--model_quantization", "bitsandbytes")),
    PackedLaunch("Transformers", "fp8 in blocks", "fp8", "FP8"),
    PackedLaunch("Transformers", None, "pytorch", "4-bit"),
)


def gpu_lines(folder: Path) -> list[LaunchLine]:
    """The lines that want CUDA: SGLang's, GPTQ's and AWQ's; and vLLM's pytorch ones, which it runs there too."""
    page = next(p for p in docs.write(folder / "docs") if p.name == f"{UID}.rst").read_text(encoding="utf-8")
    return [line for line in launch_lines(page) if line.engine in ("vLLM", "SGLang")]


@contextmanager
def gpu_home(folder: Path, environments: Path | None) -> Iterator[Home]:
    """A server of its own beside a loopback hub that has the tiny model under every name."""
    with serve(llama2_hub(ASSETS, folder / "made")) as hub:
        if environments is not None:
            (folder / "environments").symlink_to(environments.resolve())
        home = Home(folder, free_port(), hub_environment(folder, hub.url))
        home.serve()
        try:
            yield home
        finally:
            home.clean_up()


def two_models_share_a_card(home: Home) -> str:
    """Launch the tiny model twice on the first device; what became of it, in words."""
    first = str(read_host().gpus[0].index)
    for uid in (UID, "second"):
        words = ("launch", "--model-engine", "vLLM", "--model-name", UID, "--model-uid", uid, "--gpu-idx", first)
        ended = home.cli(*words, "--model-format", "pytorch", "--quantization", "none", seconds=LINE_SECONDS)
        if ended.returncode != 0:
            return f"{uid}: {ended.stderr.strip()[-300:]}"
    uids = (UID, "second")
    right = all(answer(home, question, uid) == expected for uid in uids for question, expected in ASKED)
    for uid in uids:
        home.cli("terminate", "--model-uid", uid)
    return "both answered word for word" if right else "started, and answered otherwise"


def described(host: Host) -> str:
    """The devices and the driver in one line."""
    driver = host.driver
    names = ", ".join(f"{gpu.name} ({gpu.memory_free >> 30} of {gpu.memory_total >> 30} GiB free)" for gpu in host.gpus)
    return f"{names}; driver {driver.version}, CUDA {'.'.join(map(str, driver.cuda))}" if driver else names


def written(host: Host, rows: Sequence[Row], shared: str, packed: Mapping[str, str]) -> dict[str, object]:
    """The table as JSON."""
    lines = [{**asdict(row), "line": row.line.text} for row in rows]
    return {"host": described(host), "lines": lines, "two_models_on_one_card": shared, "packed": packed}


if __name__ == "__main__":
    sys.exit(main())
