"""Observers of transformers' `generate` through its public arguments: times, logits, finiteness."""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessor, StoppingCriteria

from xpubench.measure.times import LogitsFacts


class TokenClock(StoppingCriteria):  # type: ignore[misc]  # transformers carries no types here
    """Stamps every step of greedy search, sampling and beam search, and never stops one. Stopping criteria
    run after a step's token is chosen, so a stamp after `synchronize` is the moment when the host knows
    it."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.stamps_ns: list[int] = []
        self._synchronize = synchronize
        self._no_stops: torch.Tensor | None = None

    def begin(self) -> int:
        """The time at which a generation begins, in nanoseconds."""
        return perf_counter_ns()

    def stamp(self) -> None:
        """Notes the time when the device has done all its work so far."""
        self._synchronize()
        self.stamps_ns.append(perf_counter_ns())

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.stamp()
        if self._no_stops is None or self._no_stops.shape[0] != input_ids.shape[0]:
            self._no_stops = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        return self._no_stops


class LogitsTracer(LogitsProcessor):  # type: ignore[misc]  # transformers carries no types here
    """Keeps each step's logits, float32 of shape (batch, vocabulary), on the host. With `forced` tokens, of
    shape (batch, steps), the generation can choose only those."""

    def __init__(self, forced: torch.Tensor | None) -> None:
        self.logits: list[NDArray[np.float32]] = []
        self.forced = forced

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = len(self.logits)
        # Without a copy, the array on the CPU would share memory that later steps may overwrite.
        self.logits.append(scores.float().cpu().numpy().copy())
        if self.forced is None:
            return scores
        return torch.full_like(scores, -torch.inf).scatter(1, self.forced[:, step : step + 1], 0.0)


class LogitsWatch(LogitsProcessor):  # type: ignore[misc]  # transformers carries no types here
    """Keeps the smallest and the largest logit of each sequence at each step on the device. This takes one
    kernel a step, and nothing waits for it: the values are read when the generation is over."""

    def __init__(self) -> None:
        self._least: list[torch.Tensor] = []
        self._most: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        least, most = torch.aminmax(scores, dim=-1)
        self._least.append(least)
        self._most.append(most)
        return scores

    def facts(self) -> LogitsFacts | None:
        """What the kept logits say; None where no step has shown its logits."""
        if not self._least:
            return None
        # The difference of NaN or infinite logits is not finite.
        spread = torch.cat(self._most).double() - torch.cat(self._least).double()
        return LogitsFacts(finite=bool(spread.isfinite().all()), constant=bool((spread == 0).any()))
