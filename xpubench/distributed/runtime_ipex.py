"""A model that AutoTP shards and IPEX optimizes then, as the guide for Intel GPUs does."""

from xpubench.distributed.runtime import OnAllRanks
from xpubench.runtimes.ipex.runtime import IpexRuntime


class TensorParallelIpexRuntime(OnAllRanks, IpexRuntime):
    """`ipex.llm.optimize` on each rank's part of the model."""
