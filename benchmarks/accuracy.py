"""Our scoring against lm-eval's own HFLM, and against what the device reaches in matrix products: same model,
items and precision, in one process. The first model is SmolLM2-135M; the other has the shape of one with 0.6
billion parameters and a vocabulary of 151,936 tokens, random weights, SmolLM2's tokenizer, and a tenth of the
items.

    python -m benchmarks.accuracy [FILE.jsonl [ITEMS]]

Without a file of LAMBADA passages, the smoke passages serve.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.goal import Goal, show
from xpubench.accuracy.lm import RuntimeLM
from xpubench.accuracy.tasks import SMOKE_FILE
from xpubench.catalog.architecture import architecture_of
from xpubench.measure.host import peak_host_bytes, reset_host_peak
from xpubench.measure.matmul import measure_peak
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.spec import Dtype, Subject
from xpubench.weights.dummy import build_dummy
from xpubench.weights.load import LoadedWeights

ITEMS = 500
BATCH_SIZES, BATCH_SIZES_OF_LARGE = (1, 8, 16, 32), (1, 8)
BUDGET = 1024
PARTS = 5
SPEED, MEMORY, TOLERANCE, SHARE = 1.0, 0.5, 1e-3, 0.85
DEVICE = "cpu"
DTYPE: Dtype = "float32"
# The shape that the config of Qwen3-0.6B gives.
LARGE_VOCABULARY: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "vocab_size": 151_936,
}

Answers = list[tuple[float, bool]]


class ScoringMethod:
    """One way of scoring: its answers, the seconds that they took, and the most memory."""

    def __init__(self, name: str, score: Callable[[list[Instance]], Answers]) -> None:
        self.name = name
        self.answers: Answers = []
        self.peak_bytes = 0
        self._score = score
        self._seconds = 0.0

    def warm_up(self, requests: list[Instance]) -> None:
        self._score(requests)

    def run(self, requests: list[Instance]) -> None:
        reset_host_peak()
        start = perf_counter()
        self.answers += self._score(requests)
        self._seconds += perf_counter() - start
        self.peak_bytes = max(self.peak_bytes, peak_host_bytes())

    @property
    def items_per_s(self) -> float:
        return len(self.answers) / self._seconds

    def __str__(self) -> str:
        return f"{self.name} {self.items_per_s:.2f}/s {self.peak_bytes / 1e9:.2f} GB"


class _Silent:
    def say(self, text: str) -> None: ...

    def begin(self, title: str, total: int) -> None: ...

    def step(self, text: str, count: int = 1) -> None: ...

    def downloading(self, under_way: bool) -> None: ...


def run(path: Path = SMOKE_FILE, items: int = ITEMS) -> Iterator[Goal]:
    """The goals of both models."""
    logging.disable(logging.WARNING)
    requests = _requests(path, items)
    subject = Subject(model="smollm2-135m", device=DEVICE, dtype=DTYPE)
    small = PyTorchRuntime.load(subject)
    yield from goals("SmolLM2-135M", small, requests, BATCH_SIZES)
    dummy = build_dummy(LARGE_VOCABULARY, dtype=DTYPE, device=DEVICE, seed=0)
    weights = LoadedWeights(model=dummy, tokenizer=small.vocabulary.tokenizer)
    large = PyTorchRuntime.of_weights(subject, weights)
    yield from goals("0.6B, 151,936 tokens", large, requests[: max(1, items // 10)], BATCH_SIZES_OF_LARGE)


def goals(
    model: str, runtime: PyTorchRuntime, requests: list[Instance], batch_sizes: tuple[int, ...]
) -> Iterator[Goal]:
    """The rate of matrix products / that of our scoring, HFLM at its best batch size / ours in items a
    second, ours / HFLM in peak memory, and the answers' largest difference. All sides, and the products, take
    each part of the items in turn, so that drift hits all alike."""
    ours = RuntimeLM(runtime, 8192, _Silent(), batch_size=0, budget=BUDGET)
    mine = ScoringMethod("ours", ours.loglikelihood)
    theirs = [_hflm(runtime, batch_size) for batch_size in batch_sizes]
    for side in (mine, *theirs):
        side.warm_up(requests[:8])
    architecture = architecture_of(runtime.model.config.to_dict())
    assert architecture is not None
    seconds, work = ours.seconds, ours.work.flop(architecture)
    peaks = []
    part = ceil(len(requests) / PARTS)
    for start in range(0, len(requests), part):
        peaks.append(measure_peak(DEVICE, DTYPE).tflop_per_s)
        for side in (mine, *theirs):
            side.run(requests[start : start + part])
    reached = (ours.work.flop(architecture) - work) / (ours.seconds - seconds) / 1e12
    peak = median(peaks)
    spread = f"from {min(peaks):.4f} to {max(peaks):.4f}"
    detail = f"{reached / peak:.2f}: {reached:.4f} of {peak:.4f} TFLOP/s, {spread}"
    yield Goal(f"{model}: products / scored operations a second", peak / reached, 1 / SHARE, "", detail)
    best = max(theirs, key=lambda side: side.items_per_s)
    detail = f"{len(requests)} items; {', '.join(map(str, (mine, *theirs)))}"
    yield Goal(
        f"{model}: HFLM's best items a second / ours", best.items_per_s / mine.items_per_s, SPEED, "", detail
    )
    memory = mine.peak_bytes / best.peak_bytes
    yield Goal(f"{model}: our peak memory / HFLM's at its best", memory, MEMORY, "", best.name)
    differences = [abs(a[0] - b[0]) for a, b in zip(mine.answers, best.answers, strict=True)]
    yield Goal(f"{model}: largest difference of a log-likelihood", max(differences), TOLERANCE, "", "nats")
    unequal = sum(a[1] != b[1] for a, b in zip(mine.answers, best.answers, strict=True))
    yield Goal(f"{model}: items of other correctness", unequal, 0, "", "")


def _requests(path: Path, items: int) -> list[Instance]:
    passages = [json.loads(line)["text"] for line in path.read_text().splitlines()][:items]
    return [
        Instance(
            request_type="loglikelihood",
            doc={},
            arguments=(" ".join(text.split(" ")[:-1]), " " + text.split(" ")[-1]),
            idx=0,
            metadata=("lambada", index, 1),
        )
        for index, text in enumerate(passages)
    ]


def _hflm(runtime: PyTorchRuntime, batch_size: int) -> ScoringMethod:
    model = HFLM(pretrained=runtime.model, tokenizer=runtime.vocabulary.tokenizer, batch_size=batch_size)
    return ScoringMethod(
        f"HFLM batch {batch_size}", lambda part: model.loglikelihood(part, disable_tqdm=True)
    )


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else SMOKE_FILE
    if source == SMOKE_FILE:
        print(
            "the 60 smoke passages alone, too few and too short for a goal; ACC_DATA=FILE.jsonl names others"
        )
    sys.exit(show(run(source, int(sys.argv[2]) if len(sys.argv) > 2 else ITEMS)))
