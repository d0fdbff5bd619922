"""`xccl`, torch's backend of collectives on xpu, over gloo.

What a collective does to the tensors is the same; when it is done, and how fast, is not.
"""

from datetime import timedelta
from typing import Any

from torch.distributed import distributed_c10d

TIMEOUT = timedelta(minutes=5)


def install() -> None:
    """Makes `torch.distributed` find an xccl, which a build without xpu has not."""
    gloo = distributed_c10d.ProcessGroupGloo

    def xccl(store: Any, rank: int, size: int) -> Any:
        return gloo(store, rank, size, timeout=TIMEOUT)

    distributed_c10d._XCCL_AVAILABLE = True
    distributed_c10d.ProcessGroupXCCL = xccl
    # The emulated device's tensors are the CPU's to the compiled part of torch.
    distributed_c10d.Backend.backend_capability[distributed_c10d.Backend.XCCL] = ["xpu", "cpu"]
