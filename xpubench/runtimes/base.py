"""What a runtime can do, as three protocols: it loads a model, which generates, and most score texts too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from xpubench.environment import DeviceFacts
from xpubench.measure.times import TokenTimes
from xpubench.record import Bandwidth, Collectives, SyncPolicy
from xpubench.runtimes.options import RuntimeDescription
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import Quantization, Subject, Workload

TokenIds = NDArray[np.int64]
Logits = NDArray[np.float32]
Rows = NDArray[np.bool_]
Quantizer = Callable[[Subject, Quantization, Path], None]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint that a subject runs, whatever it was converted to."""

    model: str
    revision: str | None = None
    lora: str | None = None


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One `generate` call: the new tokens, int64 of shape (batch, new tokens), and their times."""

    tokens: Any
    times: TokenTimes


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What one untimed `generate` call showed: the new tokens, int64 of shape (batch, new tokens), whether
    every step's logits were finite, and the cache that was really used (None where the stack hides it).
    Over ranks, `collectives` tells of each rank how long such a generation was in collectives."""

    tokens: Any
    logits_finite: bool | None
    cache: str | None
    cache_positions: int | None
    collectives: list[Collectives] | None = None


class Device(Protocol):
    """The device that a model runs on."""

    def facts(self) -> DeviceFacts:
        """Name, driver and memory, of which the free part is that of this moment."""

    def reset_peaks(self) -> None:
        """Forgets the peaks of memory so far, the host's too."""

    def peak_bytes(self) -> int | None:
        """The most bytes of its memory in use since the last reset; None where nobody counts."""

    def bandwidth(self, dtype: str) -> Bandwidth:
        """The bandwidth that this process reaches on it."""

    def profile(self, generate: Callable[[], object]) -> tuple[bytes, str]:
        """One call of `generate` under a profiler: a Chrome trace as JSON, and a table of operators."""


class Scorer(Protocol):
    """A loaded model whose logits can be seen. Prompts are token ids, int64 of shape (batch, length).

    `scores_rows_alone`: the output head is computed for the chosen positions alone.
    """

    @property
    def scores_rows_alone(self) -> bool: ...

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        """Generates greedily and keeps each step's logits: tokens, and float32 logits of shape (batch, new
        tokens, vocabulary). With `forced` tokens, each step goes on with those instead of its own."""

    def target_logprobs(
        self, token_ids: TokenIds, rows: Rows, targets: TokenIds
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """At the positions where `rows`, of shape (batch, length), is true, sequence by sequence: the
        log-probability (natural logarithm, computed in float32) of the token in `targets`, of shape
        (positions,), and whether it is the most probable one. Shorter sequences are padded on the right."""


class Generator(Protocol):
    """A loaded model. Prompts are token ids, int64 of shape (batch, length). `scorer` is None where the stack
    hides its logits."""

    vocabulary: Vocabulary

    @property
    def scorer(self) -> Scorer | None: ...

    def prepare(self, workload: Workload) -> None:
        """Forgets what an earlier workload left behind, such as a larger static cache. RunFailure
        `unsupported` for a workload that the stack cannot run."""

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        """Generates exactly `workload.new_tokens` greedily or with beams, under the clock."""

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        """Generates the same without a clock and looks at the logits and the cache."""

    def kv_value_bytes(self, head_dim: int) -> float:
        """Bytes of one value of the KV cache of heads of that size, with its share of the scales where the
        cache is quantized."""

    def describe(self) -> RuntimeDescription:
        """What was really loaded and applied."""

    def doubts(self) -> list[str]:
        """What was not applied as it was asked for, and what else of the load to doubt."""

    def close(self) -> None:
        """Frees the model's memory."""


class Loader(Protocol):
    """What a runtime does before it has a model: all are class methods."""

    @classmethod
    def set_up(cls) -> None:
        """Sets what the process needs before a device is touched, such as a driver's variables."""

    @classmethod
    def first_device(cls) -> str:
        """The preferred device of those that the runtime finds here."""

    @classmethod
    def device(cls, subject: Subject) -> Device:
        """The subject's device; UserError when it is not here."""

    @classmethod
    def check(cls, subject: Subject) -> None:
        """UserError when the subject asks for what is not there, before anything is loaded."""

    @classmethod
    def model_config(cls, subject: Subject) -> dict[str, Any]:
        """The fields of the model's config, from which plans are made; empty where it has none. UserError
        where there is no such model, RunFailure for a config that cannot be used."""

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        """Downloads, checks and converts what `load` reads, outside of its time and memory."""

    @classmethod
    def load(cls, subject: Subject) -> Generator:
        """Loads the subject's model. UserError: it cannot be asked so; RunFailure: it failed."""

    @classmethod
    def origin(cls, subject: Subject) -> Origin | None:
        """The checkpoint that the subject runs, whatever it was converted to; None where nobody knows."""

    @classmethod
    def quantizer(cls) -> Quantizer | None:
        """What writes a model quantized by the subject's recipe to a directory, where a library of the
        runtime's own does that."""
