"""The next token latency behind contexts of several lengths."""

from xpubench.errors import RunFailure
from xpubench.explanation import DepthCurve
from xpubench.record import Record
from xpubench.run.session import Session
from xpubench.spec import RunSpec


def depth_curve(session: Session[RunSpec], record: Record, depths: list[int]) -> DepthCurve:
    """The curve over these depths; RunFailure `unsupported` for a stack that cannot measure it."""
    raise RunFailure("unsupported", f"{session.subject.runtime} does not measure depths")
