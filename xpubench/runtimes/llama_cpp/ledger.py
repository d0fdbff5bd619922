"""Where the time of a token goes in llama.cpp, from its own counters."""

from collections.abc import Callable
from itertools import pairwise

from xpubench.measure.ledger.inside import InsideTimes, explain_inside
from xpubench.measure.ledger.measured import Measured
from xpubench.measure.ledger.processors import Waits
from xpubench.runtimes.base import Generation
from xpubench.runtimes.llama_cpp.options import LlamaPerf

GENERATIONS = 2
METHOD = f"llama.cpp's own counters in {GENERATIONS} generations"


def explain(generated: Callable[[], tuple[Generation, list[LlamaPerf]]]) -> Measured:
    """Measures the tokens of some generations. `generated` makes one and returns it with llama.cpp's counters
    before it and at each token; the growth of the evaluation times is the time inside the stack. llama.cpp
    counts steps of several sequences as evaluations of prompts."""
    waits, found = Waits(), []
    for _ in range(GENERATIONS):
        with waits.watching():
            generation, counters = generated()
        inside = [
            1e6 * (_evaluation_ms(after) - _evaluation_ms(before)) for before, after in pairwise(counters)
        ]
        found.append(InsideTimes(times=generation.times, inside_ns=inside))
    return explain_inside(METHOD, found, waits.share)


def _evaluation_ms(one: LlamaPerf) -> float:
    return one.prompt_ms + one.eval_ms
