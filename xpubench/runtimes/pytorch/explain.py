"""Where the time of a transformers model's tokens goes, from torch's profiler."""

from collections.abc import Callable

import msgspec
from torch.profiler import profile as torch_profile
from torch.profiler import record_function

from xpubench.measure.clock import TokenClock
from xpubench.measure.device import synchronizer
from xpubench.measure.ledger.measured import Measured, MeasuredToken
from xpubench.measure.ledger.middle import middle_mean
from xpubench.measure.ledger.processors import Waits
from xpubench.measure.ledger.profiled import measured_tokens
from xpubench.measure.ledger.trace import BEGIN, STEP
from xpubench.measure.profile import chrome_trace, profiler
from xpubench.measure.times import TokenTimes

# The steps that are profiled. Each is some thousand events, which are kept in memory.
MOST_STEPS = 32
METHOD = "torch's profiler (kineto) over one generation, between two that are not profiled"

# A generation that is stamped, and marked, with this clock.
Timed = Callable[[TokenClock], TokenTimes]


class MarkingClock(TokenClock):
    """A token clock that also marks the steps in the profiler's trace, and ends the profile after some."""

    def __init__(self, synchronize: Callable[[], None], profile: torch_profile, most_steps: int) -> None:
        super().__init__(synchronize)
        self._profile: torch_profile | None = profile
        self._most_steps = most_steps

    def begin(self) -> int:
        with record_function(BEGIN):
            return super().begin()

    def stamp(self) -> None:
        super().stamp()
        if self._profile is None:
            return
        with record_function(STEP):
            pass
        if len(self.stamps_ns) > self._most_steps:
            self.end()

    def end(self) -> None:
        """Ends the profile, unless it has ended."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None


def profiled_generation(timed: Timed, device: str, event_ns: float) -> Measured:
    """The time of the tokens of a generation: profiled once, between two that are not and that tell whether
    the machine stayed as it was. `event_ns` is what a recorded event costs."""
    waits = Waits()

    def bare() -> TokenTimes:
        with waits.watching():
            return timed(TokenClock(synchronizer(device)))

    before = bare()
    trace, profiled = traced(timed, device, MOST_STEPS, waits)
    after = bare()
    first, following = measured_tokens(trace, event_ns)
    steps = len(profiled.token_ns) - 1
    notes = []
    if steps > MOST_STEPS:
        notes.append(f"the next token's parts are those of the first {MOST_STEPS} of {steps} steps")
    firsts = [one.token_ns[0] - one.start_ns for one in (before, after)]
    return Measured(
        method=METHOD,
        first=_beside(first, firsts),
        next=following and _beside(following, _next_tokens(before, after)),
        cpu_share=waits.share,
        generations=3,
        notes=notes,
    )


def traced(timed: Timed, device: str, most_steps: int, waits: Waits) -> tuple[bytes, TokenTimes]:
    """The Chrome trace of a generation's first steps as JSON, and its times."""
    profile = profiler(device)
    clock = MarkingClock(synchronizer(device), profile, most_steps)
    profile.start()
    try:
        with waits.watching():
            times = timed(clock)
    finally:
        clock.end()
    return chrome_trace(profile), times


def _beside(token: MeasuredToken, unprofiled: list[int]) -> MeasuredToken:
    return msgspec.structs.replace(token, unprofiled_ns=middle_mean(unprofiled))


def _next_tokens(*generations: TokenTimes) -> list[int]:
    return [ns for one in generations for ns in one.iteration().next_token_ns or ()]
