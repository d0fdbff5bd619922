"""The smallest worker that really generates and takes turns: a small decoder of random weights in NumPy.

It stands for the interpreter of a side of `xpubench compare --live`, which starts it for each block anew. It
reads an order, generates greedily whenever it has its turn, and writes its record: that in the file of the
variable LIGHT_TEMPLATE with its own samples. LIGHT_SLOWER is a factor by which each token takes longer.
"""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WIDTH, LAYERS, HEADS, VOCABULARY, POSITIONS = 128, 4, 4, 512, 64
PROMPT = (1, 2, 3, 4, 5, 6, 7, 8)
NEW_TOKENS = 16


class Decoder:
    """Blocks of causal attention with a cache and of a gated product, with residuals and norms."""

    def __init__(self) -> None:
        source = np.random.default_rng(0)

        def weights(*shape: int) -> Floats:
            return source.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))

        self.table = weights(VOCABULARY, WIDTH)
        self.blocks = [
            (
                weights(3 * WIDTH, WIDTH),
                weights(WIDTH, WIDTH),
                weights(6 * WIDTH, WIDTH),
                weights(WIDTH, 3 * WIDTH),
            )
            for _ in range(LAYERS)
        ]
        self.cache = np.zeros((LAYERS, 2, POSITIONS, HEADS, WIDTH // HEADS), np.float32)

    def step(self, token: int, position: int) -> int:
        """The token after the one at that position."""
        state = self.table[token]
        for (attention, out, gated, down), (keys, values) in zip(self.blocks, self.cache, strict=True):
            query, key, value = (attention @ _normed(state)).reshape(3, HEADS, -1)
            keys[position], values[position] = key, value
            scores = np.einsum("hd,phd->hp", query, keys[: position + 1]) / np.sqrt(WIDTH // HEADS)
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            state = state + out @ np.einsum("hp,phd->hd", shares, values[: position + 1]).ravel()
            gate, up = (gated @ _normed(state)).reshape(2, -1)
            state = state + down @ (np.maximum(gate, 0) * up)
        return int(np.argmax(self.table @ _normed(state)))


def _normed(state: Floats) -> Floats:
    return np.asarray(state / np.sqrt(np.mean(state * state) + 1e-6))


def generate(decoder: Decoder, stamped: bool, slower: float) -> dict[str, Any]:
    """One timed generation, as an iteration of a record."""
    start_ns = before_ns = perf_counter_ns()
    stamps, token = [], 0
    for position in range(len(PROMPT) + NEW_TOKENS - 1):
        token = decoder.step(PROMPT[position] if position < len(PROMPT) else token, position)
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
    template = Path(os.environ["LIGHT_TEMPLATE"])
    record, slower = json.loads(template.read_text()), float(os.environ.get("LIGHT_SLOWER", "1"))
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
    (Path(order["results"]) / template.name).write_text(json.dumps(record))
    report("done")


if __name__ == "__main__":
    main()
