"""A model that AutoTP shards and IPEX then optimizes, as in the guide for Intel GPUs."""

from typing import Any

from xpubench.distributed.runtime import TensorParallelRuntime
from xpubench.runtimes.ipex.options import ipex_options
from xpubench.runtimes.ipex.runtime import IpexRuntime
from xpubench.spec import Subject


class TensorParallelIpexRuntime(TensorParallelRuntime, IpexRuntime):
    """`ipex.llm.optimize` on each rank's part of the model."""

    @classmethod
    def divides_heads(cls, subject: Subject) -> bool:
        return subject.device == "xpu" and ipex_options(subject).ipex_optimize

    def to_optimize(self, model: Any) -> Any:
        # IPEX knows a sharded model by DeepSpeed's engine around it alone. The engine has a mode of its own,
        # and IPEX does other things in training.
        return model if self.engine is None else self.engine.eval()
