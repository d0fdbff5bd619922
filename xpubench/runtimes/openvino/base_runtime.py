"""OpenVINO's base runtime: `openvino.Core` on a stateful IR, with this project's own generation loops."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xpubench.measure.ledger.measured import Measured
from xpubench.measure.logits import LogitsSamples
from xpubench.measure.times import TokenTimes
from xpubench.record import SyncPolicy
from xpubench.runtimes.base import Explainer, Generation, Logits, Rows, Scorer, Scores, TokenIds, Verification
from xpubench.runtimes.openvino import ir
from xpubench.runtimes.openvino.beams import BeamSearch
from xpubench.runtimes.openvino.ledger import COUNT_NODES, explain_nodes, node_cost_ns
from xpubench.runtimes.openvino.options import IR_FILE
from xpubench.runtimes.openvino.runtime import OpenVinoRuntime
from xpubench.runtimes.openvino.stack import import_openvino
from xpubench.runtimes.pytorch.scoring import ROWS_AT_ONCE, regrets_of_beginnings, scores
from xpubench.spec import Subject, Workload


class BaseRuntime(OpenVinoRuntime):
    """Runs a compiled IR through one infer request, whose state holds the KV cache."""

    scores_rows_alone = False

    def __init__(self, subject: Subject, directory: Path) -> None:
        super().__init__(subject, directory)
        self._core = import_openvino().Core()
        model, self.last_row_alone = self._model()
        self._weight_bytes, self._step_weight_bytes = ir.weight_sizes(model)
        self._compiled = self._compile(model)
        self._request = self._compiled.create_infer_request()
        self._inputs = {one.get_any_name() for one in self._compiled.inputs}

    @property
    def scorer(self) -> Scorer | None:
        return self

    @property
    def explainer(self) -> Explainer | None:
        return self

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        stamps: list[int] = []
        beams, steps = workload.num_beams, workload.new_tokens
        watch = LogitsSamples(self.vocabulary.size)
        start_ns = perf_counter_ns()
        # The beams of a prompt are successive rows from the start, as in transformers.
        prompts = np.repeat(prompt_ids, beams, axis=0) if beams > 1 else prompt_ids
        tokens = np.empty((len(prompts), steps), dtype=np.int64)
        rows = np.arange(len(prompts), dtype=np.int32)
        search = BeamSearch(len(prompt_ids), beams) if beams > 1 else None
        for step, logits in enumerate(self._steps(prompts, tokens, rows)):
            most = logits.argmax(-1)
            watch.see(logits, most)
            if search is None:
                tokens[:, step] = most
            else:
                rows[:], tokens[:, step] = search.choose(logits)
            if sync_policy == "every_token":
                stamps.append(perf_counter_ns())
        if search is not None:
            tokens = search.best()
        end_ns = perf_counter_ns()
        times = TokenTimes(sync_policy=sync_policy, start_ns=start_ns, token_ns=stamps, end_ns=end_ns)
        return Generation(tokens=tokens, times=times, logits=watch.facts())

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        generation = self.generate(prompt_ids, workload, "end_to_end")
        return Verification(tokens=generation.tokens, logits=generation.logits, cache=ir.CACHE)

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        tokens = np.empty((len(prompt_ids), workload.new_tokens), dtype=np.int64)
        kept = []
        for step, logits in enumerate(self._steps(prompt_ids, tokens)):
            kept.append(logits.astype(np.float32, copy=True))
            tokens[:, step] = logits.argmax(-1) if forced is None else forced[:, step]
        return tokens, np.stack(kept, axis=1)

    def target_logprobs(self, token_ids: TokenIds, rows: Rows, targets: TokenIds) -> Scores:
        request = self._scoring_request
        request.reset_state()
        own = np.arange(len(token_ids), dtype=np.int32)
        _infer(request, self._feed(token_ids, np.ones_like(token_ids), own, 0))
        logits = torch.from_numpy(request.get_tensor("logits").data[rows])
        return scores(logits.split(ROWS_AT_ONCE), targets)

    def regrets(self, prompt_ids: TokenIds, tokens: TokenIds, rank: int) -> NDArray[np.float32]:
        """Scores each token by generating from the beginnings of the sequence, because the IR that gives the
        logits of all positions would have to be compiled first."""

        def last_logits(token_ids: TokenIds) -> NDArray[np.float32]:
            (logits,) = self._steps(token_ids, np.empty((1, 1), dtype=np.int64))
            return logits

        return regrets_of_beginnings(prompt_ids, tokens, rank, last_logits)

    def described(self) -> dict[str, Any]:
        return super().described() | {"last_row_alone": self.last_row_alone}

    def explain(self, prompt_ids: TokenIds, workload: Workload) -> Measured:
        counting = self._compile(self._model()[0], COUNT_NODES).create_infer_request()
        cost_ns = node_cost_ns(ir.options_of(self.subject).device)
        return explain_nodes(self.generate, prompt_ids, workload, counting, (self, "_request"), cost_ns)

    def close(self) -> None:
        self._request = None
        self.__dict__.pop("_scoring_request", None)
        super().close()

    def _steps(
        self, prompt_ids: TokenIds, tokens: TokenIds, rows: NDArray[np.int32] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yields each step's logits, of shape (batch, vocabulary), which are valid until the next step.
        Before that, the caller writes the chosen tokens to this step's column of `tokens`, of shape (batch,
        steps), and to `rows`, of shape (batch,), the row that each of them continues. Without `rows`, each
        row continues itself."""
        batch, length = prompt_ids.shape
        steps = tokens.shape[1]
        mask = np.ones((batch, length + steps), dtype=np.int64)
        rows = np.arange(batch, dtype=np.int32) if rows is None else rows
        request = self._request
        request.reset_state()
        ids = prompt_ids
        for step in range(steps):
            done = 0 if step == 0 else length + step - 1
            _infer(request, self._feed(ids, mask[:, : done + ids.shape[1]], rows, done))
            yield request.get_tensor("logits").data[:, -1]
            ids = tokens[:, step : step + 1]

    def _feed(self, ids: TokenIds, mask: TokenIds, rows: NDArray[np.int32], done: int) -> dict[str, Any]:
        """The inputs that this model takes, for `ids` after `done` positions in the `rows` of the cache."""
        batch, length = ids.shape
        feed: dict[str, Any] = {
            "input_ids": np.ascontiguousarray(ids),
            "attention_mask": np.ascontiguousarray(mask),
            "beam_idx": rows,
        }
        if "position_ids" in self._inputs:
            feed["position_ids"] = np.tile(np.arange(done, done + length, dtype=np.int64), (batch, 1))
        return feed

    def _model(self) -> tuple[Any, bool]:
        """The IR, and whether it could be changed so that its output head sees only the last position."""
        model = self._core.read_model(self.directory / IR_FILE)
        return model, _slice_before_head(model)

    def _compile(self, model: Any, more: dict[str, Any] | None = None) -> Any:
        return self._core.compile_model(model, ir.options_of(self.subject).device, self.asked | (more or {}))

    @cached_property
    def _scoring_request(self) -> Any:
        """A request on the unchanged IR, which gives the logits of every position. It is made when it is
        first used."""
        return self._compile(self._core.read_model(self.directory / IR_FILE)).create_infer_request()


def _infer(request: Any, feed: dict[str, Any]) -> None:
    """Runs an inference and leaves the results in the request, because `infer` would copy all of them."""
    request.start_async(feed, share_inputs=True)
    request.wait()


def _slice_before_head(model: Any) -> bool:
    """Changes the model so that the output head sees only the last position, because generation needs no
    other: over a long prompt the head costs as much as several layers. Returns False, and changes nothing,
    where the graph does not end in a known way."""
    from openvino import opset13

    result = next(one for one in model.get_results() if "logits" in one.get_input_tensor(0).names)
    node = result.input_value(0).get_node()
    while node.get_type_name() in ("Add", "Convert", "Divide", "Multiply", "Tanh"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "MatMul" or len(node.get_input_partial_shape(0)) != 3:
        return False
    start, stop, step, axis = (
        opset13.constant(np.array([value], dtype=np.int64)) for value in (-1, np.iinfo(np.int64).max, 1, 1)
    )
    last = opset13.slice(node.input_value(0), start, stop, step, axis)
    node.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()
    return True
