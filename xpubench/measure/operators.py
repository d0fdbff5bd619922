"""Whether the operators that a decoder is made of are right on a device, and how fast they are there.

Each operator runs at 1, 2, 8 and 1,024 rows (tokens) and at a model's shapes on inputs of random bits, and is
compared with the same computation in float64 on the CPU, from the same inputs. Of 1,024 rows of a product or
an attention, 64 are compared; all must be finite. Some devices have only a plain loop for the INT4 product,
which is left out where its time at fewer rows shows that it would take longer than a second.
"""

import math
import warnings
from collections.abc import Callable, Iterator

import msgspec
import torch

from xpubench.measure.device import synchronizer
from xpubench.measure.operator_cases import PROMPT_ROWS, Case, OperatorPlace, OperatorSizes, cases
from xpubench.measure.rounding import SLACK, UNIT_ROUNDOFF
from xpubench.measure.times import timed_call
from xpubench.record import OperatorResult

ROWS = (1, 2, 8, PROMPT_ROWS)
REPEATS, BUDGET_NS = 5, 10_000_000
LONGEST_INT4_NS = 1_000_000_000
# The number of results that an operator rounds one after the other, however it is computed.
ROUNDINGS = {
    "linear": 2,  # partial sums and their sum
    "INT4 product": 3,  # the weight's value, partial sums and their sum
    "attention": 5,  # scaled queries and keys, scores, probabilities, the sum
    "RMS norm": 3,  # the factor and two products
    "layer norm": 3,
    "rotary embedding": 3,  # two products and their sum
    "softmax": 2,  # the exponential and the quotient
    "top-k": 0,
    "embedding": 0,
}


def check_operators(
    device: str, dtype: str, sizes: OperatorSizes, *, int4_group_size: int | None
) -> Iterator[OperatorResult]:
    """Runs each operator on the device and compares it; the INT4 product where a group size is given."""
    place = OperatorPlace(device, getattr(torch, dtype))
    synchronize = synchronizer(device)
    row_ns: dict[str, float] = {}  # The least time per row of the INT4 product of a shape so far.
    for rows in ROWS:
        for operator, shape, make in cases(place, rows, sizes, int4_group_size):
            start = OperatorResult(
                operator=operator, rows=rows, shape=shape, state="right", limit=limit_of(operator, dtype)
            )
            if operator != "INT4 product":
                yield _compared(start, make, synchronize)
            elif (expected_ns := rows * row_ns.get(shape, 0)) > LONGEST_INT4_NS:
                message = f"it would take about {expected_ns / 1e9:.1f} s, as fewer rows show"
                yield msgspec.structs.replace(start, state="left out", message=message)
            else:
                found = _compared(start, make, synchronize)
                row_ns[shape] = min(row_ns.get(shape, math.inf), min(found.times_ns, default=0) / rows)
                yield found
    if device != "cpu":
        torch.get_device_module(device).empty_cache()


def limit_of(operator: str, dtype: str) -> float:
    """The largest error that rounding explains: independent roundings add up to about the square root of
    their number, times `SLACK` for the largest of many values."""
    return SLACK * UNIT_ROUNDOFF[dtype] * math.sqrt(ROUNDINGS[operator.partition(",")[0]])


def largest_error(found: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest difference of two float64 tensors of shape (..., width), each relative to the reference's
    magnitude plus the root mean square of its row; NaN where a value found is."""
    scale = reference.abs() + reference.square().mean(-1, keepdim=True).sqrt()
    return float(((found - reference).abs() / scale.clamp_min(torch.finfo(torch.float64).tiny)).max())


def _compared(
    start: OperatorResult, make: Callable[[], Case], synchronize: Callable[[], None]
) -> OperatorResult:
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch gives its reasons for refusing a backend as warnings
            case = make()
            output, first_ns = timed_call(case.work, synchronize)
            finite = bool(torch.isfinite(output).all())
            error = largest_error(case.compared(output).cpu().double(), case.reference)
            times_ns = _times(case.work, synchronize, first_ns)
    except Exception as problem:  # The type depends on the operator and on the device.
        # A device need not have each backend of attention, nor an INT4 kernel for each dtype.
        optional = "," in start.operator or start.operator.startswith("INT4")
        message = f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
        return msgspec.structs.replace(start, state="refused" if optional else "failed", message=message)
    return msgspec.structs.replace(
        start,
        state="right" if finite and error <= start.limit else "wrong",
        error=error if finite and math.isfinite(error) else None,
        times_ns=times_ns,
        gb_per_s=case.moved_bytes / min(times_ns),
        tflop_per_s=case.flop / min(times_ns) / 1e3,
    )


def _times(work: Callable[[], torch.Tensor], synchronize: Callable[[], None], first_ns: int) -> list[int]:
    """The times of some repeats after the first run, or only that of the first run where it took long."""
    times: list[int] = []
    while len(times) < REPEATS and first_ns + sum(times) < BUDGET_NS:
        times.append(timed_call(work, synchronize)[1])
    return times or [first_ns]
