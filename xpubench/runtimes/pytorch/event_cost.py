"""What an event costs that torch's profiler records, from a small model that is run with the profiler and
without it."""

from functools import cache
from statistics import median
from time import perf_counter_ns, thread_time_ns

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, StoppingCriteriaList

from xpubench.measure.clock import TokenClock
from xpubench.measure.device import synchronizer
from xpubench.measure.ledger.processors import Waits
from xpubench.measure.ledger.trace import read_trace
from xpubench.measure.times import TokenTimes
from xpubench.runtimes.pytorch.explain import traced

# Its operators compute next to nothing, so that the events are as dense as they are beside a real model's
# small operators.
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
TOKENS, ROUNDS = 12, 5


@cache
def event_cost_ns(device: str) -> float:
    """The nanoseconds of the host's thread that one event takes: the median over rounds of the difference
    between a generation with the profiler and one without, in CPU time, which other processes do not
    lengthen."""
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval().to(device)
    model.generation_config = GenerationConfig(pad_token_id=0)
    ids = torch.ones(1, 4, dtype=torch.int64, device=device)
    spent: list[int] = []

    def timed(clock: TokenClock) -> TokenTimes:
        start_ns, cpu_ns = clock.begin(), thread_time_ns()
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=TOKENS,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([clock]),
            )
        spent.append(thread_time_ns() - cpu_ns)
        return TokenTimes(
            sync_policy="every_token",
            start_ns=start_ns,
            token_ns=clock.stamps_ns,
            end_ns=perf_counter_ns(),
        )

    costs = []
    # The first round also pays for what is set up once.
    for _ in range(1 + ROUNDS):
        timed(TokenClock(synchronizer(device)))
        trace, _ = traced(timed, device, TOKENS, Waits())
        bare_ns, profiled_ns = spent[-2:]
        costs.append((profiled_ns - bare_ns) / len(read_trace(trace).calls))
    return max(median(costs[1:]), 0.0)
