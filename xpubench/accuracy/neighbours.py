"""Whether the logits of one row of a batch depend on the rows beside it, which they must not."""

from typing import NamedTuple

import numpy as np

from xpubench.accuracy.divergence import forced_logits
from xpubench.errors import RunFailure
from xpubench.measure.rounding import logit_difference, logit_limit
from xpubench.prompts import CHECK_TOKENS, random_prompt
from xpubench.record import NeighbourChecks
from xpubench.runtimes.base import Generator, Logits, TokenIds
from xpubench.spec import Workload

# The first of these new tokens comes from the prompt's pass and the others from steps of one token.
STEPS = 3
# No measured generation has a prompt of that index.
PROMPT_INDEX = 1_000_000


class _Rows(NamedTuple):
    """A batch: prompts, int64 of shape (batch, length), and the tokens that it is forced along, (batch,
    steps)."""

    prompt_ids: TokenIds
    forced: TokenIds


def check_neighbours(
    generator: Generator, workload: Workload, seed: int, blocks: int
) -> NeighbourChecks | None:
    """Generates a few tokens of random prompts greedily, with as many rows as the workload's batch and beams
    have together and with its cache, and again with other rows beside each. `blocks` is the number of decoder
    blocks. None for one row, and for a stack that hides its logits.

    Kernels that sum in a fixed order, as they do where the same batch gives the same bits twice, give a row
    the same bits whatever stands beside it. The exceptions are layers whose work depends on all rows, such as
    mixtures of experts, where only rounding may differ.

    Raises RunFailure `numerics` where a row's logits change by more than rounding explains.
    """
    count = workload.batch_size * workload.num_beams
    if count == 1 or generator.scorer is None:
        return None
    base, other = _random_rows(generator, count, seed)

    def logits(rows: _Rows) -> Logits:
        return forced_logits(generator, rows.prompt_ids, rows.forced, workload)

    first, again = logits(base), logits(base)
    differences = []
    for kept in (slice(0, None, 2), slice(1, None, 2)):
        beside = _Rows(*(array.copy() for array in other))
        for mixed, own in zip(beside, base, strict=True):
            mixed[kept] = own[kept]
        found, expected = logits(beside)[kept], first[kept]
        differences.append(0.0 if np.array_equal(found, expected) else logit_difference(found, expected))
    checks = NeighbourChecks(
        repeatable=bool(np.array_equal(first, again)),
        difference=max(differences),
        limit=logit_limit(generator.rounding, blocks),
    )
    # A NaN is not within the limit either.
    if not checks.difference <= checks.limit:
        raise RunFailure(
            "numerics",
            f"the logits of a row of the batch change by {checks.difference:.2g} of their standard deviation "
            f"with the rows beside it (rounding explains {checks.limit:.2g})",
        )
    return checks


def neighbour_doubts(checks: NeighbourChecks | None) -> list[str]:
    """The warning about rows whose bits depend on the rows beside them though the kernels repeat theirs."""
    if checks is None or not checks.repeatable or checks.difference == 0:
        return []
    return [
        "a row's logits change with the rows beside it, within what rounding explains "
        f"({checks.difference:.2g} of {checks.limit:.2g} standard deviations)"
    ]


def _random_rows(generator: Generator, count: int, seed: int) -> tuple[_Rows, _Rows]:
    """Two batches of so many rows, of which no row is in the other."""
    vocabulary = generator.vocabulary
    ids = random_prompt(
        vocabulary.size,
        vocabulary.special_ids,
        batch_size=2 * count,
        length=CHECK_TOKENS + STEPS,
        seed=seed,
        index=PROMPT_INDEX,
    )
    base, other = ids[:count], ids[count:]
    return (
        _Rows(base[:, :CHECK_TOKENS], base[:, CHECK_TOKENS:]),
        _Rows(other[:, :CHECK_TOKENS], other[:, CHECK_TOKENS:]),
    )
