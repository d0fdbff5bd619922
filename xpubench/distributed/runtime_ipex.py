"""A model that AutoTP shards and IPEX optimizes then, as the guide for Intel GPUs does."""

from typing import Any

from xpubench.distributed.runtime import OnAllRanks
from xpubench.runtimes.ipex.runtime import IpexRuntime


class TensorParallelIpexRuntime(OnAllRanks, IpexRuntime):
    """`ipex.llm.optimize` on each rank's part of the model."""

    def to_optimize(self, model: Any) -> Any:
        # IPEX takes a model for a sharded one by DeepSpeed's engine around it, and by nothing else.
        return self.engine or model
