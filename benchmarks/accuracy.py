"""Our scoring against lm-eval's own HFLM: same model, items and precision, in one process.

    python -m benchmarks.accuracy [FILE.jsonl [ITEMS]]

Without a file of LAMBADA passages, the smoke passages serve.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.goal import Goal
from xpubench.accuracy.lm import RuntimeLM
from xpubench.accuracy.tasks import SMOKE_FILE
from xpubench.measure.host import peak_host_bytes, reset_host_peak
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.spec import Subject

ITEMS = 500
BATCH_SIZES = (1, 8, 16, 32)
BUDGET = 1024
PART = 100
SPEED, MEMORY, TOLERANCE = 0.5, 0.5, 1e-3

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
    """HFLM at its best batch size / ours in items a second, ours / HFLM in peak memory, and the answers'
    largest difference. All sides take each part of the items in turn, so that drift hits all alike."""
    logging.disable(logging.WARNING)
    requests = _requests(path, items)
    runtime = PyTorchRuntime.load(Subject(model="smollm2-135m", device="cpu", dtype="float32"))
    ours = RuntimeLM(runtime, 8192, _Silent(), batch_size=0, budget=BUDGET)
    mine = ScoringMethod("ours", ours.loglikelihood)
    theirs = [_hflm(runtime, batch_size) for batch_size in BATCH_SIZES]
    for side in (mine, *theirs):
        side.warm_up(requests[:8])
    for start in range(0, len(requests), PART):
        for side in (mine, *theirs):
            side.run(requests[start : start + PART])
    best = max(theirs, key=lambda side: side.items_per_s)
    detail = f"{len(requests)} items; {', '.join(map(str, (mine, *theirs)))}"
    yield Goal("HFLM's best items a second / ours", best.items_per_s / mine.items_per_s, SPEED, "", detail)
    yield Goal(
        "our peak memory / HFLM's at its best", mine.peak_bytes / best.peak_bytes, MEMORY, "", best.name
    )
    differences = [abs(a[0] - b[0]) for a, b in zip(mine.answers, best.answers, strict=True)]
    yield Goal("largest difference of a log-likelihood", max(differences), TOLERANCE, "", "nats")
    unequal = sum(a[1] != b[1] for a, b in zip(mine.answers, best.answers, strict=True))
    yield Goal("items of other correctness", unequal, 0, "", "")


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
    goals = list(run(source, int(sys.argv[2]) if len(sys.argv) > 2 else ITEMS))
    print(*goals, sep="\n")
    sys.exit(any(goal.verdict == "MISSED" for goal in goals))
