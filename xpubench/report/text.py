"""Figures as people read them; a dash where there is none."""

from xpubench.record import Divergence

NONE = "–"
MODE_NAMES = {"fp16": "FP16", "int4": "INT4", "distributed": "Distributed FP16"}


def ms(value: float | None) -> str:
    """Milliseconds with two decimals, without the unit."""
    return NONE if value is None else f"{value:,.2f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share from 0 to 1 in percent, without the unit."""
    return NONE if value is None else f"{100 * value:.{digits}f}"


def gb(value: int | None, digits: int = 2) -> str:
    """Bytes in GB (10^9), without the unit."""
    return NONE if value is None else f"{value / 1e9:,.{digits}f}"


def gb_with_unit(value: int | None) -> str:
    """Bytes in GB (10^9) with three decimals."""
    return NONE if value is None else f"{gb(value, 3)} GB"


def interval(ends: tuple[float, float] | None, digits: int = 2) -> str:
    """Both ends of an interval."""
    return NONE if ends is None else f"{ends[0]:,.{digits}f} to {ends[1]:,.{digits}f}"


def date(created: str) -> str:
    """A record's time without its seconds."""
    return created[:16].replace("T", " ")


def divergence_text(found: Divergence) -> str:
    """How far a run is from its reference, in a line."""
    firsts = ", ".join("none" if first is None else str(first) for first in found.first_divergence)
    return (
        f"from {found.reference}: top-1 agreement {found.top1_agreement:.1%} of {found.positions} positions, "
        f"{mean_kl_text(found.mean_kl)}, first diverging token of each prompt: {firsts}"
    )


def mean_kl_text(mean_kl: float | None) -> str:
    """A divergence's mean KL, which some stacks hide."""
    return "mean KL hidden by the runtime" if mean_kl is None else f"mean KL {mean_kl:.2e} nats"
