"""What every runtime can do, and the registry of runtimes by name."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from xpubench.errors import unknown
from xpubench.measure.times import TokenTimes
from xpubench.record import SyncPolicy
from xpubench.spec import Subject, Workload

TokenIds = NDArray[np.int64]
Logits = NDArray[np.float32]
Rows = NDArray[np.bool_]

RUNTIMES: dict[str, str] = {
    "pytorch": "xpubench.runtimes.pytorch:PyTorchRuntime",
    "ipex": "xpubench.runtimes.ipex.runtime:IpexRuntime",
    "deepspeed": "xpubench.distributed.runtime:TensorParallelRuntime",
    "deepspeed-ipex": "xpubench.distributed.runtime_ipex:TensorParallelIpexRuntime",
    "openvino": "xpubench.runtimes.openvino.optimum:OptimumRuntime",
    "openvino-genai": "xpubench.runtimes.openvino.genai:GenAiRuntime",
    "openvino-base": "xpubench.runtimes.openvino.base_runtime:BaseRuntime",
}


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
    collectives: list[dict[str, Any]] | None = None


class Runtime(Protocol):
    """A loaded model that generates and scores. Prompts are token ids, int64 of shape (batch, length)."""

    vocab_size: int
    tokenizer: Any  # a transformers tokenizer, or None
    hides_logits: str | None  # why `trace` and `target_logprobs` cannot be, None where they can

    @classmethod
    def set_up(cls) -> None:
        """Sets what the process needs before a device is touched, such as a driver's variables."""

    @classmethod
    def check(cls, subject: Subject) -> None:
        """UserError when the subject asks for what is not there, before anything is loaded."""

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        """Downloads, checks and converts what `load` reads, outside of its time and memory."""

    @classmethod
    def load(cls, subject: Subject) -> Self:
        """Loads the subject's model. UserError: it cannot be asked so; RunFailure: it failed."""

    def prepare(self, workload: Workload) -> None:
        """Forgets what an earlier workload left behind, such as a larger static cache."""

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        """Generates exactly `workload.new_tokens` greedily or with beams, under the clock."""

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        """Generates the same without a clock and looks at the logits and the cache."""

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

    def encode(self, text: str) -> list[int]:
        """The text's token ids. UserError when the model has no tokenizer."""

    def decode(self, token_ids: list[int]) -> str:
        """The text of token ids. UserError when the model has no tokenizer."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that a random prompt must not hold (begin, end, padding and other special tokens)."""

    @property
    def step_weight_bytes(self) -> int:
        """Bytes of the weights that one decoding step reads: all but the tables that it looks up in."""

    def kv_value_bytes(self, head_dim: int) -> float:
        """Bytes of one value of the KV cache of heads of that size, with its share of the scales where the
        cache is quantized."""

    def describe(self) -> dict[str, Any]:
        """What was really loaded and applied, as plain JSON values."""

    def close(self) -> None:
        """Frees the model's memory."""


def runtime_class(name: str) -> type[Runtime]:
    """The runtime of that name; UserError with the nearest names when there is none."""
    if name not in RUNTIMES:
        raise unknown("runtime", name, list(RUNTIMES))
    module, _, attribute = RUNTIMES[name].partition(":")
    found: type[Runtime] = getattr(import_module(module), attribute)
    return found
