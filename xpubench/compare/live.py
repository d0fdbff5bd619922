"""The judgement after each block of a live comparison, in which two processes generate in turn."""

from collections.abc import Callable, Sequence
from math import exp, expm1, log, sqrt
from statistics import fmean, median, stdev

import msgspec
import numpy as np
from numpy.typing import NDArray

from xpubench.compare.figures import FIGURES, FigureName
from xpubench.compare.intervals import MOST_ROUNDS, Z_POWER, Interval
from xpubench.compare.judgement import MOST_LOG, Judgement, judge_ratio, without_interval
from xpubench.compare.processes import Limits
from xpubench.compare.run import RunComparison, compare_runs
from xpubench.measure.bootstrap import Floats
from xpubench.measure.sequential import always_valid_halves, widths
from xpubench.record import Iteration, Record

LEAST_BLOCKS = 5
ALONE = (
    "the sides ran one after the other, as memory holds one worker alone: what differs between two times of "
    "the machine is in them, and more blocks are needed"
)


def _next_token(one: Iteration) -> float | None:
    return median(one.next_token_ns) if one.next_token_ns else None


def _end_to_end(one: Iteration) -> float | None:
    return one.end_to_end_ns if one.sync_policy == "end_to_end" else None


# The figures that each generation has, in ns.
GENERATIONS: dict[FigureName, Callable[[Iteration], float | None]] = {
    "first_token": lambda one: one.first_token_ns,
    "next_token": _next_token,
    "end_to_end": _end_to_end,
}


def compare_blocks(
    base: Sequence[Record], new: Sequence[Record], limits: Limits, primary: FigureName, alone: int = 0
) -> RunComparison:
    """Compares two runs over the blocks so far, at least one. Each figure is judged by an interval that holds
    at all looks together. Only the last block may have failed. In the last `alone` blocks the workers ran one
    after the other."""
    if any(side[-1].status != "ok" for side in (base, new)):
        failed = compare_runs(base[-1:], new[-1:], limits, primary, _judge)
        if failed.verdict != "no longer failing":
            return failed
        return msgspec.structs.replace(
            failed, verdict="not comparable", reason=f"the base failed: {base[-1].status}"
        )
    found = compare_runs(base, new, limits, primary, _judge)
    judged = found.primary
    if judged is None or found.accuracy is not None:
        return found
    name = next(one for one, figure in found.figures.items() if figure is judged)
    reason = f"{FIGURES[name].title}, ratio {judged.text} over {len(base)} blocks: {judged.reason}"
    if alone:
        reason += f"; in {alone} of the blocks {ALONE}"
    return msgspec.structs.replace(found, reason=reason, blocks_alone=alone)


def _judge(base: Sequence[Record], new: Sequence[Record], limits: Limits) -> dict[FigureName, Judgement]:
    """The judgement on each figure that all processes of the blocks have."""
    blocks = list(zip(base, new, strict=True))
    return {
        name: judge_blocks(
            name, [block_value(*block, name) for block in blocks], getattr(limits, figure.limit)
        )
        for name, figure in FIGURES.items()
        if all(figure.value(record) is not None for record in (*base, *new))
    }


def block_value(base: Record, new: Record, name: FigureName) -> float:
    """The logarithm of new / base in one block: the median over the pairs of generations that followed each
    other, where the figure is a generation's, else that of the two processes."""
    of_generation = GENERATIONS.get(name)
    if of_generation is None:
        before, after = (FIGURES[name].value(record) for record in (base, new))
        assert before is not None
        assert after is not None
        return log(after / before)
    sides = [[of_generation(one) for one in record.samples.iterations] for record in (base, new)]
    pairs = zip(*sides, strict=True)
    return median(log(after / before) for before, after in pairs if before is not None and after is not None)


def judge_blocks(figure: FigureName, values: Sequence[float], limit: float) -> Judgement:
    """The judgement on blocks' values by the always-valid interval, which the first four blocks do not have;
    `to_decide` is the number of all blocks from which it would probably decide."""
    count, estimate = len(values), fmean(values)
    if count < LEAST_BLOCKS:
        return without_interval(figure, exp(estimate), limit, f"at least {LEAST_BLOCKS} blocks are needed")
    deviation = stdev(values)
    half = deviation * float(widths(np.array([count]))[0])
    interval = Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        error=deviation / sqrt(count),
        freedom=count - 1,
        rounds=count,
        deviation=deviation,
        method="always-valid t",
    )
    judged = judge_ratio(figure, interval, limit, FIGURES[figure].words)
    needed = None
    if judged.verdict == "inconclusive":
        margin = max(abs(estimate), log(1 + limit) - abs(estimate))
        counts = np.arange(count + 1, MOST_ROUNDS + 1)
        enough = np.flatnonzero(deviation * widths(counts) < margin)
        needed = int(counts[enough[0]]) if enough.size else None
    # The p-value of a single look does not hold. What would be found is what the wider interval would find.
    detectable = expm1(min(half + Z_POWER * interval.error, MOST_LOG))
    return msgspec.structs.replace(judged, to_decide=needed, p_value=None, detectable=detectable)


def running_verdicts(differences: Floats, limit: float) -> NDArray[np.str_]:
    """[series, n]: the verdict on the first n blocks of each series, by the always-valid interval; `limit`
    and `differences`, [series, n], are of the natural logarithm of new / base."""
    halves = always_valid_halves(differences)
    means = np.cumsum(differences, axis=1) / np.arange(1, differences.shape[1] + 1)
    cases = [np.abs(means) + halves <= limit, means > halves, -means > halves]
    return np.select(cases, ["same", "slower", "faster"], "inconclusive")
