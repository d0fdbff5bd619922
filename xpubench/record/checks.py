"""What was checked in a run."""

from typing import Literal

import msgspec


class Collectives(msgspec.Struct, frozen=True, kw_only=True):
    """The time that a rank spent in collectives during one generation of the workload, and their number."""

    rank: int
    generation_ns: int
    collectives: int
    collectives_ns: int


class OperatorResult(msgspec.Struct, frozen=True, kw_only=True):
    """One operator at one shape, compared with float64 on the CPU. `error` is the largest difference relative
    to the value's magnitude plus the root mean square of its row (None where a result is NaN or infinite),
    and `limit` the largest difference that rounding explains. The `state` of an operator is `right`, `wrong`,
    `failed` (with the `message`), `refused`, where the device does not support it and need not, or `left
    out`, where it would take too long (the `message` says how long). The rates come from the fastest of
    `times_ns`."""

    operator: str
    rows: int
    shape: str
    state: Literal["right", "wrong", "failed", "refused", "left out"]
    limit: float
    error: float | None = None
    times_ns: list[int] = []
    gb_per_s: float | None = None
    tflop_per_s: float | None = None
    message: str | None = None

    @property
    def problem(self) -> str:
        """What is wrong with it, in words."""
        where = f"{self.operator} at {self.rows} row{'s' * (self.rows != 1)}, {self.shape}"
        if self.message is not None:
            return f"{where}: {self.message}"
        error = "NaN or infinite" if self.error is None else f"error {self.error:.2g}"
        return f"{where}: {error}, rounding explains {self.limit:.2g}"


class OperatorChecks(msgspec.Struct, frozen=True, kw_only=True):
    """The operators of torch on the run's device, in its dtype and at its model's shapes, compared with
    float64 on the CPU at the time `created`: how many were `right`, and the `others`. Later runs on the same
    device, driver, versions and variables use the same result unless an operator was wrong or failed."""

    created: str
    device: str
    dtype: str
    right: int
    others: list[OperatorResult]

    def problems(self, *states: str) -> list[str]:
        """The operators in one of these states, in words."""
        return [one.problem for one in self.others if one.state in states]


class TokenChecks(msgspec.Struct, frozen=True, kw_only=True):
    """How the tokens of the timed generations were checked (`xpubench.accuracy.timed`). `compared` counts the
    generations that were compared with an earlier one of the same prompt, and `different` those of them that
    took another token at a near tie. Of the `sequences` that the prompts gave, one for each row of a batch, a
    forward pass `scored` as many; of the others, no more was looked at than their repetitions and logits.
    `regret` is the largest distance of a token's logit from the highest one, in standard deviations of the
    logits, and `regret_limit` the largest that rounding explains. `logits_seen` says that the logits of every
    timed step were seen to be finite and not all equal; it is false for a stack that hides them.
    `weights_watched` says that the sums over the bits of all weights before and after the timing were
    compared; it is false for a stack that hides its weights, and None in earlier records. `checks_s` is the
    time in seconds that the checks of the run took: a reference on the CPU, the weights' sums, the check
    prompts, the untimed generations except for the one that begins the warm-up where there is any, the rows
    beside others, and the scoring. What serves several runs of one process counts in the first of them. The
    operators' comparison has a time of its own."""

    compared: int
    different: int
    sequences: int | None = None
    scored: int
    regret: float | None
    regret_limit: float
    logits_seen: bool
    weights_watched: bool | None = None
    checks_s: float


class NeighbourChecks(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the logits of a row depend on the other rows of its batch (`xpubench.accuracy.neighbours`).
    `repeatable` says whether the same batch gave the same bits twice. `difference` is how far the logits
    moved when other rows stood beside the row, in standard deviations of the logits, 0 where their bits
    stayed the same, and `limit` the largest difference that rounding explains."""

    repeatable: bool
    difference: float
    limit: float


class RunChecks(msgspec.Struct, frozen=True, kw_only=True):
    """The checks of a run: how far the guide for Intel GPUs validated the model, the number of new tokens,
    whether every step's logits were finite, the cache that was really used, the operators and the seconds
    that this process took for them (few where an earlier comparison served), how the timed tokens were
    checked, and how far a row's logits depend on the rows beside it. None stands for what was not checked or
    what the stack hides."""

    validation: str | None = None
    new_tokens: int | None = None
    logits_finite: bool | None = None
    cache: str | None = None
    cache_positions: int | None = None
    collectives: list[Collectives] | None = None
    operators: OperatorChecks | None = None
    operators_s: float | None = None
    tokens: TokenChecks | None = None
    neighbours: NeighbourChecks | None = None
