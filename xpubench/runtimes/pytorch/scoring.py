"""The logits of a transformers model: those of each step of a generation, and those of a text's positions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessorList

from xpubench.failures import is_out_of_memory
from xpubench.measure.clock import LogitsTracer
from xpubench.runtimes.base import Logits, Rows, Scores, TokenIds
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import Workload

# At most this many rows of logits exist in float32 at once: 512 rows of 150,000 logits take 0.3 GB.
ROWS_AT_ONCE = 512


class TransformersScorer(ABC):
    """Scores texts with `model`, a transformers model."""

    model: Any
    vocabulary: Vocabulary

    @abstractmethod
    def inference(self) -> AbstractContextManager[None]:
        """The context managers within which the model runs."""

    @abstractmethod
    def generated(self, prompt_ids: TokenIds, workload: Workload, **more: Any) -> tuple[TokenIds, Any]:
        """Calls `generate` with `more` arguments: the new tokens, and what it returned."""

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        return self.traced(prompt_ids, workload, forced)

    def traced(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        """Does the part of `trace` that runs in this process, also where other ranks take part."""
        tracer = LogitsTracer(None if forced is None else self.on_device(forced))
        tokens, _ = self.generated(prompt_ids, workload, logits_processor=LogitsProcessorList([tracer]))
        return tokens, np.stack(tracer.logits, axis=1)

    def target_logprobs(self, token_ids: TokenIds, rows: Rows, targets: TokenIds) -> Scores:
        with self.inference():
            return scores(self._row_logits(self.on_device(token_ids), self.on_device(rows)), targets)

    def regrets(self, prompt_ids: TokenIds, tokens: TokenIds, rank: int) -> NDArray[np.float32]:
        token_ids = np.concatenate([prompt_ids, tokens], axis=1)
        rows = np.zeros_like(token_ids, dtype=np.bool_)
        # The logits of a position are those of the token after it.
        rows[:, prompt_ids.shape[1] - 1 : -1] = True
        with self.inference():
            return regrets(self._row_logits(self.on_device(token_ids), self.on_device(rows)), tokens[0], rank)

    def on_device(self, array: TokenIds | Rows) -> torch.Tensor:
        return torch.from_numpy(array).to(self.model.device)

    def _row_logits(self, input_ids: torch.Tensor, chosen: torch.Tensor) -> Iterator[torch.Tensor]:
        """The logits of the chosen positions, in chunks. Where output head and body can be separated, the
        head is computed for those positions only, because over a long prompt it costs as much as several
        layers."""
        if self.scores_rows_alone:
            for part in self._hidden(input_ids)[chosen].split(ROWS_AT_ONCE):
                # Sharded heads take only batches.
                yield self.model.get_output_embeddings()(part[None])[0]
        else:
            yield from self.all_logits(input_ids)[chosen].split(ROWS_AT_ONCE)

    def _hidden(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        return hidden

    def all_logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The logits of every position of texts without padding, of shape (batch, length, vocabulary)."""
        output = self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
        logits: torch.Tensor = output["logits"] if isinstance(output, dict) else output[0]
        return logits

    @cached_property
    def scores_rows_alone(self) -> bool:
        """Whether the logits are the output head over the body's hidden states and nothing else. A short
        input shows it: some models scale or cap them, and IPEX and remote code may hide the parts."""
        input_ids = torch.arange(8, device=self.model.device)[None] % self.vocabulary.size
        try:
            with self.inference():
                apart = self.model.get_output_embeddings()(self._hidden(input_ids)).float()
                whole = self.all_logits(input_ids).float()
        except (AttributeError, TypeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            return False
        return apart.shape == whole.shape and bool(torch.allclose(apart, whole, rtol=1e-3, atol=1e-3))


def regrets(chunks: Iterable[torch.Tensor], tokens: TokenIds, rank: int) -> NDArray[np.float32]:
    """`Scorer.regrets` of tokens, of shape (positions,), from logits of shape (positions, vocabulary) in
    chunks."""
    found, start = [], 0
    for chunk in chunks:
        logits = chunk.float()
        chosen = logits.gather(
            -1, torch.from_numpy(tokens[start : start + len(logits), None]).to(logits.device)
        )
        lowest = logits.topk(rank, dim=-1).values[:, -1:]
        found.append(((lowest - chosen).clamp(min=0) / logits.std(-1, keepdim=True))[:, 0].cpu().numpy())
        start += len(logits)
    return np.concatenate(found)


def regrets_of_beginnings(
    prompt_ids: TokenIds, tokens: TokenIds, rank: int, last_logits: Callable[[TokenIds], Logits]
) -> NDArray[np.float32]:
    """`Scorer.regrets` of the first, the middle and the last token, each after a prompt that ends in those
    before it, for a stack that gives the logits of the last position alone: `last_logits` of token ids of
    shape (1, length) has the shape (1, vocabulary)."""
    found = []
    for place in sorted({0, tokens.shape[1] // 2, tokens.shape[1] - 1}):
        beginning = np.concatenate([prompt_ids, tokens[:, :place]], axis=1)
        logits = torch.from_numpy(last_logits(beginning))
        found.append(regrets([logits], tokens[0, place : place + 1], rank))
    return np.concatenate(found)


def scores(chunks: Iterable[torch.Tensor], targets: TokenIds) -> Scores:
    """The log-probability of each target, computed in float32, and whether it is the most probable token.
    The chunks are logits of shape (positions, vocabulary), in the order of `targets`."""
    logprobs, best, start = [], [], 0
    for chunk in chunks:
        logits = chunk.float()
        wanted = torch.from_numpy(targets[start : start + len(logits)]).to(logits.device)
        chosen = logits.gather(-1, wanted[:, None])[:, 0]
        logprobs.append((chosen - logits.logsumexp(-1)).cpu().numpy())
        best.append((logits.argmax(-1) == wanted).cpu().numpy())
        start += len(logits)
    return np.concatenate(logprobs), np.concatenate(best)
