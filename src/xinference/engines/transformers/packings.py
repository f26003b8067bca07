"""The packed weights that the Transformers server reads.

Its environment has bitsandbytes. 8-bit floats and MXFP4 are unpacked to 16 bits by transformers' own code: its kernels
for them are programs that it would fetch.
"""

from __future__ import annotations

from xinference.catalog.packing import Packing, Scheme
from xinference.engines.packing_support import PackingTable
from xinference.engines.support import YES, Support
from xinference.hardware.devices import Host

#: Methods that are read.
METHODS = frozenset({"bitsandbytes", "fp8", "mxfp4"})
#: Schemes whose weights are unpacked to 16 bits.
UNPACKED = frozenset({Scheme.FP8, Scheme.FP8_BLOCK, Scheme.MXFP4})
_READ = (*UNPACKED, Scheme.BITSANDBYTES)


def _check(packing: Packing, host: Host) -> Support:
    if packing.method in METHODS:
        return YES
    return Support(f"the environment of Transformers has no package for weights that are packed by {packing.method}")


PACKINGS = PackingTable(
    engine="Transformers",
    capabilities=dict.fromkeys(_READ, (7, 5)),
    instructions=dict.fromkeys(_READ, ("avx2",)),
    check=_check,
)
