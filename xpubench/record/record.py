"""One run's outcome."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

from xpubench.environment import Environment
from xpubench.errors import FailureClass
from xpubench.explanation import Expectation, Explanation
from xpubench.plan import Plan
from xpubench.record.accuracy import Accuracy, Divergence
from xpubench.record.ceilings import Bandwidth, MatrixPeak
from xpubench.record.checks import RunChecks
from xpubench.record.samples import Samples
from xpubench.record.summary import AccuracySummary, LatencySummary
from xpubench.runtimes.registry import Description
from xpubench.spec import AccuracySpec, RunSpec

SCHEMA_VERSION = 2


class WeightsFingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """Hexadecimal SHA-256 digests of a checkpoint's config and of sizes and samples of its weights, which
    tell two checkpoints of one name apart. `adapter` is the digest of the same parts of a LoRA adapter. Of a
    quantized model that this tool saved, `config` and `weights` are those of the model that it was made of,
    and `quantized_files` is the digest of its own."""

    config: str
    weights: str
    adapter: str | None = None
    quantized_files: str | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run has no summary."""

    failure_class: FailureClass = msgspec.field(name="class")
    message: str
    log_tail: str = ""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """The new tokens of the first sequence of the untimed generation, and their text where the prompt is a
    text."""

    first_token_ids: list[int]
    first_text: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One run: its spec, its environment, its outcome, and the warnings about it.

    `plan` holds the memory and the times that were expected before the run, `bandwidth` and `peak` what the
    device reached in the same process, `runtime` what was really loaded, and `fingerprint` identifies the
    checkpoint (None for dummy weights, and for a saved model that does not say what it was made of). A
    latency run has samples, a latency summary and, with a reference, a divergence; an accuracy run has an
    accuracy and an accuracy summary; a failed run has a failure and whatever was known by then.
    `explanation` says where a token's time went, and `expectation` how long a token was expected to take.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    created: str
    spec: RunSpec | AccuracySpec
    environment: Environment
    status: Literal["ok"] | FailureClass
    failure: Failure | None = None
    samples: Samples = Samples()
    summary: LatencySummary | AccuracySummary | None = None
    runtime: Description | None = None
    fingerprint: WeightsFingerprint | None = None
    bandwidth: Bandwidth | None = None
    peak: MatrixPeak | None = None
    plan: Plan | None = None
    checks: RunChecks = RunChecks()
    output: Output | None = None
    accuracy: Accuracy | None = None
    divergence: Divergence | None = None
    explanation: Explanation | None = None
    expectation: Expectation | None = None
    warnings: list[str] = []

    @property
    def latency(self) -> LatencySummary | None:
        """The summary of a successful latency run."""
        return self.summary if isinstance(self.summary, LatencySummary) else None

    @property
    def adapter(self) -> str | None:
        """The LoRA adapter that was applied, or that was merged into the weights before they were loaded."""
        return self.spec.subject.lora or (self.runtime.adapter if self.runtime is not None else None)


def now() -> str:
    """The time in UTC in the record's format."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
