"""Optimum Intel's `OVModelForCausalLM` under transformers' own `generate`."""

from pathlib import Path
from typing import Any

import msgspec

from xpubench.measure.ledger.measured import Measured
from xpubench.runtimes.base import Generation, TokenIds, Verification
from xpubench.runtimes.openvino import ir
from xpubench.runtimes.openvino.ledger import COUNT_NODES, explain_nodes, node_cost_ns
from xpubench.runtimes.openvino.runtime import OpenVinoRuntime
from xpubench.runtimes.openvino.stack import import_openvino, import_optional
from xpubench.runtimes.pytorch.generate import plain_generation_config
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.spec import Subject, Workload
from xpubench.weights.load import LoadedWeights
from xpubench.weights.quiet import quiet_transformers


class OptimumRuntime(OpenVinoRuntime, PyTorchRuntime):
    """Transformers' `generate` over a forward pass of OpenVINO, with the clock, checks and scores of stock
    PyTorch."""

    # The graph always computes the logits of all positions.
    scores_rows_alone = False
    own_tokenizer = False

    def __init__(self, subject: Subject, directory: Path) -> None:
        import_openvino()
        from optimum.intel import OVModelForCausalLM

        with quiet_transformers():
            model = OVModelForCausalLM.from_pretrained(
                directory,
                device=ir.options_of(subject).device,
                ov_config=ir.properties(subject),
                trust_remote_code=subject.trust_remote_code,
                local_files_only=True,
            )
        model.generation_config = plain_generation_config(model)
        PyTorchRuntime.__init__(self, subject, LoadedWeights(model=model))
        OpenVinoRuntime.__init__(self, subject, directory)
        self._compiled = model.request.get_compiled_model()

    @classmethod
    def check(cls, subject: Subject) -> None:
        super().check(subject)
        import_optional("optimum.intel")

    def weight_sizes(self) -> tuple[int, int]:
        return ir.weight_sizes(self.model.model)

    def prepare(self, workload: Workload) -> None:
        OpenVinoRuntime.prepare(self, workload)

    @classmethod
    def card(cls, *_: object) -> None:
        """None, because a device card measured with torch does not describe OpenVINO's graph."""

    def continue_random_cache(self, prompt_ids: TokenIds, workload: Workload) -> Generation | None:
        # The cache is inside OpenVINO's model.
        return None

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        # The cache that Optimum passes around is empty.
        return msgspec.structs.replace(super().verify(prompt_ids, workload), cache=ir.CACHE)

    def explain(self, prompt_ids: TokenIds, workload: Workload) -> Measured:
        device = ir.options_of(self.subject).device
        properties = self.model.ov_config | COUNT_NODES
        counting = import_openvino().Core().compile_model(self.model.model, device, properties)
        return explain_nodes(
            self.generate,
            prompt_ids,
            workload,
            counting.create_infer_request(),
            (self.model, "request"),
            node_cost_ns(device),
        )

    def described(self) -> dict[str, Any]:
        return super().described() | {"model_class": type(self.model).__name__}

    def close(self) -> None:
        PyTorchRuntime.close(self)
        OpenVinoRuntime.close(self)
