"""What the system's files say is read as they mean it."""

from __future__ import annotations

import pytest

from tests.support.cases import in_one_test
from xinference.hardware.cgroup import CgroupLimits, limits
from xinference.hardware.cpu import parse_cpuinfo, parse_sysctl
from xinference.hardware.devices import read_host
from xinference.hardware.nvidia import parse_cuda, visible

GIB = 1024**3
XEON = """processor	: 0
model name	: Intel(R) Xeon(R) Platinum 8480+
flags		: fpu sse4_2 avx2 avx512f avx512bw avx512_vnni amx_tile amx_int8

processor	: 1
flags		: fpu
"""
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16 sve\n"
MACBOOK = "Intel(R) Core(TM) i9\nFPU SSE4.2 AVX1.0\nAVX2 AVX512F AVX512BW AVX512VNNI\n"
UUIDS = ("GPU-1a", "GPU-2b", "GPU-2c")


@pytest.mark.parametrize(
    ("read", "name", "some"),
    [
        (parse_cpuinfo(XEON), "Intel(R) Xeon(R) Platinum 8480+", {"avx2", "avx512f", "avx512_vnni", "amx_int8"}),
        (parse_cpuinfo(GRAVITON), "", {"asimddp", "sve", "i8mm"}),
        (parse_sysctl(MACBOOK), "Intel(R) Core(TM) i9", {"avx", "avx2", "avx512f", "avx512bw", "avx512_vnni"}),
        (parse_cpuinfo(""), "", set()),
        (parse_sysctl(""), "", set()),
    ],
)
def test_instruction_sets_have_one_name_on_every_system(
    read: tuple[str, frozenset[str]], name: str, some: set[str]
) -> None:
    assert read[0] == name and some <= read[1]


@in_one_test(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, CgroupLimits()),
        ("0::/\n", {"/memory.max": "max\n", "/cpu.max": "max 100000\n"}, CgroupLimits()),
        (
            "0::/\n",
            {"/memory.max": f"{4 * GIB}\n", "/memory.current": f"{GIB}\n", "/cpu.max": "150000 100000\n"},
            CgroupLimits(4 * GIB, 3 * GIB, 1.5),
        ),
        (  # a service in a slice: the slice is the narrower one
            "0::/user.slice/app.service\n",
            {
                "/user.slice/app.service/memory.max": f"{8 * GIB}\n",
                "/user.slice/app.service/memory.current": "0\n",
                "/user.slice/memory.max": f"{2 * GIB}\n",
                "/user.slice/memory.current": f"{GIB}\n",
            },
            CgroupLimits(2 * GIB, GIB),
        ),
        (  # file pages that nobody uses are given back
            "0::/\n",
            {
                "/memory.max": f"{4 * GIB}",
                "/memory.current": f"{3 * GIB}",
                "/memory.stat": f"anon 5\ninactive_file {2 * GIB}\n",
            },
            CgroupLimits(4 * GIB, 3 * GIB),
        ),
        (  # version 1, in a container that sees the host's path
            "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
            {
                "/memory/memory.limit_in_bytes": f"{2 * GIB}",
                "/memory/memory.usage_in_bytes": f"{GIB}",
                "/cpu,cpuacct/cpu.cfs_quota_us": "200000",
                "/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            CgroupLimits(2 * GIB, GIB, 2.0),
        ),
        ("4:memory:/\n", {"/memory/memory.limit_in_bytes": "9223372036854771712"}, CgroupLimits()),
        ("3:cpu:/\n", {"/cpu/cpu.cfs_quota_us": "-1", "/cpu/cpu.cfs_period_us": "100000"}, CgroupLimits()),
    ],
)
def test_the_narrowest_control_group_on_the_way_to_the_root_counts(
    own: str, files: dict[str, str], expected: CgroupLimits
) -> None:
    assert limits(own, files.get) == expected


@in_one_test(
    ("setting", "left"),
    [
        (None, (0, 1, 2)),
        ("", ()),
        ("-1", ()),
        ("2,0", (2, 0)),
        ("1,9,0", (1,)),
        ("GPU-1", (0,)),
        ("GPU-2", ()),
        ("GPU-2c,GPU-1a", (2, 0)),
        ("1,1", (1,)),
    ],
)
def test_devices_are_hidden_as_cuda_hides_them(setting: str | None, left: tuple[int, ...]) -> None:
    assert visible(setting, UUIDS) == left


def test_the_drivers_cuda_number_has_a_major_and_a_minor_part() -> None:
    assert parse_cuda(12040) == (12, 4) and parse_cuda(13000) == (13, 0)


def test_this_machine_can_be_read() -> None:
    host = read_host()
    assert host.physical_cores >= 1
    assert 0 < host.memory_available <= host.memory_total
