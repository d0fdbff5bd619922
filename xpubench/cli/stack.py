"""Which runtime a suite takes: the one that was named, else a preferred one that drives the machine's GPU."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from xpubench.errors import UserError, unknown
from xpubench.runtimes.findings import Finding
from xpubench.runtimes.registry import DEFAULT, options_class

AUTO = "auto"
PREFERRED_DEVICE = "xpu"


class Choice(NamedTuple):
    """A runtime and why it was chosen."""

    runtime: str
    reason: str


def choose(
    asked: str,
    stacks: Sequence[str],
    flagged: str | None,
    device: str | None,
    findings: Callable[[], Sequence[Finding]],
) -> Choice:
    """The runtime that was `asked` for, one of `stacks`, or for `auto` the first of: the one that the flags
    name (`flagged`, None where they name none); a stack that is preferred to the default runtime and ready on
    the GPU; the default. `device` is the one that the flags name, and `findings` looks at the machine.
    UserError for a stack that the suite does not have, or that the flags contradict."""
    if asked != AUTO:
        if asked not in stacks:
            raise unknown("stack of this suite", asked, [AUTO, *stacks])
        if flagged not in (None, asked):
            raise UserError(f"the stack is to be {asked}, and the flags choose {flagged}; leave one out")
        return Choice(asked, "it was asked for")
    if flagged is not None:
        return Choice(flagged, "the flags name it")
    if device not in (None, PREFERRED_DEVICE):
        return Choice(DEFAULT, f"the flags name the device {device}")
    preferred = {name: capability for name in stacks if (capability := options_class(name).preferred_where)}
    found = {one.capability: one for one in findings()} if preferred else {}
    reasons = []
    for name, capability in preferred.items():
        finding = found[capability]
        if finding.state == "ready":
            return Choice(name, f"{finding.detail} is ready on this machine's GPU")
        reasons.append(f"{capability} is {finding.state}: {finding.detail}")
    return Choice(DEFAULT, "; ".join(reasons) or "the suite has no other")


def sentence(choice: Choice, stacks: Sequence[str]) -> str:
    """The choice, why, and how to choose another."""
    others = " or ".join(name for name in stacks if name != choice.runtime)
    return f"stack: {choice.runtime}, because {choice.reason}; stack={others} chooses another"
