"""A model that AutoTP shards and IPEX then optimizes, as in the guide for Intel GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xpubench.distributed import autotp
from xpubench.distributed.runtime import TensorParallelRuntime
from xpubench.runtimes.ipex.options import ipex_options
from xpubench.runtimes.ipex.runtime import IpexRuntime
from xpubench.spec import Subject


class TensorParallelIpexRuntime(TensorParallelRuntime, IpexRuntime):
    """`ipex.llm.optimize` on each rank's part of the model."""

    @classmethod
    def divides_heads(cls, subject: Subject) -> bool:
        return subject.device == "xpu" and ipex_options(subject).ipex_optimize

    @contextmanager
    def plain_config(self) -> Iterator[None]:
        """Within the block, the config has this rank's numbers of heads, as the plain model needs them.
        Afterwards it has those of the whole model, which IPEX divides by the ranks itself."""
        if self.job.size == 1 or not self.divides_heads(self.subject):
            yield
            return
        fields = vars(self.model.config.get_text_config())
        before = dict(fields)
        autotp.tell_config(self.model, self.job.rank, self.job.size)
        yield
        fields.clear()
        fields.update(before)

    def to_optimize(self, model: Any) -> Any:
        # IPEX recognises a sharded model only by DeepSpeed's engine around it. The engine has a training flag
        # of its own, by which IPEX behaves differently.
        return model if self.engine is None else self.engine.eval()
