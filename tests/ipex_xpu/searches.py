"""`python -m tests.ipex_xpu.searches MODEL float16|int4`: the tokens of IPEX's searches one after the other.

It prints a JSON object with the tokens of each run of greedy search and of four beams, whatever ran before.
"""

import json
import sys

import numpy as np

from tests.ipex_xpu.models import GROUP
from xpubench.runtimes import registry
from xpubench.runtimes.ipex.options import IpexOptions
from xpubench.spec import Cache, Quantization, Subject, Workload

SEARCHES: tuple[tuple[int, Cache], ...] = (
    *((1, "static"), (4, "static"), (1, "static"), (1, "dynamic")),
    *((4, "dynamic"), (4, "static"), (1, "dynamic"), (1, "static")),
)


def main(model: str, weights: str) -> None:
    """Loads the model once and searches."""
    loader = registry.loader(IpexOptions.name())
    recipe = Quantization(group_size=GROUP, head="high") if weights == "int4" else None
    subject = Subject(model=model, device="xpu", dtype="float16", options=IpexOptions(), quantization=recipe)
    loader.set_up()
    runtime = loader.load(subject)
    prompts = np.arange(5, 29, dtype=np.int64).reshape(2, 12)
    answers: dict[int, list[object]] = {}
    for num_beams, cache in SEARCHES:
        workload = Workload(input_tokens=12, new_tokens=8, batch_size=2, num_beams=num_beams, cache=cache)
        runtime.prepare(workload)
        tokens = runtime.generate(prompts, workload, "end_to_end").tokens
        answers.setdefault(num_beams, []).append(tokens.tolist())
    print("\n" + json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
