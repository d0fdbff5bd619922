"""OpenVINO's base runtime: `openvino.Core` on a stateful IR, with a greedy loop of our own."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xpubench.errors import RunFailure
from xpubench.measure.times import TokenTimes
from xpubench.record import SyncPolicy
from xpubench.runtimes.base import Generation, Logits, Rows, Scorer, TokenIds, Verification
from xpubench.runtimes.openvino import ir
from xpubench.runtimes.openvino.common import OpenVinoRuntime
from xpubench.runtimes.openvino.options import IR_FILE, OpenVinoBaseDescription
from xpubench.runtimes.openvino.stack import import_openvino
from xpubench.runtimes.options import RuntimeDescription
from xpubench.spec import Subject, Workload

# At most this many rows of logits are held in float32 at once.
ROWS_AT_ONCE = 512


class BaseRuntime(OpenVinoRuntime):
    """One infer request on the compiled IR, whose state holds the KV cache."""

    scores_rows_alone = False

    def __init__(self, subject: Subject, directory: Path) -> None:
        super().__init__(subject, directory)
        self._core = import_openvino().Core()
        self._device = ir.options_of(subject).device
        model = self._read()
        self._weight_bytes, self._step_weight_bytes = ir.weight_sizes(model)
        self.last_row_alone = _slice_before_head(model)
        self._compiled = self._core.compile_model(model, self._device, self.asked)
        self._request = self._compiled.create_infer_request()
        self._inputs = {one.get_any_name() for one in self._compiled.inputs}

    @property
    def scorer(self) -> Scorer | None:
        return self

    @classmethod
    def load(cls, subject: Subject) -> Self:
        """Compiles the subject's IR, which `fetch` has made."""
        return cls(subject, ir.ir_directory(subject))

    def prepare(self, workload: Workload) -> None:
        ir.refuse_static_cache(workload.cache)
        if workload.num_beams > 1:
            raise RunFailure(
                "unsupported",
                "openvino-base has no beam search; give --greedy, or --runtime openvino or openvino-genai",
            )

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        stamps: list[int] = []
        tokens = np.empty((len(prompt_ids), workload.new_tokens), dtype=np.int64)
        start_ns = perf_counter_ns()
        for step, logits in enumerate(self._steps(prompt_ids, tokens)):
            tokens[:, step] = logits.argmax(-1)
            if sync_policy == "every_token":
                stamps.append(perf_counter_ns())
        end_ns = perf_counter_ns()
        return Generation(
            tokens=tokens,
            times=TokenTimes(sync_policy=sync_policy, start_ns=start_ns, token_ns=stamps, end_ns=end_ns),
        )

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        tokens = np.empty((len(prompt_ids), workload.new_tokens), dtype=np.int64)
        finite = True
        for step, logits in enumerate(self._steps(prompt_ids, tokens)):
            finite = finite and bool(np.isfinite(logits).all())
            tokens[:, step] = logits.argmax(-1)
        return Verification(
            tokens=tokens, logits_finite=finite, cache="state of the IR", cache_positions=None
        )

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        tokens = np.empty((len(prompt_ids), workload.new_tokens), dtype=np.int64)
        kept = []
        for step, logits in enumerate(self._steps(prompt_ids, tokens)):
            kept.append(logits.astype(np.float32, copy=True))
            tokens[:, step] = logits.argmax(-1) if forced is None else forced[:, step]
        return tokens, np.stack(kept, axis=1)

    def target_logprobs(
        self, token_ids: TokenIds, rows: Rows, targets: TokenIds
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        request = self._scoring_request
        request.reset_state()
        request.infer(self._feed(token_ids, np.ones_like(token_ids), 0), share_inputs=True)
        logits = request.get_tensor("logits").data[rows]
        logprobs, best = [], []
        for start in range(0, len(logits), ROWS_AT_ONCE):
            part = logits[start : start + ROWS_AT_ONCE].astype(np.float32)
            wanted = targets[start : start + len(part)]
            highest = part.max(-1)
            total = np.log(np.exp(part - highest[:, None]).sum(-1)) + highest
            logprobs.append(part[np.arange(len(part)), wanted] - total)
            best.append(part.argmax(-1) == wanted)
        return np.concatenate(logprobs), np.concatenate(best)

    def kv_value_bytes(self, head_dim: int) -> float:
        return ir.kv_value_bytes(self.subject, self._compiled, head_dim)

    def describe(self) -> RuntimeDescription:
        return OpenVinoBaseDescription(
            **self.described(),
            applied=ir.applied(self._compiled, self.asked),
            last_row_alone=self.last_row_alone,
        )

    def doubts(self) -> list[str]:
        return ir.doubts(self.subject, self.asked, ir.applied(self._compiled, self.asked))

    def close(self) -> None:
        self._request = self._compiled = None
        self.__dict__.pop("_scoring_request", None)
        self._torch.end()

    def _steps(self, prompt_ids: TokenIds, tokens: TokenIds) -> Iterator[NDArray[np.float32]]:
        """Each step's logits, of shape (batch, vocabulary), valid until the next one. Before it goes on, the
        caller writes the step's choice to its column of `tokens`, of shape (batch, steps)."""
        batch, length = prompt_ids.shape
        steps = tokens.shape[1]
        mask = np.ones((batch, length + steps), dtype=np.int64)
        request = self._request
        request.reset_state()
        ids = prompt_ids
        for step in range(steps):
            done = 0 if step == 0 else length + step - 1
            request.infer(self._feed(ids, mask[:, : done + ids.shape[1]], done), share_inputs=True)
            yield request.get_tensor("logits").data[:, -1]
            ids = tokens[:, step : step + 1]

    def _feed(self, ids: TokenIds, mask: TokenIds, done: int) -> dict[str, TokenIds | NDArray[np.int32]]:
        """The model's inputs for `ids` after `done` positions, of those that this one has."""
        batch, length = ids.shape
        feed: dict[str, Any] = {
            "input_ids": np.ascontiguousarray(ids),
            "attention_mask": np.ascontiguousarray(mask),
            "beam_idx": np.arange(batch, dtype=np.int32),
        }
        if "position_ids" in self._inputs:
            feed["position_ids"] = np.ascontiguousarray(
                np.broadcast_to(np.arange(done, done + length, dtype=np.int64), (batch, length))
            )
        return feed

    def _read(self) -> Any:
        return self._core.read_model(self.directory / IR_FILE)

    @cached_property
    def _scoring_request(self) -> Any:
        """A request on the whole IR, with the logits of each position; made when scores are first asked."""
        return self._core.compile_model(self._read(), self._device, self.asked).create_infer_request()


def _slice_before_head(model: Any) -> bool:
    """Lets the output head see the last position alone, as generation needs no other: over a long prompt the
    head costs as much as several layers. Whether the graph's end was the expected one."""
    from openvino import opset13

    result = next(one for one in model.get_results() if "logits" in one.get_input_tensor(0).names)
    node = result.input_value(0).get_node()
    while node.get_type_name() in ("Add", "Convert", "Divide", "Multiply", "Tanh"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "MatMul" or len(node.get_input_partial_shape(0)) != 3:
        return False
    one = opset13.constant(np.array([1], dtype=np.int64))
    last = opset13.slice(
        node.input_value(0),
        opset13.constant(np.array([-1], dtype=np.int64)),
        opset13.constant(np.array([np.iinfo(np.int64).max], dtype=np.int64)),
        one,
        one,
    )
    node.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()
    return True
