"""The state that IPEX keeps for a whole process, which one run would leave to the next."""

import sys

import torch

ATTENTION = (
    "intel_extension_for_pytorch.transformers.models.xpu.optimize_transformers.modules.transformer_modules"
    ".XPUAttentionfp16"
)


def forget_searches() -> None:
    """Has the next generation start as the first one of a process.

    The attention's classes keep the beam index of the last beam search over a static cache, which greedy
    search would go on to use, and the kind and layout of the first cache that they met, which the INT4 layers
    take for that of every later one. The CPU build has none of this.
    """
    module = sys.modules.get(ATTENTION)
    if module is not None:
        module.IPEXAttention.update_beam_idx(None)
        module.IPEXAttention.cache_type = None
        module.IPEXAttention.cache_format = None


def compute_engine() -> str | None:
    """The engine that IPEX's kernels really take, in lower case; None for the CPU build. IPEX reads the
    variable IPEX_COMPUTE_ENG once, when its library is loaded."""
    found = getattr(torch.xpu, "get_compute_eng", None)
    return None if found is None else str(found().name).lower()


def choose_engine(name: str) -> None:
    """Sets the engine of that name, in lower case, for the rest of the process; the CPU build has no
    choice."""
    if hasattr(torch.xpu, "set_compute_eng"):
        torch.xpu.set_compute_eng(torch.xpu.XPUComputeEng[name.upper()])
