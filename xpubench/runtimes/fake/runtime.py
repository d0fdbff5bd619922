"""The fake runtime: it does what its script says, and no device or clock takes part."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from xpubench.catalog import config_of
from xpubench.environment import DeviceFacts
from xpubench.explanation import DeviceCard
from xpubench.measure.host import CpuClock
from xpubench.measure.ledger.measured import Measured
from xpubench.measure.times import LogitsFacts
from xpubench.record import Bandwidth, CeilingSample, MatrixPeak, SyncPolicy, WeightsFingerprint, now
from xpubench.runtimes.base import (
    Device,
    Explainer,
    Generation,
    Generator,
    Loader,
    Logits,
    Rows,
    Scorer,
    TokenIds,
    Verification,
)
from xpubench.runtimes.fake.options import FakeDescription, FakeOptions
from xpubench.runtimes.fake.script import Script, Stage, read_script
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import DTYPE_BYTES, Subject, Workload


class ByteTokenizer:
    """A tokenizer after transformers' of which each byte of UTF-8 is a token, behind three special ones."""

    pad_token_id, bos_token_id, eos_token_id = all_special_ids = [0, 1, 2]
    name_or_path = "bytes"

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": self.encode(text)}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """The ids of a text. No special token is added."""
        return [byte + len(self.all_special_ids) for byte in text.encode()]

    def decode(self, token_ids: list[int], skip_special_tokens: bool = True) -> str:
        """The text of ids; special ones and those beyond the bytes have none."""
        shifted = (one - len(self.all_special_ids) for one in token_ids)
        return bytes(one for one in shifted if 0 <= one < 256).decode(errors="replace")


class FakeDevice:
    """The device that the script describes."""

    def __init__(self, kind: str, script: Script) -> None:
        self._kind = kind
        self._script = script
        self._available = cycle(script.device.available_host_bytes)
        self._clocks = cycle(script.device.cpu_clocks)

    def facts(self) -> DeviceFacts:
        scripted = self._script.device
        return DeviceFacts(
            kind=self._kind,
            name=scripted.name,
            driver=scripted.driver,
            total_memory_bytes=scripted.total_memory_bytes,
            free_memory_bytes=scripted.free_memory_bytes,
        )

    def reset_peaks(self) -> None:
        """Nothing."""

    def peak_bytes(self) -> int | None:
        return self._script.device.peak_bytes

    def bandwidth(self, dtype: str) -> Bandwidth:
        scripted = self._script.device
        reached, shown = scripted.bandwidth_gb_per_s, scripted.bandwidth_shown_gb_per_s
        highest = None if shown is None else CeilingSample(created=now(), gb_per_s=shown)
        return Bandwidth(ceiling_gb_per_s=reached, copy_gb_per_s=reached, highest=highest)

    def bandwidth_again(self, dtype: str, before: Bandwidth) -> Bandwidth:
        after = self._script.device.bandwidth_after_gb_per_s
        return msgspec.structs.replace(before, after_ceiling_gb_per_s=after)

    def matrix_peak(self, dtype: str) -> MatrixPeak | None:
        reached = self._script.device.peak_tflop_per_s
        return None if reached is None else MatrixPeak(tflop_per_s=reached, dtype=dtype, size=1)

    def available_host_bytes(self) -> int | None:
        return next(self._available, None)

    def cpu_clock(self) -> CpuClock | None:
        return next(self._clocks, None)

    def profile(self, generate: Callable[[], object]) -> tuple[bytes, str]:
        self._script.reach("profile")
        generate()
        return b'{"traceEvents": []}', "no operators\n"


class FakeRuntime(Loader, Generator):
    """A model that generates and scores as its script says."""

    # How often this process has loaded each script's file.
    _loads: ClassVar[Counter[str]] = Counter()

    def __init__(self, subject: Subject, script: Script, load: int = 0) -> None:
        self.subject = subject
        self.script = script
        tokenizer = ByteTokenizer() if script.tokenizer else None
        self.vocabulary = Vocabulary(subject.model, script.vocabulary_size, tokenizer, lambda name: None)
        self._calls: Counter[str] = Counter()
        self._generations: Counter[SyncPolicy] = Counter()
        self._now_ns = 0
        self._timed = 0
        self._factor = script.load_factors[load % len(script.load_factors)]

    @classmethod
    def first_device(cls) -> str:
        return "cpu"

    @classmethod
    def device(cls, subject: Subject) -> Device:
        return FakeDevice(subject.device, _reached(subject, "device"))

    @classmethod
    def operators(cls, *_: object) -> None:
        """None, because nothing is computed."""

    @classmethod
    def check(cls, subject: Subject) -> None:
        _reached(subject, "check")

    @classmethod
    def model_config(cls, subject: Subject) -> dict[str, Any]:
        scripted = _script(subject).config
        return config_of(subject.model) if scripted is None else scripted

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        _reached(subject, "fetch")

    @classmethod
    def card(cls, subject: Subject, *_: object) -> DeviceCard | None:
        return _script(subject).card

    @classmethod
    def load(cls, subject: Subject) -> Self:
        assert isinstance(subject.options, FakeOptions)
        file = subject.options.script
        cls._loads[file] += 1
        script = read_script(file)
        script.reach("load", cls._loads[file])
        return cls(subject, script, cls._loads[file] - 1)

    @classmethod
    def fingerprint(cls, subject: Subject) -> WeightsFingerprint | None:
        return _script(subject).fingerprint

    @property
    def scorer(self) -> Scorer | None:
        return self if self.script.scores else None

    @property
    def explainer(self) -> Explainer | None:
        return self if self.script.explained is not None else None

    @property
    def rounding(self) -> str:
        return self.subject.dtype

    @property
    def scores_rows_alone(self) -> bool:
        return self.script.scores_rows_alone

    def prepare(self, workload: Workload) -> None:
        self._reach("prepare", workload)
        self._generations.clear()

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        self._reach("generate", workload)
        scripted = self.script.every_token if sync_policy == "every_token" else self.script.end_to_end
        times = scripted[self._generations[sync_policy] % len(scripted)]
        self._generations[sync_policy] += 1
        attending_ns = round(self.script.position_ns * prompt_ids.shape[1])
        stamps = times.stamps(
            sync_policy, self._now_ns, workload.new_tokens, factor=self._factor, attending_ns=attending_ns
        )
        self._now_ns = stamps.end_ns
        self._timed += 1
        tokens = self._tokens(prompt_ids, workload, self._timed)
        return Generation(tokens=tokens, times=stamps, logits=self._facts())

    def continue_random_cache(self, prompt_ids: TokenIds, workload: Workload) -> Generation | None:
        return self.generate(prompt_ids, workload, "every_token") if self.script.random_cache else None

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        self._reach("verify", workload)
        return Verification(
            tokens=self._tokens(prompt_ids, workload, untimed=True),
            logits=self._facts(),
            cache=self.script.cache or f"{workload.cache.title()}Cache",
            cache_positions=prompt_ids.shape[1] + workload.new_tokens,
        )

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        self._reach("trace", workload)
        own = self._tokens(prompt_ids, workload)
        return own if forced is None else forced, self.script.step_logits(own)

    def target_logprobs(
        self, token_ids: TokenIds, rows: Rows, targets: TokenIds
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        self._reach("score")
        ends = np.cumsum(rows.sum(axis=1))[:-1]
        texts = [ByteTokenizer().decode(part.tolist()) for part in np.split(targets, ends)]
        each = np.repeat([self.script.logprob_of(text) for text in texts], rows.sum(axis=1))
        return each.astype(np.float32), each > math.log(0.5)

    def regrets(self, prompt_ids: TokenIds, tokens: TokenIds, rank: int) -> NDArray[np.float32]:
        self._reach("score")
        wanted = self.script.step_tokens(1, tokens.shape[1])
        return np.where(tokens[0] == wanted[0], 0.0, self.script.regret).astype(np.float32)

    def explain(self, prompt_ids: TokenIds, workload: Workload) -> Measured:
        self._reach("explain", workload)
        assert self.script.explained is not None
        return self.script.explained

    def kv_value_bytes(self, head_dim: int) -> float:
        return DTYPE_BYTES[self.subject.dtype]

    def describe(self) -> FakeDescription:
        return FakeDescription(
            weight_bytes=self.script.weight_bytes, step_weight_bytes=self.script.step_weight_bytes
        )

    def doubts(self) -> list[str]:
        return self.script.doubts

    def checksum(self) -> int | None:
        self._reach("checksum")
        if not self.script.shows_weights:
            return None
        return self._timed if self.script.weights_change else 0

    def close(self) -> None:
        """Nothing."""

    def _tokens(
        self, prompt_ids: TokenIds, workload: Workload, call: int = 0, untimed: bool = False
    ) -> TokenIds:
        tokens = self.script.step_tokens(len(prompt_ids), workload.new_tokens)
        for fault in self.script.wrong_tokens:
            fault.apply(tokens, self._timed if untimed and fault.untimed else call)
        return tokens

    def _facts(self) -> LogitsFacts | None:
        finite = self.script.logits_finite
        return None if finite is None else LogitsFacts(finite=finite, constant=self.script.logits_constant)

    def _reach(self, stage: Stage, workload: Workload | None = None) -> None:
        self._calls[stage] += 1
        self.script.reach(stage, self._calls[stage], None if workload is None else workload.input_tokens)


def _script(subject: Subject) -> Script:
    assert isinstance(subject.options, FakeOptions)
    return read_script(subject.options.script)


def _reached(subject: Subject, stage: Stage) -> Script:
    script = _script(subject)
    script.reach(stage)
    return script
