"""Where the time of a transformers model's tokens goes, from torch's profiler."""

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import NamedTuple

import msgspec
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from xpubench.measure.clock import TokenClock
from xpubench.measure.device import synchronizer
from xpubench.measure.ledger.accounts import Account, accounts
from xpubench.measure.ledger.measured import MOST_GENERATIONS, Measured, MeasuredToken
from xpubench.measure.ledger.middle import middle_mean
from xpubench.measure.ledger.processors import Waits
from xpubench.measure.ledger.profiled import measured_tokens
from xpubench.measure.ledger.trace import BEGIN, STEP, read_trace
from xpubench.measure.profile import chrome_trace, profiler
from xpubench.measure.times import TokenTimes

# The steps of a generation that can be profiled. Each is some thousand events, which are kept in memory.
MOST_STEPS = 32
# On a CPU the profiler records this many tokens, then none of as many, and so on. Switching it takes a moment
# and leaves the caches with other content, which is some percent of a token of 1 ms.
BLOCK = 4
ALTERNATELY = f"torch's profiler (kineto) over {BLOCK} of every {2 * BLOCK} tokens of three generations"
ONCE = "torch's profiler (kineto) over one generation, between two that are not profiled"
# Where the profiler is switched on and off for some of them alone, torch warns each time.
ACTIVITIES = (ProfilerActivity.CPU, ProfilerActivity.CUDA, ProfilerActivity.XPU)

# A generation that is stamped, and marked, with this clock.
Timed = Callable[[TokenClock], TokenTimes]


class ExplainedGeneration(NamedTuple):
    """For each of the first tokens of a generation, whether the profiler was to record it and the nanoseconds
    that it took; the Chrome trace of the recorded ones as JSON, None where none was recorded, and whether
    each of its windows is such a token; and how many steps of a next token the generation had."""

    recorded: Sequence[bool]
    token_ns: list[int]
    trace: bytes | None
    windows: list[bool]
    steps: int


class MarkingClock(TokenClock):
    """A token clock under the profiler, which records the tokens that are to be `recorded` and ends after the
    last of them. The clock marks the start and the end of each recorded token in the trace. `token_ns` are
    the times of all these tokens in nanoseconds, without those of the marks and of switching the profiler.
    `windows` says of the time between two marks whether it is that of a recorded token."""

    def __init__(
        self, synchronize: Callable[[], None], profile: torch_profile, recorded: Sequence[bool]
    ) -> None:
        super().__init__(synchronize)
        self.token_ns: list[int] = []
        self.windows: list[bool] = []
        self._profile: torch_profile | None = profile
        self._recorded = recorded
        self._on = True
        self._token_start_ns = 0

    def begin(self) -> int:
        self._mark(BEGIN)
        return self._token_start_ns

    def stamp(self) -> None:
        super().stamp()
        if self._profile is None:
            return
        self.token_ns.append(self.stamps_ns[-1] - self._token_start_ns)
        token = len(self.token_ns)
        if any(self._recorded[token - 1 : token + 1]) or token == len(self._recorded):
            self.windows.append(self._recorded[token - 1])
            self._mark(STEP)
        else:
            self._token_start_ns = self.stamps_ns[-1]

    def end(self) -> None:
        """Ends the profile, unless it has ended."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _mark(self, name: str) -> None:
        """Marks the trace between two tokens, and sees to it that the next one is recorded or not."""
        self._switch(True)
        with record_function(name):
            pass
        if len(self.token_ns) < len(self._recorded):
            self._switch(self._recorded[len(self.token_ns)])
        else:
            self.end()
        self._token_start_ns = perf_counter_ns()

    def _switch(self, on: bool) -> None:
        if self._profile is not None and on != self._on:
            self._profile.toggle_collection_dynamic(on, ACTIVITIES)
            self._on = on


def explained_by_profiler(timed: Timed, device: str, event_ns: float) -> Measured:
    """The time of the tokens of three generations. On a CPU half of the tokens are profiled, so that whatever
    slows the machine meanwhile slows both kinds of tokens. On an accelerator, where nobody has tried to
    switch the profiler, it is the second generation. `event_ns` is what a recorded event costs."""
    waits = Waits()
    made = [generation(timed, device, number, waits) for number in range(MOST_GENERATIONS)]
    first, following = measured_tokens([_accounts(one) for one in made], event_ns)
    steps, notes = max(one.steps for one in made), []
    if steps > MOST_STEPS:
        notes.append(f"the next token's parts are those of the first {MOST_STEPS} of {steps} steps")
    bare = [bare_ns(one) for one in made]
    return Measured(
        method=ALTERNATELY if device == "cpu" else ONCE,
        first=first and _beside(first, [ns for firsts, _ in bare for ns in firsts]),
        next=following and _beside(following, [ns for _, later in bare for ns in later]),
        cpu_share=waits.share,
        generations=MOST_GENERATIONS,
        notes=notes,
    )


def generation(timed: Timed, device: str, number: int, waits: Waits) -> ExplainedGeneration:
    """The generation of this number, counted from 0, of those that explain the tokens."""
    synchronize, tokens = synchronizer(device), range(1 + MOST_STEPS)
    recorded = [(number + token // BLOCK) % 2 == 0 if device == "cpu" else number == 1 for token in tokens]
    if not any(recorded):
        with waits.watching():
            told = timed(TokenClock(synchronize)).iteration()
        following = told.next_token_ns or []
        assert told.first_token_ns is not None
        return ExplainedGeneration(recorded, [told.first_token_ns, *following], None, [], len(following))
    profile = profiler(device)
    clock = MarkingClock(synchronize, profile, recorded)
    profile.start()
    try:
        with waits.watching():
            timed(clock)
    finally:
        clock.end()
    # A short generation may have ended before the first token that was to be recorded.
    trace = chrome_trace(profile) if any(clock.windows) else None
    return ExplainedGeneration(recorded, clock.token_ns, trace, clock.windows, len(clock.stamps_ns) - 1)


def bare_ns(one: ExplainedGeneration) -> tuple[list[int], list[int]]:
    """The times of the first token and of the next ones, of those that were not recorded."""
    tokens = list(zip(one.token_ns, one.recorded, strict=False))
    return [ns for ns, on in tokens[:1] if not on], [ns for ns, on in tokens[1:] if not on]


def _accounts(one: ExplainedGeneration) -> list[Account | None]:
    if one.trace is None:
        return []
    found = zip(accounts(read_trace(one.trace)), one.windows, strict=True)
    return [account if on else None for account, on in found]


def _beside(token: MeasuredToken, unprofiled: list[int]) -> MeasuredToken:
    if not unprofiled:
        return token
    return msgspec.structs.replace(token, unprofiled_ns=middle_mean(unprofiled))
