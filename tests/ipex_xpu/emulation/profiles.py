"""What the emulated GPUs can do, as IPEX's Python layer asks for it.

The three facts that IPEX branches on are `_has_2d_block_array`, `_has_xmx` and `_is_xetla_enabled` of its
compiled module. Which GPU has which is stated in IPEX's own comments (`model_utils.py`: the fused attention
needs all three; INT4 goes through oneDNN on "client machines (LNL and BMG) and pvc" and through XeTLA
elsewhere) and in Intel's documents: the A series has XMX engines and no 2D block loads, Meteor Lake's GPU
has neither.
"""

import os
from dataclasses import dataclass

PROFILE_VARIABLE = "XPU_EMULATION_PROFILE"
COUNT_VARIABLE = "XPU_EMULATION_DEVICES"
MEMORY_VARIABLE = "XPU_EMULATION_MIB"
# Room for tiny models, and little enough that what sizes its work by a device's memory stays quick.
MEMORY_MIB = 256
# Level Zero's own variable; each rank of a job sees the devices that it names.
AFFINITY_VARIABLE = "ZE_AFFINITY_MASK"


@dataclass(frozen=True)
class Profile:
    """One kind of GPU: what IPEX asks about it, and what its driver would say of it."""

    name: str
    device_name: str
    block_loads_2d: bool
    matrix_engines: bool
    compute_units: int
    # Whether the driver tells how much memory is free; that of most integrated GPUs does not.
    knows_free_memory: bool

    @property
    def fused_attention(self) -> bool:
        """Whether IPEX uses its fused attention kernels (`xpu_sdpa_support` in its model_utils.py)."""
        return self.block_loads_2d and self.matrix_engines


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("pvc", "Emulated Data Center GPU Max", True, True, 448, True),
        Profile("bmg", "Emulated Arc B580", True, True, 160, True),
        Profile("arc", "Emulated Arc A770", False, True, 512, True),
        Profile("mtl", "Emulated Meteor Lake GPU", False, False, 128, False),
    )
}


def current() -> Profile:
    """The profile that `XPU_EMULATION_PROFILE` names, else `pvc`; KeyError for an unknown name."""
    return PROFILES[os.environ.get(PROFILE_VARIABLE, "pvc")]


def memory_bytes() -> int:
    """The memory of each emulated device."""
    return int(os.environ.get(MEMORY_VARIABLE, MEMORY_MIB)) * 2**20


def device_count() -> int:
    """How many emulated devices this process sees."""
    mask = os.environ.get(AFFINITY_VARIABLE)
    if mask:
        return len(mask.split(","))
    return int(os.environ.get(COUNT_VARIABLE, "1"))
