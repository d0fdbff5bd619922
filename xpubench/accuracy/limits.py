"""How far a run may be from its reference before the user is warned, and before it is no result."""

import math
import re
from typing import Literal

import msgspec

from xpubench.errors import RunFailure
from xpubench.record import Divergence, ReferenceLimits
from xpubench.spec import Subject

# By the coarser of the two precisions. SmolLM2-135M against itself in float32 on a CPU: bfloat16 agrees at
# 98.4% of the positions with a mean KL of 0.0014 nats, float16 at 99.2% with 0.00002, INT4 by rounding to
# nearest at 68.8% with 0.34. Larger models lose less. A warning is some five to ten times the KL of 16-bit
# weights, and for INT4 what costs several points of accuracy; a failure is what no rounding of that precision
# has shown.
LIMITS = {
    "float32": ReferenceLimits(
        kl_warning=1e-4, kl_failure=0.01, agreement_warning=0.99, agreement_failure=0.9
    ),
    "float16": ReferenceLimits(
        kl_warning=1e-3, kl_failure=0.05, agreement_warning=0.97, agreement_failure=0.85
    ),
    "bfloat16": ReferenceLimits(
        kl_warning=0.01, kl_failure=0.1, agreement_warning=0.95, agreement_failure=0.8
    ),
    "int8": ReferenceLimits(kl_warning=0.03, kl_failure=0.3, agreement_warning=0.93, agreement_failure=0.75),
    "int4": ReferenceLimits(kl_warning=0.2, kl_failure=1.0, agreement_warning=0.8, agreement_failure=0.5),
}
COARSER = list(LIMITS)
# The types of quantized weights have one digit of bits, in mxfp4 too; fp16 is none of them.
QUANTIZED = re.compile(r"(?:int|fp)(\d)(?!\d)")
# Quantized weights of fewer bits have the limits of INT4, and others those of INT8, floating point or not.
LEAST_INT8_BITS = 6


def precision_of(subject: Subject, rounding: str | None = None, stored: str | None = None) -> str:
    """The coarsest precision that a run's weights and activations go through, one of `LIMITS`. `rounding` is
    what the loaded model says of its activations, and `stored` of its weights."""
    found = {subject.dtype, rounding or subject.dtype}
    if subject.quantization is not None:
        found.add("int4")
    for weights in (subject.options.precision or "", stored or ""):
        if (bits := QUANTIZED.search(weights.lower())) is not None:
            found.add("int8" if int(bits[1]) >= LEAST_INT8_BITS else "int4")
    return max(found, key=COARSER.index)


def limits_for(
    ours: str, theirs: str, *, max_kl: float | None, min_agreement: float | None
) -> ReferenceLimits:
    """The limits for two precisions, of which the user's take the place of those of a failure."""
    limits = LIMITS[max(ours, theirs, key=COARSER.index)]
    if max_kl is not None:
        limits = msgspec.structs.replace(limits, kl_failure=max_kl)
    if min_agreement is not None:
        limits = msgspec.structs.replace(limits, agreement_failure=min_agreement)
    return limits


def judged(found: Divergence, limits: ReferenceLimits) -> Divergence:
    """The divergence with its limits and whether it is beyond them.

    The most probable token can change at near ties without any harm, so that a low agreement alone is a
    failure only where the KL divergence is unknown, or is beyond its warning too.
    """
    kl = math.inf if found.mean_kl is None else found.mean_kl
    verdict: Literal["ok", "warning", "failure"] = "ok"
    if found.top1_agreement < limits.agreement_warning or limits.kl_warning < kl < math.inf:
        verdict = "warning"
    disagrees = found.top1_agreement < limits.agreement_failure and kl > limits.kl_warning
    if disagrees or limits.kl_failure < kl < math.inf:
        verdict = "failure"
    return msgspec.structs.replace(found, limits=limits, verdict=verdict)


def check_limits(found: Divergence) -> list[str]:
    """The warning about a divergence; RunFailure `numerics` where it is beyond what its limits allow."""
    if found.verdict == "ok" or found.limits is None:
        return []
    kl = "" if found.mean_kl is None else f", with a mean KL divergence of {found.mean_kl:.2g} nats"
    text = f"the tokens agree with {found.reference} at {found.top1_agreement:.1%} of the positions{kl}"
    limits = found.limits
    if found.verdict == "failure":
        raise RunFailure(
            "numerics",
            f"{text}; below {limits.agreement_failure:.0%} or above {limits.kl_failure:g} nats a run is no "
            "result (--min-agreement, --max-kl)",
        )
    return [f"{text}; {limits.agreement_warning:.0%} and {limits.kl_warning:g} nats are usual"]
