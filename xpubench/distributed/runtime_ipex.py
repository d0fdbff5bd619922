"""A model that AutoTP shards and IPEX then optimizes, as in the guide for Intel GPUs."""

from xpubench.distributed.runtime import TensorParallelRuntime
from xpubench.runtimes.ipex.runtime import IpexRuntime


class TensorParallelIpexRuntime(TensorParallelRuntime, IpexRuntime):
    """`ipex.llm.optimize` on each rank's part of the model."""
