"""The two kinds of errors, the failure classes, and the texts that errors share."""

from difflib import get_close_matches
from typing import Literal

FailureClass = Literal[
    "oom", "timeout", "crash", "unsupported", "bad_model", "numerics", "short_output", "interrupted"
]
MOST_LISTED = 12
LONGEST_PATH = 255


class UserError(ValueError):
    """A request that cannot be carried out, in one line that says what to do instead. Exit code 2."""


class RunFailure(Exception):
    """A run that was started and failed: it becomes a record with this class. Exit code 1."""

    def __init__(self, failure_class: FailureClass, message: str) -> None:
        super().__init__(message)
        self.failure_class = failure_class
        self.message = message


def unknown(kind: str, name: str, known: list[str]) -> UserError:
    """The error for an unknown name, with the nearest known ones."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = [lowered[match] for match in get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    if near:
        hint = f"did you mean {', '.join(near)}?"
    elif len(known) <= MOST_LISTED:
        hint = f"known: {', '.join(sorted(known))}"
    else:
        hint = "no known one is similar"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def shortened(path: object) -> str:
    """The text of a path, of which a message shows the beginning alone where it is longer than names are."""
    text = str(path)
    return text if len(text) <= LONGEST_PATH else f"{text[:LONGEST_PATH]}..."


def first_line(error: BaseException) -> str:
    """The first line of an error's message, followed by the second line where the first ends with a colon;
    the name of the error's type where the message is empty."""
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1].strip()}"
    return lines[0] if lines else type(error).__name__
