"""Optimum Intel's `OVModelForCausalLM` under transformers' own `generate`."""

from collections.abc import Callable
from typing import Any, Self

import msgspec

from xpubench.runtimes.base import Origin, TokenIds, Verification
from xpubench.runtimes.openvino import ir
from xpubench.runtimes.openvino.options import OptimumDescription
from xpubench.runtimes.openvino.stack import import_openvino, import_optional
from xpubench.runtimes.options import RuntimeDescription
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime, plain_generation_config
from xpubench.spec import Subject, Workload
from xpubench.weights.load import LoadedWeights
from xpubench.weights.pretrained import load_tokenizer
from xpubench.weights.quiet import quiet_transformers


class OptimumRuntime(PyTorchRuntime):
    """A transformers `generate` whose forward pass is OpenVINO's: the same clock, checks and scores."""

    # The graph is the whole model.
    scores_rows_alone = False

    @classmethod
    def check(cls, subject: Subject) -> None:
        ir.check(subject)
        import_optional("optimum.intel")

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        ir.fetch(subject, say)

    @classmethod
    def origin(cls, subject: Subject) -> Origin | None:
        return ir.origin(subject)

    @classmethod
    def load(cls, subject: Subject) -> Self:
        import_openvino()
        from optimum.intel import OVModelForCausalLM

        directory = ir.ir_directory(subject)
        with quiet_transformers():
            model = OVModelForCausalLM.from_pretrained(
                directory,
                device=ir.options_of(subject).device,
                ov_config=ir.properties(subject),
                trust_remote_code=subject.trust_remote_code,
                local_files_only=True,
            )
        tokenizer = load_tokenizer(directory, subject.trust_remote_code)
        runtime = cls(subject, LoadedWeights(model=model, tokenizer=tokenizer))
        runtime._kept = ir.kept_recipe(directory)
        model.generation_config = plain_generation_config(model)
        return runtime

    def __init__(self, subject: Subject, loaded: LoadedWeights) -> None:
        super().__init__(subject, loaded)
        self._torch = ir.QuietTorch()
        self._kept: dict[str, Any] | None = None

    def weight_sizes(self) -> tuple[int, int]:
        return ir.weight_sizes(self.model.model)

    def kv_value_bytes(self, head_dim: int) -> float:
        return ir.kv_value_bytes(self.subject, self._compiled, head_dim)

    def prepare(self, workload: Workload) -> None:
        ir.refuse_static_cache(workload.cache)

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        # What Optimum hands around as the cache is empty: the state of the IR is it.
        return msgspec.structs.replace(super().verify(prompt_ids, workload), cache="state of the IR")

    def describe(self) -> RuntimeDescription:
        asked = ir.properties(self.subject)
        total, step = self.weight_sizes()
        return OptimumDescription(
            ir=self._kept,
            asked=asked,
            applied=ir.applied(self._compiled, asked),
            torch_threads=1,
            model_class=type(self.model).__name__,
            weight_bytes=total,
            step_weight_bytes=step,
        )

    def doubts(self) -> list[str]:
        asked = ir.properties(self.subject)
        return ir.doubts(self.subject, asked, ir.applied(self._compiled, asked))

    @property
    def _compiled(self) -> Any:
        return self.model.request.get_compiled_model()

    def close(self) -> None:
        super().close()
        self._torch.end()
