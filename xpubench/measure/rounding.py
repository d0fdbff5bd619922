"""How far apart two computations of the same logits may lie when only their rounding differs."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Half the distance from 1 to the next larger number of the dtype. Products of matrices are summed in float32
# whatever the dtype, so that in float32 itself their thousands of additions count too: 16 times its own.
UNIT_ROUNDOFF = {"float32": 2.0**-20, "float16": 2.0**-11, "bfloat16": 2.0**-8, "int8": 2.0**-8}
# The results that a decoder block rounds one after the other: two norms, the projections before and after the
# attention, its scores and values, the two products of the MLP, its activation, and two sums.
ROUNDINGS_PER_BLOCK = 11
# Independent roundings add up to about the square root of their number. On the CPU, the logits of
# SmolLM2-135M, which has 30 blocks, differ from its float32 logits and from those in other batches by less
# than a third of the limit that this factor gives.
SLACK = 4.0


def logit_limit(dtype: str, blocks: int) -> float:
    """The largest relative difference, in the sense of `logit_difference`, that rounding explains for a model
    of so many decoder blocks that computes in that dtype."""
    return SLACK * UNIT_ROUNDOFF[dtype] * math.sqrt(ROUNDINGS_PER_BLOCK * max(1, blocks))


def logit_difference(logits: Any, reference: Any) -> float:
    """How far logits of shape (..., vocabulary) lie from the reference's: at each position the root mean
    square of the difference over the standard deviation of the reference's logits there; the largest of all
    positions.

    A constant that is added to all logits of a position changes no probability, and does not count.
    """
    reference = np.asarray(reference, dtype=np.float64)
    difference = np.asarray(logits, dtype=np.float64) - reference
    spread: NDArray[np.float64] = reference.std(-1)
    return float((difference.std(-1) / np.maximum(spread, np.finfo(np.float64).tiny)).max())
