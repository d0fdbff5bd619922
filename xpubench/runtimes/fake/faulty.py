"""Stock PyTorch with a fault: what a run with a broken stack looks like."""

from typing import Any, Self

from xpubench.record import SyncPolicy
from xpubench.runtimes.base import Generation, TokenIds
from xpubench.runtimes.fake.faults import FAULTS, Moment
from xpubench.runtimes.fake.options import FaultyOptions
from xpubench.runtimes.fake.slow_downs import SLOW_DOWNS
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.spec import Subject, Workload

PLANTED = FAULTS | SLOW_DOWNS


class FaultyRuntime(PyTorchRuntime):
    """A model of the PyTorch runtime in which the fault of the options is planted."""

    moment: Moment

    @classmethod
    def load(cls, subject: Subject) -> Self:
        runtime = super().load(subject)
        assert isinstance(subject.options, FaultyOptions)
        runtime.moment = Moment()
        if subject.options.fault is not None:
            PLANTED[subject.options.fault](runtime.model, runtime.moment)
        return runtime

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        self.moment.timed = True
        try:
            return super().generate(prompt_ids, workload, sync_policy)
        finally:
            self.moment.timed = False
            self.moment.generation += 1

    def _arguments(self, *arguments: Any, **more: Any) -> dict[str, Any]:
        self.moment.step = 0
        return super()._arguments(*arguments, **more)
