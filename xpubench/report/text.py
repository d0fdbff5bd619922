"""Figures as people read them; a dash where there is none."""

from xpubench.record import Divergence

NONE = "–"
MODE_NAMES = {
    "fp16": "FP16",
    "int4": "INT4",
    "distributed": "Distributed FP16",
    "bf16": "BF16",
    "int8": "INT8",
}


def number(value: float | None, digits: int = 2) -> str:
    """A number with its thousands separated, without a unit."""
    return NONE if value is None else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share from 0 to 1 in percent, without the unit."""
    return NONE if value is None else f"{100 * value:.{digits}f}"


def gb(value: int | None, digits: int = 2) -> str:
    """Bytes in GB (10^9), without the unit."""
    return NONE if value is None else number(value / 1e9, digits)


def gb_with_unit(value: int | None) -> str:
    """Bytes in GB (10^9) with three decimals."""
    return NONE if value is None else f"{gb(value, 3)} GB"


def interval(ends: tuple[float, float] | None) -> str:
    """Both ends of an interval."""
    return NONE if ends is None else " to ".join(map(number, ends))


def date(created: str) -> str:
    """A record's time without its seconds."""
    return created[:16].replace("T", " ")


def mean_kl_text(mean_kl: float | None) -> str:
    """The mean KL divergence, which some stacks hide."""
    return "mean KL hidden by the runtime" if mean_kl is None else f"mean KL {mean_kl:.2e} nats"


def divergence_text(found: Divergence) -> str:
    """The distance of a run from its reference, in one line."""
    firsts = ", ".join("none" if first is None else str(first) for first in found.first_divergence)
    return (
        f"from {found.reference}: top-1 agreement {found.top1_agreement:.1%} of {found.positions} positions, "
        f"{mean_kl_text(found.mean_kl)}, first diverging token of each prompt: {firsts}"
    )
