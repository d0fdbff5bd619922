"""The clock and the watch on the logits against bare `generate`, same model and shape, in turns."""

from collections.abc import Iterator
from statistics import median
from time import perf_counter_ns

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from benchmarks.goal import Goal
from xpubench.measure.clock import LogitsWatch, TokenClock
from xpubench.measure.device import synchronizer
from xpubench.prompts import random_prompt
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.spec import Subject

PAIRS = 15
NEW_TOKENS = 48
INPUT_TOKENS = 16
LIMIT = 1.01


def run() -> Iterator[Goal]:
    """Next token latency with both / without. The bare one cannot see tokens: both are the time of the
    whole call less that of a call for one token, over the tokens after the first."""
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

    def call_ns(new_tokens: int, clocked: bool) -> int:
        criteria = StoppingCriteriaList([TokenClock(synchronizer("cpu"))]) if clocked else None
        processors = LogitsProcessorList([LogitsWatch()]) if clocked else None
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
            return perf_counter_ns() - start

    for clocked in (True, False):
        call_ns(NEW_TOKENS, clocked)
    first = median(call_ns(1, False) for _ in range(5))
    ratios, clocked_ms, bare_ms = [], [], []
    for pair in range(PAIRS):
        sides = {clocked: call_ns(NEW_TOKENS, clocked) - first for clocked in (pair % 2 == 0, pair % 2 == 1)}
        ratios.append(sides[True] / sides[False])
        clocked_ms.append(sides[True] / (NEW_TOKENS - 1) / 1e6)
        bare_ms.append(sides[False] / (NEW_TOKENS - 1) / 1e6)
    detail = (
        f"median of {PAIRS} pairs, {min(ratios):.3f} to {max(ratios):.3f}; next token "
        f"{median(clocked_ms):.3f} ms with the clock, {median(bare_ms):.3f} ms without"
    )
    yield Goal("next token latency, clock and checks / bare generate", median(ratios), LIMIT, "", detail)
