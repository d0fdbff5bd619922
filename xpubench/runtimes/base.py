"""What a runtime can do, as three protocols: it loads a model, which generates, and most score texts too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from xpubench.catalog.architecture import Architecture
from xpubench.environment import DeviceFacts, Environment
from xpubench.explanation import DeviceCard
from xpubench.measure.host import CpuClock
from xpubench.measure.ledger.measured import Measured
from xpubench.measure.times import LogitsFacts, TokenTimes
from xpubench.record import (
    Bandwidth,
    Collectives,
    Drafting,
    MatrixPeak,
    OperatorChecks,
    SyncPolicy,
    WeightsFingerprint,
)
from xpubench.runtimes.options import OWN_INT4_METHOD, RuntimeDescription
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import Quantization, Subject, Workload

TokenIds = NDArray[np.int64]
Logits = NDArray[np.float32]
Rows = NDArray[np.bool_]
# The log-probability of each target, float32, and whether it is the most probable token, both (positions,).
Scores = tuple[NDArray[np.float32], NDArray[np.bool_]]
Quantizer = Callable[[Subject, Quantization, Path], None]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint that a subject runs, whatever it was converted to."""

    model: str
    revision: str | None = None
    lora: str | None = None


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One `generate` call: the new tokens, int64 of shape (batch, new tokens), their times, and what their
    logits showed, None where the stack hides them. `drafting` tells of steps that gave several tokens."""

    tokens: Any
    times: TokenTimes
    logits: LogitsFacts | None
    drafting: Drafting | None = None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What one untimed `generate` call showed: the new tokens, int64 of shape (batch, new tokens), its
    logits, and the cache that was really used (None where the stack hides them). `collectives` says how long
    each rank spent in collectives during such a generation."""

    tokens: Any
    logits: LogitsFacts | None
    cache: str | None
    cache_positions: int | None = None
    collectives: list[Collectives] | None = None


class Device(Protocol):
    """The device that a model runs on."""

    def facts(self) -> DeviceFacts:
        """Its name, driver and memory; the free memory is that of this moment."""

    def reset_peaks(self) -> None:
        """Forgets the peaks of memory so far, those of the host too."""

    def peak_bytes(self) -> int | None:
        """The most bytes of its memory in use since the last reset; None where nothing counts them."""

    def bandwidth(self, dtype: str) -> Bandwidth:
        """The memory bandwidth that this process reaches, and the most that the device has shown."""

    def bandwidth_again(self, dtype: str, before: Bandwidth) -> Bandwidth:
        """The measurement `before` the timed part, with the ceiling after it."""

    def matrix_peak(self, dtype: str) -> MatrixPeak | None:
        """The rate of matrix products in the dtype that this process reaches, and the most that the device
        has shown; None where it cannot be measured."""

    def available_host_bytes(self) -> int | None:
        """The memory that the whole machine has available now; None where no machine is measured."""

    def cpu_clock(self) -> CpuClock | None:
        """What the process has got of the machine's cores so far; None where no machine is measured."""

    def profile(self, generate: Callable[[], object]) -> tuple[bytes, str]:
        """Profiles one call of `generate`: a Chrome trace as JSON, and a table of operators."""


class Scorer(Protocol):
    """A loaded model whose logits can be seen. Prompts are token ids, int64 of shape (batch, length).

    `scores_rows_alone` says that the output head is computed for the chosen positions only.
    """

    @property
    def scores_rows_alone(self) -> bool: ...

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        """Generates greedily: the tokens, and each step's float32 logits of shape (batch, new tokens,
        vocabulary). With `forced` tokens, each step continues with those instead of its own."""

    def target_logprobs(self, token_ids: TokenIds, rows: Rows, targets: TokenIds) -> Scores:
        """Scores the positions where `rows`, of shape (batch, length), is true, sequence by sequence: the
        log-probability (natural logarithm, computed in float32) of the token in `targets`, of shape
        (positions,), and whether it is the most probable one. Shorter sequences are padded on the right."""

    def regrets(self, prompt_ids: TokenIds, tokens: TokenIds, rank: int) -> NDArray[np.float32]:
        """How far tokens, of shape (1, new tokens), after prompt ids, (1, length), lie below the `rank` most
        probable ones at their positions, in standard deviations of a position's logits; 0 for those among
        them. A forward pass over the whole sequence gives the logits, or one over each of several beginnings
        of it, so that not every position has to be there."""


class Explainer(Protocol):
    """A loaded model that shows where its tokens' time goes."""

    def explain(self, prompt_ids: TokenIds, workload: Workload) -> Measured:
        """Measures the parts of the first and of a next token, in at most `MOST_GENERATIONS` generations from
        the prompt, int64 of shape (batch, length)."""


class Generator(Protocol):
    """A loaded model. Prompts are token ids, int64 of shape (batch, length). `scorer` is None where the stack
    hides its logits, and `explainer` where it does not show what its time goes to. `rounding` is the coarsest
    dtype that its logits go through."""

    vocabulary: Vocabulary

    @property
    def rounding(self) -> str: ...

    @property
    def scorer(self) -> Scorer | None: ...

    @property
    def explainer(self) -> Explainer | None:
        return None

    @property
    def elsewhere(self) -> str | None:
        """Where the model runs, if that is not only the device that `Loader.device` measures; None else."""
        return None

    def prepare(self, workload: Workload) -> None:
        """Forgets what an earlier workload left behind, such as a larger static cache. RunFailure
        `unsupported` for a workload that the stack cannot run."""

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        """Generates exactly `workload.new_tokens` greedily or with beams, and stamps them."""

    def continue_random_cache(self, prompt_ids: TokenIds, workload: Workload) -> Generation | None:
        """As `generate` under the policy `every_token`, but for the prompt's pass: the keys and values of all
        its tokens but the last one are random. None where the stack does not allow it."""
        return None

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        """Generates the same untimed, and looks at the logits and the cache."""

    def kv_value_bytes(self, head_dim: int) -> float:
        """Bytes of one value in a KV cache whose heads have `head_dim` values, with its share of the scales
        where the cache is quantized."""

    def describe(self) -> RuntimeDescription:
        """What was really loaded and applied."""

    def doubts(self) -> list[str]:
        """Warnings about the load, such as settings that were not applied as they were asked for."""

    def checksum(self) -> int | None:
        """A sum over the bits of all weights on the device; None where the stack hides them."""

    def close(self) -> None:
        """Frees the model's memory."""


class Loader(Protocol):
    """What a runtime does before it has a model: all are class methods. Those with a body serve any runtime
    that subclasses this one and runs a checkpoint on a device of torch."""

    @classmethod
    def set_up(cls) -> None:
        """Sets what the process needs before a device is touched, such as a driver's variables."""
        return

    @classmethod
    def first_device(cls) -> str:
        """The preferred one of the devices that the runtime finds here."""
        from xpubench.measure.device import available_devices

        return available_devices()[0]

    @classmethod
    def device(cls, subject: Subject) -> Device:
        """The subject's device; UserError when it is not here."""
        from xpubench.measure.device import TorchDevice

        return TorchDevice(subject.device)

    @classmethod
    def check(cls, subject: Subject) -> None:
        """UserError when the subject asks for what is not there, before anything is loaded."""

    @classmethod
    def model_config(cls, subject: Subject) -> dict[str, Any]:
        """The fields of the model's config, from which plans are made; empty where it has none. UserError
        where there is no such model, RunFailure for a config that cannot be used."""
        from xpubench.weights.source import read_config

        return read_config(
            subject.weights_from, revision=subject.revision, trust_remote_code=subject.trust_remote_code
        )

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        """Downloads, checks and converts what `load` reads, outside of its time and memory."""

    @classmethod
    def operators(
        cls,
        subject: Subject,
        architecture: Architecture | None,
        environment: Environment,
        say: Callable[[str], None],
    ) -> OperatorChecks | None:
        """How torch's operators on the subject's device compare with float64, in its dtype and at its model's
        shapes; None where the runtime computes without torch."""
        from xpubench.measure.operator_cache import checked_operators
        from xpubench.measure.operator_cases import sizes_of

        recipe, part = subject.quantization, architecture and architecture.part(subject.tp_size)
        own_int4 = recipe is not None and subject.options.int4_method == OWN_INT4_METHOD
        return checked_operators(
            environment,
            subject.dtype,
            sizes_of(part),
            int4_group_size=recipe.group_size if recipe is not None and own_int4 else None,
            say=say,
        )

    @classmethod
    def card(
        cls,
        subject: Subject,
        environment: Environment,
        ceiling_gb_per_s: float,
        say: Callable[[str], None],
    ) -> DeviceCard | None:
        """What the stack needs of a token on the subject's device beside the bytes, measured once for each
        stack; None where the runtime does not measure it for such a subject."""
        return None

    @classmethod
    def load(cls, subject: Subject) -> Generator:
        """Loads the subject's model. UserError where it cannot be loaded as asked, RunFailure where loading
        failed."""

    @classmethod
    def origin(cls, subject: Subject) -> Origin | None:
        """The checkpoint that the subject runs, whatever it was converted to; None where it is unknown."""
        return Origin(model=subject.model, revision=subject.revision, lora=subject.lora)

    @classmethod
    def fingerprint(cls, subject: Subject) -> WeightsFingerprint | None:
        """Which checkpoint the subject runs, once it is fetched; None where it has no files."""
        from xpubench.weights.fingerprint import of_subject

        return of_subject(subject)

    @classmethod
    def quantizer(cls) -> Quantizer | None:
        """The function that writes a model quantized by the subject's recipe to a directory, where the
        runtime's own library does that."""
        return None


def not_as_asked(asked: dict[str, Any], applied: dict[str, Any], *names: str) -> list[str]:
    """A warning for each of these settings that was not applied as it was asked for."""
    return [
        f"{name}: {asked[name]} was asked for, {applied[name]} is applied"
        for name in names
        if asked.get(name) is not None and applied.get(name) not in (None, asked[name])
    ]
