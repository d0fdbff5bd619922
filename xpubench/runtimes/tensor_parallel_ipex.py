"""A model that AutoTP shards and IPEX optimizes then, as the guide for Intel GPUs does."""

from xpubench.runtimes.ipex import IpexRuntime
from xpubench.runtimes.tensor_parallel import OnAllRanks


class TensorParallelIpexRuntime(OnAllRanks, IpexRuntime):
    """`ipex.llm.optimize` on each rank's part of the model."""
