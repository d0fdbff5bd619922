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
        """The plain model goes by this rank's heads; IPEX divides those of the whole model by the ranks
        itself."""
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
        # IPEX knows a sharded model by DeepSpeed's engine around it alone. The engine has a mode of its own,
        # and IPEX does other things in training.
        return model if self.engine is None else self.engine.eval()
