"""The environment, the devices and the rank of one replica, and the variables that make an engine use them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rank:
    """One of the nodes that compute a replica together: each computes some of the layers, for all tokens."""

    number: int
    """0 answers the requests."""
    count: int
    """Number of nodes."""
    address: str
    """The address of this rank's node, at which the other ranks reach it."""
    head_address: str
    """That of rank 0."""
    head_port: int
    """The port of rank 0 at which the ranks meet."""
    interface: str | None = None
    """The network interface that has `address`; None: the engine looks for one."""


@dataclass(frozen=True)
class Placement:
    """The environment and the devices of one replica."""

    python: Path
    """The interpreter of its environment."""
    devices: tuple[int, ...] = ()
    """Indices of its GPUs; empty: CPU."""
    states: Path | None = None
    """The folder for the saved states of prompts; None: the replica saves none."""
    rank: Rank | None = None
    """None: one node computes the replica."""

    @property
    def answers(self) -> bool:
        """Whether the process answers requests, which further ranks do not."""
        return self.rank is None or self.rank.number == 0


def rank_env(rank: Rank | None) -> dict[str, str]:
    """The variables that make the libraries of an engine connect the ranks by the network of `rank`'s address."""
    if rank is None or rank.interface is None:
        return {}
    return {"NCCL_SOCKET_IFNAME": rank.interface, "GLOO_SOCKET_IFNAME": rank.interface}


#: The variable with the folder of code that PyTorch has compiled, and its name in the home's folder for such code.
TORCH_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "torchinductor"}


def cuda_env(placement: Placement) -> dict[str, str]:
    """The variables that make only the replica's own GPUs visible to an engine; on the CPU, no GPU is visible."""
    devices = ",".join(str(index) for index in placement.devices)
    # By default, CUDA orders the devices by speed; NVML, whose indices are used here, orders them by PCI address.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": devices}
