"""What a fake runtime does, as data."""

import math
import os
import signal
import sys
from itertools import cycle, islice
from pathlib import Path
from time import sleep
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from xpubench.errors import FailureClass, RunFailure, UserError
from xpubench.explanation import DeviceCard
from xpubench.measure.host import CpuClock
from xpubench.measure.ledger.measured import Measured
from xpubench.measure.times import TokenTimes
from xpubench.record import SyncPolicy, WeightsFingerprint
from xpubench.runtimes.base import Logits, TokenIds

Stage = Literal[
    "device",
    "check",
    "fetch",
    "load",
    "checksum",
    "prepare",
    "trace",
    "verify",
    "generate",
    "score",
    "profile",
    "explain",
]
T = TypeVar("T")
# At least one of them.
Some = Annotated[tuple[T, ...], msgspec.Meta(min_length=1)]
ERRORS: dict[str, type[BaseException]] = {
    error.__name__: error
    for error in (AssertionError, ConnectionError, KeyboardInterrupt, MemoryError, RuntimeError)
}
MASKED = -10.0


class ScriptedTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The times of one generation in nanoseconds: to the first token, between the later ones, which are
    repeated where more tokens are asked for, and from the last one to the return."""

    first_token_ns: int = 2_000_000
    next_token_ns: Some[int] = (1_000_000,)
    return_ns: int = 0

    def stamps(
        self,
        sync_policy: SyncPolicy,
        start_ns: int,
        new_tokens: int,
        *,
        factor: int = 1,
        attending_ns: int = 0,
    ) -> TokenTimes:
        """The stamps of a generation that is called at `start_ns` and takes `factor` times as long, with
        `attending_ns` more in each later token."""
        token_ns = [start_ns + factor * self.first_token_ns]
        for interval_ns in islice(cycle(self.next_token_ns), new_tokens - 1):
            token_ns.append(token_ns[-1] + factor * interval_ns + attending_ns)
        return TokenTimes(
            sync_policy=sync_policy,
            start_ns=start_ns,
            token_ns=token_ns if sync_policy == "every_token" else [],
            end_ns=token_ns[-1] + self.return_ns,
        )


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong at a stage: at its call number `call` since the load, from 1 (None: at every call), of
    a workload with `input_tokens` (None: of any).

    The fields below happen in their order: something is printed as a library would, the process turns deaf
    to SIGTERM, the stage takes `hang_s` more seconds, a signal ends the process, or an exit code does; or a
    failure of that class, an error of that name, or a UserError is raised with the message.
    """

    stage: Stage
    call: int | None = None
    input_tokens: int | None = None
    prints: str | None = None
    deaf: bool = False
    hang_s: float = 0.0
    signal: int | None = None
    exit_code: int | None = None
    failure: FailureClass | None = None
    error: str | None = None
    message: str | None = None

    def happen(self) -> None:
        """Raises, or ends the process, as the fields say."""
        if self.prints is not None:
            print(self.prints)
        if self.deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sleep(self.hang_s)
        sys.stdout.flush()
        if self.signal is not None:
            os.kill(os.getpid(), self.signal)
        if self.exit_code is not None:
            os._exit(self.exit_code)
        if self.failure is not None:
            raise RunFailure(self.failure, self.message or "as scripted")
        if self.error is not None:
            raise ERRORS[self.error](self.message or "as scripted")
        if self.message is not None:
            raise UserError(self.message)


class WrongToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another token at a step of every row, in the timed generations from number `first` to `last`, counted
    from 1; the untimed ones are number 0. With `untimed`, those of the workload's shape have the number of
    the timed one before them."""

    token: int
    step: int = 0
    first: int = 0
    last: int = 2**31
    untimed: bool = False

    def apply(self, tokens: TokenIds, call: int) -> None:
        """Changes the tokens of generation number `call`, of shape (batch, steps), in place."""
        if self.first <= call <= self.last and self.step < tokens.shape[1]:
            tokens[:, self.step] = self.token


class ScriptedDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of the device. Memory is in bytes, bandwidths are in GB/s: before and after the timed
    part, and the most that the device has shown; `peak_tflop_per_s` is that of matrix products.
    `available_host_bytes` are the machine's after each generation of warm-up and measurement, from the first
    again where they end; None without any. `cpu_clocks` are the process's counters before and after each of
    these generations, in the same way."""

    name: str = "Scripted device"
    driver: str | None = None
    total_memory_bytes: int | None = 2**40
    free_memory_bytes: int | None = 2**40
    peak_bytes: int | None = None
    bandwidth_gb_per_s: float = 1000.0
    bandwidth_after_gb_per_s: float | None = None
    bandwidth_shown_gb_per_s: float | None = None
    peak_tflop_per_s: float | None = None
    available_host_bytes: tuple[int, ...] = ()
    cpu_clocks: tuple[CpuClock, ...] = ()


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run of the stack.

    `config` is the model's, the catalog's by default, and `fingerprint` that of its weights. Each generation
    under a policy takes the next of its times, from the first again where they end and in each workload. A
    greedy step takes the next of `tokens`, and of `logits`, rows of `vocabulary_size` numbers where null is
    NaN; without these, all of the probability lies on the step's token. `logprobs` holds by their texts what
    each token of a scored text has as log-probability, null for NaN, and `logprob` that of all others; above
    log(1/2) the token is the most probable one. `wrong_tokens` are other tokens of some generations, which
    lie by `regret` standard deviations below the most probable ones. `doubts` become warnings of the record.
    A stack that hides its logits has `scores` false, and one that hides its weights `shows_weights`.
    `explained` is what it measures of its tokens, and `card` of its device. Each position of the prompt adds
    `position_ns` to a later token; with `random_cache` false, the stack takes no cache of random values. The
    times of each load in one process are multiplied by the next of `load_factors`, from the first again where
    they end.
    """

    config: dict[str, Any] | None = None
    fingerprint: WeightsFingerprint | None = None
    device: ScriptedDevice = ScriptedDevice()
    every_token: Some[ScriptedTimes] = (ScriptedTimes(),)
    end_to_end: Some[ScriptedTimes] = (ScriptedTimes(),)
    load_factors: Some[int] = (1,)
    vocabulary_size: int = 300
    tokenizer: bool = True
    tokens: Some[int] = (100, 101, 102, 103)
    logits: Some[list[float | None]] | None = None
    wrong_tokens: list[WrongToken] = []
    regret: float = 5.0
    logits_finite: bool | None = True
    logits_constant: bool = False
    weights_change: bool = False
    shows_weights: bool = True
    scores: bool = True
    scores_rows_alone: bool = True
    logprob: float | None = -0.1
    logprobs: dict[str, float | None] = {}
    cache: str | None = None
    weight_bytes: int = 1_000_000
    step_weight_bytes: int = 1_000_000
    explained: Measured | None = None
    card: DeviceCard | None = None
    position_ns: float = 0.0
    random_cache: bool = True
    doubts: list[str] = []
    faults: list[Fault] = []

    def reach(self, stage: Stage, call: int = 1, input_tokens: int | None = None) -> None:
        """Has the faults happen that are due at this call of the stage."""
        for fault in self.faults:
            if (
                fault.stage == stage
                and fault.call in (None, call)
                and fault.input_tokens in (None, input_tokens)
            ):
                fault.happen()

    def step_tokens(self, batch: int, count: int) -> TokenIds:
        """The tokens of the first `count` steps, int64 of shape (batch, count)."""
        return np.tile(np.resize(np.array(self.tokens, dtype=np.int64), count), (batch, 1))

    def step_logits(self, tokens: TokenIds) -> Logits:
        """Logits of steps that chose these tokens, float32 of shape (batch, steps, vocabulary)."""
        if self.logits is not None:
            rows = np.array(self.logits, dtype=np.float32)  # null becomes NaN
            steps = np.resize(rows, (tokens.shape[1], self.vocabulary_size))
            return np.tile(steps, (len(tokens), 1, 1))
        found = np.full((*tokens.shape, self.vocabulary_size), MASKED, dtype=np.float32)
        np.put_along_axis(found, tokens[..., None], 0.0, axis=-1)
        return found

    def logprob_of(self, text: str) -> float:
        """The log-probability of each token of a scored text, NaN where the script says null."""
        value = self.logprobs.get(text, self.logprob)
        return math.nan if value is None else value


def read_script(path: str) -> Script:
    """The script in a file; UserError where there is none."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Script)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path} is not a script of the fake runtime: {error}") from error
