"""Observers of transformers' `generate` through its public arguments: times, logits, finiteness."""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessor, StoppingCriteria


class TokenClock(StoppingCriteria):  # type: ignore[misc]  # transformers carries no types here
    """Stamps every step of greedy search, sampling and beam search, and never stops one. Stopping criteria
    run after a step's token is chosen, so a stamp after `synchronize` is the moment when the host knows
    it."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.stamps_ns: list[int] = []
        self._synchronize = synchronize
        self._no_stops: torch.Tensor | None = None

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
        self._forced = forced

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = len(self.logits)
        # Without a copy, the array would share memory on the CPU that later steps may write to.
        self.logits.append(scores.float().cpu().numpy().copy())
        if self._forced is None:
            return scores
        return torch.full_like(scores, -torch.inf).scatter(1, self._forced[:, step : step + 1], 0.0)


class LogitsWatch(LogitsProcessor):  # type: ignore[misc]  # transformers carries no types here
    """Remembers on the device whether the logits of all steps were finite."""

    def __init__(self) -> None:
        self._all_finite: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        finite = torch.isfinite(scores).all()
        self._all_finite = finite if self._all_finite is None else self._all_finite & finite
        return scores

    @property
    def all_finite(self) -> bool:
        return self._all_finite is None or bool(self._all_finite)
