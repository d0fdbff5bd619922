"""Whether the machine's available memory falls steadily over the iterations of a run.

The peak of a process counts its own pages. Memory that a driver pins for it lies elsewhere and shows only in
the machine's available memory, which other programs change as well.
"""

import numpy as np

# Where the memory only varies at random, each step falls with a probability of one half, so that 90% of the
# steps of ten or more iterations fall with a probability of at most 0.2%.
LEAST_ITERATIONS = 10
FALLING_SHARE = 0.9
# The daemons of an idle machine explain a smaller fall over the whole run.
LEAST_FALL_BYTES = 64 * 2**20


def slope_of(available_bytes: list[int]) -> float | None:
    """The Theil-Sen slope, the median of the slopes between all pairs of iterations, in bytes an iteration;
    None with less than ten."""
    if len(available_bytes) < LEAST_ITERATIONS:
        return None
    from scipy.stats import theilslopes  # 0.5 s to import

    return float(theilslopes(available_bytes).slope)


def falls_steadily(available_bytes: list[int]) -> bool:
    """Whether the memory falls steadily: at least 90% of the steps fall, none of them is half of the whole
    fall, and the slope over all iterations amounts to at least 64 MiB."""
    if len(available_bytes) < LEAST_ITERATIONS:
        return False
    steps = np.diff(np.asarray(available_bytes, dtype=np.float64))
    even = bool((steps < 0).mean() >= FALLING_SHARE and steps.min() > steps.sum() / 2)
    return even and -(slope_of(available_bytes) or 0.0) * len(steps) >= LEAST_FALL_BYTES
