"""The smallest worker that really generates and takes turns: a small decoder of random weights in Python.

It stands for the interpreter of a side of `xpubench compare --live`, which starts it for each block anew. It
reads an order, generates greedily whenever it has its turn, and writes its record: that in the file of the
variable LIGHT_TEMPLATE with its own samples. LIGHT_SLOWER is a factor by which each token takes longer. It
imports the standard library alone, as NumPy's import would take longer than all of its generations.
"""

import json
import os
import random
import sys
from collections.abc import Sequence
from itertools import pairwise
from math import exp, sqrt
from operator import mul
from time import perf_counter_ns

WIDTH, HIDDEN, LAYERS, VOCABULARY = 16, 32, 2, 64
PROMPT = (1, 2)
NEW_TOKENS = 12

Row = list[float]


class Decoder:
    """Blocks of causal attention with a cache and of a gated product, with residuals and norms."""

    def __init__(self) -> None:
        source = random.Random(0)

        def weights(rows: int, columns: int) -> list[Row]:
            return [[source.gauss(0, columns**-0.5) for _ in range(columns)] for _ in range(rows)]

        square, wide = (WIDTH, WIDTH), (HIDDEN, WIDTH)
        self.table = weights(VOCABULARY, WIDTH)
        self.blocks = [
            [weights(*shape) for shape in (square, square, square, square, wide, wide, wide[::-1])]
            for _ in range(LAYERS)
        ]
        self.cache: list[tuple[list[Row], list[Row]]] = [([], []) for _ in range(LAYERS)]

    def step(self, token: int) -> int:
        """The token after the one that is given."""
        state = self.table[token]
        for (query, key, value, out, gate, up, down), (keys, values) in zip(
            self.blocks, self.cache, strict=True
        ):
            normed = _normed(state)
            keys.append(_product(key, normed))
            values.append(_product(value, normed))
            scores = [exp(score / sqrt(WIDTH)) for score in _product(keys, _product(query, normed))]
            total = sum(scores)
            mixed = [sum(map(mul, scores, column)) / total for column in zip(*values, strict=True)]
            state = [one + more for one, more in zip(state, _product(out, mixed), strict=True)]
            normed = _normed(state)
            hidden = [
                max(one, 0.0) * other
                for one, other in zip(*(_product(w, normed) for w in (gate, up)), strict=True)
            ]
            state = [one + more for one, more in zip(state, _product(down, hidden), strict=True)]
        logits = _product(self.table, _normed(state))
        return logits.index(max(logits))


def _product(rows: Sequence[Row], vector: Row) -> Row:
    return [sum(map(mul, row, vector)) for row in rows]


def _normed(state: Row) -> Row:
    size = sqrt(sum(map(mul, state, state)) / len(state) + 1e-6)
    return [one / size for one in state]


def generate(decoder: Decoder, stamped: bool, slower: float) -> dict[str, object]:
    """One timed generation, as an iteration of a record."""
    for keys, values in decoder.cache:
        keys.clear()
        values.clear()
    start_ns = before_ns = perf_counter_ns()
    stamps, token = [], 0
    for position in range(len(PROMPT) + NEW_TOKENS - 1):
        token = decoder.step(PROMPT[position] if position < len(PROMPT) else token)
        if slower > 1:
            until_ns = before_ns + slower * (perf_counter_ns() - before_ns)
            while perf_counter_ns() < until_ns:
                pass
        before_ns = perf_counter_ns()
        if position >= len(PROMPT) - 1:
            stamps.append(before_ns)
    later = [late - early for early, late in pairwise(stamps)]
    return {
        "sync_policy": "every_token" if stamped else "end_to_end",
        "first_token_ns": stamps[0] - start_ns if stamped else None,
        "next_token_ns": later if stamped else None,
        "end_to_end_ns": perf_counter_ns() - start_ns,
    }


def report(kind: str) -> None:
    print(json.dumps({"report": kind}), flush=True)


def main() -> None:
    """As many stamped generations as the order measures, after its warm-up, and a bare one."""
    order = json.loads(sys.stdin.readline())
    template, slower = os.environ["LIGHT_TEMPLATE"], float(os.environ.get("LIGHT_SLOWER", "1"))
    with open(template) as file:
        record = json.load(file)
    protocol = order["specs"][0]["protocol"]
    count = protocol["num_iter"] - protocol["num_warmup"]
    decoder, iterations = Decoder(), []
    report("waiting")
    for number in range(protocol["num_warmup"] + count + 1):
        sys.stdin.readline()
        iterations.append(generate(decoder, number < protocol["num_warmup"] + count, slower))
        report("waiting")
    sys.stdin.readline()
    record["samples"]["iterations"] = iterations[protocol["num_warmup"] :]
    with open(os.path.join(order["results"], os.path.basename(template)), "w") as file:
        json.dump(record, file)
    report("done")


# As an interpreter it is asked first, with -c, whether it runs workers.
if __name__ == "__main__" and "-c" not in sys.argv:
    main()
