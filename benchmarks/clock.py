"""The clock and the watch on the logits against bare `generate`, same model and shape, in turns."""

from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter_ns

import torch
from scipy.stats import quantile_test
from transformers import LogitsProcessorList, StoppingCriteriaList

from benchmarks.goal import Goal
from xpubench.measure.clock import LogitsWatch, TokenClock
from xpubench.measure.device import synchronizer
from xpubench.prompts import random_prompt
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.spec import Subject

# Short calls in many pairs: what disturbs the machine for a second then falls on both sides of few pairs.
PAIRS = 100
NEW_TOKENS = 12
INPUT_TOKENS = 16
LIMIT = 1.01


class Stopwatch:
    """Adds up the time inside another object's calls, in nanoseconds."""

    def __init__(self, inner: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.inner = inner
        self.total_ns = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        start = perf_counter_ns()
        result = self.inner(input_ids, scores)
        self.total_ns += perf_counter_ns() - start
        return result


def run() -> Iterator[Goal]:
    """Next token latency with both / without, and the share of it that passes inside of them, which is far
    less noisy and does not see what they cost elsewhere. The bare one cannot see tokens: both are the time of
    the whole call less that of a call for one token, over the tokens after the first."""
    runtime = PyTorchRuntime.load(Subject(model="smollm2-135m", device="cpu", dtype="bfloat16"))
    model = runtime.model
    prompt = random_prompt(
        runtime.vocabulary.size,
        runtime.vocabulary.special_ids,
        batch_size=1,
        length=INPUT_TOKENS,
        seed=0,
        index=0,
    )
    ids = torch.from_numpy(prompt)

    inside_ns = []

    def call_ns(new_tokens: int, clocked: bool) -> int:
        added = Stopwatch(TokenClock(synchronizer("cpu"))), Stopwatch(LogitsWatch())
        criteria = StoppingCriteriaList([added[0]]) if clocked else None
        processors = LogitsProcessorList([added[1]]) if clocked else None
        with torch.inference_mode():
            start = perf_counter_ns()
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                stopping_criteria=criteria,
                logits_processor=processors,
            )
            end = perf_counter_ns()
        if clocked:
            inside_ns.append(sum(one.total_ns for one in added) / new_tokens)
        return end - start

    for clocked in (True, False):
        call_ns(NEW_TOKENS, clocked)
    ratios, clocked_ms, bare_ms = [], [], []
    for pair in range(PAIRS):
        first = call_ns(1, False)
        sides = {clocked: call_ns(NEW_TOKENS, clocked) - first for clocked in (pair % 2 == 0, pair % 2 == 1)}
        ratios.append(sides[True] / sides[False])
        clocked_ms.append(sides[True] / (NEW_TOKENS - 1) / 1e6)
        bare_ms.append(sides[False] / (NEW_TOKENS - 1) / 1e6)
    low, high = quantile_test(ratios, p=0.5).confidence_interval()
    detail = (
        f"median of {PAIRS} pairs, its 95% interval {low:.3f} to {high:.3f}; next token "
        f"{median(clocked_ms):.3f} ms with the clock, {median(bare_ms):.3f} ms without"
    )
    yield Goal("next token latency, clock and checks / bare generate", median(ratios), LIMIT, "", detail, low)
    share = median(inside_ns) / 1e6 / median(clocked_ms)
    detail = f"median of {len(inside_ns)} generations, {median(inside_ns) / 1e3:.1f} µs a token"
    yield Goal("time inside clock and checks / next token latency", share, LIMIT - 1, "", detail)
