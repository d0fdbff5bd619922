"""What an event costs that torch's profiler records, from a small model of which some tokens are profiled."""

from functools import cache
from statistics import fmean, median
from time import perf_counter_ns

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, StoppingCriteriaList

from xpubench.measure.clock import TokenClock
from xpubench.measure.ledger.measured import MOST_GENERATIONS
from xpubench.measure.ledger.middle import middle_mean
from xpubench.measure.ledger.processors import Waits
from xpubench.measure.ledger.trace import read_trace
from xpubench.measure.times import TokenTimes
from xpubench.runtimes.pytorch.explain import ExplainedGeneration, bare_ns, generation

# A block's weights are 8 MiB, more than most cores have of cache for themselves. In a model whose weights
# stay there, so does what the profiler writes, and an event takes two thirds of its time in a real model.
SIZES = {
    "vocab_size": 64,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
TOKENS, ROUNDS = 24, 3


@cache
def event_cost_ns(device: str) -> float:
    """The nanoseconds by which one event lengthens a token: the median over rounds of the difference between
    the next tokens that are profiled and those that are not, by their events."""
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval().to(device)
    model.generation_config = GenerationConfig(pad_token_id=0)
    ids = torch.ones(1, 4, dtype=torch.int64, device=device)

    def timed(clock: TokenClock) -> TokenTimes:
        start_ns = clock.begin()
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=TOKENS,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([clock]),
            )
        return TokenTimes(
            sync_policy="every_token",
            start_ns=start_ns,
            token_ns=clock.stamps_ns,
            end_ns=perf_counter_ns(),
        )

    def made() -> list[ExplainedGeneration]:
        return [generation(timed, device, number, Waits()) for number in range(MOST_GENERATIONS)]

    # The first round also pays for what is set up once.
    events = fmean(_events(one) for one in made() if one.trace is not None)
    return max(median(_longer_ns(made()) for _ in range(ROUNDS)) / events, 0.0)


def _events(one: ExplainedGeneration) -> float:
    """The events in each recorded token of a generation."""
    assert one.trace is not None
    return len(read_trace(one.trace).calls) / sum(one.recorded[: len(one.token_ns)])


def _longer_ns(made: list[ExplainedGeneration]) -> float:
    """By how much the next tokens that were recorded are longer than the others."""
    steps = [pair for one in made for pair in zip(one.token_ns[1:], one.recorded[1:], strict=False)]
    recorded = [ns for ns, on in steps if on]
    return middle_mean(recorded) - middle_mean([ns for one in made for ns in bare_ns(one)[1]])
